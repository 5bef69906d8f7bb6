//! Operations on whole rows: norms, sums, gathers, means.
//!
//! A kernel does some rows. All of them follow one rule for reductions: sixteen lanes, each adding its elements
//! from left to right, then the tree of `Simd::sum`.

use std::ops::Range;

use crate::isa::Kernel;
use crate::math::silu;
use crate::matrix::Matrix;
use crate::memory::LINE;
use crate::plane::{Plane, QuantPlane};
use crate::quant::{self, BLOCK};
use crate::simd::{LANES, Simd};

/// What is done to each row of an output. V names the inputs: values while recording, planes while running.
#[derive(Clone, Copy)]
pub(crate) enum RowOp<'a, V> {
    Embed {
        table: &'a Matrix,
        ids: &'a [u32],
    },
    Add {
        a: V,
        b: V,
    },
    AddRow {
        a: V,
        row: &'a [f32],
    },
    /// x has gates, then as many factors.
    SiluMul {
        x: V,
    },
    RmsNorm {
        x: V,
        weight: &'a [f32],
        eps: f32,
    },
    LayerNorm {
        x: V,
        weight: &'a [f32],
        bias: &'a [f32],
        eps: f32,
    },
    Select {
        x: V,
        rows: &'a [u32],
    },
    Mean {
        x: V,
        spans: &'a [Range<usize>],
    },
}

impl<'a, V: Copy> RowOp<'a, V> {
    /// The same operation with its inputs named otherwise.
    pub(crate) fn map<W>(self, mut f: impl FnMut(V) -> W) -> RowOp<'a, W> {
        match self {
            RowOp::Embed { table, ids } => RowOp::Embed { table, ids },
            RowOp::Add { a, b } => RowOp::Add { a: f(a), b: f(b) },
            RowOp::AddRow { a, row } => RowOp::AddRow { a: f(a), row },
            RowOp::SiluMul { x } => RowOp::SiluMul { x: f(x) },
            RowOp::RmsNorm { x, weight, eps } => RowOp::RmsNorm { x: f(x), weight, eps },
            RowOp::LayerNorm { x, weight, bias, eps } => RowOp::LayerNorm { x: f(x), weight, bias, eps },
            RowOp::Select { x, rows } => RowOp::Select { x: f(x), rows },
            RowOp::Mean { x, spans } => RowOp::Mean { x: f(x), spans },
        }
    }
}

/// One piece of a step over rows.
pub(crate) struct RowPiece<'a> {
    pub(crate) op: RowOp<'a, Plane>,
    pub(crate) out: Plane,
    pub(crate) quantized: Option<QuantPlane>,
    pub(crate) rows: Range<usize>,
}

impl Kernel for RowPiece<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.out.width();
        if let Some(quantized) = self.quantized {
            for r in self.rows.clone() {
                for at in (0..quantized.stride()).step_by(LINE) {
                    s.prefetch_to_write(quantized.row(r).wrapping_add(at));
                }
            }
        }
        for r in self.rows.clone() {
            // SAFETY: rows of planes have their width, which the recording of the program compared; row `r` of the
            // output belongs to this piece.
            unsafe {
                let out = std::slice::from_raw_parts_mut(self.out.row(r), width);
                match self.op {
                    RowOp::Embed { table, ids } => table.row(ids[r] as usize, out),
                    RowOp::Add { a, b } => add(s, slice(a, r), slice(b, r), out),
                    RowOp::AddRow { a, row } => add(s, slice(a, r), row, out),
                    RowOp::SiluMul { x } => silu_mul(s, slice(x, r), out),
                    RowOp::RmsNorm { x, weight, eps } => rms_norm(s, slice(x, r), weight, eps, out),
                    RowOp::LayerNorm { x, weight, bias, eps } => {
                        layer_norm(s, slice(x, r), weight, bias, eps, out);
                    }
                    RowOp::Select { x, rows } => out.copy_from_slice(slice(x, rows[r] as usize)),
                    RowOp::Mean { x, spans } => mean(s, x, spans[r].clone(), out),
                }
            }
        }
        if let Some(quantized) = self.quantized {
            // SAFETY: these rows belong to this piece and were just written by it.
            unsafe { quant::quantize(s, self.out, quantized, self.rows, 0..width / BLOCK) };
        }
    }
}

/// One piece of a step that only quantizes.
pub(crate) struct QuantPiece {
    pub(crate) x: Plane,
    pub(crate) quantized: QuantPlane,
    pub(crate) rows: Range<usize>,
}

impl Kernel for QuantPiece {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // SAFETY: these rows of the quantized plane belong to this piece, and x is complete.
        unsafe { quant::quantize(s, self.x, self.quantized, self.rows, 0..self.x.width() / BLOCK) };
    }
}

/// # Safety
/// The row is complete, or written by nobody but the caller.
#[inline(always)]
unsafe fn slice<'a>(x: Plane, row: usize) -> &'a [f32] {
    // SAFETY: a row of a plane has its width.
    unsafe { std::slice::from_raw_parts(x.row(row), x.width()) }
}

/// Loads the vector at `start`, or what is left of the slice from there on, then zeroes.
#[inline(always)]
pub(crate) fn load<S: Simd>(s: S, x: &[f32], start: usize) -> S::F32 {
    let n = x[start..].len().min(LANES);
    // SAFETY: `n` values are left from `start` on.
    unsafe { s.load_first(n, x[start..].as_ptr()) }
}

/// Stores as much of the vector as there is room for at `start`.
#[inline(always)]
pub(crate) fn store<S: Simd>(s: S, value: S::F32, out: &mut [f32], start: usize) {
    let n = out[start..].len().min(LANES);
    // SAFETY: there is room for `n` values from `start` on.
    unsafe { s.store_first(n, value, out[start..].as_mut_ptr()) }
}

/// The sum of a row.
#[inline(always)]
pub(crate) fn sum<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = s.zero();
    for start in (0..x.len()).step_by(LANES) {
        sums = s.add(sums, load(s, x, start));
    }
    s.sum(sums)
}

/// The sum of products of two rows.
#[inline(always)]
pub(crate) fn dot<S: Simd>(s: S, a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len(), "a dot product takes two rows of one length");
    let mut sums = s.zero();
    for start in (0..a.len()).step_by(LANES) {
        sums = s.fma(load(s, a, start), load(s, b, start), sums);
    }
    s.sum(sums)
}

#[inline(always)]
fn add<S: Simd>(s: S, a: &[f32], b: &[f32], out: &mut [f32]) {
    for start in (0..out.len()).step_by(LANES) {
        store(s, s.add(load(s, a, start), load(s, b, start)), out, start);
    }
}

#[inline(always)]
fn silu_mul<S: Simd>(s: S, x: &[f32], out: &mut [f32]) {
    let (gates, factors) = x.split_at(out.len());
    for start in (0..out.len()).step_by(LANES) {
        store(s, s.mul(silu(s, load(s, gates, start)), load(s, factors, start)), out, start);
    }
}

#[inline(always)]
fn rms_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inverse = s.splat(1.0 / (dot(s, x, x) / x.len() as f32 + eps).sqrt());
    for start in (0..out.len()).step_by(LANES) {
        let scaled = s.mul(load(s, x, start), inverse);
        store(s, s.mul(scaled, load(s, weight, start)), out, start);
    }
}

#[inline(always)]
fn layer_norm<S: Simd>(s: S, x: &[f32], weight: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) {
    let mean = s.splat(sum(s, x) / x.len() as f32);
    for start in (0..out.len()).step_by(LANES) {
        store(s, s.sub(load(s, x, start), mean), out, start);
    }
    let inverse = s.splat(1.0 / (dot(s, out, out) / x.len() as f32 + eps).sqrt());
    for start in (0..out.len()).step_by(LANES) {
        let scaled = s.mul(load(s, out, start), inverse);
        store(s, s.fma(scaled, load(s, weight, start), load(s, bias, start)), out, start);
    }
}

/// # Safety
/// The rows of `x` are complete.
#[inline(always)]
unsafe fn mean<S: Simd>(s: S, x: Plane, rows: Range<usize>, out: &mut [f32]) {
    let count = s.splat(rows.len() as f32);
    for start in (0..out.len()).step_by(LANES) {
        let mut total = s.zero();
        for row in rows.clone() {
            // SAFETY: the row is complete.
            total = s.add(total, load(s, unsafe { slice(x, row) }, start));
        }
        store(s, s.div(total, count), out, start);
    }
}
