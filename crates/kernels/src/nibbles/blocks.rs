//! Q4_0, Q4_1, Q5_0 and Q5_1: 32 weights with a scale, perhaps with a base.
//!
//! In a tile the scales are one line, the 32 rows' f16, and the bases another.

use super::{NIBBLES, Nibbles};
use crate::linear::Plain;
use crate::matrix::TILE;
use crate::memory::LINE;
use crate::simd::{LANES, Simd};

/// scale, 16 bytes: (q - 8) scale.
pub(crate) struct Q4_0;
/// scale, base, 16 bytes: q scale + base.
pub(crate) struct Q4_1;
/// scale, 32 fifth bits, 16 bytes: (q - 16) scale.
pub(crate) struct Q5_0;
/// scale, base, 32 fifth bits, 16 bytes: q scale + base.
pub(crate) struct Q5_1;

impl Nibbles for Q4_0 {
    type Plain = Plain<1, 8>;
    const BLOCKS: usize = 1;
    const HIGH: usize = 0;
    const FILE_BYTES: usize = 18;

    fn quad(file: &[u8], _block: usize, quad: usize) -> u32 {
        nibbles(&file[2..], quad)
    }

    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]) {
        put_half(&file[0..2], lane, scales);
    }

    #[inline(always)]
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8) {
        // SAFETY: as the caller vouches.
        unsafe { halves_to_f32(s, scales, Self::Plain::scales(plain, 0)) }
    }
}

impl Nibbles for Q4_1 {
    type Plain = Plain<1, 0>;
    const BLOCKS: usize = 1;
    const HIGH: usize = 0;
    const FILE_BYTES: usize = 20;

    fn quad(file: &[u8], _block: usize, quad: usize) -> u32 {
        nibbles(&file[4..], quad)
    }

    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]) {
        put_half(&file[0..2], lane, scales);
        put_half(&file[2..4], lane, &mut scales[LINE..]);
    }

    #[inline(always)]
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8) {
        // SAFETY: as the caller vouches.
        unsafe {
            halves_to_f32(s, scales, Self::Plain::scales(plain, 0));
            halves_to_f32(s, scales.add(LINE), Self::Plain::bases(plain));
        }
    }
}

impl Nibbles for Q5_0 {
    type Plain = Plain<1, 16>;
    const BLOCKS: usize = 1;
    const HIGH: usize = 1;
    const FILE_BYTES: usize = 22;

    fn quad(file: &[u8], _block: usize, quad: usize) -> u32 {
        nibbles(&file[6..], quad) | fifths(&file[2..6], quad)
    }

    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]) {
        Q4_0::pack_scales(file, lane, scales);
    }

    #[inline(always)]
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8) {
        // SAFETY: as the caller vouches; the scales are those of Q4_0.
        unsafe { Q4_0::unpack_scales(s, scales, plain) }
    }
}

impl Nibbles for Q5_1 {
    type Plain = Plain<1, 0>;
    const BLOCKS: usize = 1;
    const HIGH: usize = 1;
    const FILE_BYTES: usize = 24;

    fn quad(file: &[u8], _block: usize, quad: usize) -> u32 {
        nibbles(&file[8..], quad) | fifths(&file[4..8], quad)
    }

    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]) {
        Q4_1::pack_scales(file, lane, scales);
    }

    #[inline(always)]
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8) {
        // SAFETY: as the caller vouches; scales and bases are those of Q4_1.
        unsafe { Q4_1::unpack_scales(s, scales, plain) }
    }
}

/// Byte i has the low bits of weight i in its low half, those of weight 16 + i in its high half.
fn nibbles(bytes: &[u8], quad: usize) -> u32 {
    super::word(bytes, quad % 4) >> (4 * (quad / 4)) & NIBBLES
}

/// Bit i is the fifth of weight i.
fn fifths(bits: &[u8], quad: usize) -> u32 {
    let four = super::word(bits, 0) >> (4 * quad) & 15;
    // Bit i of the four lands on bit 8i in one of the copies.
    ((four * COPIES) & 0x0101_0101) << 4
}

/// Times this: copies that begin at bits 0, 7, 14 and 21.
const COPIES: u32 = 0x0020_4081;

fn put_half(half: &[u8], lane: usize, line: &mut [u8]) {
    line[2 * lane..][..2].copy_from_slice(half);
}

/// # Safety
/// 32 half-precision values are readable at `from`, 32 f32 writable at `to`.
#[inline(always)]
pub(super) unsafe fn halves_to_f32<S: Simd>(s: S, from: *const u8, to: *mut f32) {
    for first in (0..TILE).step_by(LANES) {
        // SAFETY: as the caller vouches.
        unsafe { s.store(s.load_f16(from.cast::<u16>().add(first)), to.add(first)) }
    }
}
