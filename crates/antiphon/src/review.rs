//! Answers that are written and held back until the host's stages have seen them.
//!
//! Stages run on threads of their own kind (`plugin::desk`); the compute thread keeps the deadline and lets a request go when
//! it is over, whether a stage has noticed or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result};
use crate::flight::Departure;
use crate::job::{Job, Outcome};
use crate::plugin::desk::Desk;
use crate::plugin::stages::{Review, Stages};
use crate::reply::FinishReason;

/// The answers that stages look at.
pub(crate) struct Reviews {
    desk: Arc<Desk>,
    stages: Stages,
    live: Vec<Held>,
}

/// A written answer that nobody has seen.
struct Held {
    job: Job,
    outcome: Outcome,
    fingerprints: BTreeMap<String, String>,
    review: Arc<Review>,
}

/// A request that left, with what it is to be told.
pub(crate) struct Reviewed {
    pub(crate) job: Job,
    pub(crate) result: Result<Outcome>,
    pub(crate) fingerprints: BTreeMap<String, String>,
}

impl Reviews {
    pub(crate) fn new(desk: Arc<Desk>, stages: Stages) -> Self {
        Self { desk, stages, live: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Lets the stages see an answer; it comes back when that can not be.
    pub(crate) fn add(
        &mut self,
        job: Job,
        outcome: Outcome,
        fingerprints: BTreeMap<String, String>,
    ) -> Option<Reviewed> {
        let review = Review::new(&self.stages, job.whole_reply(outcome.clone(), &fingerprints));
        if let Err(error) = self.desk.add(Arc::clone(&review) as _) {
            return Some(Reviewed { job, result: Err(error), fingerprints });
        }
        self.live.push(Held { job, outcome, fingerprints, review });
        None
    }

    /// Those that the stages have seen.
    pub(crate) fn read(&mut self) -> Vec<Reviewed> {
        self.end(|held| {
            Some(held.review.take()?.map(|text| {
                let mut outcome = held.outcome.clone();
                if let Some(text) = text {
                    held.job.take_back();
                    outcome.response.clone_from(&text);
                    held.job.tell(text, None);
                }
                held.job.let_go();
                outcome
            }))
        })
    }

    /// Lets those go whose deadline has passed or whose subscribers have left, and single subscribers whose deadline has.
    pub(crate) fn release(&mut self, now: Instant) -> Vec<Reviewed> {
        self.end(|held| {
            let partial = |reason| {
                let outcome = Outcome { finish_reason: reason, ..held.outcome.clone() };
                held.job.reply(outcome, &held.fingerprints)
            };
            drop(held.job.flight.prune(now, partial));
            match held.job.flight.departure() {
                Departure::None => None,
                Departure::Cancelled => Some(Err(Error::cancelled())),
                Departure::Late => Some(Err(held.job.late())),
                Departure::Stopped => {
                    Some(Ok(Outcome { finish_reason: FinishReason::Cancelled, ..held.outcome.clone() }))
                }
            }
        })
    }

    /// Ends everything.
    pub(crate) fn clear(&mut self, error: &Error) -> Vec<Reviewed> {
        self.end(|_| Some(Err(error.clone())))
    }

    /// When the first of them is late.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.live.iter().map(|held| held.job.flight.next_deadline()).min()
    }

    fn end(&mut self, mut how: impl FnMut(&mut Held) -> Option<Result<Outcome>>) -> Vec<Reviewed> {
        let mut ended = Vec::new();
        for mut held in std::mem::take(&mut self.live) {
            match how(&mut held) {
                None => self.live.push(held),
                Some(result) => {
                    self.desk.forget(&held.review);
                    ended.push(Reviewed { job: held.job, result, fingerprints: held.fingerprints });
                }
            }
        }
        ended
    }
}
