//! How the threads of a pool run a program together.
//!
//! Every thread walks over the same steps. A step is cut into pieces; each thread owns a contiguous share of them,
//! takes pieces from its front and, when it is empty, from the tails of the others'. No thread leads: whoever comes
//! first to a share of a new step opens it, and a thread that was late finds closed shares and walks on.
//!
//! # Why sharing the buffers is sound
//!
//! - A piece is taken exactly once: taking is a compare-exchange on a word that holds (step, front, back), and no
//!   word returns to an earlier state within a run.
//! - Pieces of a step write disjoint ranges (`Step::run`: other rows, or other columns of the same rows), and no
//!   buffer that a step writes is one it reads (`Arena::place` frees a buffer only after the last step that reads
//!   it). So within a step nothing that is written is touched by anyone else.
//! - A step begins, on each thread, only after that thread has seen `done` reach the number of all pieces up to the
//!   step before (acquire), and `done` grows by one after a piece was computed (release; the chain of additions
//!   keeps every earlier release visible). So what a step reads is complete and visible.
//! - A run ends, for its caller, only after every thread that entered it has left it (`pool`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::isa::Path;
use crate::program::Program;
use crate::step::Buffers;

/// The counters of a pool's threads.
pub(crate) struct Board {
    /// One for each thread: step + 1, front, back; see `pack`.
    shares: Box<[Padded]>,
    /// Pieces of this run that are computed.
    done: Padded,
}

/// A counter on cache lines of its own: 128 bytes, as processors fetch pairs of lines.
#[repr(align(128))]
struct Padded(AtomicU64);

/// One run of a program.
pub(crate) struct Job<'a> {
    pub(crate) program: &'a Program<'a>,
    pub(crate) buffers: Buffers<'a>,
    /// Pieces up to and including each step.
    pub(crate) pieces: &'a [u64],
    pub(crate) interrupt: &'a AtomicBool,
    pub(crate) path: Path,
    pub(crate) stop: AtomicBool,
    pub(crate) panicked: AtomicBool,
}

impl Board {
    pub(crate) fn new(threads: usize) -> Board {
        let counter = || Padded(AtomicU64::new(0));
        Board { shares: (0..threads).map(|_| counter()).collect(), done: counter() }
    }

    /// Clears the counters. No thread is inside a run; opening the gate makes the stores visible.
    pub(crate) fn reset(&self) {
        for counter in self.shares.iter().chain([&self.done]) {
            counter.0.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn finished(&self, job: &Job<'_>) -> bool {
        self.done.0.load(Ordering::Acquire) == job.pieces.last().copied().unwrap_or(0)
    }

    /// Walks over the steps of a job as one of its threads, until the end or until someone stops it. A panic of a
    /// piece stops the job and does not leave this function.
    pub(crate) fn work(&self, thread: usize, job: &Job<'_>) {
        if catch_unwind(AssertUnwindSafe(|| self.walk(thread, job))).is_err() {
            job.panicked.store(true, Ordering::Relaxed);
            job.stop.store(true, Ordering::Relaxed);
        }
    }

    fn walk(&self, thread: usize, job: &Job<'_>) {
        let mut before = 0;
        for (number, step) in job.program.steps.iter().enumerate() {
            let through = job.pieces[number];
            if step.checkpoint && job.interrupt.load(Ordering::Relaxed) {
                job.stop.store(true, Ordering::Relaxed);
            }
            if job.stop.load(Ordering::Relaxed) {
                return;
            }
            if self.done.0.load(Ordering::Acquire) < through {
                while let Some(piece) = self.take(thread, number, (through - before) as usize) {
                    // SAFETY: the piece was taken by this thread alone, and all steps before are complete: the
                    // argument is in the module's documentation.
                    unsafe { step.run(piece, job.path, &job.buffers) };
                    self.done.0.fetch_add(1, Ordering::AcqRel);
                }
                if !self.wait(through, job) {
                    return;
                }
            }
            before = through;
        }
    }

    /// Waits until so many pieces are done. False if the job was stopped.
    fn wait(&self, pieces: u64, job: &Job<'_>) -> bool {
        let mut patience = Patience::default();
        while self.done.0.load(Ordering::Acquire) < pieces {
            if job.stop.load(Ordering::Relaxed) {
                return false;
            }
            patience.pause();
        }
        true
    }

    /// A piece of the step that nobody has taken: the front of one's own share, else the tail of another's.
    fn take(&self, thread: usize, step: usize, pieces: usize) -> Option<usize> {
        let threads = self.shares.len();
        let share = |owner: usize| (owner * pieces / threads, (owner + 1) * pieces / threads);
        let own = self.take_from(thread, step, share(thread), End::Front);
        own.or_else(|| {
            let others = (1..threads).map(|i| (thread + i) % threads);
            others.into_iter().find_map(|owner| self.take_from(owner, step, share(owner), End::Back))
        })
    }

    fn take_from(&self, owner: usize, step: usize, whole: (usize, usize), end: End) -> Option<usize> {
        let counter = &self.shares[owner].0;
        // The order of memory is kept by `done`; here only who takes what is decided.
        let mut word = counter.load(Ordering::Relaxed);
        loop {
            let (epoch, front, back) = unpack(word);
            let (front, back) = match epoch.cmp(&(step + 1)) {
                std::cmp::Ordering::Less => whole,
                std::cmp::Ordering::Equal => (front, back),
                std::cmp::Ordering::Greater => return None, // others have gone on: this step is over
            };
            if front >= back {
                return None;
            }
            let (piece, rest) = match end {
                End::Front => (front, (front + 1, back)),
                End::Back => (back - 1, (front, back - 1)),
            };
            let next = pack(step + 1, rest);
            match counter.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(piece),
                Err(now) => word = now,
            }
        }
    }
}

enum End {
    Front,
    Back,
}

/// Steps that a program may have, and pieces that a step may have, so that a word holds all three.
pub(crate) const MAX_STEPS: usize = (1 << 20) - 2;
pub(crate) const MAX_PIECES: usize = (1 << 22) - 1;

fn pack(epoch: usize, (front, back): (usize, usize)) -> u64 {
    (epoch as u64) << 44 | (front as u64) << 22 | back as u64
}

fn unpack(word: u64) -> (usize, usize, usize) {
    let mask = MAX_PIECES as u64;
    ((word >> 44) as usize, (word >> 22 & mask) as usize, (word & mask) as usize)
}

/// Waiting that starts with pauses of the processor and then lets other processes run: the machine may have more to
/// do than we know.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    pub(crate) fn pause(&mut self) {
        if self.0 < PAUSES_BEFORE_YIELD {
            self.0 += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

/// Some 50 to 100 microseconds.
const PAUSES_BEFORE_YIELD: u32 = 2000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_hold_what_was_packed() {
        for word in [(0, 0, 0), (1, 2, 3), (MAX_STEPS + 1, MAX_PIECES, MAX_PIECES), (7, 0, MAX_PIECES)] {
            assert_eq!(unpack(pack(word.0, (word.1, word.2))), word);
        }
    }

    #[test]
    fn own_pieces_come_from_the_front_and_stolen_ones_from_the_tail() {
        let board = Board::new(2);
        assert_eq!(board.take(0, 0, 6), Some(0));
        assert_eq!(board.take(1, 0, 6), Some(3));
        let rest: Vec<usize> = std::iter::from_fn(|| board.take(0, 0, 6)).collect();
        assert_eq!(rest, [1, 2, 5, 4]);
        assert_eq!(board.take(1, 0, 6), None);
    }

    #[test]
    fn a_late_thread_takes_nothing_of_a_step_that_is_over() {
        let board = Board::new(2);
        assert_eq!(board.take(0, 0, 1), Some(0)); // shares of one piece over two threads: thread 1 owns it
        assert_eq!(board.take(1, 1, 2), Some(1));
        assert_eq!(board.take(1, 1, 2), Some(0));
        assert_eq!(board.take(0, 0, 1), None);
    }

    #[test]
    fn each_piece_is_taken_once_by_many_threads() {
        let board = Board::new(4);
        let taken: Vec<AtomicU64> = (0..1000).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (board, taken) = (&board, &taken);
                scope.spawn(move || {
                    while let Some(piece) = board.take(thread, 3, 1000) {
                        taken[piece].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(taken.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }
}
