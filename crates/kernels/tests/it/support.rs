//! Random numbers, random weights, and running one program on every path with every number of threads.

use std::sync::atomic::AtomicBool;

use antiphon_kernels::{Arena, Format, Isa, KvStore, Matrix, Pool, Program, Value};
use half::f16;

/// A small generator, so that tests are the same on every machine.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }

    pub(crate) fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.next() as usize % n
    }

    /// In -1..1.
    pub(crate) fn float(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }

    /// GGUF Q8_0 blocks of `rows` rows, with weights of the whole range of i8.
    pub(crate) fn q8_0(&mut self, rows: usize, k: usize) -> Vec<u8> {
        let mut blocks = Vec::new();
        for _ in 0..rows * k / 32 {
            blocks.extend(f16::from_f32(self.float() * 0.01).to_le_bytes());
            blocks.extend((0..32).map(|_| self.next() as u8));
        }
        blocks
    }
}

pub(crate) fn pools() -> Vec<Pool> {
    let each = |isa| [1, 2, 3].map(|threads| Pool::new(threads, isa).expect("a pool"));
    Isa::available().into_iter().flat_map(each).collect()
}

/// Runs a program and gives the rows of one of its values, one after the other.
pub(crate) fn run_on<'a>(
    pool: &mut Pool,
    kv: Option<&mut KvStore>,
    record: impl FnOnce(&mut Program<'a>) -> Value,
) -> Vec<f32> {
    let mut program = Program::new();
    let value = record(&mut program);
    program.keep(value);
    let mut arena = Arena::new();
    pool.run(&program, &mut arena, kv, &AtomicBool::new(false)).expect("nobody interrupts");
    let rows = arena.read(value);
    assert_eq!((rows.rows(), rows.width()), (value.rows(), value.width()));
    (0..rows.rows()).flat_map(|row| rows.row(row).to_vec()).collect()
}

/// Runs a program on one thread of the fastest path.
pub(crate) fn run<'a>(record: impl FnOnce(&mut Program<'a>) -> Value) -> Vec<f32> {
    run_on(&mut Pool::new(1, Isa::detect()).expect("a pool"), None, record)
}

/// Runs a program on every path with one, two and three threads; all results must have the same bits.
pub(crate) fn run_everywhere<'a>(record: impl Fn(&mut Program<'a>) -> Value) -> Vec<f32> {
    let expected = run(&record);
    for pool in &mut pools() {
        let name = format!("{}, {} threads", pool.isa().name(), pool.threads());
        assert_same_bits(&run_on(pool, None, &record), &expected, &name);
    }
    expected
}

/// A table whose rows a program can begin with.
pub(crate) fn table(values: &[f32], width: usize) -> Matrix {
    Matrix::f32(&[values], width).expect("whole rows")
}

/// A matrix of Q8_0 blocks.
pub(crate) fn q8(parts: &[&[u8]], k: usize) -> Matrix {
    let parts: Vec<(Format, &[u8])> = parts.iter().map(|&part| (Format::Q8_0, part)).collect();
    Matrix::new(&parts, k).expect("whole rows")
}

pub(crate) fn all_rows(n: usize) -> Vec<u32> {
    (0..n as u32).collect()
}

/// NaNs of any payload count as the same.
pub(crate) fn assert_same_bits(a: &[f32], b: &[f32], name: &str) {
    assert_eq!(a.len(), b.len(), "{name}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan(),
            "{name}: element {i} is {a}, expected {b}"
        );
    }
}

pub(crate) fn assert_close(a: &[f32], b: &[f32], tolerance: f32, name: &str) {
    assert_eq!(a.len(), b.len(), "{name}");
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= tolerance * (1.0 + b.abs()), "{name}: element {i} is {a}, expected {b}");
    }
}
