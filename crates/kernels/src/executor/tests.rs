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

/// Steps whose pieces are computed apart: each adds one to what its piece was after the step before.
struct Additions {
    steps: usize,
    values: Vec<AtomicU64>,
    /// The thread that is late with a piece of the second step.
    late: usize,
    is_late: AtomicBool,
    may_go_on: AtomicBool,
}

struct Own<'a> {
    work: &'a Additions,
    thread: usize,
    step: usize,
    values: Vec<u64>,
    sum: u64,
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
}

impl<'a> Work for &'a Additions {
    type Own = Own<'a>;

    fn number(&self) -> u64 {
        1
    }

    fn steps(&self) -> usize {
        self.steps
    }

    fn through(&self, step: usize) -> u64 {
        ((step + 1) * self.values.len()) as u64
    }

    fn is_interrupted_before(&self, _step: usize) -> bool {
        false
    }

    unsafe fn run(&self, _step: usize, _piece: usize) {
        unreachable!("all steps are computed apart")
    }

    fn is_apart(&self, _step: usize) -> bool {
        true
    }

    unsafe fn copy(&self, step: usize, own: &mut Own<'a>) {
        own.step = step;
        own.values = self.values.iter().map(|value| value.load(Ordering::Relaxed)).collect();
    }

    fn name(&self, _step: usize, piece: usize, own: &mut Own<'a>) {
        own.sum = own.values[piece] + 1;
    }

    fn ask_places(&self, _step: usize, _piece: usize) {}

    fn compute(own: &mut Own<'a>) {
        if own.step == 1 && own.thread == own.work.late {
            own.work.is_late.store(true, Ordering::Release);
            wait_for(&own.work.may_go_on);
        } else if own.step == 1 {
            wait_for(&own.work.is_late); // so that it has a piece
        }
    }

    unsafe fn finish(&self, _step: usize, piece: usize, own: &Own<'a>) {
        self.values[piece].store(own.sum, Ordering::Relaxed);
    }
}

#[test]
fn a_run_ends_without_a_thread_that_is_late_and_each_piece_counts_once() {
    let (threads, pieces, steps) = (3, 7, 20);
    for late in 1..threads {
        let board = Board::new(threads);
        let work = &Additions {
            steps,
            values: (0..pieces).map(|_| AtomicU64::new(0)).collect(),
            late,
            is_late: AtomicBool::new(false),
            may_go_on: AtomicBool::new(false),
        };
        let walk = |thread| {
            let mut own = Own { work, thread, step: 0, values: Vec::new(), sum: 0 };
            // SAFETY: each thread is inside, and the work outlives them all.
            unsafe { board.walk(thread, &raw const work, &mut own) }
        };
        (1..threads).for_each(|thread| board.arrive(thread, 1));
        let (left, ends) = std::thread::scope(|scope| {
            let walk = &walk;
            let others: Vec<_> = (1..threads).map(|thread| scope.spawn(move || walk(thread))).collect();
            walk(0);
            let left = board.leave_behind(1);
            work.may_go_on.store(true, Ordering::Release);
            let ends = others.into_iter().map(|other| other.join().expect("no thread panics"));
            (left, ends.collect::<Vec<End>>())
        });
        assert_eq!(board.done(), (steps * pieces) as u64);
        assert_eq!(ends[late - 1], End::Left);
        // Another one may have been about to help.
        assert_eq!(ends.iter().filter(|end| **end == End::Left).count() as u64, left);
        assert!(work.values.iter().all(|value| value.load(Ordering::Relaxed) == steps as u64));
    }
    assert!(late::all_done());
}
