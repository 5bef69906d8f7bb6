//! exp, erf and the activations made of them, on sixteen lanes.
//!
//! The polynomials are our own minimax fits; their errors are asserted by the tests below. NaN in, NaN out.

use crate::simd::{ROUND, Simd};

/// e^x. Zero below -104, infinite above 88.73, as f32 rounds; relative error below 1.3e-7 between.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^x = 2^n (1 + r + r^2 p(r)), p of degree 5 (fit error 1.4e-9).
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F32) -> S::F32 {
    // The constant comes first: then a NaN in x survives.
    let x = s.min(s.splat(EXP_HIGHEST), s.max(s.splat(EXP_LOWEST), x));
    let shifted = s.fma(x, s.splat(std::f32::consts::LOG2_E), s.splat(ROUND));
    let n = s.sub(shifted, s.splat(ROUND));
    let r = s.fma(n, s.splat(-LN2_HIGH), x);
    let r = s.fma(n, s.splat(-LN2_LOW), r);
    let p = polynomial(s, r, &EXP);
    let power = s.add(s.fma(p, s.mul(r, r), r), s.splat(1.0));
    s.ldexp(power, n)
}

/// 2^x for x up to 1, but at least 2^-126: what is less would be subnormal, with which many processors are slow.
/// Relative error below 1e-7.
///
/// x = n + r with |r| <= 1/2; 2^r = 1 + r p(r), p of degree 5 (fit error 2e-9).
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.max(s.splat(EXP2_LOWEST), x); // in this order a NaN survives
    let n = s.sub(s.add(x, s.splat(ROUND)), s.splat(ROUND));
    let r = s.sub(x, n);
    s.ldexp(s.fma(polynomial(s, r, &EXP2), r, s.splat(1.0)), n)
}

/// The error function, as x P(x^2) / Q(x^2) with x held within ±3.92, where erf rounds to ±1. Relative error of
/// the fit 5.3e-8, of the result below 4e-7.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let x = s.min(s.splat(ERF_HIGHEST), s.max(s.splat(-ERF_HIGHEST), x));
    let t = s.mul(x, x);
    s.div(s.mul(x, polynomial(s, t, &ERF_P)), polynomial(s, t, &ERF_Q))
}

/// x/2 (1 + erf(x / sqrt 2)).
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    let erf = erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2)));
    s.mul(s.mul(x, s.splat(0.5)), s.add(erf, s.splat(1.0)))
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F32) -> S::F32 {
    s.div(x, s.add(exp(s, s.sub(s.zero(), x)), s.splat(1.0)))
}

/// Horner's scheme; coefficients from the highest power down.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(s: S, x: S::F32, coefficients: &[f32; N]) -> S::F32 {
    let mut y = s.splat(coefficients[0]);
    for &c in &coefficients[1..] {
        y = s.fma(y, x, s.splat(c));
    }
    y
}

const EXP_LOWEST: f32 = -110.0;
const EXP_HIGHEST: f32 = 89.0;
/// ln 2 = LN2_HIGH + LN2_LOW; the first has 10 bits, so its products with n are exact.
const LN2_HIGH: f32 = 355.0 / 512.0;
const LN2_LOW: f32 = -2.121_944_4e-4;
const EXP: [f32; 6] = [1.989_108_1e-4, 1.393_373_1e-3, 8.333_311e-3, 4.166_646_4e-2, 1.666_666_7e-1, 5.0e-1];

const EXP2_LOWEST: f32 = -126.0;
const EXP2: [f32; 6] =
    [1.535_336_2e-4, 1.339_887_5e-3, 9.618_437e-3, 5.550_332_4e-2, 2.402_264_8e-1, 6.931_472e-1];

const ERF_HIGHEST: f32 = 3.92;
const ERF_P: [f32; 7] = [
    1.992_279_7e-8,
    -1.957_608_4e-6,
    1.418_216_4e-4,
    3.700_677e-3,
    5.057_069_3e-2,
    1.999_044_4e-1,
    std::f32::consts::FRAC_2_SQRT_PI,
];
const ERF_Q: [f32; 5] = [9.557_896e-4, 1.435_144_5e-2, 1.149_901_1e-1, 5.104_924e-1, 1.0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, Kernel, Path};
    use crate::rows::{load, store};
    use crate::simd::LANES;

    #[derive(Clone, Copy)]
    enum Function {
        Exp,
        Exp2,
        Erf,
        Gelu,
        Silu,
    }

    struct Map<'a>(Function, &'a mut [f32]);

    impl Kernel for Map<'_> {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for start in (0..self.1.len()).step_by(LANES) {
                let x = load(s, self.1, start);
                let y = match self.0 {
                    Function::Exp => exp(s, x),
                    Function::Exp2 => exp2(s, x),
                    Function::Erf => erf(s, x),
                    Function::Gelu => gelu(s, x),
                    Function::Silu => silu(s, x),
                };
                store(s, y, self.1, start);
            }
        }
    }

    fn map(path: Path, function: Function, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        path.run(Map(function, &mut y));
        y
    }

    /// One f32 of every 4001, of all magnitudes and both signs, and the special ones.
    fn samples() -> Vec<f32> {
        let special =
            [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MIN_POSITIVE, 88.7, 88.8, -103.9, -104.1];
        special.into_iter().chain((0..u32::MAX).step_by(4001).map(f32::from_bits)).collect()
    }

    /// erf by a series of positive terms: 2/sqrt(pi) e^(-x^2) sum of 2^n x^(2n+1) / (2n+1)!!
    fn erf_f64(x: f64) -> f64 {
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        if x.abs() > 6.0 { x.signum() } else { 2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum }
    }

    #[test]
    fn exp_is_within_its_error_of_the_true_value() {
        let x = samples();
        let mut worst = 0.0f64;
        for (x, y) in x.iter().zip(map(Path::detect(), Function::Exp, &x)) {
            let expected = f64::from(*x).exp();
            if x.is_nan() {
                assert!(y.is_nan());
            } else if expected > f64::from(f32::MAX) * 1.0001 {
                assert_eq!(y, f32::INFINITY, "exp({x})");
            } else if expected < f64::from(f32::MIN_POSITIVE) {
                assert!((f64::from(y) - expected).abs() <= 1.5e-45, "exp({x}) is {y}");
            } else if expected < f64::from(f32::MAX) * 0.9999 {
                worst = worst.max((f64::from(y) / expected - 1.0).abs());
            }
        }
        assert!(worst < 1.3e-7, "relative error {worst}");
        assert_eq!(map(Path::detect(), Function::Exp, &[0.0, f32::NEG_INFINITY])[..], [1.0, 0.0]);
    }

    #[test]
    fn exp2_is_within_its_error_of_the_true_value() {
        let x: Vec<f32> = samples().into_iter().filter(|x| x.is_nan() || *x <= 1.0).collect();
        let mut worst = 0.0f64;
        for (x, y) in x.iter().zip(map(Path::detect(), Function::Exp2, &x)) {
            let expected = f64::from(*x).exp2().max(f64::from(f32::MIN_POSITIVE));
            if x.is_nan() {
                assert!(y.is_nan());
            } else {
                worst = worst.max((f64::from(y) / expected - 1.0).abs());
            }
        }
        assert!(worst < 1e-7, "relative error {worst}");
        assert_eq!(map(Path::detect(), Function::Exp2, &[0.0, 1.0])[..], [1.0, 2.0]);
    }

    #[test]
    fn erf_and_gelu_are_within_their_errors_of_the_true_values() {
        let x: Vec<f32> =
            samples().into_iter().filter(|x| !x.is_nan() && (x.abs() > 1e-30 || *x == 0.0)).collect();
        let mut worst = 0.0f64;
        for (x, y) in x.iter().zip(map(Path::detect(), Function::Erf, &x)) {
            let expected = erf_f64(f64::from(*x));
            if expected != 0.0 {
                worst = worst.max((f64::from(y) / expected - 1.0).abs());
            }
        }
        assert!(worst < 4e-7, "relative error of erf {worst}");
        let x: Vec<f32> = x.into_iter().filter(|x| x.abs() < 1e30).collect();
        for (x, y) in x.iter().zip(map(Path::detect(), Function::Gelu, &x)) {
            let x = f64::from(*x);
            let expected = x / 2.0 * (1.0 + erf_f64(x / std::f64::consts::SQRT_2));
            assert!(
                (f64::from(y) - expected).abs() <= 3e-7 * x.abs(),
                "gelu({x}) is {y}, expected {expected}"
            );
        }
    }

    #[test]
    fn silu_is_within_its_error_of_the_true_value() {
        let x: Vec<f32> = samples().into_iter().filter(|x| x.abs() < 80.0).collect();
        for (x, y) in x.iter().zip(map(Path::detect(), Function::Silu, &x)) {
            let x = f64::from(*x);
            let expected = x / (1.0 + (-x).exp());
            assert!((f64::from(y) - expected).abs() <= 3e-7 * expected.abs() + 1e-44, "silu({x}) is {y}");
        }
        let far = map(Path::detect(), Function::Silu, &[-1e4, 1e4, f32::NAN]);
        assert!(far[0] == 0.0 && far[1] == 1e4 && far[2].is_nan());
    }

    #[test]
    fn every_path_gives_the_same_bits() {
        let x: Vec<f32> = samples().into_iter().step_by(3).collect();
        for function in [Function::Exp, Function::Exp2, Function::Erf, Function::Gelu, Function::Silu] {
            let x: Vec<f32> = match function {
                Function::Exp2 => x.iter().copied().filter(|x| x.is_nan() || *x <= 1.0).collect(),
                _ => x.clone(),
            };
            let expected = map(Path::new(Isa::Portable).expect("always there"), function, &x);
            for isa in Isa::available() {
                let y = map(Path::new(isa).expect("available"), function, &x);
                for i in 0..x.len() {
                    let same =
                        expected[i].to_bits() == y[i].to_bits() || expected[i].is_nan() && y[i].is_nan();
                    assert!(same, "{}: f({}) is {} and {}", isa.name(), x[i], y[i], expected[i]);
                }
            }
        }
    }
}
