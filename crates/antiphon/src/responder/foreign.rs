//! Answers by generators of the host: foreign code, which may fail, panic or never return.
//!
//! A generator runs on a thread of its own kind (`desk`); the compute thread reads what it wrote, keeps the deadline and lets
//! the request go when it is over, whether the generator has noticed or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use antiphon_inference::stop::StopFilter;

use super::backend::{Backend, Writing};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::Departure;
use crate::job::{Job, Outcome};
use crate::plugin::MOST_BYTES;
use crate::plugin::desk::Desk;
use crate::reply::{FinishReason, Usage};
use crate::request::Generate;

/// The answers that generators work on.
pub(crate) struct Foreign {
    desk: Arc<Desk>,
    live: Vec<Speech>,
}

/// An answer in the making.
struct Speech {
    job: Job,
    writing: Arc<Writing>,
    stops: StopFilter,
    response: String,
}

/// How an answer ended.
pub(crate) enum End {
    /// With what there is.
    Reply(Job, Outcome),
    /// With nothing, and somebody else may answer.
    Silent(Job, Error),
    /// With an error.
    Error(Job, Error),
}

impl Foreign {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, live: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Lets a generator answer, unless its breaker is open: then the job comes back.
    pub(crate) fn join(&mut self, job: Job, backend: &Arc<Backend>, request: Generate) -> Option<End> {
        let stops = match StopFilter::new(request.options.stop.clone()) {
            Ok(stops) => stops,
            Err(error) => return Some(End::Error(job, error.into())),
        };
        if !backend.admits() {
            let what =
                format!("the generator `{}` failed too often and is left alone for a while", backend.name);
            return Some(End::Silent(job, Error::new(ErrorKind::BackendUnavailable, what)));
        }
        let writing = Writing::new(Arc::clone(backend), request);
        if let Err(error) = self.desk.add(Arc::clone(&writing) as _) {
            return Some(End::Silent(job, error));
        }
        self.live.push(Speech { job, writing, stops, response: String::new() });
        None
    }

    /// Sends what was written since the last time; gives those that ended.
    pub(crate) fn read(&mut self) -> Vec<End> {
        self.end(|speech| speech.read())
    }

    /// Lets those go whose deadline has passed or whose subscribers have left, and single subscribers whose deadline has.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        fingerprints: impl Fn(&Job) -> BTreeMap<String, String>,
    ) -> Vec<End> {
        self.end(|speech| {
            let partial = |reason| speech.job.reply(speech.outcome(reason), &fingerprints(&speech.job));
            drop(speech.job.flight.prune(now, partial));
            match speech.job.flight.departure() {
                Departure::None => None,
                Departure::Cancelled => Some(Err(Fault::Error(Error::cancelled()))),
                Departure::Stopped => Some(Ok(FinishReason::Cancelled)),
                Departure::Late if speech.job.has_told() => Some(Ok(FinishReason::Deadline)),
                Departure::Late => {
                    // One that was never called, as others hold all threads, has not failed.
                    if speech.job.times.service() >= PATIENCE && speech.writing.is_begun() {
                        speech.writing.backend.fail("it wrote nothing before a deadline");
                    }
                    Some(Err(Fault::Error(speech.job.late())))
                }
            }
        })
    }

    /// Ends everything.
    pub(crate) fn clear(&mut self, error: &Error) -> Vec<End> {
        self.end(|_| Some(Err(Fault::Error(error.clone()))))
    }

    /// When the first of them is late.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.live.iter().map(|speech| speech.job.flight.next_deadline()).min()
    }

    fn end(&mut self, mut how: impl FnMut(&mut Speech) -> Option<Result<FinishReason, Fault>>) -> Vec<End> {
        let mut ends = Vec::new();
        for mut speech in std::mem::take(&mut self.live) {
            let Some(how) = how(&mut speech) else {
                self.live.push(speech);
                continue;
            };
            speech.writing.give_up();
            self.desk.forget(&speech.writing);
            ends.push(match how {
                Ok(reason) => {
                    let outcome = speech.outcome(reason);
                    End::Reply(speech.job, outcome)
                }
                Err(Fault::Plugin(what)) if !speech.job.has_told() => End::Silent(speech.job, failed(what)),
                Err(Fault::Plugin(what)) => End::Error(speech.job, failed(what)),
                Err(Fault::Error(error)) => End::Error(speech.job, error),
            });
        }
        ends
    }
}

/// Why an answer has no end.
enum Fault {
    /// The generator's doing.
    Plugin(String),
    Error(Error),
}

fn failed(what: String) -> Error {
    Error::new(ErrorKind::PluginFailed, what)
}

impl Speech {
    fn read(&mut self) -> Option<Result<FinishReason, Fault>> {
        let (text, ended) = self.writing.take();
        if !text.is_empty() {
            let outcome = self.stops.push(&text);
            self.send(outcome.emit);
            if outcome.stopped || self.response.len() >= MOST_BYTES {
                self.writing.backend.succeed("it answers again");
                return Some(Ok(if outcome.stopped { FinishReason::Stop } else { FinishReason::Length }));
            }
        }
        match ended? {
            Ok(()) => {
                let rest = self.stops.finish();
                self.send(rest);
                self.writing.backend.succeed("it answers again");
                Some(Ok(FinishReason::Stop))
            }
            Err(error) => {
                self.writing.backend.fail(&error.to_string());
                // Its own words go to observers: they might quote the request.
                Some(Err(Fault::Plugin(format!("the generator `{}` failed", self.writing.backend.name))))
            }
        }
    }

    fn send(&mut self, content: String) {
        if !content.is_empty() {
            self.job.times.first_token.get_or_insert_with(Instant::now);
            self.response.push_str(&content);
            self.job.tell(content, None);
        }
    }

    fn outcome(&self, finish_reason: FinishReason) -> Outcome {
        Outcome {
            response: self.response.clone(),
            finish_reason,
            usage: Usage::default(),
            model: self.writing.backend.name.clone(),
            degraded: None,
        }
    }
}

/// A deadline is a generator's failure only if it had this long.
const PATIENCE: Duration = Duration::from_secs(1);
