//! How close the kernels come to what the machine can do: reading weights beside a plain read loop, multiplying
//! in operations a second, and what a step costs.
//!
//! `cargo bench -p antiphon-benches --bench roofline [-- THREADS]`

#![allow(clippy::print_stdout, reason = "the figures are the result")]

use std::sync::atomic::AtomicBool;
use std::time::Instant;

use antiphon_benches::roof;
use antiphon_kernels::{
    Arena, Format, Isa, KvRow, KvStore, Matrix, Pool, Program, RopeStyle, RopeTable, available_threads,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Cargo adds `--bench`.
    let threads = match std::env::args().skip(1).find(|argument| !argument.starts_with('-')) {
        Some(threads) => threads.parse()?,
        None => available_threads(),
    };
    for isa in Isa::available() {
        let mut bench = Bench { pool: Pool::new(threads, isa)?, arena: Arena::new() };
        println!("{} with {threads} threads", isa.name());
        bench.step()?;
        if isa != Isa::Portable {
            for (n, k) in [(1536, 576), (4864, 896), (576, 1536)] {
                bench.gemv(Format::Q8_0, n, k)?;
            }
            for format in PACKED {
                bench.gemv(format, 2048, 2048)?;
            }
        }
        for (n, k) in [(1536, 576), (4864, 896)] {
            for rows in [2, 5, 8, 32, 128] {
                bench.gemm(Format::Q8_0, n, k, rows)?;
            }
        }
        for format in PACKED {
            for rows in [8, 128] {
                bench.gemm(format, 2048, 2048, rows)?;
            }
        }
        bench.attention(1, 1000)?;
        bench.attention(256, 0)?;
    }
    Ok(())
}

const PACKED: [Format; 8] = [
    Format::Q8_0,
    Format::Q4_0,
    Format::Q5_0,
    Format::Q4_K,
    Format::Q5_K,
    Format::Q6_K,
    Format::F16,
    Format::BF16,
];

struct Bench {
    pool: Pool,
    arena: Arena,
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

impl Bench {
    /// The cost of a step that does next to nothing.
    fn step(&mut self) -> Outcome {
        let (inputs, row) = (Matrix::f32(&[&[1.0; 64]], 16)?, [1.0; 16]);
        let mut program = Program::new();
        let mut x = program.embed(&inputs, &[0, 1, 2, 3]);
        for _ in 0..1000 {
            x = program.add_row(x, &row);
        }
        let seconds = self.fastest(&program, None)?;
        println!("  step of two small pieces    {:8.2} us", seconds * 1e3);
        Ok(())
    }

    /// One row by many matrices, 150 MiB together, beside reading as many bytes.
    fn gemv(&mut self, format: Format, n: usize, k: usize) -> Outcome {
        let matrices = matrices(format, n, k, 150 << 20)?;
        let bytes: usize = matrices.iter().map(Matrix::bytes).sum();
        let inputs = Matrix::f32(&[&vec![0.5; k]], k)?;
        let mut program = Program::new();
        let x = program.embed(&inputs, &[0]);
        for matrix in &matrices {
            program.linear(x, matrix, None);
        }
        // In turns, so that whatever else the machine does falls on both.
        let (mut multiplied, mut read) = (f64::MAX, f64::MAX);
        for _ in 0..3 {
            multiplied = multiplied.min(self.fastest(&program, None)?);
            read = read.min(bytes as f64 / roof::read(bytes, self.pool.threads()));
        }
        println!(
            "  gemv {format:4?} {n:5} x {k:5}          {:8.1} GB/s   read loop {:6.1} GB/s   {:4.0} %",
            bytes as f64 / multiplied / 1e9,
            bytes as f64 / read / 1e9,
            100.0 * read / multiplied
        );
        Ok(())
    }

    /// Many rows by matrices of 16 MiB together.
    fn gemm(&mut self, format: Format, n: usize, k: usize, rows: usize) -> Outcome {
        let matrices = matrices(format, n, k, 16 << 20)?;
        let inputs = Matrix::f32(&[&vec![0.5; k]], k)?;
        let ids = vec![0; rows];
        let mut program = Program::new();
        let x = program.embed(&inputs, &ids);
        for matrix in &matrices {
            program.linear(x, matrix, None);
        }
        let seconds = self.fastest(&program, None)?;
        let operations = 2.0 * (rows * n * k * matrices.len()) as f64;
        // Of 8-bit products by the widest instructions, whichever are used here.
        let roof = roof::multiply(self.pool.threads());
        let share = roof.map(|roof| format!("   {:4.0} % of the peak", 100.0 * operations / seconds / roof));
        println!(
            "  gemm {format:4?} {n:5} x {k:5}, {rows:3} rows {:7.0} GOP/s{}",
            operations / seconds / 1e9,
            share.unwrap_or_default()
        );
        Ok(())
    }

    /// 9 heads of 64 that share 3 key/value heads, over a history.
    fn attention(&mut self, rows: usize, history: usize) -> Outcome {
        let (heads, kv_heads, head_dim, layers) = (9, 3, 64, 30);
        let table: Vec<u32> = (0..((rows + history).div_ceil(16) as u32)).collect();
        let mut store = KvStore::new(layers, kv_heads, head_dim, table.len())?;
        let rope = RopeTable::new(head_dim, rows + history, 1e4, None, RopeStyle::Halves);
        let kv_rows: Vec<KvRow<'_>> =
            (0..rows).map(|row| KvRow { table: &table, position: (history + row) as u32 }).collect();
        let width = (heads + 2 * kv_heads) * head_dim;
        let inputs = Matrix::f32(&[&vec![0.5; width]], width)?;
        let ids = vec![0; rows];
        let mut program = Program::new();
        let qkv = program.embed(&inputs, &ids);
        let (q, kv) = (heads * head_dim, kv_heads * head_dim);
        for layer in 0..layers {
            let (q, k, v) = (qkv.columns(0..q), qkv.columns(q..q + kv), qkv.columns(q + kv..q + 2 * kv));
            let q = program.store_cached(q, k, v, heads, kv_heads, layer, &rope, &kv_rows);
            program.attend_cached(q, heads, kv_heads, layer, &kv_rows);
        }
        let seconds = self.fastest(&program, Some(&mut store))?;
        println!(
            "  attention, {rows:3} rows after {history:4} {:8.1} us a layer",
            seconds * 1e6 / layers as f64
        );
        Ok(())
    }

    fn fastest(
        &mut self,
        program: &Program<'_>,
        mut kv: Option<&mut KvStore>,
    ) -> Result<f64, Box<dyn std::error::Error>> {
        let mut seconds = f64::MAX; // whatever else the machine does only adds to it
        for _ in 0..9 {
            let start = Instant::now();
            self.pool.run(program, &mut self.arena, kv.as_deref_mut(), &AtomicBool::new(false))?;
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        Ok(seconds)
    }
}

/// As many matrices as so many bytes hold.
fn matrices(
    format: Format,
    n: usize,
    k: usize,
    bytes: usize,
) -> Result<Vec<Matrix>, Box<dyn std::error::Error>> {
    let (inputs, block_bytes) = format.block();
    let file = vec![0x2c; n * k / inputs * block_bytes]; // a scale of 1/15, weights of all kinds
    let count = bytes / file.len();
    Ok((0..count).map(|_| Matrix::new(&[(format, &file)], k)).collect::<Result<_, _>>()?)
}
