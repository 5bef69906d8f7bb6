//! Number crunching on the CPU: a worker pool, packed matrices, attention, norms.
//!
//! The crate knows slices and shapes, nothing about models. A caller packs weights once ([`Matrix`]), records
//! what one forward pass computes ([`Program`]) and lets the threads of a [`Pool`] run it together in one
//! [`Arena`] of scratch memory; keys and values of past positions live in a [`KvStore`].
//!
//! Every output element is summed in one fixed order over sixteen virtual lanes, whatever the batch, the number
//! of threads, the chunking of a prompt or the instruction set ([`Isa`]: AVX-512, AVX-VNNI, AVX2, NEON, or plain Rust): equal
//! inputs give equal bits.
//!
//! ```
//! use antiphon_kernels::{Arena, Isa, Matrix, Pool, Program};
//! use std::sync::atomic::AtomicBool;
//!
//! let table = Matrix::f32(&[&[1.0, 2.0, 3.0, 4.0]], 2)?; // two rows of two
//! let swap = Matrix::f32(&[&[0.0, 1.0, 1.0, 0.0]], 2)?;
//! let mut program = Program::new();
//! let x = program.embed(&table, &[1, 0]);
//! let y = program.linear(x, &swap, None);
//! program.keep(y);
//!
//! let mut pool = Pool::new(2, Isa::detect())?;
//! let mut arena = Arena::new();
//! pool.run(&program, &mut arena, None, &AtomicBool::new(false))?;
//! assert_eq!(arena.read(y).row(0), [4.0, 3.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Inside, from the bottom: `simd` (sixteen lanes on each instruction set), `math` (exp, erf), `quant`, `nibbles`, `linear`,
//! `attention`, `rows`, `rope` (kernels, written once over the lanes), `step` (which kernel runs on which piece),
//! `program` and `arena` (recording, placing buffers), `executor` and `pool` (who runs a piece, and when).

#![allow(
    unsafe_code,
    reason = "vector instructions and buffers shared by threads; every use states why it is sound"
)]

mod apart;
mod arena;
mod attention;
mod executor;
mod format;
mod isa;
mod kv;
mod late;
mod linear;
mod math;
mod matrix;
pub mod memory;
mod nibbles;
pub mod ops;
mod plane;
mod pool;
mod program;
mod quant;
mod rope;
mod rows;
mod simd;
mod step;
mod sync;
mod threads;

pub use arena::{Arena, Rows};
pub use format::Format;
pub use isa::Isa;
pub use kv::{KV_BLOCK, KvRow, KvStore, MAX_HEAD_DIM};
pub use matrix::{Matrix, ShapeError};
pub use pool::{Interrupted, Pool};
pub use program::{Program, Value};
pub use rope::{RopeScaling, RopeStyle, RopeTable};
pub use threads::{available_threads, spawn, with_signals_blocked};
