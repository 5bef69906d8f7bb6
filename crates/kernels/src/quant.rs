//! Activations as int8: 48 bytes for each block of 32 values.
//!
//! ```text
//! bytes  0..32: q, each in -127..=127
//! bytes 32..36: scale = largest magnitude / 127, f32
//! bytes 36..40: correction = -128 * sum(q), i32
//! bytes 40..44: correction of the first half, i32
//! bytes 44..48: scale * sum(q), f32
//! ```
//!
//! q is value / scale, rounded to nearest even. A block with a NaN or an infinity has the scale NaN, which makes
//! every output that depends on it NaN: a broken activation is never lost in the integers.
//!
//! Where a row has one scale, its first block has the scale and the correction of all of them.

use std::ops::Range;

use crate::plane::{Plane, QuantPlane};
use crate::simd::{LANES, ROUND, Simd};

/// Quantizes some rows and blocks of `x` into `out`.
///
/// # Safety
/// The ranges are within both planes; no other thread touches them in `out` or writes them in `x`.
#[inline(always)]
pub(crate) unsafe fn quantize<S: Simd>(
    s: S,
    x: Plane,
    out: QuantPlane,
    rows: Range<usize>,
    blocks: Range<usize>,
) {
    assert!(blocks.end * BLOCK <= x.width());
    if out.has_one_scale() {
        assert!(blocks == (0..out.blocks()), "a scale for a whole row");
        for row in rows {
            // SAFETY: the rows have so many blocks, as asserted.
            unsafe { quantize_row(s, x.row(row), out.row(row), blocks.end) };
        }
        return;
    }
    for row in rows {
        for block in blocks.clone() {
            // SAFETY: the values lie within the row, as asserted.
            unsafe {
                let from = x.row(row).add(block * BLOCK);
                quantize_block(s, [s.load(from), s.load(from.add(LANES))], out.block(row, block));
            }
        }
    }
}

/// Quantizes 32 values.
///
/// # Safety
/// 48 bytes are writable at `out`, which is aligned to 4.
#[inline(always)]
pub(crate) unsafe fn quantize_block<S: Simd>(s: S, values: [S::F32; 2], out: *mut u8) {
    let (scale, inverse) = scale(s, s.max_i32(magnitude(s, values[0]), magnitude(s, values[1])));
    let mut q = [s.splat_i32(0); 2];
    if inverse != 0.0 {
        for half in 0..2 {
            q[half] = round(s, values[half], inverse);
        }
    }
    // Both sums at once: each is below 2^15, so the lower half says what the first is, and what it took from the upper one.
    let sums = s.sum_i32(s.add_i32(q[0], s.shift_left(q[1], 16)));
    let first = i32::from(sums as i16);
    let sum = first + ((sums - first) >> 16);
    // SAFETY: within the 48 bytes.
    unsafe {
        s.store_i8(q[0], out.cast());
        s.store_i8(q[1], out.add(LANES).cast());
        out.add(SCALE).cast::<f32>().write(scale);
        out.add(CORRECTION).cast::<i32>().write(-128 * sum);
        out.add(FIRST_CORRECTION).cast::<i32>().write(-128 * first);
        out.add(SCALED_SUM).cast::<f32>().write(scale * sum as f32);
    }
}

/// Quantizes the values of a row with one scale.
///
/// # Safety
/// 32 values a block are readable at `x`, 48 bytes a block writable at `out`, which is aligned to 4.
#[inline(always)]
unsafe fn quantize_row<S: Simd>(s: S, x: *const f32, out: *mut u8, blocks: usize) {
    let vectors = blocks * BLOCK / LANES;
    let (mut largest, mut sums) = (s.splat_i32(0), s.splat_i32(0));
    // SAFETY: within the values and the blocks.
    unsafe {
        for vector in 0..vectors {
            largest = s.max_i32(largest, magnitude(s, s.load(x.add(vector * LANES))));
        }
        let (scale, inverse) = scale(s, largest);
        for vector in 0..vectors {
            let mut q = s.splat_i32(0);
            if inverse != 0.0 {
                q = round(s, s.load(x.add(vector * LANES)), inverse);
            }
            let (block, half) = (vector * LANES / BLOCK, vector * LANES % BLOCK);
            s.store_i8(q, out.add(block * QUANT_BLOCK_BYTES + half).cast());
            sums = s.add_i32(sums, q);
        }
        out.add(SCALE).cast::<f32>().write(scale);
        out.add(CORRECTION).cast::<i32>().write(-128 * s.sum_i32(sums));
    }
}

/// The scale of values with these magnitudes, and its inverse.
#[inline(always)]
fn scale<S: Simd>(s: S, magnitudes: S::I32) -> (f32, f32) {
    // Magnitudes order like their bits, with infinity and then NaN above all numbers.
    let largest = f32::from_bits(s.largest_i32(magnitudes).cast_unsigned());
    if !largest.is_finite() {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST {
        (0.0, 0.0)
    } else {
        (largest / 127.0, 127.0 / largest)
    }
}

/// The multiples of the scale that are nearest.
#[inline(always)]
fn round<S: Simd>(s: S, x: S::F32, inverse: f32) -> S::I32 {
    let rounded = s.fma(x, s.splat(inverse), s.splat(ROUND));
    s.sub_i32(s.to_bits(rounded), s.to_bits(s.splat(ROUND)))
}

#[inline(always)]
fn magnitude<S: Simd>(s: S, x: S::F32) -> S::I32 {
    s.and_i32(s.to_bits(x), s.splat_i32(i32::MAX))
}

/// Values that share a scale.
pub(crate) const BLOCK: usize = 32;
pub(crate) const QUANT_BLOCK_BYTES: usize = 48;
/// Offsets in a block.
pub(crate) const SCALE: usize = 32;
pub(crate) const CORRECTION: usize = 36;
pub(crate) const FIRST_CORRECTION: usize = 40;
pub(crate) const SCALED_SUM: usize = 44;
/// Below this the inverse of the scale is no f32; such values are zero beside any weight.
const SMALLEST: f32 = 1e-35;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, Kernel, Path};

    struct Block<'a>(&'a [f32; BLOCK], &'a mut [u32; 12]);

    impl Kernel for Block<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            // SAFETY: 32 values are read, 48 bytes written.
            unsafe {
                let values = [s.load(self.0.as_ptr()), s.load(self.0.as_ptr().add(LANES))];
                quantize_block(s, values, self.1.as_mut_ptr().cast());
            }
        }
    }

    fn quantized(isa: Isa, x: &[f32; BLOCK]) -> (Vec<i8>, f32, i32) {
        let mut out = [0; 12];
        Path::new(isa).expect("available").run(Block(x, &mut out));
        let bytes = out.iter().flat_map(|word: &u32| word.to_ne_bytes());
        let q: Vec<i8> = bytes.take(32).map(u8::cast_signed).collect();
        let (scale, correction) = (f32::from_bits(out[8]), out[9].cast_signed());
        let sum = |q: &[i8]| q.iter().map(|&q| i32::from(q)).sum::<i32>();
        assert_eq!(correction, -128 * sum(&q));
        assert_eq!(out[10].cast_signed(), -128 * sum(&q[..16]));
        assert_eq!(out[11], (scale * sum(&q) as f32).to_bits());
        (q, scale, correction)
    }

    struct Row<'a>(&'a [f32], &'a mut [u32]);

    impl Kernel for Row<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            // SAFETY: 32 values are read and 48 bytes written for each block.
            unsafe { quantize_row(s, self.0.as_ptr(), self.1.as_mut_ptr().cast(), self.0.len() / BLOCK) }
        }
    }

    #[test]
    fn a_row_with_one_scale_is_rounded_to_its_multiples_and_broken_by_any_of_its_values() {
        let x: Vec<f32> = (0..3 * BLOCK).map(|i| (i as f32 * 0.77).sin() * i as f32).collect();
        let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let words = QUANT_BLOCK_BYTES / size_of::<u32>();
        for isa in Isa::available() {
            let quantize = |x: &[f32]| {
                let mut out = vec![0; 3 * words];
                Path::new(isa).expect("available").run(Row(x, &mut out));
                let bytes = |block: &[u32]| {
                    block[..BLOCK / 4].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>()
                };
                let q: Vec<i8> = out.chunks(words).flat_map(bytes).map(u8::cast_signed).collect();
                (q, f32::from_bits(out[SCALE / 4]), out[CORRECTION / 4].cast_signed())
            };
            let (q, scale, correction) = quantize(&x);
            assert_eq!(scale, largest / 127.0);
            assert_eq!(correction, -128 * q.iter().map(|&q| i32::from(q)).sum::<i32>());
            for (q, x) in q.iter().zip(&x) {
                assert!((f32::from(*q) * scale - x).abs() <= scale * 0.5001, "{q} for {x} at {scale}");
            }
            for at in [0, 40, 95] {
                let mut broken = x.clone();
                broken[at] = f32::NAN;
                let (q, scale, correction) = quantize(&broken);
                assert!(scale.is_nan() && correction == 0 && q.iter().all(|&q| q == 0), "{}", isa.name());
            }
            assert_eq!(quantize(&[0.0; 3 * BLOCK]), (vec![0; 3 * BLOCK], 0.0, 0));
        }
    }

    #[test]
    fn values_are_rounded_to_the_nearest_multiple_of_the_scale() {
        let x: [f32; BLOCK] = std::array::from_fn(|i| (i as f32 * 0.77).sin() * 3.0);
        let largest = x.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        for isa in Isa::available() {
            let (q, scale, correction) = quantized(isa, &x);
            assert_eq!(scale, largest / 127.0);
            assert_ne!(correction, 0);
            for (q, x) in q.iter().zip(&x) {
                assert!((f32::from(*q) * scale - x).abs() <= scale * 0.5001, "{q} for {x} at {scale}");
            }
        }
    }

    #[test]
    fn halves_are_rounded_to_even() {
        let mut x = [0.0; BLOCK];
        x[..6].copy_from_slice(&[127.0, 0.5, 1.5, 2.5, -0.5, -1.5]);
        for isa in Isa::available() {
            assert_eq!(quantized(isa, &x).0[..6], [127, 0, 2, 2, 0, -2]);
        }
    }

    #[test]
    fn a_broken_value_breaks_the_scale_and_zeroes_are_zero() {
        for isa in Isa::available() {
            for broken in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                for at in 0..BLOCK {
                    let mut x = [1.0; BLOCK];
                    x[at] = broken;
                    let (q, scale, correction) = quantized(isa, &x);
                    assert!(scale.is_nan() && correction == 0 && q.iter().all(|&q| q == 0));
                }
            }
            for tiny in [0.0, -0.0, 1e-45, 1e-38] {
                assert_eq!(quantized(isa, &[tiny; BLOCK]), (vec![0; BLOCK], 0.0, 0));
            }
            let (q, scale, _) = quantized(isa, &[f32::MAX; BLOCK]);
            assert!(scale.is_finite() && q.iter().all(|&q| q == 127));
        }
    }
}
