//! Stored elements as `f32`, block by block, as the GGUF block layouts say.
//!
//! This is the plain reading, used once per tensor at load; the fast paths keep blocks packed (see the kernels).

use half::{bf16, f16};

use crate::format::Dtype;

/// Appends the elements of `bytes`, whole blocks of `dtype`; false when the type cannot be read.
pub(crate) fn extend(out: &mut Vec<f32>, dtype: Dtype, bytes: &[u8]) -> bool {
    match dtype {
        Dtype::F64 => out.extend(words(bytes).map(|word| f64::from_le_bytes(word) as f32)),
        Dtype::F32 => out.extend(words(bytes).map(f32::from_le_bytes)),
        Dtype::F16 => out.extend(words(bytes).map(|word| f16::from_le_bytes(word).to_f32())),
        Dtype::BF16 => out.extend(words(bytes).map(|word| bf16::from_le_bytes(word).to_f32())),
        Dtype::Q4_0 => words(bytes).for_each(|block| q4_0(out, block)),
        Dtype::Q4_1 => words(bytes).for_each(|block| q4_1(out, block)),
        Dtype::Q5_0 => words(bytes).for_each(|block| q5_0(out, block)),
        Dtype::Q5_1 => words(bytes).for_each(|block| q5_1(out, block)),
        Dtype::Q8_0 => words(bytes).for_each(|block| q8_0(out, block)),
        Dtype::Q4_K => words(bytes).for_each(|block| q4_k(out, block)),
        Dtype::Q5_K => words(bytes).for_each(|block| q5_k(out, block)),
        Dtype::Q6_K => words(bytes).for_each(|block| q6_k(out, block)),
        _ => return false,
    }
    true
}

fn words<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> {
    let (blocks, rest) = bytes.as_chunks::<N>();
    debug_assert!(rest.is_empty(), "views hold whole blocks");
    blocks.iter().copied()
}

fn half(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// d, 16 bytes: the low halves are elements 0 to 15, the high halves 16 to 31.
fn q4_0(out: &mut Vec<f32>, block: [u8; 18]) {
    let d = half(&block, 0);
    let quants = &block[2..];
    out.extend(quants.iter().map(|q| d * f32::from((q & 15) as i8 - 8)));
    out.extend(quants.iter().map(|q| d * f32::from((q >> 4) as i8 - 8)));
}

/// d, m, 16 bytes as in Q4_0, with an offset instead of a sign.
fn q4_1(out: &mut Vec<f32>, block: [u8; 20]) {
    let (d, m) = (half(&block, 0), half(&block, 2));
    let quants = &block[4..];
    out.extend(quants.iter().map(|q| d * f32::from(q & 15) + m));
    out.extend(quants.iter().map(|q| d * f32::from(q >> 4) + m));
}

/// d, 32 fifth bits, 16 bytes as in Q4_0.
fn q5_0(out: &mut Vec<f32>, block: [u8; 22]) {
    let d = half(&block, 0);
    out.extend(fives(&block[2..6], &block[6..]).map(|q| d * f32::from(q as i8 - 16)));
}

/// d, m, 32 fifth bits, 16 bytes as in Q4_0.
fn q5_1(out: &mut Vec<f32>, block: [u8; 24]) {
    let (d, m) = (half(&block, 0), half(&block, 2));
    out.extend(fives(&block[4..8], &block[8..]).map(|q| d * f32::from(q) + m));
}

/// The 32 five-bit numbers of a Q5_0 or Q5_1 block.
fn fives(high: &[u8], low: &[u8]) -> impl Iterator<Item = u8> {
    let fifth = |element: usize| (high[element / 8] >> (element % 8) & 1) << 4;
    (0..32).map(move |element| {
        let byte = low[element % 16];
        let nibble = if element < 16 { byte & 15 } else { byte >> 4 };
        nibble | fifth(element)
    })
}

/// d, 32 signed bytes.
fn q8_0(out: &mut Vec<f32>, block: [u8; 34]) {
    let d = half(&block, 0);
    out.extend(block[2..].iter().map(|q| d * f32::from(*q as i8)));
}

/// d, dmin, 12 bytes of scales and mins, 128 bytes: each 32 bytes hold 64 elements, low halves first.
fn q4_k(out: &mut Vec<f32>, block: [u8; 144]) {
    let (d, dmin) = (half(&block, 0), half(&block, 2));
    for (pair, quants) in block[16..].chunks_exact(32).enumerate() {
        for (sub, shift) in [(2 * pair, 0), (2 * pair + 1, 4)] {
            let (scale, min) = scale_and_min(&block[4..16], sub);
            let (scale, min) = (d * scale, dmin * min);
            out.extend(quants.iter().map(|q| scale * f32::from(q >> shift & 15) - min));
        }
    }
}

/// d, dmin, 12 bytes of scales and mins, 32 bytes of fifth bits (bit s for sub-block s), 128 bytes as in Q4_K.
fn q5_k(out: &mut Vec<f32>, block: [u8; 176]) {
    let (d, dmin) = (half(&block, 0), half(&block, 2));
    let fifths = &block[16..48];
    for (pair, quants) in block[48..].chunks_exact(32).enumerate() {
        for (sub, shift) in [(2 * pair, 0), (2 * pair + 1, 4)] {
            let (scale, min) = scale_and_min(&block[4..16], sub);
            let (scale, min) = (d * scale, dmin * min);
            let fives = quants.iter().zip(fifths).map(|(q, fifth)| q >> shift & 15 | (fifth >> sub & 1) << 4);
            out.extend(fives.map(|q| scale * f32::from(q) - min));
        }
    }
}

/// The six-bit scale and min of sub-block 0 to 7 of a Q4_K or Q5_K block: the last four keep their upper two bits in the
/// upper two bits of the first eight bytes.
fn scale_and_min(packed: &[u8], sub: usize) -> (f32, f32) {
    let (scale, min) = if sub < 4 {
        (packed[sub] & 63, packed[sub + 4] & 63)
    } else {
        let low = packed[sub + 4];
        (low & 15 | packed[sub - 4] >> 6 << 4, low >> 4 | packed[sub] >> 6 << 4)
    };
    (f32::from(scale), f32::from(min))
}

/// 128 bytes of low halves, 64 bytes of upper bit pairs, 16 signed scales, d: two halves of 128 elements, each four runs
/// of 32 that share bytes.
fn q6_k(out: &mut Vec<f32>, block: [u8; 210]) {
    let d = half(&block, 208);
    for part in 0..2 {
        let low = &block[64 * part..][..64];
        let high = &block[128 + 32 * part..][..32];
        let scales = &block[192 + 8 * part..][..8];
        for run in 0..4 {
            for element in 0..32 {
                let nibble = low[element + 32 * (run % 2)] >> (4 * (run / 2)) & 15;
                let q = nibble | (high[element] >> (2 * run) & 3) << 4;
                let scale = d * f32::from(scales[2 * run + element / 16] as i8);
                out.push(scale * f32::from(q as i8 - 32));
            }
        }
    }
}
