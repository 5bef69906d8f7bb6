//! Where code of the host runs that may block: threads of their own kind, and the work that waits for them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// Work for one of the threads. It keeps its own outcome; nothing is waited for.
pub(crate) trait Task: Send + Sync {
    /// Runs on one of the threads, which takes a panic for a bug of ours; `news` tells the compute thread to look.
    fn run(&self, news: &dyn Fn());
}

/// Where the threads find work.
pub(crate) struct Desk {
    tasks: Mutex<Tasks>,
    changed: Condvar,
    /// Threads are started when they are needed, and not more than these.
    most_threads: usize,
    /// Tells the compute thread that there is something to read.
    news: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Tasks {
    waiting: VecDeque<Arc<dyn Task>>,
    threads: usize,
    idle: usize,
    closed: bool,
}

impl Desk {
    pub(crate) fn new(most_threads: usize, news: impl Fn() + Send + Sync + 'static) -> Arc<Self> {
        let (tasks, changed) = (Mutex::default(), Condvar::new());
        Arc::new(Self { tasks, changed, most_threads, news: Box::new(news) })
    }

    /// Hands out work.
    pub(crate) fn add(self: &Arc<Self>, task: Arc<dyn Task>) -> Result<()> {
        let mut tasks = self.lock();
        if tasks.idle <= tasks.waiting.len() && tasks.threads < self.most_threads {
            let desk = Arc::clone(self);
            match antiphon_kernels::spawn("antiphon-plugin", move || desk.serve()) {
                Ok(_) => tasks.threads += 1,
                // Those that are there will come to it.
                Err(_) if tasks.threads > 0 => {}
                Err(error) => {
                    let what = format!("starting a thread failed: {error}");
                    return Err(Error::with_source(ErrorKind::Io, what, error));
                }
            }
        }
        tasks.waiting.push_back(task);
        drop(tasks);
        self.changed.notify_one();
        Ok(())
    }

    /// Runs on each of the threads until the desk closes.
    fn serve(&self) {
        while let Some(task) = self.next() {
            task.run(&self.news);
        }
    }

    /// Nobody wants that any more; what has begun goes on.
    pub(crate) fn forget<T: Task + 'static>(&self, task: &Arc<T>) {
        self.lock().waiting.retain(|other| !std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(task)));
    }

    /// The threads end when they have nothing under way. Nobody waits for them: code of the host may never return.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn next(&self) -> Option<Arc<dyn Task>> {
        let mut tasks = self.lock();
        loop {
            if tasks.closed {
                return None;
            }
            if let Some(task) = tasks.waiting.pop_front() {
                return Some(task);
            }
            tasks.idle += 1;
            tasks = self.changed.wait(tasks).unwrap_or_else(PoisonError::into_inner);
            tasks.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
