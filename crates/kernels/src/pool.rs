//! The worker threads of one engine: when they sleep, when they enter a run, when they end.
//!
//! A gate says whether a run is open. A worker enters by counting itself in and leaves by counting itself out; the
//! caller closes the gate when its own walk is over and waits until nobody is inside. A worker that sleeps through a
//! short run is not waited for. So a run never hangs on a thread that is not there (not even after a fork).

use std::fmt;
use std::io;
use std::ptr::null_mut;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::apart::Apart;
use crate::arena::Arena;
use crate::executor::{Board, End, Job, MAX_PIECES, MAX_STEPS, Patience};
use crate::isa::{Isa, Path};
use crate::kv::KvStore;
use crate::program::Program;
use crate::step::Buffers;
use crate::threads::with_signals_blocked;

/// Worker threads of one engine.
///
/// They are started by [`Pool::new`] and joined on drop, block all signals, wait actively for a moment after each run
/// and then sleep. Pools are independent of each other.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    path: Path,
    /// What the caller of a run computes with.
    own: Apart,
}

/// The run was ended early because the caller asked for it; its values are not readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

impl Pool {
    /// Starts `threads - 1` workers; the caller of [`Pool::run`] is the remaining thread.
    ///
    /// # Errors
    /// The system starts no more threads, `threads` is 0, or the machine lacks the instructions of `isa`.
    pub fn new(threads: usize, isa: Isa) -> io::Result<Pool> {
        if threads == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a pool has at least 1 thread, not 0"));
        }
        let path = Path::new(isa).ok_or_else(|| {
            let message = format!("this machine lacks the instructions of `{}`", isa.name());
            io::Error::new(io::ErrorKind::Unsupported, message)
        })?;
        let shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(null_mut()),
            board: Board::new(threads),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Pool { shared, workers: Vec::new(), path, own: Apart::default() };
        with_signals_blocked(|| {
            for index in 1..threads {
                let shared = Arc::clone(&pool.shared);
                let thread = std::thread::Builder::new().name(format!("antiphon-{index}"));
                pool.workers.push(thread.spawn(move || shared.serve(index))?); // on an error, drop joins the others
            }
            Ok(pool)
        })
    }

    /// Runs the program's steps in order on all threads.
    ///
    /// The interrupt is read at each [`Program::checkpoint`]; if it is set the run ends there.
    ///
    /// # Errors
    /// The run was interrupted.
    ///
    /// # Panics
    /// If the program needs a store and `kv` is none or does not fit, if there is no memory for its values, or if a
    /// piece panicked, on whichever thread.
    pub fn run(
        &mut self,
        program: &Program<'_>,
        arena: &mut Arena,
        kv: Option<&mut KvStore>,
        interrupt: &AtomicBool,
    ) -> Result<(), Interrupted> {
        program.check_store(kv.as_deref());
        let threads = self.threads();
        arena.prepare(program, threads);
        assert!(program.steps.len() <= MAX_STEPS, "{} steps in a program", program.steps.len());
        let mut before = 0;
        for &pieces in &arena.pieces {
            assert!(pieces - before <= MAX_PIECES as u64, "{} pieces in a step", pieces - before);
            before = pieces;
        }
        let base = arena.as_mut_ptr();
        // SAFETY: `prepare` placed the slots and the arena is borrowed until the end of this function.
        let buffers = unsafe {
            Buffers::new(base, &arena.offsets, &program.slots, kv.map(|store| store.cells()), threads)
        };
        let job = Job {
            number: self.shared.next_run(),
            program,
            buffers,
            pieces: &arena.pieces,
            interrupt,
            path: self.path,
            panicked: AtomicBool::new(false),
        };
        self.shared.run(&job, &self.workers, &mut self.own);
        let finished = self.shared.board.finished(&job);
        assert!(!job.panicked.load(Ordering::Relaxed), "a piece of a program panicked");
        if !finished {
            return Err(Interrupted);
        }
        arena.publish(program);
        Ok(())
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The instructions it uses.
    pub fn isa(&self) -> Isa {
        self.path.isa()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.gate.fetch_or(CLOSED_FOR_GOOD, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            let _ = worker.join(); // a worker catches what panics, so there is nothing to hand on
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).field("isa", &self.isa()).finish()
    }
}

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the run was interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// What the caller and the workers share.
struct Shared {
    /// Number of the run, `OPEN`, and how many workers are inside.
    gate: AtomicU64,
    /// The run; valid while the gate is open or a worker is inside.
    job: AtomicPtr<Job<'static>>,
    board: Board,
    /// Workers that sleep, or are about to.
    asleep: Box<[AtomicBool]>,
}

impl Shared {
    fn next_run(&self) -> u64 {
        self.gate.load(Ordering::Relaxed) / RUN + 1
    }

    /// Runs a job as its caller.
    fn run(&self, job: &Job<'_>, workers: &[JoinHandle<()>], own: &mut Apart) {
        // The lifetime is dropped here and kept by hand: no worker looks at the job after this function returns,
        // because each counts itself in before it looks and out afterwards, and the last loop waits for that; one that is left
        // behind is counted out by who left it, and looks no more.
        self.job.store(std::ptr::from_ref(job).cast_mut().cast(), Ordering::Relaxed);
        self.board.reset();
        self.gate.store((job.number * RUN) | OPEN, Ordering::SeqCst);
        for (worker, asleep) in workers.iter().zip(&self.asleep) {
            if asleep.load(Ordering::SeqCst) && asleep.swap(false, Ordering::SeqCst) {
                worker.thread().unpark();
            }
        }
        // SAFETY: the caller of a run is inside it.
        unsafe { self.board.work(0, job, own) };
        self.gate.fetch_and(!OPEN, Ordering::SeqCst);
        let mut patience = Patience::default();
        while self.gate.load(Ordering::Acquire) & INSIDE != 0 {
            let left = self.board.leave_behind(job.number);
            if left > 0 {
                self.gate.fetch_sub(left, Ordering::Release);
            }
            patience.pause();
        }
    }

    /// The life of a worker.
    fn serve(&self, index: usize) {
        let mut last = 0;
        let mut own = Apart::default();
        loop {
            let Some(number) = self.enter(index, last) else { return };
            last = number;
            self.board.arrive(index, number);
            let job = self.job.load(Ordering::Relaxed);
            // SAFETY: this worker is counted in, so the caller of the run waits for it (`run`); the store of the pointer
            // happened before the gate was opened.
            if unsafe { self.board.work(index, job, &mut own) } == End::Inside {
                self.gate.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Waits for a run after number `last` and counts this worker in. None if the pool ends.
    fn enter(&self, index: usize, last: u64) -> Option<u64> {
        let asleep = &self.asleep[index - 1];
        let mut since = Instant::now();
        let mut pauses = 0u32;
        loop {
            let gate = self.gate.load(Ordering::SeqCst);
            if gate & CLOSED_FOR_GOOD != 0 {
                return None;
            }
            if gate & OPEN != 0 && gate / RUN != last {
                if self.gate.compare_exchange(gate, gate + 1, Ordering::SeqCst, Ordering::Relaxed).is_ok() {
                    return Some(gate / RUN);
                }
                continue;
            }
            pauses = pauses.wrapping_add(1);
            if !pauses.is_multiple_of(64) || since.elapsed() < SPIN {
                std::hint::spin_loop();
                continue;
            }
            // Either the caller sees the flag and wakes this thread, or this thread sees the gate as it is now: both
            // sides write first and read afterwards, in one order for all.
            asleep.store(true, Ordering::SeqCst);
            if self.gate.load(Ordering::SeqCst) == gate {
                std::thread::park();
            }
            asleep.store(false, Ordering::SeqCst);
            since = Instant::now();
        }
    }
}

/// The parts of the gate: bits 0..16 count the workers inside, then two flags, then the number of the run.
const INSIDE: u64 = OPEN - 1;
const OPEN: u64 = 1 << 16;
const CLOSED_FOR_GOOD: u64 = 1 << 17;
const RUN: u64 = 1 << 18;

/// How long a worker waits actively for the next run: longer than the pause between two steps of a decoder, as
/// waking a sleeping thread costs more than ten microseconds on either side.
const SPIN: Duration = Duration::from_micros(80);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use crate::rows::RowOp;
    use crate::step::Op;

    #[test]
    fn a_piece_that_panics_ends_the_run_and_the_pool_goes_on() {
        let inputs = Matrix::f32(&[&[1.0; 64]], 4).expect("whole rows");
        let ids: Vec<u32> = (0..16).collect();
        // No recording method lets an index out of range through, so the mistake is put in by hand.
        let wrong: Vec<u32> = [0; 15].into_iter().chain([99]).collect();
        for threads in [1, 2, 4] {
            let mut pool = Pool::new(threads, Isa::detect()).expect("a pool");
            let mut arena = Arena::new();
            for _ in 0..20 {
                let mut program = Program::new();
                let x = program.embed(&inputs, &ids);
                let y = program.select(x, &ids);
                program.keep(y);
                let run = |program: &Program<'_>, arena: &mut Arena, pool: &mut Pool| {
                    pool.run(program, arena, None, &AtomicBool::new(false))
                };
                run(&program, &mut arena, &mut pool).expect("nobody interrupts");
                program.steps[1].op = Op::Rows(RowOp::Select { x, rows: &wrong });
                let broken = std::panic::AssertUnwindSafe(|| run(&program, &mut arena, &mut pool));
                assert!(std::panic::catch_unwind(broken).is_err());
            }
        }
    }

    #[test]
    fn a_run_does_not_wait_for_workers_that_never_come() {
        // As after a fork: the counters are there, the threads are not.
        let inputs = Matrix::f32(&[&[1.0; 64]], 4).expect("whole rows");
        let ids: Vec<u32> = (0..16).collect();
        let mut pool = Pool::new(1, Isa::detect()).expect("a pool");
        pool.shared = Arc::new(Shared {
            gate: AtomicU64::new(0),
            job: AtomicPtr::new(null_mut()),
            board: Board::new(3),
            asleep: Box::default(),
        });
        let mut program = Program::new();
        let x = program.embed(&inputs, &ids);
        program.keep(x);
        let mut arena = Arena::new();
        pool.run(&program, &mut arena, None, &AtomicBool::new(false)).expect("nobody interrupts");
        assert_eq!(arena.read(x).row(15), [1.0; 4]);
    }
}
