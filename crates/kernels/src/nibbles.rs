//! Tiles of weights of four to six bits, and how they are unpacked to be multiplied.
//!
//! A group is what has scales in common: one block of 32 inputs, or eight of them. It takes the file's bytes, put another
//! way: for each block
//!
//! ```text
//! 8 lines  low bits:  line 2j + h, byte 4r + i: row 16h + r; input 4j + i in the low half, input 16 + 4j + i in the high one
//! 2 lines  a fifth bit, if there is one: line h, byte 4r + i, bit j: that of input 4j + i
//! 4 lines  or a fifth and a sixth: line 2g + h, byte 4r + i, bits 2j and 2j + 1: those of input 16g + 4j + i
//! ```
//!
//! and then the scales of all blocks, of 32 rows, as each format has them.
//!
//! Before it is multiplied, a group is unpacked into [`Plain`] blocks in the first cache: a byte a weight, scales as f32.
//! That costs little for one row, and next to nothing for many; the bits of a product cannot depend on it.

mod blocks;
mod super_blocks;

use std::marker::PhantomData;
use std::mem::MaybeUninit;

pub(crate) use blocks::{Q4_0, Q4_1, Q5_0, Q5_1};
pub(crate) use super_blocks::{Q4_K, Q5_K, Q6_K};

use crate::isa::{Kernel, Path};
use crate::linear::{Block, PlainWeights};
use crate::matrix::TILE;
use crate::memory::LINE;
use crate::quant::BLOCK;
use crate::simd::{LANES, Simd};

/// A format of low bits in nibbles and perhaps some more in planes.
pub(crate) trait Nibbles {
    /// What a block is unpacked to.
    type Plain: Block + PlainWeights;
    /// Blocks of a group.
    const BLOCKS: usize;
    /// Bits of a weight above the low four.
    const HIGH: usize;
    /// Bytes of a group of one row in a file.
    const FILE_BYTES: usize;

    /// Four neighbouring weights of one row, a byte each: inputs 4 `quad` to 4 `quad` + 3 of a block.
    fn quad(file: &[u8], block: usize, quad: usize) -> u32;

    /// Puts the scales of one row among those of the tile.
    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]);

    /// Writes the scales of all plain blocks of a group.
    ///
    /// # Safety
    /// The scales of a group are readable at `scales`, [`Self::BLOCKS`] plain blocks writable at `plain`.
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8);
}

/// Bytes of a group of a tile.
pub(crate) const fn group_bytes<F: Nibbles>() -> usize {
    TILE * F::FILE_BYTES
}

/// Bytes of a block without scales.
const fn block_bytes<F: Nibbles>() -> usize {
    (8 + 2 * F::HIGH) * LINE
}

/// Puts a group of one row into its tile.
pub(crate) fn pack<F: Nibbles>(file: &[u8], lane: usize, group: &mut [u8]) {
    let (half, at) = (lane / LANES, 4 * (lane % LANES));
    let (blocks, scales) = group.split_at_mut(F::BLOCKS * block_bytes::<F>());
    for (index, block) in blocks.chunks_exact_mut(block_bytes::<F>()).enumerate() {
        let mut put = |line: usize, word: u32| {
            block[(2 * line + half) * LINE + at..][..4].copy_from_slice(&word.to_le_bytes());
        };
        let quads: [u32; 8] = std::array::from_fn(|quad| F::quad(file, index, quad));
        for j in 0..4 {
            put(j, quads[j] & NIBBLES | (quads[j + 4] & NIBBLES) << 4);
        }
        let mask = 0x0101_0101 * ((1 << F::HIGH) - 1);
        for plane in 0..F::HIGH {
            let quads = quads[plane * (8 / F::HIGH)..].iter().take(8 / F::HIGH).enumerate();
            put(4 + plane, quads.fold(0, |bits, (j, quad)| bits | (quad >> 4 & mask) << (j * F::HIGH)));
        }
    }
    F::pack_scales(file, lane, scales);
}

/// Reads one row of a tile as f32.
pub(crate) fn read_row<F: Nibbles>(tile: &[u8], lane: usize, out: &mut [f32]) {
    let mut plain = PlainGroup::new();
    for (group, out) in tile.chunks_exact(group_bytes::<F>()).zip(out.chunks_exact_mut(F::BLOCKS * BLOCK)) {
        // SAFETY: the group has its bytes, and there is room for its blocks.
        Path::detect().run(unsafe { Unpack::<F>::new(group.as_ptr(), 1, &mut plain) });
        for (block, out) in out.chunks_exact_mut(BLOCK).enumerate() {
            for (input, out) in out.iter_mut().enumerate() {
                // SAFETY: this block was unpacked just now.
                *out = unsafe { F::Plain::weight(plain.as_ptr().add(block * F::Plain::BYTES), lane, input) };
            }
        }
    }
}

/// Unpacks some groups of a tile.
pub(crate) struct Unpack<F> {
    from: *const u8,
    groups: usize,
    to: *mut u8,
    format: PhantomData<F>,
}

/// Room for eight plain blocks, not yet written.
#[repr(align(64))]
pub(crate) struct PlainGroup([MaybeUninit<u8>; PLAIN_GROUP_BYTES]);

impl PlainGroup {
    pub(crate) fn new() -> Self {
        PlainGroup([MaybeUninit::uninit(); PLAIN_GROUP_BYTES])
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }
}

impl<F: Nibbles> Unpack<F> {
    /// # Safety
    /// So many groups, of up to eight blocks together, are readable at `from` while the kernel runs.
    pub(crate) unsafe fn new(from: *const u8, groups: usize, to: &mut PlainGroup) -> Self {
        assert!(groups * F::BLOCKS * F::Plain::BYTES <= size_of::<PlainGroup>());
        Unpack { from, groups, to: to.0.as_mut_ptr().cast(), format: PhantomData }
    }
}

impl<F: Nibbles> Kernel for Unpack<F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const { assert!(F::BLOCKS <= MOST_BLOCKS) };
        for group in 0..self.groups {
            // SAFETY: `new` was told that the groups are there, and saw that there is room for their plain blocks.
            unsafe {
                let from = self.from.add(group * group_bytes::<F>());
                let to = self.to.add(group * F::BLOCKS * F::Plain::BYTES);
                for block in 0..F::BLOCKS {
                    let ahead = from.wrapping_add(PREFETCH_BYTES + block * group_bytes::<F>() / F::BLOCKS);
                    for line in 0..(group_bytes::<F>() / F::BLOCKS).div_ceil(LINE) {
                        s.prefetch(ahead.wrapping_add(line * LINE));
                    }
                    unpack_block::<S, F>(
                        s,
                        from.add(block * block_bytes::<F>()),
                        to.add(block * F::Plain::BYTES),
                    );
                }
                F::unpack_scales(s, from.add(F::BLOCKS * block_bytes::<F>()), to);
            }
        }
    }
}

/// # Safety
/// A block is readable at `from`, its weights are writable at `to`.
#[inline(always)]
unsafe fn unpack_block<S: Simd, F: Nibbles>(s: S, from: *const u8, to: *mut u8) {
    let nibbles = s.splat_i32(NIBBLES.cast_signed());
    for half in 0..2 {
        for j in 0..4 {
            // SAFETY: within the lines of the block.
            unsafe {
                let both = s.load_i32(from.add((2 * j + half) * LINE));
                let mut low = s.and_i32(both, nibbles);
                let mut high = s.and_i32(s.shift_right(both, 4), nibbles);
                if F::HIGH > 0 {
                    low = s.or_i32(low, high_bits::<S, F>(s, from, j, half));
                    high = s.or_i32(high, high_bits::<S, F>(s, from, j + 4, half));
                }
                s.store_i32(low, to.add((2 * j + half) * LINE));
                s.store_i32(high, to.add((2 * (j + 4) + half) * LINE));
            }
        }
    }
}

/// The bits above the low four of one quad, where they belong.
///
/// # Safety
/// A block with planes is readable at `from`.
#[inline(always)]
unsafe fn high_bits<S: Simd, F: Nibbles>(s: S, from: *const u8, quad: usize, half: usize) -> S::I32 {
    let quads_of_plane = 8 / F::HIGH;
    let (plane, bit) = (quad / quads_of_plane, (quad % quads_of_plane * F::HIGH) as i32);
    // SAFETY: the planes follow the eight lines of low bits.
    let bits = unsafe { s.load_i32(from.add((8 + 2 * plane + half) * LINE)) };
    let moved = if bit < 4 { s.shift_left(bits, 4 - bit) } else { s.shift_right(bits, bit - 4) };
    s.and_i32(moved, s.splat_i32(0x1010_1010 * ((1 << F::HIGH) - 1)))
}

/// The `index`th word of some bytes.
fn word(bytes: &[u8], index: usize) -> u32 {
    let word = &bytes[4 * index..][..4];
    u32::from_le_bytes([word[0], word[1], word[2], word[3]])
}

/// The low half of each of four bytes.
const NIBBLES: u32 = 0x0f0f_0f0f;
/// Blocks that are unpacked at a time.
pub(crate) const MOST_BLOCKS: usize = 8;
/// Weights, and two lines more for each half of the rows.
const PLAIN_GROUP_BYTES: usize = MOST_BLOCKS * (BLOCK * TILE + 4 * LINE);
/// How far ahead packed weights are asked for; running past the end of a matrix does no harm.
const PREFETCH_BYTES: usize = 8192;
