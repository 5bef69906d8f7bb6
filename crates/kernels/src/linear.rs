//! Products of rows with packed matrices, and what is done with a product before it is stored.
//!
//! The tile is outside and panels of up to eight rows inside, so weights are read from memory once. One output
//! element is one lane: its blocks (or inputs) are added from first to last by one chain of fused multiply-adds,
//! and k is never split. So an element has the same bits whatever panel it falls into.

mod floats;
mod panel;

use std::mem::MaybeUninit;
use std::ops::Range;

use floats::Inputs;
use panel::{Ahead, Blocks, Q8};
pub(crate) use panel::{Block, Plain, PlainWeights};

use crate::format::Format;
use crate::isa::Kernel;
use crate::math::{gelu, silu};
use crate::matrix::{Matrix, TILE};
use crate::nibbles::{self, MOST_BLOCKS, Nibbles, PlainGroup, Unpack};
use crate::plane::{Plane, QuantPlane};
use crate::quant::{self, BLOCK, QUANT_BLOCK_BYTES};
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

/// Rows that pass by a tile before the next rows do.
struct Set {
    rows: Range<usize>,
    /// Which set it is, of how many.
    index: usize,
    count: usize,
}

impl Kernel for Linear<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (mut sums, mut partner_sums) = (Sums::new(), Sums::new());
        let mut plain = PlainGroup::new();
        // What has to be unpacked is unpacked for many rows.
        let sets = if self.w.is_unpacked() {
            split(self.rows.clone(), SET_ROWS)
        } else {
            split(self.rows.clone(), rows_of_panel::<S>(self.rows.len()))
        };
        for tile in self.tiles.clone() {
            for (index, rows) in sets.clone().enumerate() {
                let set = Set { rows, index, count: sets.len() };
                self.multiply(s, tile, &set, &mut sums, &mut plain);
                if let Finish::SwiGlu { partner } = self.finish {
                    self.multiply(s, tile + partner, &set, &mut partner_sums, &mut plain);
                }
                for (i, row) in set.rows.enumerate() {
                    self.finish_row(s, tile, row, sums.row(i), partner_sums.row(i));
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
    fn multiply<S: Simd>(&self, s: S, tile: usize, set: &Set, sums: &mut Sums, plain: &mut PlainGroup) {
        let (format, w) = self.w.tile(tile);
        match format {
            Format::F32 => self.multiply_floats::<S, floats::F32>(s, w, set, sums),
            Format::F16 => self.multiply_floats::<S, floats::F16>(s, w, set, sums),
            Format::BF16 => self.multiply_floats::<S, floats::BF16>(s, w, set, sums),
            Format::Q8_0 => self.multiply_bytes(s, w, set, sums),
            Format::Q4_0 => self.multiply_nibbles::<S, nibbles::Q4_0>(s, w, set, sums, plain),
            Format::Q4_1 => self.multiply_nibbles::<S, nibbles::Q4_1>(s, w, set, sums, plain),
            Format::Q5_0 => self.multiply_nibbles::<S, nibbles::Q5_0>(s, w, set, sums, plain),
            Format::Q5_1 => self.multiply_nibbles::<S, nibbles::Q5_1>(s, w, set, sums, plain),
            Format::Q4_K => self.multiply_nibbles::<S, nibbles::Q4_K>(s, w, set, sums, plain),
            Format::Q5_K => self.multiply_nibbles::<S, nibbles::Q5_K>(s, w, set, sums, plain),
            Format::Q6_K => self.multiply_nibbles::<S, nibbles::Q6_K>(s, w, set, sums, plain),
        }
    }

    #[inline(always)]
    fn multiply_floats<S: Simd, F: floats::Float>(&self, s: S, w: *const u8, set: &Set, sums: &mut Sums) {
        let Input::F32(x) = self.x else { unreachable!("numbers are multiplied with numbers") };
        assert!(x.width() == self.w.k() && set.rows.end <= x.rows());
        for rows in split(set.rows.clone(), rows_of_panel::<S>(set.rows.len())) {
            let sums = sums.at(rows.start - set.rows.start);
            let inputs = Inputs { w, count: self.w.k(), x: x.row(rows.start), stride: x.stride(), sums };
            // SAFETY: a tile of a matrix has 32 k weights, rows have k values, as asserted, and a set has room for its sums.
            unsafe { inputs.multiply::<S, F>(s, rows.len()) };
        }
    }

    #[inline(always)]
    fn multiply_bytes<S: Simd>(&self, s: S, w: *const u8, set: &Set, sums: &mut Sums) {
        let (x, count) = self.quantized_input(set);
        let panels = split(set.rows.clone(), rows_of_panel::<S>(set.rows.len()));
        let of_set = panels.len();
        for (index, rows) in panels.enumerate() {
            let ahead = Ahead::new(count * Q8::BYTES, set.index * of_set + index, set.count * of_set);
            let sums = sums.at(rows.start - set.rows.start);
            let (x, stride) = (x.row(rows.start), x.stride());
            // SAFETY: a tile of a matrix has its blocks, rows have as many, as asserted, and a set has room for its sums.
            unsafe {
                Blocks { w, count, x, stride, ahead, first: true, sums }.multiply::<S, Q8>(s, rows.len())
            };
        }
    }

    #[inline(always)]
    fn multiply_nibbles<S: Simd, F: Nibbles>(
        &self,
        s: S,
        w: *const u8,
        set: &Set,
        sums: &mut Sums,
        plain: &mut PlainGroup,
    ) {
        let (x, blocks) = self.quantized_input(set);
        for start in (0..blocks).step_by(MOST_BLOCKS) {
            let count = MOST_BLOCKS.min(blocks - start);
            // SAFETY: a tile of a matrix has its groups, one after the other.
            unsafe {
                let from = w.add(start / F::BLOCKS * nibbles::group_bytes::<F>());
                s.call(Unpack::<F>::new(from, count / F::BLOCKS, plain));
            }
            for rows in split(set.rows.clone(), rows_of_panel::<S>(set.rows.len())) {
                let sums = sums.at(rows.start - set.rows.start);
                // SAFETY: so many blocks were unpacked, rows have at least as many from `start` on, as asserted, and a set has
                // room for its sums, which its first blocks have written.
                unsafe {
                    let (x, stride) = (x.row(rows.start).add(start * QUANT_BLOCK_BYTES), x.stride());
                    let (ahead, first) = (Ahead::NONE, start == 0);
                    let blocks = Blocks { w: plain.as_ptr(), count, x, stride, ahead, first, sums };
                    blocks.multiply::<S, F::Plain>(s, rows.len());
                }
            }
        }
    }

    /// The input as int8, and its blocks.
    #[inline(always)]
    fn quantized_input(&self, set: &Set) -> (QuantPlane, usize) {
        let Input::Q8(x) = self.x else { unreachable!("whole numbers are multiplied with whole numbers") };
        assert!(x.blocks() == self.w.k() / BLOCK);
        let _last = x.row(set.rows.end - 1);
        (x, x.blocks())
    }

    #[inline(always)]
    fn finish_row<S: Simd>(&self, s: S, tile: usize, row: usize, sums: *const f32, partner: *const f32) {
        for half in 0..2 {
            let column = tile * TILE + half * LANES;
            if column >= self.out.width() {
                return;
            }
            let n = (self.out.width() - column).min(LANES);
            // SAFETY: the sums are those of a row that was multiplied. `n` columns from `column` on are within the row, and
            // within the bias and residual, which are as wide; these columns of these rows belong to this piece.
            unsafe {
                let mut value = s.load(sums.add(half * LANES));
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
                        value = s.mul(silu(s, value), s.load(partner.add(half * LANES)));
                    }
                }
                s.store_first(n, value, self.out.row(row).add(column));
            }
        }
    }
}

/// Rows of a panel where there are so many. Few rows make one or two panels of up to 8: fewer passes over a tile are worth more
/// then than registers for all sums.
fn rows_of_panel<S: Simd>(rows: usize) -> usize {
    if S::PANEL > 4 && rows <= 2 * MAX_PANEL { MAX_PANEL } else { S::PANEL }
}

/// Splits rows evenly into parts of at most `most`.
fn split(rows: Range<usize>, most: usize) -> impl ExactSizeIterator<Item = Range<usize>> + Clone {
    let count = rows.len().div_ceil(most);
    let (start, len) = (rows.start, rows.len());
    (0..count).map(move |i| start + i * len / count..start + (i + 1) * len / count)
}

/// The sums of a set and a tile, not yet written.
#[repr(align(64))]
struct Sums([[MaybeUninit<f32>; TILE]; SET_ROWS]);

impl Sums {
    fn new() -> Self {
        Sums([[MaybeUninit::uninit(); TILE]; SET_ROWS])
    }

    /// From those of a row on.
    fn at(&mut self, row: usize) -> *mut f32 {
        self.0[row..].as_mut_ptr().cast()
    }

    fn row(&self, row: usize) -> *const f32 {
        self.0[row].as_ptr().cast()
    }
}

/// # Safety
/// 32 sums are readable for each of the rows.
#[inline(always)]
unsafe fn load<S: Simd, const M: usize>(s: S, from: *const f32, to: &mut [[S::F32; 2]; M]) {
    for (row, to) in to.iter_mut().enumerate() {
        // SAFETY: as the caller vouches.
        unsafe { *to = [s.load(from.add(row * TILE)), s.load(from.add(row * TILE + LANES))] };
    }
}

/// # Safety
/// 32 sums are writable for each of the rows.
#[inline(always)]
unsafe fn store<S: Simd, const M: usize>(s: S, from: &[[S::F32; 2]; M], to: *mut f32) {
    for (row, from) in from.iter().enumerate() {
        // SAFETY: as the caller vouches.
        unsafe {
            s.store(from[0], to.add(row * TILE));
            s.store(from[1], to.add(row * TILE + LANES));
        }
    }
}

/// Rows a panel has at most.
pub(crate) const MAX_PANEL: usize = 8;
/// Rows of a set at most: enough to make unpacking cheap, few enough for their sums to stay in the first cache.
const SET_ROWS: usize = 96;
