//! From the sums of a tile to values: bias, activation, residual; as f32 and as int8, whichever is wanted, while they are in
//! registers.

use std::ops::Range;

use super::Linear;
use crate::math::{gelu, silu};
use crate::matrix::TILE;
use crate::plane::Plane;
use crate::quant;
use crate::simd::{LANES, Simd};

/// What happens to the sums of a tile on their way out.
#[derive(Clone, Copy)]
pub(crate) enum Finish {
    Store,
    Gelu,
    Add(Plane),
    /// The tile is a gate; its partner, so many tiles further on, is multiplied with silu(gate).
    SwiGlu {
        partner: usize,
    },
}

impl Linear<'_> {
    /// Makes values of the sums of a tile, 32 for each of some rows, and puts them where they are wanted.
    ///
    /// # Safety
    /// The sums are written, those of the partner too where there is one.
    #[inline(always)]
    pub(super) unsafe fn finish_rows<S: Simd>(
        &self,
        s: S,
        tile: usize,
        rows: Range<usize>,
        sums: *const f32,
        partner: *const f32,
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            match self.finish {
                Finish::Store => self.put(s, tile, rows, sums, Same),
                Finish::Gelu => self.put(s, tile, rows, sums, Gelu),
                Finish::Add(residual) => self.put(s, tile, rows, sums, Add { residual, tile }),
                Finish::SwiGlu { .. } => {
                    self.put(s, tile, rows.clone(), sums, SwiGlu { partner, first: rows.start })
                }
            }
        }
    }

    /// # Safety
    /// As [`Self::finish_rows`].
    #[inline(always)]
    unsafe fn put<S: Simd>(
        &self,
        s: S,
        tile: usize,
        rows: Range<usize>,
        sums: *const f32,
        finish: impl FinishSums,
    ) {
        let column = tile * TILE;
        let width = (self.width - column).min(TILE);
        let counts = [width.min(LANES), width.saturating_sub(LANES)];
        // SAFETY: the sums are those of rows that were multiplied. So many columns from `column` on are within the row, and within
        // the bias, which is as wide; these columns of these rows belong to this piece, as the tile's block of them does.
        unsafe {
            let mut bias = [s.zero(); 2];
            if let Some(all) = self.bias {
                let all = all[column..column + width].as_ptr();
                bias = [s.load_first(counts[0], all), s.load_first(counts[1], all.wrapping_add(LANES))];
            }
            for (i, row) in rows.enumerate() {
                let mut values = [s.zero(); 2];
                for half in 0..2 {
                    let mut value = s.load(sums.add(i * TILE + half * LANES));
                    if self.bias.is_some() {
                        value = s.add(value, bias[half]);
                    }
                    values[half] = finish.value(s, value, row, half, counts[half]);
                    if let Some(out) = self.out {
                        s.store_first(
                            counts[half],
                            values[half],
                            out.row(row).wrapping_add(column + half * LANES),
                        );
                    }
                }
                if let Some(quantized) = self.quantized {
                    quant::quantize_block(s, values, quantized.block(row, tile));
                }
                if let Some(peaks) = self.peaks {
                    peaks.row(row).wrapping_add(tile).write(peak(s, values, counts));
                }
            }
        }
    }
}

/// The largest of the first values of both halves; NaN where one is NaN or plus infinity.
#[inline(always)]
fn peak<S: Simd>(s: S, values: [S::F32; 2], counts: [usize; 2]) -> f32 {
    let (lowest, least) = (s.splat(f32::NEG_INFINITY), s.splat(f32::MIN));
    let [one, other] = [0, 1].map(|half| s.first(counts[half], values[half], lowest));
    // Zero times what is finite is zero; `max` hands a NaN on when it comes second.
    let [one_sound, other_sound] = [one, other].map(|values| s.mul(s.max(least, values), s.zero()));
    s.largest(s.max(one, other)) + s.sum(s.add(one_sound, other_sound))
}

/// From sums to values.
trait FinishSums: Copy {
    /// The values of the first `count` columns of a half of the tile.
    ///
    /// # Safety
    /// It is a row and a half of those that the finish was made for.
    unsafe fn value<S: Simd>(self, s: S, sums: S::F32, row: usize, half: usize, count: usize) -> S::F32;
}

#[derive(Clone, Copy)]
struct Same;

impl FinishSums for Same {
    #[inline(always)]
    unsafe fn value<S: Simd>(self, _: S, sums: S::F32, _row: usize, _half: usize, _count: usize) -> S::F32 {
        sums
    }
}

#[derive(Clone, Copy)]
struct Gelu;

impl FinishSums for Gelu {
    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, sums: S::F32, _row: usize, _half: usize, _count: usize) -> S::F32 {
        gelu(s, sums)
    }
}

/// Adds the tile's columns of a residual, which is as wide as the output.
#[derive(Clone, Copy)]
struct Add {
    residual: Plane,
    tile: usize,
}

impl FinishSums for Add {
    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, sums: S::F32, row: usize, half: usize, count: usize) -> S::F32 {
        let at = self.residual.row(row).wrapping_add(self.tile * TILE + half * LANES);
        // SAFETY: the residual has these columns, as many as the output.
        unsafe { s.add(sums, s.load_first(count, at)) }
    }
}

/// The sums of the partner, 32 for each row from `first` on.
#[derive(Clone, Copy)]
struct SwiGlu {
    partner: *const f32,
    first: usize,
}

impl FinishSums for SwiGlu {
    #[inline(always)]
    unsafe fn value<S: Simd>(self, s: S, sums: S::F32, row: usize, half: usize, _count: usize) -> S::F32 {
        // SAFETY: the partner has sums for the row.
        let partner = unsafe { s.load(self.partner.add((row - self.first) * TILE + half * LANES)) };
        s.mul(silu(s, sums), partner)
    }
}
