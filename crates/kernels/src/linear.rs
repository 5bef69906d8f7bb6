//! Products of rows with packed matrices, and what is done with a product before it is stored.
//!
//! The tile is outside and panels of up to eight rows inside, so weights are read from memory once. One output
//! element is one lane: its blocks (or inputs) are added from first to last by one chain of fused multiply-adds,
//! and k is never split. So an element has the same bits whatever panel it falls into.

#![allow(clippy::needless_range_loop, reason = "loops of constant length over several register arrays")]

use std::ops::Range;

use crate::isa::Kernel;
use crate::math::{gelu, silu};
use crate::matrix::{Format, Matrix, Q8_SCALES, Q8_TILE_BLOCK_BYTES, TILE};
use crate::memory::LINE;
use crate::plane::{Plane, QuantPlane};
use crate::quant::{self, BLOCK, CORRECTION, QUANT_BLOCK_BYTES, SCALE};
use crate::simd::{LANES, Simd};

/// What a product is taken of.
#[derive(Clone, Copy)]
pub(crate) enum Input {
    F32(Plane),
    Q8(QuantPlane),
}

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

/// One piece of a linear step: some rows by some tiles.
pub(crate) struct Linear<'a> {
    pub(crate) x: Input,
    pub(crate) w: &'a Matrix,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) finish: Finish,
    pub(crate) out: Plane,
    /// Where the finished values also go as int8.
    pub(crate) quantized: Option<QuantPlane>,
    pub(crate) rows: Range<usize>,
    pub(crate) tiles: Range<usize>,
}

impl Kernel for Linear<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = Sums([[0.0; TILE]; MAX_PANEL]);
        let mut partner_sums = Sums([[0.0; TILE]; MAX_PANEL]);
        for tile in self.tiles.clone() {
            let panels = panels(self.rows.clone(), S::PANEL);
            let count = panels.len();
            for (index, panel) in panels.enumerate() {
                let ahead = Ahead::new(self.w.tile_bytes(), index, count);
                self.multiply(s, tile, &panel, ahead, &mut sums);
                if let Finish::SwiGlu { partner } = self.finish {
                    self.multiply(s, tile + partner, &panel, ahead, &mut partner_sums);
                }
                for (i, row) in panel.enumerate() {
                    self.finish_row(s, tile, row, &sums.0[i], &partner_sums.0[i]);
                }
            }
            if let Some(quantized) = self.quantized {
                // SAFETY: these columns of these rows belong to this piece and were just written by it.
                unsafe { quant::quantize(s, self.out, quantized, self.rows.clone(), tile..tile + 1) };
            }
        }
    }
}

impl Linear<'_> {
    #[inline(always)]
    fn multiply<S: Simd>(&self, s: S, tile: usize, rows: &Range<usize>, ahead: Ahead, sums: &mut Sums) {
        match rows.len() {
            1 => self.multiply_panel::<S, 1>(s, tile, rows.start, ahead, sums),
            2 => self.multiply_panel::<S, 2>(s, tile, rows.start, ahead, sums),
            3 => self.multiply_panel::<S, 3>(s, tile, rows.start, ahead, sums),
            4 => self.multiply_panel::<S, 4>(s, tile, rows.start, ahead, sums),
            5 => self.multiply_panel::<S, 5>(s, tile, rows.start, ahead, sums),
            6 => self.multiply_panel::<S, 6>(s, tile, rows.start, ahead, sums),
            7 => self.multiply_panel::<S, 7>(s, tile, rows.start, ahead, sums),
            8 => self.multiply_panel::<S, 8>(s, tile, rows.start, ahead, sums),
            n => unreachable!("a panel has 1 to 8 rows, not {n}"),
        }
    }

    #[inline(always)]
    fn multiply_panel<S: Simd, const M: usize>(
        &self,
        s: S,
        tile: usize,
        row: usize,
        ahead: Ahead,
        sums: &mut Sums,
    ) {
        let tile = self.w.tile(tile);
        match self.x {
            Input::F32(x) => {
                assert!(self.w.format() == Format::F32 && x.width() == self.w.k() && row + M <= x.rows());
                s.call(F32Panel::<M> { tile, k: self.w.k(), x: x.row(row), stride: x.stride(), sums });
            }
            Input::Q8(x) => {
                let blocks = self.w.k() / BLOCK;
                assert!(self.w.format() == Format::Q8 && x.blocks() == blocks);
                let _last = x.row(row + M - 1);
                s.call(Q8Panel::<M> { tile, blocks, x: x.row(row), stride: x.stride(), ahead, sums });
            }
        }
    }

    #[inline(always)]
    fn finish_row<S: Simd>(&self, s: S, tile: usize, row: usize, sums: &[f32; TILE], partner: &[f32; TILE]) {
        for half in 0..2 {
            let column = tile * TILE + half * LANES;
            if column >= self.out.width() {
                return;
            }
            let n = (self.out.width() - column).min(LANES);
            // SAFETY: `n` columns from `column` on are within the row, and within the bias and residual, which are
            // as wide; these columns of these rows belong to this piece.
            unsafe {
                let mut value = s.load(sums[half * LANES..].as_ptr());
                if let Some(bias) = self.bias {
                    value = s.add(value, s.load_first(n, bias[column..column + n].as_ptr()));
                }
                match self.finish {
                    Finish::Store => {}
                    Finish::Gelu => value = gelu(s, value),
                    Finish::Add(residual) => {
                        value = s.add(value, s.load_first(n, residual.row(row).add(column)));
                    }
                    Finish::SwiGlu { .. } => {
                        value = s.mul(silu(s, value), s.load(partner[half * LANES..].as_ptr()));
                    }
                }
                s.store_first(n, value, self.out.row(row).add(column));
            }
        }
    }
}

/// Splits rows evenly into panels of at most `most`. Few rows make one or two of up to 8: fewer passes over a tile are worth
/// more then than registers for all sums.
fn panels(rows: Range<usize>, most: usize) -> impl ExactSizeIterator<Item = Range<usize>> {
    let most = if most > 4 && rows.len() <= 2 * MAX_PANEL { MAX_PANEL } else { most };
    let count = rows.len().div_ceil(most);
    let (start, len) = (rows.start, rows.len());
    (0..count).map(move |i| start + i * len / count..start + (i + 1) * len / count)
}

/// The sums of one panel and tile.
#[repr(align(64))]
struct Sums([[f32; TILE]; MAX_PANEL]);

/// The lines of weights that are asked for while a block of a Q8 tile is multiplied.
#[derive(Clone, Copy)]
struct Ahead {
    /// From the block to the first of them.
    bytes: usize,
    lines: usize,
}

impl Ahead {
    /// Only the first panel of a tile finds it in memory. If it is the only one, the next lines are asked for; if there are
    /// more, each asks for its share of the next tile, so that reading goes on while all of them compute.
    fn new(tile_bytes: usize, panel: usize, panels: usize) -> Ahead {
        if panels == 1 {
            return Ahead { bytes: PREFETCH_BYTES, lines: BLOCK_LINES };
        }
        let (first, end) = (BLOCK_LINES * panel / panels, BLOCK_LINES * (panel + 1) / panels);
        Ahead { bytes: tile_bytes + first * LINE, lines: end - first }
    }
}

/// M rows times a Q8 tile.
struct Q8Panel<'a, const M: usize> {
    tile: *const u8,
    blocks: usize,
    x: *const u8,
    stride: usize,
    ahead: Ahead,
    sums: &'a mut Sums,
}

impl<const M: usize> Kernel for Q8Panel<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = [[s.zero(); 2]; M];
        let (mut w, mut x) = (self.tile, self.x);
        for _ in 0..self.blocks {
            for line in 0..self.ahead.lines {
                s.prefetch(w.wrapping_add(self.ahead.bytes + line * LINE));
            }
            // SAFETY: the tile has `blocks` blocks of 17 lines, and each of the M rows of x has `blocks` blocks, as
            // `multiply_panel` asserted; both pointers advance one block at a time.
            unsafe {
                let mut dots = [[s.splat_i32(0); M]; 2];
                if S::WIDE {
                    dot_block::<S, M, 0, 2>(s, w, x, self.stride, &mut dots);
                } else {
                    dot_block::<S, M, 0, 1>(s, w, x, self.stride, &mut dots);
                    dot_block::<S, M, 1, 2>(s, w, x, self.stride, &mut dots);
                }
                let scales = w.add(Q8_SCALES).cast::<u16>();
                let scales = [s.load_f16(scales), s.load_f16(scales.add(LANES))];
                for r in 0..M {
                    let scale = s.splat(x.add(r * self.stride + SCALE).cast::<f32>().read());
                    for half in 0..2 {
                        let scale = s.mul(scales[half], scale);
                        sums[r][half] = s.fma(s.to_f32(dots[half][r]), scale, sums[r][half]);
                    }
                }
                w = w.add(Q8_TILE_BLOCK_BYTES);
                x = x.add(QUANT_BLOCK_BYTES);
            }
        }
        store(s, &sums, self.sums);
    }
}

/// The integer products of one block of M rows, for the halves H0..H1 of the tile.
///
/// # Safety
/// A block of a tile is readable at `w`, and a quantized block at `x` and at each of the next M - 1 strides.
#[inline(always)]
unsafe fn dot_block<S: Simd, const M: usize, const H0: usize, const H1: usize>(
    s: S,
    w: *const u8,
    x: *const u8,
    stride: usize,
    dots: &mut [[S::I32; M]; 2],
) {
    // SAFETY: within the blocks the caller vouches for.
    unsafe {
        for r in 0..M {
            let start = s.dot_start(x.add(r * stride + CORRECTION).cast::<i32>().read());
            for h in H0..H1 {
                dots[h][r] = start;
            }
        }
        for quad in 0..BLOCK / 4 {
            let mut weights = [s.load_weights(w.add(quad * 128 + H0 * 64)); 2];
            for h in H0 + 1..H1 {
                weights[h - H0] = s.load_weights(w.add(quad * 128 + h * 64));
            }
            for r in 0..M {
                let four = x.add(r * stride + quad * 4).cast::<i32>().read();
                for h in H0..H1 {
                    dots[h][r] = s.dot(dots[h][r], weights[h - H0], four);
                }
            }
        }
    }
}

/// M rows times an F32 tile.
struct F32Panel<'a, const M: usize> {
    tile: *const u8,
    k: usize,
    x: *const f32,
    stride: usize,
    sums: &'a mut Sums,
}

impl<const M: usize> Kernel for F32Panel<'_, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut sums = [[s.zero(); 2]; M];
        let w = self.tile.cast::<f32>();
        for i in 0..self.k {
            // SAFETY: the tile has k lines of 32 weights, and each of the M rows of x has k values, as
            // `multiply_panel` asserted.
            unsafe {
                let weights = [s.load(w.add(i * TILE)), s.load(w.add(i * TILE + LANES))];
                for r in 0..M {
                    let value = s.splat(self.x.add(r * self.stride + i).read());
                    for half in 0..2 {
                        sums[r][half] = s.fma(weights[half], value, sums[r][half]);
                    }
                }
            }
        }
        store(s, &sums, self.sums);
    }
}

#[inline(always)]
fn store<S: Simd, const M: usize>(s: S, from: &[[S::F32; 2]; M], to: &mut Sums) {
    for (from, to) in from.iter().zip(&mut to.0) {
        // SAFETY: a row of sums has 32 values.
        unsafe {
            s.store(from[0], to.as_mut_ptr());
            s.store(from[1], to.as_mut_ptr().add(LANES));
        }
    }
}

/// Rows a panel has at most.
pub(crate) const MAX_PANEL: usize = 8;
/// Cache lines of a block of a Q8 tile.
const BLOCK_LINES: usize = Q8_TILE_BLOCK_BYTES / LINE;
/// How far ahead the only panel asks for weights; running past the end of a matrix does no harm.
const PREFETCH_BYTES: usize = 8192;
