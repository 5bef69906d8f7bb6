//! The compute thread: one pass of waiting texts, then one step of all live sequences, again and again.
//!
//! It alone owns the models' scratch and the key/value pools, so there are no locks on the hot path. Deadlines are the
//! time-outs of its wait.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use antiphon_kernels::{Arena, Pool};

use crate::analyst::{Prepared, RANKING};
use crate::batcher::Closing;
use crate::error::{Error, ErrorKind};
use crate::flight::Departure;
use crate::job::{Ask, Job, Outcome};
use crate::passes::{Passes, in_passes};
use crate::reply::{Degraded, Event, FinishReason, Usage};
use crate::request::Generate;
use crate::responder::foreign::{End, Foreign};
use crate::responder::prompt::turns;
use crate::responder::scheduler::{Ended, Scheduler};
use crate::responder::{Voice, degrade};
use crate::review::{Reviewed, Reviews};
use crate::shared::Shared;

/// What the compute thread owns.
pub(crate) struct Compute {
    shared: Arc<Shared>,
    pool: Pool,
    arena: Arena,
    passes: Passes,
    schedulers: Vec<Scheduler>,
    foreign: Foreign,
    reviews: Reviews,
}

impl Compute {
    pub(crate) fn new(
        shared: Arc<Shared>,
        pool: Pool,
        schedulers: Vec<Scheduler>,
        foreign: Foreign,
        reviews: Reviews,
    ) -> Self {
        Self { shared, pool, arena: Arena::new(), passes: Passes::default(), schedulers, foreign, reviews }
    }

    /// Runs until the engine closes.
    pub(crate) fn run(mut self) {
        loop {
            let running = self.running();
            if self.passes.is_empty() && running == self.foreign.len() + self.reviews.len() {
                let places = self.shared.max_concurrent().saturating_sub(running);
                let deadlines = self.foreign.next_deadline().into_iter().chain(self.reviews.next_deadline());
                self.shared.queue.wait(places, deadlines.min());
            }
            match self.shared.queue.closing() {
                Some(Closing::Now) => break,
                Some(Closing::Draining) if running == 0 && self.shared.queue.is_empty() => break,
                _ => {}
            }
            // A panic is a bug of ours; it costs the requests that were in the batch, not the engine.
            if catch_unwind(AssertUnwindSafe(|| self.round())).is_err() {
                self.end_all(&Error::new(ErrorKind::Internal, "a panic in the compute thread"));
            }
            self.shared.note_scratch(self.arena.bytes());
        }
        self.shared.queue.close(Closing::Now);
        self.take_quick();
        self.end_all(&Error::closed());
        for job in self.shared.queue.clear() {
            self.shared.count_error();
            job.fail(Error::closed());
        }
        self.shared.note_stopped();
    }

    fn round(&mut self) {
        self.let_go();
        self.quick();
        self.admit();
        for index in 0..self.schedulers.len() {
            let (sequences, ended) = self.schedulers[index].step(&mut self.pool, &mut self.arena);
            if sequences > 0 {
                self.shared.metrics.note_step(sequences);
            }
            self.settle(ended);
        }
        let ended = self.foreign.read();
        self.settle_foreign(ended);
        let ended = self.reviews.read();
        self.settle_reviewed(ended);
        self.shared.queue.report(self.running(), None);
    }

    /// Ends what nobody wants any more or what is too late, in the queue and in the batch.
    fn let_go(&mut self) {
        let now = Instant::now();
        // Those who wait are woken when the queue is no longer locked.
        let woken = RefCell::new(Vec::new());
        let gone = |job: &Job| {
            let partial = |_| job.reply(Outcome::nothing(), &BTreeMap::new());
            woken.borrow_mut().push(job.flight.prune(now, partial));
            job.flight.departure() != Departure::None
        };
        let left = self.shared.queue.sweep(now, gone, |job| job.flight.next_deadline());
        drop(woken);
        for job in left {
            match job.flight.departure() {
                Departure::Late => {
                    self.shared.count_error();
                    let error = job.late();
                    job.fail(error);
                }
                Departure::Stopped => job.finish(Outcome::nothing(), &BTreeMap::new(), &self.shared.cache),
                Departure::None | Departure::Cancelled => job.fail(Error::cancelled()),
            }
        }
        for index in 0..self.schedulers.len() {
            let voice = Voice::Responder(index);
            let ended = self.schedulers[index].release(now, || self.shared.fingerprints(voice));
            self.settle(ended);
        }
        let ended = self.foreign.release(now, |job| self.shared.fingerprints(job.voice));
        self.settle_foreign(ended);
        let ended = self.reviews.release(now);
        self.settle_reviewed(ended);
    }

    /// Analyses and embeddings that wait share a pass, which is short when others write.
    fn quick(&mut self) {
        self.take_quick();
        let Some(analyst) = self.shared.analyst.clone() else { return };
        let is_alone = self.schedulers.iter().all(|scheduler| scheduler.len() == 0);
        let leave = |bytes| self.shared.queue.end_quick(bytes);
        self.passes.step(&analyst, &mut self.pool, &mut self.arena, is_alone, leave);
    }

    fn take_quick(&mut self) {
        self.shared.queue.take_quick().into_iter().for_each(|quick| self.passes.add(quick));
    }

    /// Fills the free places of the batch.
    fn admit(&mut self) {
        let places = self.shared.max_concurrent().saturating_sub(self.running());
        let mut jobs = if places == 0 { Vec::new() } else { self.shared.queue.take(places) };
        if jobs.is_empty() {
            return;
        }
        let now = Instant::now();
        jobs.iter_mut().for_each(|job| job.times.admitted = Some(now));
        for job in self.analyse(jobs) {
            self.start(job);
        }
    }

    /// One pass for the messages that were admitted together; their analyses leave before any token.
    fn analyse(&mut self, mut jobs: Vec<Job>) -> Vec<Job> {
        let texts: Vec<&Prepared> = jobs.iter().filter_map(Job::message).collect();
        let Some(analyst) = self.shared.analyst.clone().filter(|_| !texts.is_empty()) else { return jobs };
        let _span = tracing::debug_span!("analysis", texts = texts.len()).entered();
        let analyses =
            in_passes(&texts, |texts| analyst.analyze(&mut self.pool, &mut self.arena, texts, RANKING));
        match analyses {
            Ok(analyses) => {
                let now = Instant::now();
                let asked = jobs.iter_mut().filter(|job| job.message().is_some());
                for (job, analysis) in asked.zip(analyses) {
                    job.times.analysed = Some(now);
                    job.flight.push(Event::Analysis(analysis.clone()));
                    job.analysis = Some(analysis);
                }
                jobs
            }
            Err(error) => {
                let (asked, rest) = jobs.into_iter().partition::<Vec<_>, _>(|job| job.message().is_some());
                for job in asked {
                    self.shared.count_error();
                    job.fail(error.clone());
                }
                rest
            }
        }
    }

    /// Renders the prompt and lets the request into its responder's batch.
    fn start(&mut self, job: Job) {
        let index = match job.voice {
            Voice::Responder(index) => index,
            Voice::Generator(index) => return self.start_generator(job, index),
            Voice::Template => {
                let what = "no responder is configured, expected one";
                return self.degrade(job, Error::new(ErrorKind::BackendUnavailable, what));
            }
        };
        let scheduler = &mut self.schedulers[index];
        let prompt = match (&job.ask, &job.analysis) {
            (Ask::Process(request, _), Some(analysis)) => scheduler.responder.prompt(request, analysis),
            (Ask::Process(..), None) => {
                Err(Error::new(ErrorKind::Internal, "a message without its analysis"))
            }
            (Ask::Generate(request), _) => scheduler.responder.continuation(request),
        };
        match prompt.and_then(|prompt| scheduler.draft(&job, prompt)) {
            Ok(draft) => scheduler.join(job, draft),
            Err(error) => {
                self.shared.count_error();
                job.fail(error);
            }
        }
    }

    fn start_generator(&mut self, job: Job, index: usize) {
        let request = match (&job.ask, &job.analysis) {
            (Ask::Process(request, _), Some(analysis)) => {
                Generate::of((**request).clone(), turns(request, analysis))
            }
            (Ask::Process(..), None) => {
                return job.fail(Error::new(ErrorKind::Internal, "a message without its analysis"));
            }
            (Ask::Generate(request), _) => (**request).clone(),
        };
        let backend = Arc::clone(&self.shared.generators[index]);
        let ended = self.foreign.join(job, &backend, request);
        self.settle_foreign(ended.into_iter().collect());
    }

    /// Nobody can answer: an older answer serves, else the analysis answers in its own words, and the reply says which.
    fn degrade(&mut self, mut job: Job, why: Error) {
        job.take_back();
        if let Some(stale) = job.key.as_ref().and_then(|key| self.shared.cache.find_stale(key)) {
            return job.serve_stale(&stale);
        }
        let Some(analysis) = &job.analysis else {
            self.shared.count_error();
            let what = why.to_string();
            return job.fail(Error::with_source(ErrorKind::BackendUnavailable, what, why));
        };
        job.voice = Voice::Template;
        let response = degrade::answer(analysis);
        job.tell(response.clone(), None);
        let outcome = Outcome {
            response,
            finish_reason: FinishReason::Stop,
            usage: Usage::default(),
            model: degrade::TEMPLATE.into(),
            degraded: Some(Degraded::Template),
        };
        let took = job.times.service();
        self.conclude(job, outcome);
        self.shared.queue.report(self.running(), Some(took));
    }

    /// Ends sequences that left the batch.
    fn settle(&mut self, ended: Vec<Ended>) {
        for Ended { sequence, result } in ended {
            let took = sequence.job.times.service();
            match result {
                Ok(finish_reason) => {
                    let model = match sequence.job.voice {
                        Voice::Responder(index) => self.name_of(index),
                        Voice::Generator(_) | Voice::Template => "",
                    };
                    let outcome = sequence.outcome(finish_reason, model);
                    let (queue, first_token) = sequence.job.times.waits();
                    self.shared.metrics.note_answer(queue, first_token, outcome.usage);
                    self.conclude(sequence.job, outcome);
                }
                Err(error) => {
                    if !error.is_cancelled() {
                        self.shared.count_error();
                    }
                    sequence.job.fail(error);
                }
            }
            self.shared.queue.report(self.running(), Some(took));
        }
    }

    /// Ends answers of generators.
    fn settle_foreign(&mut self, ended: Vec<End>) {
        for end in ended {
            match end {
                End::Reply(job, outcome) => {
                    let (queue, first_token) = job.times.waits();
                    self.shared.metrics.note_answer(queue, first_token, outcome.usage);
                    let took = job.times.service();
                    self.conclude(job, outcome);
                    self.shared.queue.report(self.running(), Some(took));
                }
                End::Silent(job, why) => self.degrade(job, why),
                End::Error(job, error) => {
                    if !error.is_cancelled() {
                        self.shared.count_error();
                    }
                    job.fail(error);
                }
            }
        }
    }

    /// Ends a request with its answer, which stages see first where there are some.
    fn conclude(&mut self, job: Job, outcome: Outcome) {
        let fingerprints = self.shared.fingerprints(job.voice);
        if job.is_held() && outcome.is_whole() {
            let ended = self.reviews.add(job, outcome, fingerprints);
            self.settle_reviewed(ended.into_iter().collect());
        } else {
            job.finish(outcome, &fingerprints, &self.shared.cache);
        }
    }

    /// Ends answers that stages have seen, or will not.
    fn settle_reviewed(&mut self, ended: Vec<Reviewed>) {
        for Reviewed { job, result, fingerprints } in ended {
            match result {
                Ok(outcome) => job.finish(outcome, &fingerprints, &self.shared.cache),
                Err(error) => {
                    if !error.is_cancelled() {
                        self.shared.count_error();
                    }
                    job.fail(error);
                }
            }
        }
    }

    fn end_all(&mut self, error: &Error) {
        for index in 0..self.schedulers.len() {
            let ended = self.schedulers[index].clear(error);
            self.settle(ended);
        }
        let ended = self.foreign.clear(error);
        self.settle_foreign(ended);
        let ended = self.reviews.clear(error);
        self.settle_reviewed(ended);
        self.passes.clear(error, |bytes| self.shared.queue.end_quick(bytes));
    }

    fn name_of(&self, responder: usize) -> &str {
        &self.schedulers[responder].responder.name
    }

    fn running(&self) -> usize {
        self.schedulers.iter().map(Scheduler::len).sum::<usize>() + self.foreign.len() + self.reviews.len()
    }
}

impl Job {
    fn message(&self) -> Option<&Prepared> {
        match &self.ask {
            Ask::Process(_, message) => Some(message),
            Ask::Generate(_) => None,
        }
    }
}
