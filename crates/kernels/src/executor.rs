//! How the threads of a pool run a program together.
//!
//! Every thread walks over the same steps. A step is cut into pieces; each thread owns a contiguous share of them,
//! takes pieces from its front and, when it is empty, from the tails of the others'. No thread leads: whoever comes
//! first to a share of a new step opens it, and a thread that was late finds closed shares and walks on.
//!
//! Pieces of some steps are computed apart ([`crate::apart`]): from a copy of the input into sums of the thread's own, which
//! then are put in place. Who has nothing left to do computes such a piece again if the thread that took it is late: the host
//! may have taken its core. Who is first puts the result in place; the other's is dropped, and if the run is over by then, so
//! that others already compute something else, the thread was left behind and goes home.
//!
//! # Why sharing the buffers is sound
//!
//! - A piece is taken exactly once: taking is a compare-exchange on a word that holds (step, front, back), and no
//!   word returns to an earlier state within a run.
//! - Pieces of a step write disjoint ranges (`Step::run`: other rows, or other columns of the same rows), and no
//!   buffer that a step writes is one it reads (`Arena::place` frees a buffer only after the last step that reads
//!   it). So within a step nothing that is written is touched by anyone else.
//! - A step begins, on each thread, only after that thread has seen the threads' counts of completed pieces reach, together, the
//!   number of all pieces up to the step before (acquire), and each thread adds to its own count after a piece was computed
//!   (release). Counts are read one after the other, so one may be older than another; but a count goes beyond the step before
//!   only on a thread that has seen that step complete, and then its release covers that step. So what a step reads is complete
//!   and visible.
//! - A run ends, for its caller, only after every thread that entered it has left it, or was left behind (`pool`).
//!
//! And with pieces that are computed apart:
//!
//! - The input is copied by a thread that holds a piece of the step which nobody else may compute yet: the step cannot end, so
//!   nobody writes what is copied. Only with such a copy, so only after a piece of its own, a thread computes another's.
//! - A word for each piece says of which run and step it is, and whether it is being computed or was put in place. Putting
//!   in place begins with a compare-exchange from the one to the other, which one thread wins; it counts the piece after that. The
//!   words of one place are those of later and later steps and runs, so a late thread finds another word and loses.
//! - While it computes, or waits, a thread is *away*: it touches its own memory, weights and the board, nothing of the run. It comes back by a
//!   compare-exchange from away to inside, and whoever ends a run leaves it behind by one from away to left. So either it is
//!   inside again, and the end of the run waits for it, or it knows that the run is none of its business any more. Weights
//!   outlive it (`late`).

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::apart::Apart;
use crate::isa::Path;
use crate::late;
use crate::program::Program;
use crate::step::Buffers;
use crate::sync::{AtomicU64, yield_now};

/// What is computed: steps, in pieces.
pub(crate) trait Work {
    /// What a thread has of its own to compute apart.
    type Own;

    /// Of the run: each has a larger one than those before it on the same board.
    fn number(&self) -> u64;
    fn steps(&self) -> usize;
    /// Pieces up to and including a step.
    fn through(&self, step: usize) -> u64;
    /// The caller wants the run to end before this step.
    fn is_interrupted_before(&self, step: usize) -> bool;

    /// Computes a piece.
    ///
    /// # Safety
    /// All steps before are complete, and nobody else computes this piece.
    unsafe fn run(&self, step: usize, piece: usize);

    /// Pieces of this step can be computed apart.
    fn is_apart(&self, step: usize) -> bool;

    /// Copies what all pieces of a step take.
    ///
    /// # Safety
    /// All steps before are complete, and this one does not end meanwhile.
    unsafe fn copy(&self, step: usize, own: &mut Self::Own);

    /// Names the piece that is computed next, of the step whose input was copied last.
    fn name(&self, step: usize, piece: usize, own: &mut Self::Own);

    /// Asks for the places where a piece's values go.
    fn ask_places(&self, step: usize, piece: usize);

    /// Computes the piece that was named. May run while the rest of the work no longer exists.
    fn compute(own: &mut Self::Own);

    /// Puts what was computed in place.
    ///
    /// # Safety
    /// As [`Self::run`].
    unsafe fn finish(&self, step: usize, piece: usize, own: &Self::Own);
}

/// The counters of a pool's threads.
pub(crate) struct Board {
    /// One for each thread: step + 1, front, back; see `pack`.
    shares: Box<[Padded]>,
    /// One for each thread: pieces of this run that it has completed. Only that thread writes it, so that counting waits for nobody.
    done: Box<[Padded]>,
    /// Not 0: this run is to end.
    stop: Padded,
    /// One for each thread: the run it is in, and how; see `Presence`.
    presences: Box<[Padded]>,
    /// One for each piece of a step that is computed apart: whose step it is, and how far it is; see `mark`.
    marks: Box<[AtomicU64]>,
}

/// A counter on cache lines of its own: 128 bytes, as processors fetch pairs of lines.
#[repr(align(128))]
struct Padded(AtomicU64);

/// How a thread is in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    /// It may touch what belongs to the run.
    Inside,
    /// It computes apart, or waits.
    Away,
    /// It was away when the run ended.
    Left,
}

/// What ended waiting.
enum Waited {
    Done,
    Stopped,
    Long,
    Left,
}

/// What a thread knows when its walk is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is inside, and has to leave.
    Inside,
    /// It was left behind: the run is none of its business any more.
    Left,
}

/// One run of a program.
pub(crate) struct Job<'a> {
    pub(crate) number: u64,
    pub(crate) program: &'a Program<'a>,
    pub(crate) buffers: Buffers<'a>,
    /// Pieces up to and including each step.
    pub(crate) pieces: &'a [u64],
    pub(crate) interrupt: &'a AtomicBool,
    pub(crate) path: Path,
    pub(crate) panicked: AtomicBool,
}

impl Work for Job<'_> {
    type Own = Apart;

    fn number(&self) -> u64 {
        self.number
    }

    fn steps(&self) -> usize {
        self.program.steps.len()
    }

    fn through(&self, step: usize) -> u64 {
        self.pieces[step]
    }

    fn is_interrupted_before(&self, step: usize) -> bool {
        self.program.steps[step].checkpoint && self.interrupt.load(Ordering::Relaxed)
    }

    unsafe fn run(&self, step: usize, piece: usize) {
        // SAFETY: as the caller vouches.
        unsafe { self.program.steps[step].run(piece, self.path, &self.buffers) }
    }

    fn is_apart(&self, step: usize) -> bool {
        self.program.steps[step].is_apart(&self.program.slots)
    }

    unsafe fn copy(&self, step: usize, own: &mut Apart) {
        // SAFETY: as the caller vouches.
        unsafe { self.program.steps[step].take_activations(&self.buffers, own) }
    }

    fn name(&self, step: usize, piece: usize, own: &mut Apart) {
        self.program.steps[step].take_tiles(piece, self.path, &self.buffers, own);
    }

    fn ask_places(&self, step: usize, piece: usize) {
        self.program.steps[step].ask_places(piece, self.path, &self.buffers);
    }

    fn compute(own: &mut Apart) {
        // SAFETY: a program multiplies what fits, and matrices outlive threads that are left behind (`late`).
        unsafe { own.compute() }
    }

    unsafe fn finish(&self, step: usize, piece: usize, own: &Apart) {
        // SAFETY: as the caller vouches.
        unsafe { self.program.steps[step].finish(piece, self.path, &self.buffers, own) }
    }
}

impl Board {
    pub(crate) fn new(threads: usize) -> Board {
        Board::with_marks(threads, MARKS)
    }

    fn with_marks(threads: usize, marks: usize) -> Board {
        let counters = || (0..threads).map(|_| Padded(AtomicU64::new(0))).collect();
        Board {
            shares: counters(),
            done: counters(),
            stop: Padded(AtomicU64::new(0)),
            presences: counters(),
            marks: (0..marks).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Clears the counters of a run. No thread is inside one; opening the gate makes the stores visible.
    pub(crate) fn reset(&self) {
        for counter in self.shares.iter().chain(&self.done).chain([&self.stop]) {
            counter.0.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn finished(&self, job: &Job<'_>) -> bool {
        self.done() == job.pieces.last().copied().unwrap_or(0)
    }

    /// Pieces of this run that are completed.
    fn done(&self) -> u64 {
        self.done.iter().map(|counter| counter.0.load(Ordering::Acquire)).sum()
    }

    /// A piece more is completed, by this thread.
    fn count(&self, thread: usize) {
        let counter = &self.done[thread].0;
        counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// A thread, not the caller of the run, is inside it now.
    pub(crate) fn arrive(&self, thread: usize, run: u64) {
        self.presences[thread].0.store(presence(run, Presence::Inside), Ordering::Release);
    }

    /// Leaves behind all threads that are away from a run that is over, and says how many.
    pub(crate) fn leave_behind(&self, run: u64) -> u64 {
        let mut left = 0;
        for counter in &self.presences[1..] {
            let (away, gone) = (presence(run, Presence::Away), presence(run, Presence::Left));
            if counter.0.load(Ordering::Relaxed) == away {
                late::begin();
                if counter.0.compare_exchange(away, gone, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                    left += 1;
                } else {
                    late::end();
                }
            }
        }
        left
    }

    /// Walks over the steps of a job as one of its threads, until the end or until someone stops it. A panic of a
    /// piece stops the job and does not leave this function.
    ///
    /// # Safety
    /// The thread is inside the run, and the job lives as long as it is.
    pub(crate) unsafe fn work(&self, thread: usize, job: *const Job<'_>, own: &mut Apart) -> End {
        // SAFETY: as the caller vouches.
        catch_unwind(AssertUnwindSafe(|| unsafe { self.walk(thread, job, own) })).unwrap_or_else(|_| {
            // SAFETY: pieces do not panic outside the run (`compute_apart`), so the thread is inside.
            unsafe { &*job }.panicked.store(true, Ordering::Relaxed);
            self.stop.0.store(1, Ordering::Relaxed);
            End::Inside
        })
    }

    /// # Safety
    /// As [`Self::work`]. The work is a pointer, and no reference outlives what is done with it inside: a thread that is left
    /// behind is still in here when the work is gone.
    unsafe fn walk<W: Work>(&self, thread: usize, work: *const W, own: &mut W::Own) -> End {
        // SAFETY: the thread is inside.
        let (run, steps) = unsafe { ((*work).number(), (*work).steps()) };
        let mut before = 0;
        for step in 0..steps {
            // SAFETY: the thread is inside.
            let (is_interrupted, through) =
                unsafe { ((*work).is_interrupted_before(step), (*work).through(step)) };
            if is_interrupted {
                self.stop.0.store(1, Ordering::Relaxed);
            }
            if self.stop.0.load(Ordering::Relaxed) != 0 {
                return End::Inside;
            }
            if self.done() < through {
                // SAFETY: the thread is inside, and all steps before are complete.
                if let Some(end) = unsafe { self.take_part(thread, work, run, step, before, own) } {
                    return end;
                }
            }
            before = through;
        }
        End::Inside
    }

    /// Computes pieces of a step until it is complete; or how the thread's walk ends.
    ///
    /// # Safety
    /// As [`Self::walk`], and all steps before are complete.
    unsafe fn take_part<W: Work>(
        &self,
        thread: usize,
        work: *const W,
        run: u64,
        step: usize,
        before: u64,
        own: &mut W::Own,
    ) -> Option<End> {
        // SAFETY: the thread is inside.
        let (through, is_apart) = unsafe { ((*work).through(step), (*work).is_apart(step)) };
        let pieces = (through - before) as usize;
        let apart = is_apart && self.shares.len() > 1 && pieces <= self.marks.len();
        let taken = mark(run, step, Progress::Taken);
        let mut copied = false;
        while let Some(piece) = self.take(thread, step, pieces) {
            if !apart {
                // SAFETY: the piece was taken by this thread alone, and all steps before are complete: the argument is in
                // the module's documentation.
                unsafe { (*work).run(step, piece) };
                self.count(thread);
                continue;
            }
            // SAFETY: as above, and the step does not end before this piece is done.
            unsafe {
                if !copied {
                    (*work).copy(step, own);
                    copied = true;
                }
                (*work).name(step, piece, own);
                (*work).ask_places(step, piece);
            }
            // From here on others may compute it as well.
            self.marks[piece].store(taken, Ordering::Release);
            // SAFETY: the thread is inside, and the piece was named.
            if unsafe { self.compute_apart(thread, work, run, step, piece, own) } == End::Left {
                return Some(End::Left);
            }
        }
        let mut patience = Patience::default();
        loop {
            match self.wait(thread, run, through, &mut patience) {
                Waited::Done => return None,
                Waited::Stopped => return Some(End::Inside),
                Waited::Left => return Some(End::Left),
                Waited::Long => {}
            }
            let is_taken = |word: &AtomicU64| word.load(Ordering::Acquire) == taken;
            if copied && let Some(piece) = self.marks[..pieces].iter().position(is_taken) {
                // SAFETY: the thread is inside, and has a copy of what the step takes.
                let end = unsafe {
                    (*work).name(step, piece, own);
                    self.compute_apart(thread, work, run, step, piece, own)
                };
                if end == End::Left {
                    return Some(End::Left);
                }
            }
        }
    }

    /// Waits until so many pieces are done, or until it is time to ask why they are not.
    fn wait(&self, thread: usize, run: u64, through: u64, patience: &mut Patience) -> Waited {
        if self.done() >= through {
            return Waited::Done;
        }
        // What is looked at here belongs to the board, which outlives runs.
        self.go_away(thread, run);
        let waited = loop {
            patience.pause();
            if self.done() >= through {
                break Waited::Done;
            }
            if self.stop.0.load(Ordering::Relaxed) != 0 {
                break Waited::Stopped;
            }
            if patience.asks() {
                break Waited::Long;
            }
        };
        if self.come_back(thread, run) { waited } else { Waited::Left }
    }

    /// From here on a thread, other than the caller of the run, touches nothing of it.
    fn go_away(&self, thread: usize, run: u64) {
        if thread != CALLER {
            self.presences[thread].0.store(presence(run, Presence::Away), Ordering::Release);
        }
    }

    /// Whether the thread is inside again, or was left behind.
    fn come_back(&self, thread: usize, run: u64) -> bool {
        if thread == CALLER {
            return true; // it ends the run itself
        }
        let (inside, away) = (presence(run, Presence::Inside), presence(run, Presence::Away));
        let counter = &self.presences[thread].0;
        let is_back = counter.compare_exchange(away, inside, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if !is_back {
            late::end();
        }
        is_back
    }

    /// Computes the piece that was named, and puts it in place if nobody else has.
    ///
    /// # Safety
    /// As [`Self::take_part`]; what the step takes was copied.
    unsafe fn compute_apart<W: Work>(
        &self,
        thread: usize,
        work: *const W,
        run: u64,
        step: usize,
        piece: usize,
        own: &mut W::Own,
    ) -> End {
        self.go_away(thread, run);
        let computed = catch_unwind(AssertUnwindSafe(|| W::compute(own)));
        if !self.come_back(thread, run) {
            return End::Left;
        }
        if let Err(panic) = computed {
            resume_unwind(panic);
        }
        let [taken, placed] = [Progress::Taken, Progress::Placed].map(|progress| mark(run, step, progress));
        if self.marks[piece].compare_exchange(taken, placed, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // SAFETY: the thread is inside; of all who computed the piece one comes here, and all steps before are complete.
            unsafe { (*work).finish(step, piece, own) };
            self.count(thread);
        }
        End::Inside
    }

    /// A piece of the step that nobody has taken: the front of one's own share, else the tail of another's.
    fn take(&self, thread: usize, step: usize, pieces: usize) -> Option<usize> {
        let threads = self.shares.len();
        let share = |owner: usize| (owner * pieces / threads, (owner + 1) * pieces / threads);
        let own = self.take_from(thread, step, share(thread), Side::Front);
        own.or_else(|| {
            let others = (1..threads).map(|i| (thread + i) % threads);
            others.into_iter().find_map(|owner| self.take_from(owner, step, share(owner), Side::Back))
        })
    }

    fn take_from(&self, owner: usize, step: usize, whole: (usize, usize), end: Side) -> Option<usize> {
        let counter = &self.shares[owner].0;
        // The order of memory is kept by the counts; here only who takes what is decided.
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
                Side::Front => (front, (front + 1, back)),
                Side::Back => (back - 1, (front, back - 1)),
            };
            let next = pack(step + 1, rest);
            match counter.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(piece),
                Err(now) => word = now,
            }
        }
    }
}

enum Side {
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

/// The thread that called for the run.
const CALLER: usize = 0;

fn presence(run: u64, presence: Presence) -> u64 {
    run << 2 | presence as u64
}

/// How far a piece is that is computed apart.
#[derive(Clone, Copy)]
enum Progress {
    Taken = 1,
    Placed = 2,
}

fn mark(run: u64, step: usize, progress: Progress) -> u64 {
    debug_assert!(step <= MAX_STEPS && run < 1 << 42);
    run << 22 | (step as u64) << 2 | progress as u64
}

/// Pieces that a step may have whose pieces are computed apart.
const MARKS: usize = 8192;

/// Waiting that starts with pauses of the processor and then lets other processes run: the machine may have more to
/// do than we know.
#[derive(Default)]
pub(crate) struct Patience(u32);

impl Patience {
    pub(crate) fn pause(&mut self) {
        self.0 = self.0.saturating_add(1);
        if self.0 < PAUSES_BEFORE_YIELD {
            std::hint::spin_loop();
        } else {
            yield_now();
        }
    }

    /// It is time to ask what there is to wait for: after some 25 microseconds, several times what a piece takes.
    fn asks(&self) -> bool {
        self.0 >= PAUSES_BEFORE_YIELD || self.0 % PAUSES_BEFORE_ASKING == PAUSES_BEFORE_ASKING - 1
    }
}

/// Some 50 to 100 microseconds; none where orders matter and time does not.
const PAUSES_BEFORE_YIELD: u32 = if cfg!(antiphon_loom) { 0 } else { 2000 };
const PAUSES_BEFORE_ASKING: u32 = 700;

#[cfg(all(test, antiphon_loom))]
mod interleavings;

#[cfg(all(test, not(antiphon_loom)))]
mod tests;
