//! The same arithmetic for single slices, outside a program; bit-equal on every path.

use crate::isa::{Kernel, Path};
use crate::math;
use crate::rows::{self, load, store};
use crate::simd::{LANES, Simd};

/// e^x of each value, in place.
pub fn exp(x: &mut [f32]) {
    Path::detect().run(Exp(x));
}

/// e^x / sum(e^x), in place. A NaN makes all of them NaN, and so do values that are all minus infinity.
pub fn softmax(x: &mut [f32]) {
    Path::detect().run(Softmax(x));
}

/// The sum of products.
///
/// # Panics
/// If the slices differ in length.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    Path::detect().run(Dot(a, b))
}

/// Scales a vector to length 1, in place. A vector of zeroes stays as it is.
pub fn l2_normalize(x: &mut [f32]) {
    Path::detect().run(L2Normalize(x));
}

/// The largest value, and the first place where it stands. None of no values, and where one is NaN or plus infinity.
pub fn largest(x: &[f32]) -> Option<(usize, f32)> {
    Path::detect().run(Largest(x))
}

struct Exp<'a>(&'a mut [f32]);

impl Kernel for Exp<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for start in (0..self.0.len()).step_by(LANES) {
            store(s, math::exp(s, load(s, self.0, start)), self.0, start);
        }
    }
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let x = self.0;
        let mut largest = s.splat(f32::NEG_INFINITY);
        for start in (0..x.len()).step_by(LANES) {
            let n = (x.len() - start).min(LANES);
            largest = s.max(largest, s.first(n, load(s, x, start), largest));
        }
        let largest = s.splat(s.largest(largest));
        let mut sums = s.zero();
        for start in (0..x.len()).step_by(LANES) {
            let n = (x.len() - start).min(LANES);
            let power = math::exp(s, s.sub(load(s, x, start), largest));
            sums = s.add(sums, s.first(n, power, s.zero()));
            store(s, power, x, start);
        }
        let sum = s.splat(s.sum(sums));
        for start in (0..x.len()).step_by(LANES) {
            store(s, s.div(load(s, x, start), sum), x, start);
        }
    }
}

struct Dot<'a>(&'a [f32], &'a [f32]);

impl Kernel for Dot<'_> {
    type Output = f32;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        rows::dot(s, self.0, self.1)
    }
}

struct L2Normalize<'a>(&'a mut [f32]);

impl Kernel for L2Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let length = rows::dot(s, self.0, self.0).sqrt();
        if length == 0.0 {
            return;
        }
        for start in (0..self.0.len()).step_by(LANES) {
            store(s, s.div(load(s, self.0, start), s.splat(length)), self.0, start);
        }
    }
}

struct Largest<'a>(&'a [f32]);

impl Kernel for Largest<'_> {
    type Output = Option<(usize, f32)>;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> Option<(usize, f32)> {
        let x = self.0;
        let (lowest, least) = (s.splat(f32::NEG_INFINITY), s.splat(f32::MIN));
        let (mut greatest, mut part) = (f32::NEG_INFINITY, 0);
        let mut unsound = s.zero();
        for start in (0..x.len()).step_by(PART) {
            let values = &x[start..x.len().min(start + PART)];
            let mut largest = lowest;
            for at in (0..values.len()).step_by(LANES) {
                let n = (values.len() - at).min(LANES);
                let value = s.first(n, load(s, values, at), lowest);
                largest = s.max(largest, value);
                // Zero times what is finite is zero; `max` hands a NaN on when it comes second.
                unsound = s.fma(s.max(least, value), s.zero(), unsound);
            }
            let largest = s.largest(largest);
            if largest > greatest {
                (greatest, part) = (largest, start);
            }
        }
        if x.is_empty() || s.sum(unsound).is_nan() {
            return None;
        }
        // Only one part is searched; where all are minus infinity it is the first.
        let within = x[part..].iter().position(|value| *value == greatest)?;
        Some((part + within, greatest))
    }
}

/// Values whose largest is kept apart from that of others.
const PART: usize = 256;
