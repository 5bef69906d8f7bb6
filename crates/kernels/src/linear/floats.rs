//! Some rows of f32 activations times a tile of weights that are numbers.

#![allow(clippy::needless_range_loop, reason = "loops of constant length over several register arrays")]

use std::marker::PhantomData;

use super::{MAX_PANEL, most_rows, store};
use crate::isa::Kernel;
use crate::matrix::TILE;
use crate::simd::{LANES, Simd};

/// How a weight is stored.
pub(super) trait Float {
    const BYTES: usize;

    /// Sixteen weights.
    ///
    /// # Safety
    /// They are readable at `from`.
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F32;
}

pub(super) struct F32;
pub(super) struct F16;
pub(super) struct BF16;

impl Float for F32 {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F32 {
        // SAFETY: as the caller vouches.
        unsafe { s.load(from.cast()) }
    }
}

impl Float for F16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F32 {
        // SAFETY: as the caller vouches.
        unsafe { s.load_f16(from.cast()) }
    }
}

impl Float for BF16 {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, from: *const u8) -> S::F32 {
        // SAFETY: as the caller vouches.
        unsafe { s.load_bf16(from.cast()) }
    }
}

/// A tile and some rows.
#[derive(Clone, Copy)]
pub(super) struct Inputs {
    pub(super) w: *const u8,
    pub(super) count: usize,
    pub(super) x: *const f32,
    pub(super) stride: usize,
    /// Where the rows' sums go, 32 each.
    pub(super) sums: *mut f32,
}

impl Inputs {
    /// Multiplies `rows` rows.
    ///
    /// # Safety
    /// The tile has `count` times 32 weights, each row `count` values; sums of so many rows are writable.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd, F: Float>(self, s: S, rows: usize) {
        call_panel!(s, rows, Panel::<F>, self);
    }
}

/// M rows times a tile.
struct Panel<F, const M: usize>(Inputs, PhantomData<F>);

impl<F: Float, const M: usize> Kernel for Panel<F, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Inputs { w, count, x, stride, sums: out } = self.0;
        let mut sums = [[s.zero(); 2]; M];
        for i in 0..count {
            // SAFETY: within the tile and the M rows.
            unsafe {
                let line = w.add(i * TILE * F::BYTES);
                let weights = [F::load(s, line), F::load(s, line.add(LANES * F::BYTES))];
                for r in 0..M {
                    let value = s.splat(x.add(r * stride + i).read());
                    for half in 0..2 {
                        sums[r][half] = s.fma(weights[half], value, sums[r][half]);
                    }
                }
            }
        }
        // SAFETY: M rows have 32 sums each.
        unsafe { store(s, &sums, out) };
    }
}
