//! The continuous batch of one responder: each step every live sequence gains one token and one prompt advances by a chunk;
//! sequences join and leave between steps.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use antiphon_inference::decoder::Row;
use antiphon_inference::error::ErrorKind as InferenceErrorKind;
use antiphon_inference::kv::BlockPool;
use antiphon_kernels::{Arena, Pool};

use super::Responder;
use super::pace::Pace;
use super::sequence::{Draft, Sequence};
use crate::error::{Error, ErrorKind, Result};
use crate::flight::Departure;
use crate::job::Job;
use crate::reply::FinishReason;

/// The sequences that one responder works on, and their key/value rows.
pub(crate) struct Scheduler {
    pub(crate) responder: Arc<Responder>,
    blocks: BlockPool,
    pace: Pace,
    /// In order of admission. Those without blocks wait for others to end.
    live: Vec<Sequence>,
}

/// A sequence that left the batch, and why.
pub(crate) struct Ended {
    pub(crate) sequence: Sequence,
    pub(crate) result: Result<FinishReason>,
}

impl Scheduler {
    /// `prompt_chunk` is how many tokens of a prompt a step reads at most.
    pub(crate) fn new(responder: Arc<Responder>, blocks: BlockPool, prompt_chunk: usize) -> Self {
        let pace = Pace::new(prompt_chunk, responder.decoder.config());
        Self { responder, blocks, pace, live: Vec::new() }
    }

    /// Checks whether a request with its prompt can ever run here.
    pub(crate) fn draft(&self, job: &Job, prompt: Vec<u32>) -> Result<Draft> {
        let draft = Draft::new(job, prompt, &self.responder)?;
        let (needed, capacity) = (draft.tokens_needed(), self.blocks.capacity_tokens());
        if needed > capacity {
            let what = format!(
                "prompt and answer need {needed} key/value rows, `kv_cache_bytes` has room for {capacity}"
            );
            return Err(Error::new(ErrorKind::OutOfBudget, what));
        }
        Ok(draft)
    }

    /// Takes a request into the batch.
    pub(crate) fn join(&mut self, job: Job, draft: Draft) {
        self.live.push(Sequence::new(job, draft, &self.responder));
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    /// Lets those go whose deadline has passed or whose subscribers have left, and single subscribers whose deadline has.
    pub(crate) fn release(
        &mut self,
        now: Instant,
        fingerprints: impl Fn() -> BTreeMap<String, String>,
    ) -> Vec<Ended> {
        let name = self.responder.name.as_str();
        for sequence in &self.live {
            let partial = |reason| sequence.job.reply(sequence.outcome(reason, name), &fingerprints());
            drop(sequence.job.flight.prune(now, partial));
        }
        let reason = |sequence: &Sequence| match sequence.job.flight.departure() {
            Departure::None => None,
            Departure::Cancelled => Some(Err(Error::cancelled())),
            Departure::Stopped => Some(Ok(FinishReason::Cancelled)),
            Departure::Late if sequence.job.has_told() => Some(Ok(FinishReason::Deadline)),
            Departure::Late => Some(Err(sequence.job.late())),
        };
        let reasons: Vec<_> = self.live.iter().map(reason).collect();
        self.remove(reasons)
    }

    /// One step: a token for each sequence that writes, a chunk for the first that reads. Returns how many took part.
    pub(crate) fn step(&mut self, pool: &mut Pool, arena: &mut Arena) -> (usize, Vec<Ended>) {
        let started = Instant::now();
        self.give_blocks();
        let reader = self.live.iter().position(|sequence| sequence.is_active() && sequence.is_reading());
        let writers = self.live.iter().enumerate().filter(|(_, s)| s.is_active() && !s.is_reading());
        let members: Vec<usize> = writers.map(|(index, _)| index).chain(reader).collect();
        if members.is_empty() {
            return (0, Vec::new());
        }
        let sequences = members.len();
        let writers = sequences - usize::from(reader.is_some());
        let position = reader.map_or(0, |reader| self.live[reader].position());
        let chunk = self.pace.chunk(writers, position);
        let mut rows: Vec<Row<'_>> = Vec::new();
        let mut spans: Vec<Range<usize>> = Vec::new();
        for &member in &members {
            let start = rows.len();
            rows.extend(self.live[member].rows(chunk));
            spans.push(start..rows.len());
        }
        let _span = tracing::trace_span!("step", sequences, rows = rows.len()).entered();
        // A prompt that runs alone can be broken off between layers; a step that others take part in goes on.
        let never = AtomicBool::new(false);
        let alone = (members.len() == 1).then(|| Arc::clone(&self.live[members[0]].job.flight));
        let interrupt = alone.as_ref().map_or(&never, |flight| flight.interrupt());
        let read = rows.len() - writers;
        let stepped = self.responder.decoder.step(pool, arena, &mut self.blocks, &rows, interrupt);
        drop(rows);

        let mut ends: Vec<Option<Result<FinishReason>>> = self.live.iter().map(|_| None).collect();
        match stepped {
            Ok(logits) => {
                let mut next_row = 0;
                for (member, span) in members.into_iter().zip(spans) {
                    let sequence = &mut self.live[member];
                    if !sequence.advance(span.len(), &mut self.blocks) {
                        continue;
                    }
                    let logits = logits.as_ref().expect("the last row of a complete sequence wants logits");
                    ends[member] = sequence.write(logits.row(next_row), &self.responder).transpose();
                    next_row += 1;
                }
                self.pace.learn(writers, read, position, started.elapsed());
            }
            // Whoever set the interrupt is let go by the next `release`.
            Err(error) if error.kind() == InferenceErrorKind::Interrupted => {}
            Err(error) => {
                let error = Error::from(error);
                members.into_iter().for_each(|member| ends[member] = Some(Err(error.clone())));
            }
        }
        (sequences, self.remove(ends))
    }

    /// Ends everything.
    pub(crate) fn clear(&mut self, error: &Error) -> Vec<Ended> {
        let ends = self.live.iter().map(|_| Some(Err(error.clone()))).collect();
        self.remove(ends)
    }

    /// Sequences get blocks in order of admission; a later short one does not overtake an earlier long one.
    fn give_blocks(&mut self) {
        for sequence in &mut self.live {
            if !sequence.take_blocks(&mut self.blocks) {
                break;
            }
        }
    }

    fn remove(&mut self, reasons: Vec<Option<Result<FinishReason>>>) -> Vec<Ended> {
        let mut ended = Vec::new();
        let live = std::mem::take(&mut self.live);
        for (mut sequence, reason) in live.into_iter().zip(reasons) {
            match reason {
                None => self.live.push(sequence),
                Some(result) => {
                    sequence.return_blocks(&mut self.blocks);
                    ended.push(Ended { sequence, result });
                }
            }
        }
        ended
    }

    /// Bytes of the key/value pool.
    pub(crate) fn kv_bytes(&self) -> usize {
        self.blocks.bytes()
    }
}
