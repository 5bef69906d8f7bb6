//! Some rows of quantized activations times a tile where every row, of either, has one scale: integers from the first input to the
//! last, and scales only then.

#![allow(clippy::needless_range_loop, reason = "loops of constant length over several register arrays")]

use std::marker::PhantomData;

use super::panel::Ahead;
use super::{MAX_PANEL, most_rows, store};
use crate::isa::Kernel;
use crate::matrix::TILE;
use crate::memory::LINE;
use crate::quant::{BLOCK, CORRECTION, QUANT_BLOCK_BYTES, SCALE};
use crate::simd::{LANES, Simd};

/// A tile, and some rows.
#[derive(Clone, Copy)]
pub(super) struct WholeRows {
    pub(super) w: *const u8,
    /// Blocks of 32 inputs.
    pub(super) count: usize,
    pub(super) x: *const u8,
    pub(super) stride: usize,
    pub(super) ahead: Ahead,
    /// Where the rows' sums go, 32 each.
    pub(super) sums: *mut f32,
}

impl WholeRows {
    /// Multiplies `rows` rows.
    ///
    /// # Safety
    /// The tile and the rows are readable and have so many blocks; sums of so many rows are writable.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd>(self, s: S, rows: usize) {
        call_panel!(s, rows, Panel::<()>, self);
    }
}

/// M rows times a tile.
struct Panel<T, const M: usize>(WholeRows, PhantomData<T>);

impl<T, const M: usize> Kernel for Panel<T, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let WholeRows { w, count, sums: out, .. } = self.0;
        let mut sums = [[s.zero(); 2]; M];
        // SAFETY: as `multiply` was told.
        unsafe {
            if S::WIDE {
                Self::add::<S, 0, 2>(self.0, s, &mut sums);
            } else {
                Self::add::<S, 0, 1>(self.0, s, &mut sums);
                Self::add::<S, 1, 2>(self.0, s, &mut sums);
            }
            let scales = w.add(count * BLOCK * TILE).cast::<u16>();
            for half in 0..2 {
                let scale = s.load_f16(scales.add(half * LANES));
                for r in 0..M {
                    let of_row = s.splat(self.0.x.add(r * self.0.stride + SCALE).cast::<f32>().read());
                    sums[r][half] = s.mul(sums[r][half], s.mul(scale, of_row));
                }
            }
            store(s, &sums, out);
        }
    }
}

impl<T, const M: usize> Panel<T, M> {
    /// The integer products, for the halves H0..H1 of the tile.
    ///
    /// # Safety
    /// As [`WholeRows::multiply`].
    #[inline(always)]
    unsafe fn add<S: Simd, const H0: usize, const H1: usize>(
        rows: WholeRows,
        s: S,
        sums: &mut [[S::F32; 2]; M],
    ) {
        let WholeRows { mut w, count, mut x, stride, ahead, .. } = rows;
        let mut dots = [[s.splat_i32(0); M]; 2];
        // SAFETY: as the caller vouches; both pointers advance one block at a time.
        unsafe {
            for r in 0..M {
                let start = s.dot_start(x.add(r * stride + CORRECTION).cast::<i32>().read());
                for h in H0..H1 {
                    dots[h][r] = start;
                }
            }
            for _ in 0..count {
                ahead.ask(s, w);
                for quad in 0..BLOCK / 4 {
                    let mut weights = [s.load_weights(w.add((2 * quad + H0) * LINE)); 2];
                    for h in H0 + 1..H1 {
                        weights[h - H0] = s.load_weights(w.add((2 * quad + h) * LINE));
                    }
                    for r in 0..M {
                        let four = x.add(r * stride + quad * 4).cast::<i32>().read();
                        for h in H0..H1 {
                            dots[h][r] = s.dot(dots[h][r], weights[h - H0], four);
                        }
                    }
                }
                w = w.add(BLOCK * TILE);
                x = x.add(QUANT_BLOCK_BYTES);
            }
        }
        for r in 0..M {
            for h in H0..H1 {
                sums[r][h] = s.to_f32(dots[h][r]);
            }
        }
    }
}
