//! Products of rows with packed matrices, and what is done with a product before it is stored.
//!
//! The tile is outside and panels of up to twelve rows inside, so weights are read from memory once. One output
//! element is one lane: its blocks (or inputs) are added from first to last by one chain of fused multiply-adds,
//! and k is never split; where a tile is unpacked in parts, the chain goes on from part to part. So an element has
//! the same bits whatever panel it falls into.

/// Calls a panel of so many rows, which it then knows as a constant.
macro_rules! call_panel {
    ($s:expr, $rows:expr, $panel:ident::<$kind:ty>, $inputs:expr) => {
        call_panel!(@ $s, $rows, $panel, $kind, $inputs, 1 2 3 4 5 6 7 8 9 10 11 12)
    };
    (@ $s:expr, $rows:expr, $panel:ident, $kind:ty, $inputs:expr, $($count:literal)*) => {{
        const { assert!(MAX_PANEL == [$($count),*].len()) };
        match $rows {
            $($count if $count <= most_rows::<S>() => $s.call($panel::<$kind, $count>($inputs, PhantomData)),)*
            rows => unreachable!("a panel has 1 to {} rows, not {rows}", most_rows::<S>()),
        }
    }};
}

mod finish;
mod floats;
mod panel;
mod whole;

use std::mem::MaybeUninit;
use std::ops::Range;

pub(crate) use finish::Finish;
use floats::Inputs;
use panel::{Ahead, Blocks, Q8};
pub(crate) use panel::{Block, Plain, PlainWeights};
use whole::WholeRows;

use crate::apart::Apart;
use crate::format::Format;
use crate::isa::Kernel;
use crate::matrix::{Matrix, TILE};
use crate::nibbles::{self, MOST_BLOCKS, Nibbles, PlainGroup, Unpack};
use crate::plane::{Plane, QuantPlane};
use crate::quant::{BLOCK, QUANT_BLOCK_BYTES};
use crate::simd::{LANES, Simd};

/// What a product is taken of.
#[derive(Clone, Copy)]
pub(crate) enum Input {
    F32(Plane),
    Q8(QuantPlane),
}

/// One piece of a linear step: some rows by some tiles.
pub(crate) struct Linear<'a> {
    pub(crate) x: Input,
    pub(crate) w: &'a Matrix,
    pub(crate) bias: Option<&'a [f32]>,
    pub(crate) finish: Finish,
    /// Columns of the output.
    pub(crate) width: usize,
    /// Where the finished values go, if something reads them as they are.
    pub(crate) out: Option<Plane>,
    /// Where they go as int8.
    pub(crate) quantized: Option<QuantPlane>,
    /// Where the largest of each tile's columns goes.
    pub(crate) peaks: Option<Plane>,
    pub(crate) rows: Range<usize>,
    pub(crate) tiles: Range<usize>,
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
                self.ask_places(s, tile, &rows);
                let set = Set { x: self.activations(&rows), rows: rows.len(), index, count: sets.len() };
                // SAFETY: tiles of a matrix have all inputs of 32 outputs, the activations as many, as asserted.
                unsafe {
                    multiply(s, self.w.tile(tile), set, sums.as_mut_ptr(), &mut plain);
                    if let Finish::SwiGlu { partner } = self.finish {
                        let tile = self.w.tile(tile + partner);
                        multiply(s, tile, set, partner_sums.as_mut_ptr(), &mut plain);
                    }
                }
                // SAFETY: these rows were multiplied, with the partner too where there is one.
                unsafe { self.finish_rows(s, tile, rows, sums.as_ptr(), partner_sums.as_ptr()) };
            }
        }
    }
}

/// The places where the values of a piece go that is computed apart.
pub(crate) struct Places<'a>(pub(crate) Linear<'a>);

impl Kernel for Places<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for tile in self.0.tiles.clone() {
            self.0.ask_places(s, tile, &self.0.rows);
        }
    }
}

/// A piece whose sums were computed apart.
pub(crate) struct Finished<'a> {
    pub(crate) linear: Linear<'a>,
    /// For each tile, and then for each of their partners, if they have one: 32 sums for each row.
    pub(crate) sums: &'a Apart,
}

impl Kernel for Finished<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Finished { linear, sums } = self;
        for (index, tile) in linear.tiles.clone().enumerate() {
            let partner = match linear.finish {
                Finish::SwiGlu { .. } => linear.tiles.len() + index,
                _ => index,
            };
            let (own, partner) = (sums.sums(index).as_ptr(), sums.sums(partner).as_ptr());
            // SAFETY: there are 32 sums for each of the rows.
            unsafe { linear.finish_rows(s, tile, linear.rows.clone(), own, partner) };
        }
    }
}

impl Linear<'_> {
    /// Asks for the places where a tile's values go, to come while it is multiplied.
    #[inline(always)]
    fn ask_places<S: Simd>(&self, s: S, tile: usize, rows: &Range<usize>) {
        for row in rows.clone() {
            if let Some(out) = self.out {
                let at = out.row(row).wrapping_add(tile * TILE);
                s.prefetch_to_write(at.cast());
                s.prefetch_to_write(at.wrapping_add(LANES).cast());
            }
            if let Some(quantized) = self.quantized {
                s.prefetch_to_write(quantized.block(row, tile));
            }
        }
    }

    /// Rows of the input, which has the matrix's inputs.
    #[inline(always)]
    fn activations(&self, rows: &Range<usize>) -> Activations {
        match self.x {
            Input::F32(x) => {
                assert!(self.w.is_float() && x.width() == self.w.k() && rows.end <= x.rows());
                Activations::Numbers { at: x.row(rows.start), stride: x.stride(), count: x.width() }
            }
            Input::Q8(x) => {
                assert!(!self.w.is_float() && x.blocks() == self.w.k() / BLOCK);
                assert_eq!(x.has_one_scale(), self.w.takes_one_scale());
                let _last = x.row(rows.end - 1);
                Activations::Blocks { at: x.row(rows.start), stride: x.stride(), count: x.blocks() }
            }
        }
    }
}

/// Some rows of activations: where the first one is, from one to the next, and how much of each.
#[derive(Clone, Copy)]
pub(crate) enum Activations {
    Numbers { at: *const f32, stride: usize, count: usize },
    Blocks { at: *const u8, stride: usize, count: usize },
}

/// Rows that pass by a tile before the next rows do.
#[derive(Clone, Copy)]
pub(crate) struct Set {
    pub(crate) x: Activations,
    pub(crate) rows: usize,
    /// Which set it is, of how many.
    pub(crate) index: usize,
    pub(crate) count: usize,
}

/// Multiplies a tile with a set of rows: 32 sums for each.
///
/// # Safety
/// The tile and the rows are readable and have as many inputs; there is room for all sums.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd>(
    s: S,
    (format, w): (Format, *const u8),
    set: Set,
    sums: *mut f32,
    plain: &mut PlainGroup,
) {
    // SAFETY: as the caller vouches.
    unsafe {
        match format {
            Format::F32 => multiply_numbers::<S, floats::F32>(s, w, set, sums),
            Format::F16 => multiply_numbers::<S, floats::F16>(s, w, set, sums),
            Format::BF16 => multiply_numbers::<S, floats::BF16>(s, w, set, sums),
            Format::Q8_0 => multiply_bytes(s, w, set, sums),
            Format::Q8_ROW => multiply_rows(s, w, set, sums),
            Format::Q4_0 => multiply_nibbles::<S, nibbles::Q4_0>(s, w, set, sums, plain),
            Format::Q4_1 => multiply_nibbles::<S, nibbles::Q4_1>(s, w, set, sums, plain),
            Format::Q5_0 => multiply_nibbles::<S, nibbles::Q5_0>(s, w, set, sums, plain),
            Format::Q5_1 => multiply_nibbles::<S, nibbles::Q5_1>(s, w, set, sums, plain),
            Format::Q4_K => multiply_nibbles::<S, nibbles::Q4_K>(s, w, set, sums, plain),
            Format::Q5_K => multiply_nibbles::<S, nibbles::Q5_K>(s, w, set, sums, plain),
            Format::Q6_K => multiply_nibbles::<S, nibbles::Q6_K>(s, w, set, sums, plain),
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn multiply_numbers<S: Simd, F: floats::Float>(s: S, w: *const u8, set: Set, sums: *mut f32) {
    let Activations::Numbers { at, stride, count } = set.x else {
        unreachable!("numbers are multiplied with numbers")
    };
    for rows in split(0..set.rows, rows_of_panel::<S>(set.rows)) {
        // SAFETY: these rows are among those that the caller vouches for.
        unsafe {
            let (x, sums) = (at.add(rows.start * stride), sums.add(rows.start * TILE));
            Inputs { w, count, x, stride, sums }.multiply::<S, F>(s, rows.len());
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn multiply_bytes<S: Simd>(s: S, w: *const u8, set: Set, sums: *mut f32) {
    let (at, stride, count) = set.blocks();
    let panels = split(0..set.rows, rows_of_panel::<S>(set.rows));
    let of_set = panels.len();
    for (index, rows) in panels.enumerate() {
        let ahead = Ahead::new(count * Q8::BYTES, rows.len(), set.index * of_set + index, set.count * of_set);
        // SAFETY: these rows are among those that the caller vouches for.
        unsafe {
            let (x, sums) = (at.add(rows.start * stride), sums.add(rows.start * TILE));
            Blocks { w, count, x, stride, ahead, first: true, sums }.multiply::<S, Q8>(s, rows.len());
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn multiply_rows<S: Simd>(s: S, w: *const u8, set: Set, sums: *mut f32) {
    let (at, stride, count) = set.blocks();
    let panels = split(0..set.rows, rows_of_panel::<S>(set.rows));
    let of_set = panels.len();
    for (index, rows) in panels.enumerate() {
        // A block has a line less here than one with scales; to ask for a line twice does no harm.
        let ahead =
            Ahead::new(count * TILE * BLOCK, rows.len(), set.index * of_set + index, set.count * of_set);
        // SAFETY: these rows are among those that the caller vouches for.
        unsafe {
            let (x, sums) = (at.add(rows.start * stride), sums.add(rows.start * TILE));
            WholeRows { w, count, x, stride, ahead, sums }.multiply(s, rows.len());
        }
    }
}

/// # Safety
/// As [`multiply`].
#[inline(always)]
unsafe fn multiply_nibbles<S: Simd, F: Nibbles>(
    s: S,
    w: *const u8,
    set: Set,
    sums: *mut f32,
    plain: &mut PlainGroup,
) {
    let (at, stride, blocks) = set.blocks();
    for start in (0..blocks).step_by(MOST_BLOCKS) {
        let count = MOST_BLOCKS.min(blocks - start);
        // SAFETY: a tile has its groups one after the other, as many as the rows have.
        unsafe {
            let from = w.add(start / F::BLOCKS * nibbles::group_bytes::<F>());
            s.call(Unpack::<F>::new(from, count / F::BLOCKS, plain));
        }
        for rows in split(0..set.rows, rows_of_panel::<S>(set.rows)) {
            // SAFETY: so many blocks were unpacked; these rows are among those that the caller vouches for, and have as many
            // from `start` on; their first blocks have written the sums.
            unsafe {
                let x = at.add(rows.start * stride + start * QUANT_BLOCK_BYTES);
                let (ahead, first, sums) = (Ahead::NONE, start == 0, sums.add(rows.start * TILE));
                let blocks = Blocks { w: plain.as_ptr(), count, x, stride, ahead, first, sums };
                blocks.multiply::<S, F::Plain>(s, rows.len());
            }
        }
    }
}

impl Set {
    #[inline(always)]
    fn blocks(&self) -> (*const u8, usize, usize) {
        let Activations::Blocks { at, stride, count } = self.x else {
            unreachable!("whole numbers are multiplied with whole numbers")
        };
        (at, stride, count)
    }
}

/// Rows of a panel where there are so many. Few rows make one panel, or two: fewer passes over a tile are worth more then than
/// registers for all sums.
fn rows_of_panel<S: Simd>(rows: usize) -> usize {
    if rows <= ROWS_OF_TWO_PANELS { most_rows::<S>() } else { S::PANEL }
}

/// Rows that a panel has at most.
const fn most_rows<S: Simd>() -> usize {
    if S::PANEL > 4 { MAX_PANEL } else { S::PANEL }
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

    fn as_mut_ptr(&mut self) -> *mut f32 {
        self.0.as_mut_ptr().cast()
    }

    fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
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

/// Rows a panel has at most, where there are many registers: not all sums of twelve are in them, but weights are read once.
pub(crate) const MAX_PANEL: usize = 12;
/// Up to so many rows make one such panel, or two.
const ROWS_OF_TWO_PANELS: usize = 16;
/// Rows of a set at most: enough to make unpacking cheap, few enough for their sums to stay in the first cache.
const SET_ROWS: usize = 96;
