//! How an engine comes to be and how it goes: its parts, its threads, its end.

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use antiphon_inference::format::is_model_name;
use antiphon_kernels::{Isa, Pool, available_threads};

use crate::batcher::quota::Quota;
use crate::batcher::{Closing, Queue};
use crate::breaker::Breaker;
use crate::cache::{Cache, SHARED_TIER, THREADS, Tier};
use crate::compute::Compute;
use crate::config::EngineConfig;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Metrics, Observers};
use crate::plugin::desk::Desk;
use crate::plugin::stages::Stages;
use crate::plugin::{Generator, Plugins, SharedTier};
use crate::registry::Loaded;
use crate::responder::backend::Backend;
use crate::responder::foreign::Foreign;
use crate::review::Reviews;
use crate::shared::Shared;

/// Closes the engine when the last clone is gone.
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    desk: Arc<Desk>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Handle {
    pub(crate) fn open(config: EngineConfig, plugins: Plugins) -> Result<Arc<Self>> {
        config.validate()?;
        let isa = Isa::detect();
        let threads = config.threads.unwrap_or_else(available_threads);
        let loaded = Loaded::open(&config, threads)?;
        let schedulers = loaded.schedulers;
        let pool = Pool::new(threads, isa).map_err(|error| {
            let what = format!("starting {threads} threads failed: {error}");
            Error::with_source(ErrorKind::Io, what, error)
        })?;
        let observers = Arc::new(Observers::new(plugins.observers));
        let mut cache_config = config.cache.clone();
        cache_config.max_bytes = loaded.cache_bytes as u64;
        let tier = shared_tier(&config, plugins.shared_tier)?
            .map(|tier| Arc::new(Tier::new(tier, &cache_config, config.breaker, Arc::clone(&observers))));
        let generators = generators(&config, plugins.generators, &observers)?;
        let stages = Stages::new(plugins.stages, Arc::clone(&observers));
        let shared = Arc::new(Shared {
            queue: Queue::new(config.batcher.clone(), loaded.queue_bytes),
            cache: Cache::new(&cache_config, tier, !generators.is_empty()),
            analyst: loaded.analyst,
            fingerprints: loaded.fingerprints,
            responders: schedulers.iter().map(|scheduler| Arc::clone(&scheduler.responder)).collect(),
            generators,
            stages: stages.clone(),
            models: loaded.models,
            threads,
            isa,
            weight_bytes: loaded.weight_bytes,
            text_bytes: loaded.text_bytes,
            kv_bytes: schedulers.iter().map(|scheduler| scheduler.kv_bytes()).sum(),
            scratch_bytes: AtomicUsize::new(0),
            errors: AtomicU64::new(0),
            metrics: Arc::new(Metrics::new(observers)),
            opened: Instant::now(),
            quota: config.quota.map(Quota::new),
            pid: std::process::id(),
            stopped: (Mutex::new(false), Condvar::new()),
            config,
        });
        // While only code of the host is at work the compute thread sleeps: it is told what that has done, and who leaves.
        let told = Arc::downgrade(&shared);
        let tell = move || told.upgrade().into_iter().for_each(|shared| shared.queue.tell());
        if !shared.generators.is_empty() || stages.holds_back() {
            shared.queue.attention().on_raise(tell.clone());
        }
        let desk = Desk::new(shared.max_concurrent(), tell);
        let foreign = Foreign::new(Arc::clone(&desk));
        let reviews = Reviews::new(Arc::clone(&desk), stages);
        let compute = Compute::new(Arc::clone(&shared), pool, schedulers, foreign, reviews);
        let thread = spawn("antiphon-compute", move || compute.run())?;
        let handle = Arc::new(Self { shared, desk, thread: Mutex::new(Some(thread)) });
        handle.serve_from_tier()?;
        // Parsed files, mostly.
        antiphon_kernels::memory::return_freed();
        Ok(handle)
    }

    /// Starts the threads that look for answers in the shared tier, if there is one.
    fn serve_from_tier(&self) -> Result<()> {
        let Some(tier) = &self.shared.cache.tier else { return Ok(()) };
        for _ in 0..THREADS {
            // Not the engine itself: a call that never returns must not keep it.
            let (tier, engine) = (Arc::clone(tier), Arc::downgrade(&self.shared));
            spawn("antiphon-tier", move || {
                tier.run(|number, key, opened| {
                    let Some(shared) = engine.upgrade() else { return };
                    let Some(opened) = opened else { return shared.queue.let_in(number) };
                    // Somebody may have left meanwhile, or waited no longer: then it is kept for the next one.
                    shared.cache.insert_shared(key, &opened);
                    if let Some(job) = shared.queue.take_held(number) {
                        shared.cache.note_shared_hit();
                        job.serve(opened.events);
                    }
                });
            })?;
        }
        Ok(())
    }

    pub(crate) fn close(&self) {
        self.shared.queue.close(Closing::Now);
        self.shared.cache.tier.iter().for_each(|tier| tier.close());
        self.desk.close();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            // A panic of the thread has been turned into errors already.
            let _ = thread.join();
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // In a child process the thread does not exist; waiting for it would never end.
        if self.shared.pid == std::process::id() {
            self.close();
        }
    }
}

/// The host's own tier, or the one that the configuration names.
fn shared_tier(
    config: &EngineConfig,
    plugin: Option<Arc<dyn SharedTier>>,
) -> Result<Option<Arc<dyn SharedTier>>> {
    match (plugin, &config.cache.shared_tier) {
        #[cfg(feature = "redis")]
        (None, Some(url)) => Ok(Some(Arc::new(crate::cache::Redis::new(url)?))),
        (plugin, _) => Ok(plugin),
    }
}

/// The host's generators, each under a name of its own.
fn generators(
    config: &EngineConfig,
    plugins: Vec<Arc<dyn Generator>>,
    observers: &Arc<Observers>,
) -> Result<Vec<Arc<Backend>>> {
    let mut backends: Vec<Arc<Backend>> = Vec::new();
    for generator in plugins {
        let backend = Backend::new(generator, Breaker::new(config.breaker), Arc::clone(observers));
        let taken = ["responder", SHARED_TIER].contains(&backend.name.as_str())
            || config.responders.contains_key(&backend.name)
            || backends.iter().any(|other| other.name == backend.name);
        if taken || !is_model_name(&backend.name) {
            let what = "a generator's name is taken or no name, expected a new one of a-z, 0-9, '.', '_', '-', at most 64";
            return Err(Error::new(ErrorKind::InvalidConfig, what));
        }
        backends.push(Arc::new(backend));
    }
    Ok(backends)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    antiphon_kernels::spawn(name, body).map_err(|error| {
        Error::with_source(ErrorKind::Io, format!("starting a thread failed: {error}"), error)
    })
}
