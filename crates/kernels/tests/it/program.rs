//! Recording: buffers, views, and mistakes that are caught before anything runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicBool;

use antiphon_kernels::{Arena, Isa, KvRow, KvStore, Matrix, Pool, Program, RopeStyle, RopeTable, Value};
use proptest::prelude::*;

use crate::support::{Random, all_rows, assert_same_bits, pools, q8, run, run_everywhere, table};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Values live exactly as long as something reads them, so a random program over one arena must give what the
    /// same operations give on vectors of their own.
    #[test]
    fn no_value_is_overwritten_while_it_is_needed(seed in any::<u64>(), count in 1usize..60, threads in 1usize..4) {
        let mut random = Random::new(seed);
        let (rows, width) = (1 + random.below(20), 1 + random.below(60));
        let x = random.floats(rows * width);
        let (inputs, ids) = (table(&x, width), all_rows(rows));
        let reversed: Vec<u32> = ids.iter().rev().copied().collect();
        let mut program = Program::new();
        let mut values = vec![(program.embed(&inputs, &ids), x.clone())];
        let mut kept = Vec::new();
        for _ in 0..count {
            let (a, a_rows) = values[random.below(values.len())].clone();
            let (b, b_rows) = values[random.below(values.len())].clone();
            let new: (Value, Vec<f32>) = match random.below(3) {
                0 => (program.add(a, b), a_rows.iter().zip(&b_rows).map(|(a, b)| a + b).collect()),
                1 => (program.add_row(a, &x[..width]), a_rows.iter().enumerate().map(|(i, a)| a + x[i % width]).collect()),
                _ => (program.select(a, &reversed), a_rows.chunks(width).rev().flatten().copied().collect()),
            };
            if random.below(4) == 0 {
                kept.push((program.keep(new.0), new.1.clone()));
            }
            values.push(new);
        }
        let mut arena = Arena::new();
        let mut pool = Pool::new(threads, Isa::detect()).expect("a pool");
        pool.run(&program, &mut arena, None, &AtomicBool::new(false)).expect("nobody interrupts");
        for (value, expected) in kept {
            let read = arena.read(value);
            let read: Vec<f32> = (0..rows).flat_map(|row| read.row(row).to_vec()).collect();
            assert_same_bits(&read, &expected, "kept value");
        }
    }
}

#[test]
fn buffers_of_dead_values_are_used_again() {
    let inputs = table(&vec![1.0; 100 * 64], 64);
    let ids = all_rows(100);
    let row = vec![1.0; 64];
    let mut program = Program::new();
    let mut x = program.embed(&inputs, &ids);
    for _ in 0..50 {
        x = program.add_row(x, &row);
    }
    program.keep(x);
    let mut arena = Arena::new();
    let mut pool = Pool::new(2, Isa::detect()).expect("a pool");
    pool.run(&program, &mut arena, None, &AtomicBool::new(false)).expect("nobody interrupts");
    assert_eq!(arena.bytes(), 2 * 100 * 64 * 4);
    assert_eq!(arena.read(x).row(99), vec![51.0; 64]);
}

#[test]
fn a_column_view_of_a_kept_value_can_be_read() {
    let x: Vec<f32> = (0..60).map(|i| i as f32).collect();
    let (inputs, ids) = (table(&x, 20), all_rows(3));
    let y = run_everywhere(|p| p.embed(&inputs, &ids).columns(7..12).columns(1..3));
    assert_eq!(y, [8.0, 9.0, 28.0, 29.0, 48.0, 49.0]);
}

#[test]
fn one_value_read_by_f32_and_q8_matrices_and_as_columns_serves_all() {
    let mut random = Random::new(40);
    let (rows, k) = (9, 64);
    let x = random.floats(rows * k);
    let (inputs, ids) = (table(&x, k), all_rows(rows));
    let matrix = |random: &mut Random, n, k| q8(&[&random.q8_0(n, k)], k);
    let (a, b) = (matrix(&mut random, 40, 64), matrix(&mut random, 40, 64));
    let narrow = matrix(&mut random, 40, 32);
    let plain = Matrix::f32(&[&random.floats(40 * 64)], 64).expect("whole rows");
    let one = |m, columns: std::ops::Range<usize>| {
        run_everywhere(|p| {
            let x = p.embed(&inputs, &ids);
            p.linear(x.columns(columns.clone()), m, None)
        })
    };
    let parts =
        [one(&a, 0..64), one(&b, 0..64), one(&narrow, 32..64), one(&narrow, 0..32), one(&plain, 0..64)];
    let all = run_everywhere(|p| {
        let x = p.embed(&inputs, &ids);
        let ya = p.linear(x, &a, None);
        let yb = p.linear_add(x, &b, None, ya);
        let yc = p.linear_add(x.columns(32..64), &narrow, None, yb);
        let yd = p.linear_add(x.columns(0..32), &narrow, None, yc);
        p.linear_add(x, &plain, None, yd)
    });
    let sum = |i: usize| parts[1..].iter().fold(parts[0][i], |sum, part| part[i] + sum);
    assert_same_bits(&all, &(0..rows * 40).map(sum).collect::<Vec<_>>(), "sum of all");
}

/// Norms, attentions and products write int8 beside their f32 where they can (heads of 32 or 64, not of 20).
#[test]
fn steps_that_quantize_their_own_rows_give_what_a_step_of_its_own_gives() {
    let mut random = Random::new(41);
    for (heads, head_dim) in [(2, 32), (1, 64), (8, 20)] {
        let (rows, width) = (21, heads * head_dim);
        let x = random.floats(rows * 3 * width);
        let (inputs, ids) = (table(&x, 3 * width), all_rows(rows));
        let matrix = q8(&[&random.q8_0(50, width)], width);
        let weight = random.floats(width);
        let spans = [0..5, 5..21];
        let rope = RopeTable::new(head_dim, 32, 10_000.0, None, RopeStyle::Halves);
        let blocks = [1, 0];
        let kv_rows: Vec<KvRow<'_>> =
            ids.iter().map(|&position| KvRow { table: &blocks, position }).collect();
        for kind in 0..3 {
            let mut expected: Option<Vec<f32>> = None;
            for pool in &mut pools() {
                let mut store = KvStore::new(1, heads, head_dim, 2).expect("small");
                let mut program = Program::new();
                let x = program.embed(&inputs, &ids);
                let [q, k, v] = [0, 1, 2].map(|i| x.columns(i * width..(i + 1) * width));
                let hidden = match kind {
                    0 => program.rms_norm(q, &weight, 1e-5),
                    1 => program.attend(q, k, v, heads, &spans),
                    _ => {
                        let q = program.store_cached(q, k, v, heads, heads, 0, &rope, &kv_rows);
                        program.attend_cached(q, heads, heads, 0, &kv_rows)
                    }
                };
                let y = program.linear(hidden, &matrix, None);
                let (hidden, y) = (program.keep(hidden), program.keep(y));
                let mut arena = Arena::new();
                pool.run(&program, &mut arena, Some(&mut store), &AtomicBool::new(false))
                    .expect("no interrupt");
                let values =
                    |v| (0..rows).flat_map(|row| arena.read(v).row(row).to_vec()).collect::<Vec<f32>>();
                let expected = expected.get_or_insert_with(|| {
                    let hidden = table(&values(hidden), width);
                    run(|p| {
                        let hidden = p.embed(&hidden, &ids);
                        p.linear(hidden, &matrix, None)
                    })
                });
                assert_same_bits(&values(y), expected, &format!("kind {kind}, heads of {head_dim}"));
            }
        }
    }
}

#[test]
fn an_empty_program_runs() {
    let mut pool = Pool::new(2, Isa::detect()).expect("a pool");
    pool.run(&Program::new(), &mut Arena::new(), None, &AtomicBool::new(false))
        .expect("nothing to interrupt");
}

fn ignore(_: Value) {}

fn panics(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn mistakes_are_caught_while_recording() {
    let small: &'static Matrix = Box::leak(Box::new(table(&[0.0; 12], 4)));
    let wide = table(&[0.0; 24], 8);
    let rope = RopeTable::new(4, 32, 10_000.0, None, RopeStyle::Pairs);
    let blocks = [0, 1];
    let past_rope = [KvRow { table: &blocks, position: 32 }; 3];
    let past_table = [KvRow { table: &blocks[..1], position: 16 }; 3];
    let few = [KvRow { table: &blocks, position: 0 }; 2];
    type Mistake = Box<dyn Fn(&mut Program<'static>, Value)>;
    let mistakes: Vec<(&str, Mistake)> = vec![
        ("id", Box::new(|p, _| ignore(p.embed(small, &[3])))),
        ("no ids", Box::new(|p, _| ignore(p.embed(small, &[])))),
        ("shape", Box::new(|p, x| ignore(p.add(x, x.columns(0..2))))),
        ("row", Box::new(|p, x| ignore(p.add_row(x, &[0.0; 3])))),
        ("inputs", Box::new(|p, x| ignore(p.linear(x, Box::leak(Box::new(table(&[0.0; 24], 8))), None)))),
        ("columns", Box::new(|_, x| ignore(x.columns(2..5)))),
        ("no columns", Box::new(|_, x| ignore(x.columns(2..2)))),
        ("select", Box::new(|p, x| ignore(p.select(x, &[3])))),
        ("weight", Box::new(|p, x| ignore(p.rms_norm(x, &[0.0; 5], 0.0)))),
        ("heads", Box::new(|p, x| ignore(p.attend(x, x, x, 3, &[])))),
        ("gap", Box::new(|p, x| ignore(p.attend(x, x, x, 1, &[0..1, 2..3])))),
        ("short", Box::new(|p, x| ignore(p.attend(x, x, x, 1, &[0..1, 1..2])))),
        ("empty mean", Box::new(|p, x| ignore(p.mean(x, &[0..1, 1..1])))),
    ];
    let ids: &'static [u32] = &[0, 1, 2];
    for (name, mistake) in &mistakes {
        let mut program = Program::new();
        let x = program.embed(small, ids);
        assert!(panics(|| mistake(&mut program, x)), "{name}");
    }
    for (name, rows) in [("rope", &past_rope[..]), ("table", &past_table), ("rows", &few)] {
        let mut program = Program::new();
        let x = program.embed(small, ids);
        assert!(panics(|| ignore(program.store_cached(x, x, x, 1, 1, 0, &rope, rows))), "{name}");
    }
    for (name, rows) in [("table", &past_table[..]), ("rows", &few)] {
        let mut program = Program::new();
        let x = program.embed(small, ids);
        assert!(panics(|| ignore(program.attend_cached(x, 1, 1, 0, rows))), "{name} of what is stored");
    }
    let mut program = Program::new();
    let foreign = Program::new().embed(&wide, ids);
    program.embed(small, ids);
    assert!(panics(|| ignore(program.add_row(foreign, &[0.0; 8]))), "a value of another program");
}

#[test]
fn a_store_that_does_not_fit_is_caught_before_the_run() {
    let inputs = table(&[0.0; 12], 4);
    let rope = RopeTable::new(4, 32, 10_000.0, None, RopeStyle::Pairs);
    let blocks = [0, 1];
    let good = [KvRow { table: &blocks, position: 0 }, KvRow { table: &blocks, position: 1 }];
    let twice = [good[0], good[0]];
    let unknown = [good[0], KvRow { table: &[7], position: 3 }];
    let attempt = |layer: usize, rows: &[KvRow<'_>], store: Option<&mut KvStore>| {
        let ids = all_rows(2);
        let mut program = Program::new();
        let x = program.embed(&inputs, &ids);
        program.store_cached(x, x, x, 1, 1, layer, &rope, rows);
        let mut pool = Pool::new(2, Isa::detect()).expect("a pool");
        panics(|| {
            let _ = pool.run(&program, &mut Arena::new(), store, &AtomicBool::new(false));
        })
    };
    let store = |layers, heads, dim, blocks| KvStore::new(layers, heads, dim, blocks).expect("small");
    assert!(!attempt(0, &good, Some(&mut store(1, 1, 4, 2))));
    assert!(attempt(0, &good, None), "no store");
    assert!(attempt(1, &good, Some(&mut store(1, 1, 4, 2))), "layer");
    assert!(attempt(0, &good, Some(&mut store(1, 2, 4, 2))), "heads");
    assert!(attempt(0, &good, Some(&mut store(1, 1, 8, 2))), "head_dim");
    assert!(attempt(0, &good, Some(&mut store(1, 1, 4, 0))), "blocks");
    assert!(attempt(0, &twice, Some(&mut store(1, 1, 4, 2))), "the same position twice");
    assert!(attempt(0, &unknown, Some(&mut store(1, 1, 4, 2))), "unknown block");
}
