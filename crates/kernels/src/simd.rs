//! Sixteen f32 lanes and sixteen i32 lanes on every instruction set, with the same bits.
//!
//! A value of a [`Simd`] type is proof that the machine has its instructions, so arithmetic is safe; only memory
//! access is not. All methods are `#[inline(always)]`: the code that uses them is compiled inside
//! [`Simd::call`], which enables the instructions.
//!
//! What "the same bits" rests on: add, sub, mul, div and fma round once, as IEEE 754 says; `max` and `min` are
//! `a > b ? a : b` and `a < b ? a : b` (so the second argument wins when one is NaN); `sum` adds lane i to
//! i+8, i+4, i+2, i+1 in that order; integers are exact. Only the payload of a NaN may differ.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;

#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::{Avx2, AvxVnni};
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) use neon::Neon;
pub(crate) use portable::Portable;

use crate::isa::Kernel;

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// 1.5 * 2^23: adding it leaves the nearest integer (ties to even) in the low bits of the mantissa.
pub(crate) const ROUND: f32 = 12_582_912.0;

pub(crate) trait Simd: Copy + 'static {
    type F32: Copy;
    type I32: Copy;
    /// 64 weight bytes (16 rows of 4) made ready for `dot`.
    type Weights: Copy;
    /// 64 weight bytes that are small, made ready for `dot_small`.
    type Small: Copy;

    /// Both halves (2 x 16 rows) of a tile fit in registers at once.
    const WIDE: bool;
    /// Rows of activations in a register panel, and queries in a tile: four or six.
    const PANEL: usize;

    /// Runs a kernel in a function of its own that has the instructions enabled.
    fn call<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, x: f32) -> Self::F32;
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// a * b + c, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a` in the first `n` lanes, `b` in the others.
    fn first(self, n: usize, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sum(self, a: Self::F32) -> f32;
    /// The largest lane; any lane or NaN if one is NaN.
    fn largest(self, a: Self::F32) -> f32;

    fn splat_i32(self, x: i32) -> Self::I32;
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    fn or_i32(self, a: Self::I32, b: Self::I32) -> Self::I32;
    /// By fewer than 32 bits, which are the same for all lanes.
    fn shift_left(self, a: Self::I32, bits: i32) -> Self::I32;
    /// By fewer than 32 bits; zeroes come in.
    fn shift_right(self, a: Self::I32, bits: i32) -> Self::I32;
    /// Arithmetic shift right by one.
    fn halve_i32(self, a: Self::I32) -> Self::I32;
    fn sum_i32(self, a: Self::I32) -> i32;
    fn largest_i32(self, a: Self::I32) -> i32;
    /// The nearest f32 of each integer.
    fn to_f32(self, a: Self::I32) -> Self::F32;
    fn to_bits(self, a: Self::F32) -> Self::I32;
    fn with_bits(self, a: Self::I32) -> Self::F32;

    /// What a sum of `dot`s starts from, given -128 times the sum of the activations.
    fn dot_start(self, correction: i32) -> Self::I32;
    /// To each lane adds the products of its four weights and the four bytes of `x`, all exact. Bytes of `x` are
    /// -127..=127.
    fn dot(self, sum: Self::I32, w: Self::Weights, x: i32) -> Self::I32;
    /// The same with weights that stand for themselves. Sums start where the caller likes.
    fn dot_small(self, sum: Self::I32, w: Self::Small, x: i32) -> Self::I32;

    /// # Safety
    /// 64 bytes are readable at `from`. They hold q + 128 for each weight q.
    unsafe fn load_weights(self, from: *const u8) -> Self::Weights;
    /// # Safety
    /// 64 bytes are readable at `from`. They hold weights of 0..=63.
    unsafe fn load_small(self, from: *const u8) -> Self::Small;
    /// # Safety
    /// 64 bytes are readable at `from`, which need not be aligned.
    unsafe fn load_i32(self, from: *const u8) -> Self::I32;
    /// # Safety
    /// 64 bytes are writable at `to`, which need not be aligned.
    unsafe fn store_i32(self, a: Self::I32, to: *mut u8);
    /// # Safety
    /// 16 values are readable at `from`, which need not be aligned beyond f32.
    unsafe fn load(self, from: *const f32) -> Self::F32;
    /// The other lanes are zero.
    ///
    /// # Safety
    /// `n <= 16` values are readable at `from`.
    unsafe fn load_first(self, n: usize, from: *const f32) -> Self::F32;
    /// # Safety
    /// 16 values are writable at `to`.
    unsafe fn store(self, a: Self::F32, to: *mut f32);
    /// # Safety
    /// `n <= 16` values are writable at `to`.
    unsafe fn store_first(self, n: usize, a: Self::F32, to: *mut f32);
    /// # Safety
    /// 16 half-precision values are readable at `from`.
    unsafe fn load_f16(self, from: *const u16) -> Self::F32;
    /// # Safety
    /// 16 values, the upper halves of f32, are readable at `from`.
    unsafe fn load_bf16(self, from: *const u16) -> Self::F32;
    /// Rounds to nearest even.
    ///
    /// # Safety
    /// 16 half-precision values are writable at `to`.
    unsafe fn store_f16(self, a: Self::F32, to: *mut u16);
    /// The low byte of each lane.
    ///
    /// # Safety
    /// 16 bytes are writable at `to`, and each lane is in -128..=127.
    unsafe fn store_i8(self, a: Self::I32, to: *mut i8);
    /// Asks for a cache line, into the second cache: lines on their way to the first one are few, and loads wait for their
    /// turn behind them. Any address is allowed.
    fn prefetch(self, from: *const u8);

    /// Asks for the line that an address is in to be written soon: others may have read it, and it comes from their caches. Does
    /// nothing where there is no such instruction.
    #[inline(always)]
    fn prefetch_to_write(self, _at: *const u8) {}

    #[inline(always)]
    fn zero(self) -> Self::F32 {
        self.splat(0.0)
    }

    /// x * 2^n for |x| of 0.5..=2 and whole n of -252..=254. In two factors, so that results below 2^-126 are rounded to subnormals
    /// like any other.
    #[inline(always)]
    fn ldexp(self, x: Self::F32, n: Self::F32) -> Self::F32 {
        let round = self.splat(ROUND);
        let n = self.sub_i32(self.to_bits(self.add(n, round)), self.to_bits(round));
        let half = self.halve_i32(n);
        self.mul(self.mul(x, power_of_two(self, half)), power_of_two(self, self.sub_i32(n, half)))
    }
}

/// 2^n for n of -126..=127.
#[inline(always)]
fn power_of_two<S: Simd>(s: S, n: S::I32) -> S::F32 {
    s.with_bits(s.shift_left(s.add_i32(n, s.splat_i32(127)), 23))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::{Isa, Path};

    /// Every operation on two vectors of floats, two of integers and 64 weights; results as bits.
    struct All<'a> {
        a: &'a [f32; LANES],
        b: &'a [f32; LANES],
        weights: &'a [u8; 64],
        n: usize,
    }

    impl Kernel for All<'_> {
        type Output = Vec<u32>;

        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> Vec<u32> {
            let mut bits = Vec::new();
            // SAFETY: loads and stores are of arrays of 16 values, or of 64 weights.
            unsafe {
                let (a, b) = (s.load(self.a.as_ptr()), s.load(self.b.as_ptr()));
                let tail = s.load_first(self.n, self.a.as_ptr());
                for vector in [
                    s.add(a, b),
                    s.sub(a, b),
                    s.mul(a, b),
                    s.div(a, b),
                    s.fma(a, b, a),
                    s.max(a, b),
                    s.min(a, b),
                    s.first(self.n, a, b),
                    tail,
                    s.splat(self.a[0]),
                    s.to_f32(s.to_bits(b)),
                    s.ldexp(
                        s.splat(1.1),
                        s.to_f32(s.sub_i32(s.and_i32(s.to_bits(a), s.splat_i32(255)), s.splat_i32(150))),
                    ),
                ] {
                    let mut out = [0.0; LANES];
                    s.store(vector, out.as_mut_ptr());
                    bits.extend(out.map(canonical));
                }
                bits.extend([s.sum(a), s.sum(b), s.largest(a), s.largest(b)].map(canonical));
                let (i, j) = (s.to_bits(a), s.to_bits(b));
                for vector in [
                    s.add_i32(i, j),
                    s.sub_i32(i, j),
                    s.max_i32(i, j),
                    s.and_i32(i, j),
                    s.or_i32(i, j),
                    s.shift_left(i, 23),
                    s.shift_right(i, 4),
                    s.halve_i32(i),
                    s.load_i32(self.weights.as_ptr()),
                ] {
                    bits.extend([s.sum_i32(vector).cast_unsigned(), s.largest_i32(vector).cast_unsigned()]);
                    let mut out = [0.0; LANES];
                    s.store(s.with_bits(vector), out.as_mut_ptr());
                    bits.extend(out.map(f32::to_bits));
                }
                let mut partial = [7.0; LANES];
                s.store_first(self.n, a, partial.as_mut_ptr());
                bits.extend(partial.map(canonical));
                let mut halves = [0u16; LANES];
                s.store_f16(a, halves.as_mut_ptr());
                let mut back = [0.0; LANES];
                s.store(s.load_f16(halves.as_ptr()), back.as_mut_ptr());
                bits.extend(back.map(canonical));
                s.store(s.load_bf16(halves.as_ptr()), back.as_mut_ptr());
                bits.extend(back.map(canonical));
                let mut words = [0u8; 64];
                s.store_i32(i, words.as_mut_ptr());
                bits.extend(words.map(u32::from));
                let mut bytes = [0i8; LANES];
                s.store_i8(s.and_i32(i, s.splat_i32(127)), bytes.as_mut_ptr());
                bits.extend(bytes.map(|byte| byte as u32));
                let x = [127i8, -127, 3, -4];
                let correction = -128 * x.iter().map(|&x| i32::from(x)).sum::<i32>();
                let x = i32::from_ne_bytes(x.map(i8::cast_unsigned));
                let dots = s.dot(s.dot_start(correction), s.load_weights(self.weights.as_ptr()), x);
                s.store(s.with_bits(dots), back.as_mut_ptr());
                bits.extend(back.map(f32::to_bits));
                let small = self.weights.map(|weight| weight & 63);
                let dots = s.dot_small(i, s.load_small(small.as_ptr()), x);
                s.store(s.with_bits(dots), back.as_mut_ptr());
                bits.extend(back.map(f32::to_bits));
            }
            bits
        }
    }

    /// All NaNs count as one.
    fn canonical(x: f32) -> u32 {
        if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }
    }

    #[test]
    fn every_operation_has_the_same_bits_on_every_path() {
        let special =
            [0.0, -0.0, 1.0, -1.5, 1e-40, -1e-7, 65504.0, 65520.0, 3e38, -3e38, 5.9e-8, 2.98e-8, 0.1];
        let broken = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let mut state = 1u64;
        for round in 0..2000 {
            let mut random = || {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (state >> 33) as u32
            };
            let mut float = || match random() % 4 {
                0 => special[random() as usize % special.len()],
                1 if round % 2 == 1 => broken[random() as usize % broken.len()],
                2 => f32::from_bits(random() << 1 & 0xbfff_ffff),
                _ => random() as f32 / 1e9 - 1.0,
            };
            let (a, b) = (std::array::from_fn(|_| float()), std::array::from_fn(|_| float()));
            let mut weights = std::array::from_fn(|_| random() as u8);
            weights[..4].copy_from_slice(&[0, 255, 128, 0]);
            let run = |isa| {
                let path = Path::new(isa).expect("available");
                path.run(All { a: &a, b: &b, weights: &weights, n: round % 17 })
            };
            let expected = run(Isa::Portable);
            for isa in Isa::available() {
                assert_eq!(run(isa), expected, "{} on {a:?} and {b:?}", isa.name());
            }
        }
    }

    #[test]
    fn dots_are_exact_at_the_ends_of_their_range() {
        for (weight, x) in [(0u8, 127i8), (0, -127), (255, 127), (255, -127)] {
            struct Dot(u8, i8);
            impl Kernel for Dot {
                type Output = i32;

                #[inline(always)]
                fn run<S: Simd>(self, s: S) -> i32 {
                    let four = i32::from_ne_bytes([self.1.cast_unsigned(); 4]);
                    // SAFETY: 64 weights are loaded.
                    let weights = unsafe { s.load_weights([self.0; 64].as_ptr()) };
                    s.largest_i32(s.dot(s.dot_start(-128 * 4 * i32::from(self.1)), weights, four))
                }
            }
            for isa in Isa::available() {
                let dot = Path::new(isa).expect("available").run(Dot(weight, x));
                assert_eq!(dot, 4 * (i32::from(weight) - 128) * i32::from(x), "{}", isa.name());
            }
        }
        for (weight, x) in [(63u8, 127i8), (63, -127), (0, 127)] {
            struct Dot(u8, i8);
            impl Kernel for Dot {
                type Output = i32;

                #[inline(always)]
                fn run<S: Simd>(self, s: S) -> i32 {
                    let four = i32::from_ne_bytes([self.1.cast_unsigned(); 4]);
                    // SAFETY: 64 weights are loaded.
                    let weights = unsafe { s.load_small([self.0; 64].as_ptr()) };
                    s.largest_i32(s.dot_small(s.splat_i32(7), weights, four))
                }
            }
            for isa in Isa::available() {
                let dot = Path::new(isa).expect("available").run(Dot(weight, x));
                assert_eq!(dot, 7 + 4 * i32::from(weight) * i32::from(x), "{}", isa.name());
            }
        }
    }
}
