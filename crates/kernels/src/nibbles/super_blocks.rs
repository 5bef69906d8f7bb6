//! Q4_K, Q5_K and Q6_K: 256 weights, whose eight or sixteen scales are whole numbers that share one scale of their own.
//!
//! In a tile the whole numbers stand as words of four, `word[i][row]`, and after them the shared scales, `f16[row]`.

#![allow(non_camel_case_types, reason = "the formats' own names")]

use super::{NIBBLES, Nibbles};
use crate::linear::{Block, Plain};
use crate::matrix::TILE;
use crate::memory::LINE;
use crate::simd::{LANES, Simd};

/// d, dmin, 12 bytes of six-bit scales and minima, 128 bytes: q (d scale) - dmin minimum.
pub(crate) struct Q4_K;
/// d, dmin, 12 bytes of six-bit scales and minima, 32 bytes of fifth bits, 128 bytes.
pub(crate) struct Q5_K;
/// 128 bytes, 64 bytes of upper bit pairs, 16 signed scales, d: (q - 32) (d scale), a scale for 16 weights.
pub(crate) struct Q6_K;

impl Nibbles for Q4_K {
    type Plain = Plain<1, 0>;
    const BLOCKS: usize = 8;
    const HIGH: usize = 0;
    const FILE_BYTES: usize = 144;

    fn quad(file: &[u8], block: usize, quad: usize) -> u32 {
        nibbles(&file[16..], block, quad)
    }

    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]) {
        put_words(&file[4..16], lane, scales);
        scales[6 * LINE + 2 * lane..][..2].copy_from_slice(&file[0..2]);
        scales[7 * LINE + 2 * lane..][..2].copy_from_slice(&file[2..4]);
    }

    /// The last four blocks keep the upper two bits of their numbers in the upper two bits of the first eight bytes.
    #[inline(always)]
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8) {
        for half in 0..2 {
            // SAFETY: six lines of words, then a line each of the shared scales, as `pack_scales` wrote them; the places
            // are those of scales and bases of plain blocks.
            unsafe {
                let words = [
                    s.load_i32(scales.add(half * LINE)),
                    s.load_i32(scales.add((2 + half) * LINE)),
                    s.load_i32(scales.add((4 + half) * LINE)),
                ];
                let shared = scales.add(6 * LINE).cast::<u16>().add(half * LANES);
                let (d, dmin) = (s.load_f16(shared), s.load_f16(shared.add(TILE)));
                for block in 0..8 {
                    let byte = 8 * (block % 4) as i32;
                    let (scale, minimum) = if block < 4 {
                        (bits(s, words[0], byte, 63), bits(s, words[1], byte, 63))
                    } else {
                        let upper_scale = s.shift_left(bits(s, words[0], byte + 6, 3), 4);
                        let upper_minimum = s.shift_left(bits(s, words[1], byte + 6, 3), 4);
                        (
                            s.or_i32(bits(s, words[2], byte, 15), upper_scale),
                            s.or_i32(bits(s, words[2], byte + 4, 15), upper_minimum),
                        )
                    };
                    let to = plain.add(block * Self::Plain::BYTES);
                    s.store(s.mul(d, s.to_f32(scale)), Self::Plain::scales(to, 0).add(half * LANES));
                    let minimum = s.mul(dmin, s.to_f32(minimum));
                    s.store(s.sub(s.zero(), minimum), Self::Plain::bases(to).add(half * LANES));
                }
            }
        }
    }
}

impl Nibbles for Q5_K {
    type Plain = Plain<1, 0>;
    const BLOCKS: usize = 8;
    const HIGH: usize = 1;
    const FILE_BYTES: usize = 176;

    fn quad(file: &[u8], block: usize, quad: usize) -> u32 {
        nibbles(&file[48..], block, quad) | (super::word(&file[16..48], quad) >> block & 0x0101_0101) << 4
    }

    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]) {
        Q4_K::pack_scales(file, lane, scales);
    }

    #[inline(always)]
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8) {
        // SAFETY: as the caller vouches; scales and minima are those of Q4_K.
        unsafe { Q4_K::unpack_scales(s, scales, plain) }
    }
}

impl Nibbles for Q6_K {
    type Plain = Plain<2, 32>;
    const BLOCKS: usize = 8;
    const HIGH: usize = 2;
    const FILE_BYTES: usize = 210;

    /// Two halves of four blocks, whose low bits share 64 bytes and whose upper bits share 32.
    fn quad(file: &[u8], block: usize, quad: usize) -> u32 {
        let (half, block) = (block / 4, block % 4);
        let low = super::word(&file[64 * half + 32 * (block % 2)..], quad) >> (4 * (block / 2));
        let high = super::word(&file[128 + 32 * half..], quad) >> (2 * block);
        low & NIBBLES | (high & 0x0303_0303) << 4
    }

    /// The scales are made unsigned.
    fn pack_scales(file: &[u8], lane: usize, scales: &mut [u8]) {
        let unsigned: [u8; 16] = std::array::from_fn(|i| file[192 + i] ^ 0x80);
        put_words(&unsigned, lane, scales);
        scales[8 * LINE + 2 * lane..][..2].copy_from_slice(&file[208..210]);
    }

    #[inline(always)]
    unsafe fn unpack_scales<S: Simd>(s: S, scales: *const u8, plain: *mut u8) {
        for half in 0..2 {
            // SAFETY: eight lines of words, then one of the shared scales, as `pack_scales` wrote them; the places are
            // those of scales of plain blocks.
            unsafe {
                let d = s.load_f16(scales.add(8 * LINE).cast::<u16>().add(half * LANES));
                for word in 0..4 {
                    let four = s.load_i32(scales.add((2 * word + half) * LINE));
                    for byte in 0..4 {
                        let scale = bits(s, four, 8 * byte as i32, 255);
                        let scale = s.to_f32(s.sub_i32(scale, s.splat_i32(128)));
                        let (block, part) = ((4 * word + byte) / 2, byte % 2);
                        let to = Self::Plain::scales(plain.add(block * Self::Plain::BYTES), part);
                        s.store(s.mul(d, scale), to.add(half * LANES));
                    }
                }
            }
        }
    }
}

/// Some bits of each word, from one on.
#[inline(always)]
fn bits<S: Simd>(s: S, words: S::I32, from: i32, mask: i32) -> S::I32 {
    s.and_i32(s.shift_right(words, from), s.splat_i32(mask))
}

/// Each 32 bytes hold two blocks: the first in their low halves, the second in their high ones.
fn nibbles(bytes: &[u8], block: usize, quad: usize) -> u32 {
    super::word(&bytes[32 * (block / 2)..], quad) >> (4 * (block % 2)) & NIBBLES
}

fn put_words(bytes: &[u8], lane: usize, words: &mut [u8]) {
    for (i, word) in bytes.chunks_exact(4).enumerate() {
        words[4 * (i * TILE + lane)..][..4].copy_from_slice(word);
    }
}
