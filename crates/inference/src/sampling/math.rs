//! Arithmetic that gives the same bits on every platform: only additions, multiplications and bit patterns.

use std::f64::consts::{LN_2, SQRT_2};

/// The natural logarithm of a normal number above 0.
pub(super) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut k = (bits >> 52) as i64 - 1023;
    let mut m = f64::from_bits(bits & 0x000F_FFFF_FFFF_FFFF | 1023 << 52);
    if m > SQRT_2 {
        m /= 2.0;
        k += 1;
    }
    // ln m = 2 artanh s, with s at most 0.172: the 11th odd power is below 1e-17
    let s = (m - 1.0) / (m + 1.0);
    let square = s * s;
    let mut sum = 0.0;
    for n in (0..=11).rev() {
        sum = sum * square + 1.0 / f64::from(2 * n + 1);
    }
    2.0 * s * sum + k as f64 * LN_2
}

/// A number in `0.0..1.0` for a step of a seed: two rounds of the SplitMix64 mixer over both.
pub(super) fn uniform(seed: u64, step: u64) -> f64 {
    let bits = mix(mix(seed ^ 0x616E_7469_7068_6F6E).wrapping_add(step.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

fn mix(z: u64) -> u64 {
    let z = z.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ln_agrees_with_the_platform_to_the_last_digits() {
        for step in 1..100_000 {
            let x = f64::from(step) * 0.37;
            let (ours, theirs) = (ln(x), x.ln());
            assert!(
                (ours - theirs).abs() <= theirs.abs() * 1e-15 + 1e-16,
                "ln({x}): {ours} against {theirs}"
            );
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn random_numbers_are_recorded_for_good_and_evenly_spread() {
        let recorded: Vec<u64> = (0..3).map(|step| (uniform(7, step) * 1e9) as u64).collect();
        assert_eq!(recorded, [288_817_773, 121_202_608, 919_692_964]);
        let mean = (0..100_000).map(|step| uniform(1, step)).sum::<f64>() / 1e5;
        assert!((mean - 0.5).abs() < 0.005, "{mean}");
    }
}
