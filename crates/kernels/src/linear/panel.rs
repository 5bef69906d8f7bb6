//! Some rows of quantized activations times the blocks of a tile: where the time goes.
//!
//! Integer products of a run of inputs are exact; each run's sum is made an f32 and added to its output by one fused
//! multiply-add, from the first run to the last. A panel holds the sums of some rows in registers.

#![allow(clippy::needless_range_loop, reason = "loops of constant length over several register arrays")]

use std::marker::PhantomData;

use super::{MAX_PANEL, load, most_rows, store};
use crate::isa::Kernel;
use crate::matrix::TILE;
use crate::memory::LINE;
use crate::quant::{BLOCK, CORRECTION, FIRST_CORRECTION, QUANT_BLOCK_BYTES, SCALE, SCALED_SUM};
use crate::simd::{LANES, Simd};

/// How 32 inputs of a tile lie in memory when they are multiplied: sixteen lines of weights, a byte each, as in [`crate::matrix`],
/// then what they are scaled by.
pub(crate) trait Block {
    type Weights<S: Simd>: Copy;
    const BYTES: usize;
    /// Runs of inputs that have a scale of their own: one or two.
    const PARTS: usize;
    /// To each weight, scaled, a base is added.
    const BASED: bool;

    /// What a sum of products starts from so that it ends as if weights were signed, for a part of the block of activations
    /// at `x`.
    ///
    /// # Safety
    /// A block of activations is readable at `x`.
    unsafe fn start<S: Simd>(s: S, x: *const u8, part: usize) -> S::I32;

    /// # Safety
    /// A line of weights is readable.
    unsafe fn load<S: Simd>(s: S, line: *const u8) -> Self::Weights<S>;

    fn dot<S: Simd>(s: S, sum: S::I32, w: Self::Weights<S>, x: i32) -> S::I32;

    /// The scales of sixteen rows.
    ///
    /// # Safety
    /// A block is readable at `w`.
    unsafe fn scale<S: Simd>(s: S, w: *const u8, part: usize, half: usize) -> S::F32;
}

/// What the weights of an unpacked block are.
pub(crate) trait PlainWeights {
    /// One weight as f32.
    ///
    /// # Safety
    /// A written block is readable at `block`.
    unsafe fn weight(block: *const u8, lane: usize, input: usize) -> f32;
}

/// A block of a Q8_0 tile: q + 128, then 32 f16 scales.
pub(crate) struct Q8;

impl Block for Q8 {
    type Weights<S: Simd> = S::Weights;
    const BYTES: usize = WEIGHT_BYTES + TILE * 2;
    const PARTS: usize = 1;
    const BASED: bool = false;

    #[inline(always)]
    unsafe fn start<S: Simd>(s: S, x: *const u8, _part: usize) -> S::I32 {
        // SAFETY: as the caller vouches.
        s.dot_start(unsafe { x.add(CORRECTION).cast::<i32>().read() })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, line: *const u8) -> S::Weights {
        // SAFETY: as the caller vouches.
        unsafe { s.load_weights(line) }
    }

    #[inline(always)]
    fn dot<S: Simd>(s: S, sum: S::I32, w: S::Weights, x: i32) -> S::I32 {
        s.dot(sum, w, x)
    }

    #[inline(always)]
    unsafe fn scale<S: Simd>(s: S, w: *const u8, _part: usize, half: usize) -> S::F32 {
        // SAFETY: as the caller vouches.
        unsafe { s.load_f16(w.add(WEIGHT_BYTES).cast::<u16>().add(half * LANES)) }
    }
}

/// An unpacked block: weights of 0..=63, scales as f32 for each part. OFFSET is what belongs subtracted from each weight; where
/// it is 0, a base for each row follows the scales.
pub(crate) struct Plain<const PARTS: usize, const OFFSET: usize>;

impl<const PARTS: usize, const OFFSET: usize> Plain<PARTS, OFFSET> {
    /// Where the scales of a part are, 32 of them.
    ///
    /// # Safety
    /// A block has room at `block`.
    #[inline(always)]
    pub(crate) unsafe fn scales(block: *mut u8, part: usize) -> *mut f32 {
        // SAFETY: within the block.
        unsafe { block.add(WEIGHT_BYTES + part * TILE * 4).cast() }
    }

    /// Where the bases are, 32 of them.
    ///
    /// # Safety
    /// A block has room at `block`.
    #[inline(always)]
    pub(crate) unsafe fn bases(block: *mut u8) -> *mut f32 {
        const { assert!(OFFSET == 0) };
        // SAFETY: within the block.
        unsafe { Self::scales(block, PARTS) }
    }
}

impl<const PARTS: usize, const OFFSET: usize> Block for Plain<PARTS, OFFSET> {
    type Weights<S: Simd> = S::Small;
    const BYTES: usize = WEIGHT_BYTES + (PARTS + Self::BASED as usize) * TILE * 4;
    const PARTS: usize = PARTS;
    const BASED: bool = OFFSET == 0;

    #[inline(always)]
    unsafe fn start<S: Simd>(s: S, x: *const u8, part: usize) -> S::I32 {
        if Self::BASED {
            return s.splat_i32(0);
        }
        // SAFETY: as the caller vouches.
        let [all, first] = unsafe { [CORRECTION, FIRST_CORRECTION].map(|at| x.add(at).cast::<i32>().read()) };
        let correction = match (PARTS, part) {
            (1, _) => all,
            (_, 0) => first,
            _ => all - first,
        };
        s.splat_i32(correction >> (128 / OFFSET).ilog2()) // the correction is a multiple of 128: exact
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(s: S, line: *const u8) -> S::Small {
        // SAFETY: as the caller vouches.
        unsafe { s.load_small(line) }
    }

    #[inline(always)]
    fn dot<S: Simd>(s: S, sum: S::I32, w: S::Small, x: i32) -> S::I32 {
        s.dot_small(sum, w, x)
    }

    #[inline(always)]
    unsafe fn scale<S: Simd>(s: S, w: *const u8, part: usize, half: usize) -> S::F32 {
        // SAFETY: as the caller vouches.
        unsafe { s.load(Self::scales(w.cast_mut(), part).add(half * LANES)) }
    }
}

impl<const PARTS: usize, const OFFSET: usize> PlainWeights for Plain<PARTS, OFFSET> {
    unsafe fn weight(block: *const u8, lane: usize, input: usize) -> f32 {
        assert!(lane < TILE && input < BLOCK);
        // SAFETY: within the block, whose bytes of weights and lines of scales are written.
        unsafe {
            let q =
                block.add((2 * (input / 4) + lane / LANES) * LINE + 4 * (lane % LANES) + input % 4).read();
            let scale = Self::scales(block.cast_mut(), input * PARTS / BLOCK).add(lane).read();
            let weight = scale * (f32::from(q) - OFFSET as f32);
            if Self::BASED { weight + Self::scales(block.cast_mut(), PARTS).add(lane).read() } else { weight }
        }
    }
}

/// Some blocks of a tile, and the same blocks of some rows.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    pub(super) w: *const u8,
    pub(super) count: usize,
    pub(super) x: *const u8,
    pub(super) stride: usize,
    pub(super) ahead: Ahead,
    /// They are the first of their rows: sums begin with them.
    pub(super) first: bool,
    /// Where the rows' sums are, 32 each.
    pub(super) sums: *mut f32,
}

impl Blocks {
    /// Multiplies `rows` rows.
    ///
    /// # Safety
    /// The blocks are readable, sums of so many rows are writable, and readable unless these are the first blocks.
    #[inline(always)]
    pub(super) unsafe fn multiply<S: Simd, B: Block>(self, s: S, rows: usize) {
        call_panel!(s, rows, Panel::<B>, self);
    }
}

/// M rows of blocks.
struct Panel<B, const M: usize>(Blocks, PhantomData<B>);

/// The lines of weights that are asked for while a block is multiplied.
#[derive(Clone, Copy)]
pub(super) struct Ahead {
    /// From the block to the first of them.
    bytes: usize,
    lines: usize,
}

impl Ahead {
    /// Somebody else asked for them.
    pub(super) const NONE: Ahead = Ahead { bytes: 0, lines: 0 };

    /// Only the first panel of a Q8_0 tile finds it in memory. If it is the only one, of so many rows, the next lines are asked for;
    /// if there are more, each asks for its share of the next tile, so that reading goes on while all of them compute.
    pub(super) fn new(tile_bytes: usize, rows: usize, panel: usize, panels: usize) -> Ahead {
        if panels == 1 {
            let bytes = if rows > FEW_ROWS { 2 * PREFETCH_BYTES } else { PREFETCH_BYTES };
            return Ahead { bytes, lines: BLOCK_LINES };
        }
        let (first, end) = (BLOCK_LINES * panel / panels, BLOCK_LINES * (panel + 1) / panels);
        Ahead { bytes: tile_bytes + first * LINE, lines: end - first }
    }

    /// Asks for them, at the block at `w`.
    #[inline(always)]
    pub(super) fn ask<S: Simd>(self, s: S, w: *const u8) {
        self.ask_from(s, w, 0);
    }

    /// Asks for those from line `first` on.
    #[inline(always)]
    fn ask_from<S: Simd>(self, s: S, w: *const u8, first: usize) {
        for line in first..self.lines {
            s.prefetch(w.wrapping_add(self.bytes + line * LINE));
        }
    }

    /// Asks for a quad's share of the first SPREAD.
    #[inline(always)]
    fn ask_with<S: Simd, const SPREAD: usize>(self, s: S, w: *const u8, quad: usize) {
        for line in SPREAD * quad / QUADS..SPREAD * (quad + 1) / QUADS {
            s.prefetch(w.wrapping_add(self.bytes + line * LINE));
        }
    }
}

impl<B: Block, const M: usize> Kernel for Panel<B, M> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Blocks { ahead, first, sums: out, .. } = self.0;
        let mut sums = [[s.zero(); 2]; M];
        if !first {
            // SAFETY: M rows have 32 sums each.
            unsafe { load(s, out, &mut sums) };
        }
        let spread = if M >= ROWS_TO_SPREAD { ahead.lines } else { 0 };
        // SAFETY: there are so many blocks of weights, and of each of the M rows.
        unsafe {
            match spread {
                16.. => Self::add_blocks::<S, 16>(s, self.0, &mut sums),
                8.. => Self::add_blocks::<S, 8>(s, self.0, &mut sums),
                4.. => Self::add_blocks::<S, 4>(s, self.0, &mut sums),
                _ => Self::add_blocks::<S, 0>(s, self.0, &mut sums),
            }
        }
        // SAFETY: M rows have 32 sums each.
        unsafe { store(s, &sums, out) };
    }
}

impl<B: Block, const M: usize> Panel<B, M> {
    /// Adds all blocks to the sums. Of the lines that are asked for, the first SPREAD are asked for quad by quad, the rest at once.
    ///
    /// # Safety
    /// The blocks of the weights and of M rows are readable.
    #[inline(always)]
    unsafe fn add_blocks<S: Simd, const SPREAD: usize>(s: S, blocks: Blocks, sums: &mut [[S::F32; 2]; M]) {
        let Blocks { mut w, count, mut x, stride, ahead, .. } = blocks;
        for _ in 0..count {
            ahead.ask_from(s, w, SPREAD);
            // SAFETY: as the caller vouches; both pointers advance one block at a time.
            unsafe {
                for part in 0..B::PARTS {
                    Self::add_part::<S, SPREAD>(s, w, x, stride, part, ahead, sums);
                }
                if B::BASED {
                    for half in 0..2 {
                        let base = s.load(w.add(B::BYTES - TILE * 4).cast::<f32>().add(half * LANES));
                        for r in 0..M {
                            let sum = s.splat(x.add(r * stride + SCALED_SUM).cast::<f32>().read());
                            sums[r][half] = s.fma(base, sum, sums[r][half]);
                        }
                    }
                }
                w = w.add(B::BYTES);
                x = x.add(QUANT_BLOCK_BYTES);
            }
        }
    }

    /// # Safety
    /// A block is readable at `w`, and a block of activations at `x` and at each of the next M - 1 strides.
    #[inline(always)]
    unsafe fn add_part<S: Simd, const SPREAD: usize>(
        s: S,
        w: *const u8,
        x: *const u8,
        stride: usize,
        part: usize,
        ahead: Ahead,
        sums: &mut [[S::F32; 2]; M],
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            let mut dots = [[s.splat_i32(0); M]; 2];
            if S::WIDE {
                Self::dot_part::<S, 0, 2, SPREAD>(s, w, x, stride, part, ahead, &mut dots);
            } else {
                Self::dot_part::<S, 0, 1, SPREAD>(s, w, x, stride, part, ahead, &mut dots);
                Self::dot_part::<S, 1, 2, 0>(s, w, x, stride, part, ahead, &mut dots);
            }
            let scales = [B::scale(s, w, part, 0), B::scale(s, w, part, 1)];
            for r in 0..M {
                let scale = s.splat(x.add(r * stride + SCALE).cast::<f32>().read());
                for half in 0..2 {
                    let scale = s.mul(scales[half], scale);
                    sums[r][half] = s.fma(s.to_f32(dots[half][r]), scale, sums[r][half]);
                }
            }
        }
    }

    /// The integer products of one part of M rows, for the halves H0..H1 of the tile.
    ///
    /// # Safety
    /// As [`Self::add_part`].
    #[inline(always)]
    unsafe fn dot_part<S: Simd, const H0: usize, const H1: usize, const SPREAD: usize>(
        s: S,
        w: *const u8,
        x: *const u8,
        stride: usize,
        part: usize,
        ahead: Ahead,
        dots: &mut [[S::I32; M]; 2],
    ) {
        // SAFETY: as the caller vouches.
        unsafe {
            for r in 0..M {
                let start = B::start(s, x.add(r * stride), part);
                for h in H0..H1 {
                    dots[h][r] = start;
                }
            }
            let quads = QUADS / B::PARTS;
            for quad in part * quads..(part + 1) * quads {
                ahead.ask_with::<S, SPREAD>(s, w, quad);
                let mut weights = [B::load(s, w.add((2 * quad + H0) * LINE)); 2];
                for h in H0 + 1..H1 {
                    weights[h - H0] = B::load(s, w.add((2 * quad + h) * LINE));
                }
                for r in 0..M {
                    let four = x.add(r * stride + quad * 4).cast::<i32>().read();
                    for h in H0..H1 {
                        dots[h][r] = B::dot(s, dots[h][r], weights[h - H0], four);
                    }
                }
            }
        }
    }
}

/// Bytes of the weights of a block.
const WEIGHT_BYTES: usize = BLOCK * TILE;
/// Inputs are multiplied four at a time.
const QUADS: usize = BLOCK / 4;
/// Cache lines of a block of a Q8_0 tile.
const BLOCK_LINES: usize = Q8::BYTES / LINE;
/// How far ahead the only panel asks for weights, and twice as far if it has more than a few rows; running past the end of a
/// matrix does no harm. Of what was tried on a Zen 4, one row is fastest with 2 to 4 KiB and eight with 8.
const PREFETCH_BYTES: usize = 4096;
const FEW_ROWS: usize = 6;
/// From so many rows on lines are asked for quad by quad: all at once, they would be in the way of those that are multiplied.
const ROWS_TO_SPREAD: usize = 4;
