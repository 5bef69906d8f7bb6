//! A run of two threads for loom: every order in which both compute, are late, compute again, put in place and go home, with at
//! most two switches where no thread had to wait. loom sees each access to a buffer, and fails where two could meet.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use loom::cell::UnsafeCell;
use loom::thread;

use super::{AtomicU64, Board, End, Work};
use crate::sync::yield_now;

/// Two steps, each over two buffers in turns: what a piece has is one more than what its piece had before.
struct Additions {
    apart: bool,
    buffers: [[UnsafeCell<u64>; PIECES]; 2],
}

const STEPS: usize = 2;
const PIECES: usize = 2;

// SAFETY: whether threads meet in a buffer is what the model is about.
unsafe impl Sync for Additions {}
// SAFETY: numbers.
unsafe impl Send for Additions {}

#[derive(Default)]
struct Own {
    copy: [u64; PIECES],
    sum: u64,
}

impl Additions {
    fn read(&self, step: usize, piece: usize) -> u64 {
        // SAFETY: loom checks the access.
        self.buffers[step % 2][piece].with(|value| unsafe { *value })
    }

    fn write(&self, step: usize, piece: usize, sum: u64) {
        // SAFETY: loom checks the access.
        self.buffers[(step + 1) % 2][piece].with_mut(|value| unsafe { *value = sum });
    }
}

impl Work for Additions {
    type Own = Own;

    fn number(&self) -> u64 {
        1
    }

    fn steps(&self) -> usize {
        STEPS
    }

    fn through(&self, step: usize) -> u64 {
        ((step + 1) * PIECES) as u64
    }

    fn is_interrupted_before(&self, _step: usize) -> bool {
        false
    }

    unsafe fn run(&self, step: usize, piece: usize) {
        self.write(step, piece, self.read(step, piece) + 1);
    }

    fn is_apart(&self, _step: usize) -> bool {
        self.apart
    }

    unsafe fn copy(&self, step: usize, own: &mut Own) {
        own.copy = std::array::from_fn(|piece| self.read(step, piece));
    }

    fn name(&self, _step: usize, piece: usize, own: &mut Own) {
        own.sum = own.copy[piece];
    }

    fn ask_places(&self, _step: usize, _piece: usize) {}

    fn compute(own: &mut Own) {
        own.sum += 1;
    }

    unsafe fn finish(&self, step: usize, piece: usize, own: &Own) {
        self.write(step, piece, own.sum);
    }
}

fn in_every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(model);
}

/// The caller runs the work with one more thread, ends the run as a pool does, and then uses the buffers for something else.
fn run_of_two(apart: bool) {
    let work = Arc::new(Additions { apart, buffers: Default::default() });
    let board = Arc::new(Board::with_marks(2, PIECES));
    let inside = Arc::new(AtomicU64::new(1));
    board.arrive(1, 1);
    let other = {
        let (work, board, inside) = (Arc::clone(&work), Arc::clone(&board), Arc::clone(&inside));
        thread::spawn(move || {
            // SAFETY: the thread arrived before it began, and the work outlives it.
            if unsafe { board.walk(1, Arc::as_ptr(&work), &mut Own::default()) } == End::Inside {
                inside.fetch_sub(1, Ordering::Release);
            }
        })
    };
    // SAFETY: the caller is inside, and owns the work.
    unsafe { board.walk(0, Arc::as_ptr(&work), &mut Own::default()) };
    loop {
        let left = board.leave_behind(1);
        if left > 0 {
            inside.fetch_sub(left, Ordering::Release);
        }
        if inside.load(Ordering::Acquire) == 0 {
            break;
        }
        yield_now();
    }
    for piece in 0..PIECES {
        assert_eq!(work.read(STEPS, piece), STEPS as u64);
        work.write(0, piece, 0);
        work.write(1, piece, 0);
    }
    other.join().expect("it does not panic");
}

#[test]
fn steps_of_pieces_that_are_computed_once() {
    in_every_order(|| run_of_two(false));
}

#[test]
fn steps_of_pieces_that_may_be_computed_twice() {
    in_every_order(|| run_of_two(true));
}
