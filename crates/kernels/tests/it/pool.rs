//! Threads: many runs, interrupts, panics, ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use antiphon_kernels::{Arena, Interrupted, Isa, Matrix, Pool, Program, Value};

use crate::support::{Random, all_rows, assert_same_bits, q8, run_on, table};

fn long_program<'a>(
    inputs: &'a Matrix,
    ids: &'a [u32],
    row: &'a [f32],
    steps: usize,
) -> (Program<'a>, Value) {
    let mut program = Program::new();
    let mut x = program.embed(inputs, ids);
    for _ in 0..steps {
        program.checkpoint();
        x = program.add_row(x, row);
    }
    let x = program.keep(x);
    (program, x)
}

#[test]
fn ten_thousand_small_runs_give_the_same() {
    let mut random = Random::new(50);
    let (rows, k, n) = (3, 64, 96);
    let inputs = table(&random.floats(rows * k), k);
    let ids = all_rows(rows);
    let matrix = q8(&[&random.q8_0(n, k)], k);
    let mut program = Program::new();
    let x = program.embed(&inputs, &ids);
    let y = program.linear(x, &matrix, None);
    program.keep(y);
    for threads in [2, 3] {
        let mut pool = Pool::new(threads, Isa::detect()).expect("a pool");
        let mut arena = Arena::new();
        let mut expected = None;
        for _ in 0..10_000 {
            pool.run(&program, &mut arena, None, &AtomicBool::new(false)).expect("nobody interrupts");
            let rows: Vec<f32> = (0..rows).flat_map(|row| arena.read(y).row(row).to_vec()).collect();
            let expected = expected.get_or_insert_with(|| rows.clone());
            assert_same_bits(&rows, expected, "a later run");
        }
    }
}

#[test]
fn runs_after_a_sleep_find_the_workers() {
    let inputs = table(&vec![1.0; 64 * 64], 64);
    let (ids, row) = (all_rows(64), vec![1.0; 64]);
    let (program, x) = long_program(&inputs, &ids, &row, 100);
    let mut pool = Pool::new(3, Isa::detect()).expect("a pool");
    let mut arena = Arena::new();
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(2));
        pool.run(&program, &mut arena, None, &AtomicBool::new(false)).expect("nobody interrupts");
        assert_eq!(arena.read(x).row(63), vec![101.0; 64]);
    }
}

#[test]
fn pools_end_while_idle_while_asleep_and_right_after_a_run() {
    let inputs = table(&[1.0; 64], 4);
    let (ids, row) = (all_rows(16), [1.0; 4]);
    let (program, _) = long_program(&inputs, &ids, &row, 3);
    for i in 0..50 {
        let mut pool = Pool::new(1 + i % 5, Isa::detect()).expect("a pool");
        if i % 3 == 0 {
            std::thread::sleep(Duration::from_micros(300));
        }
        if i % 2 == 0 {
            pool.run(&program, &mut Arena::new(), None, &AtomicBool::new(false)).expect("nobody interrupts");
        }
    }
}

#[test]
fn an_interrupt_is_honoured_at_a_checkpoint() {
    let inputs = table(&[1.0; 64], 4);
    let (ids, row) = (all_rows(16), [1.0; 4]);
    let (program, x) = long_program(&inputs, &ids, &row, 10);
    for threads in [1, 2, 3] {
        let mut pool = Pool::new(threads, Isa::detect()).expect("a pool");
        let mut arena = Arena::new();
        let interrupt = AtomicBool::new(true);
        assert_eq!(pool.run(&program, &mut arena, None, &interrupt), Err(Interrupted));
        interrupt.store(false, Ordering::Relaxed);
        pool.run(&program, &mut arena, None, &interrupt).expect("nobody interrupts any more");
        assert_eq!(arena.read(x).row(15), [11.0; 4]);
        let mut unchecked = Program::new();
        let y = unchecked.embed(&inputs, &ids);
        unchecked.keep(y);
        interrupt.store(true, Ordering::Relaxed);
        pool.run(&unchecked, &mut arena, None, &interrupt)
            .expect("a program without checkpoints runs to its end");
    }
}

#[test]
fn an_interrupt_from_another_thread_ends_a_long_run_soon() {
    let inputs = table(&vec![1.0; 512 * 512], 512);
    let (ids, row) = (all_rows(512), vec![1.0; 512]);
    let (program, _) = long_program(&inputs, &ids, &row, 100_000);
    let mut pool = Pool::new(2, Isa::detect()).expect("a pool");
    let interrupt = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            interrupt.store(true, Ordering::Relaxed);
        });
        let start = Instant::now();
        assert_eq!(pool.run(&program, &mut Arena::new(), None, &interrupt), Err(Interrupted));
        assert!(start.elapsed() < Duration::from_secs(30), "ended after {:?}", start.elapsed());
    });
}

#[test]
fn more_threads_than_pieces_and_more_pools_than_cpus_do_no_harm() {
    let mut random = Random::new(51);
    let (rows, k, n) = (1, 32, 33);
    let x = random.floats(rows * k);
    let (inputs, ids) = (table(&x, k), all_rows(rows));
    let matrix = q8(&[&random.q8_0(n, k)], k);
    let (inputs, ids, matrix) = (&inputs, &ids[..], &matrix);
    let run = |threads| {
        let mut pool = Pool::new(threads, Isa::detect()).expect("a pool");
        run_on(&mut pool, None, move |p| {
            let x = p.embed(inputs, ids);
            p.linear(x, matrix, None)
        })
    };
    let expected = run(1);
    std::thread::scope(|scope| {
        for threads in [2, 4, 9, 17] {
            let (run, expected) = (&run, &expected);
            scope.spawn(move || (0..20).for_each(|_| assert_same_bits(&run(threads), expected, "crowded")));
        }
    });
}

#[test]
fn what_cannot_be_started_is_an_error() {
    let error = Pool::new(0, Isa::detect()).expect_err("no threads");
    assert_eq!(error.to_string(), "a pool has at least 1 thread, not 0");
    for isa in Isa::ALL {
        assert_eq!(Pool::new(1, isa).is_ok(), Isa::available().contains(&isa));
    }
}

#[cfg(target_os = "linux")]
#[test]
fn workers_are_named_and_gone_after_the_drop() {
    fn names() -> Vec<String> {
        let tasks = std::fs::read_dir("/proc/self/task").expect("linux").flatten();
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok()).collect()
    }
    // Eleven threads: no other test starts a worker with the number 10 or more but the crowded one, up to 16.
    let pool = Pool::new(41, Isa::detect()).expect("a pool");
    let deadline = Instant::now() + Duration::from_secs(5);
    while !names().iter().any(|name| name.trim() == "antiphon-40") {
        assert!(Instant::now() < deadline, "the last worker has its name");
    }
    drop(pool);
    assert!(!names().iter().any(|name| name.trim() == "antiphon-40"));
}
