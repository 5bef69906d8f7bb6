//! Sixteen lanes in plain Rust: the path of machines without AVX2 or NEON, and the twin the other paths are tested with.

use half::f16;

use super::{LANES, Simd};
use crate::isa::Kernel;

#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn zip<T: Copy>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> T) -> [T; LANES] {
    let mut out = a;
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// Folds the upper half onto the lower one until one lane is left.
#[inline(always)]
fn fold<T: Copy>(mut a: [T; LANES], f: impl Fn(T, T) -> T) -> T {
    for width in [8, 4, 2, 1] {
        for i in 0..width {
            a[i] = f(a[i], a[i + width]);
        }
    }
    a[0]
}

impl Simd for Portable {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type Weights = [[i8; 4]; LANES];
    type Small = [[u8; 4]; LANES];

    const WIDE: bool = false;
    const PANEL: usize = 4;

    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        [x; LANES]
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        let mut out = c;
        for i in 0..LANES {
            out[i] = a[i].mul_add(b[i], c[i]);
        }
        out
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        zip(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn first(self, n: usize, a: Self::F32, b: Self::F32) -> Self::F32 {
        let mut out = b;
        for i in 0..LANES {
            if i < n {
                out[i] = a[i];
            }
        }
        out
    }

    #[inline(always)]
    fn sum(self, a: Self::F32) -> f32 {
        fold(a, |a, b| a + b)
    }

    #[inline(always)]
    fn largest(self, a: Self::F32) -> f32 {
        fold(a, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        [x; LANES]
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, i32::wrapping_add)
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, i32::wrapping_sub)
    }

    #[inline(always)]
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, i32::max)
    }

    #[inline(always)]
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, |a, b| a & b)
    }

    #[inline(always)]
    fn or_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        zip(a, b, |a, b| a | b)
    }

    #[inline(always)]
    fn shift_left(self, a: Self::I32, bits: i32) -> Self::I32 {
        a.map(|a| a << bits)
    }

    #[inline(always)]
    fn shift_right(self, a: Self::I32, bits: i32) -> Self::I32 {
        a.map(|a| (a.cast_unsigned() >> bits).cast_signed())
    }

    #[inline(always)]
    fn halve_i32(self, a: Self::I32) -> Self::I32 {
        a.map(|a| a >> 1)
    }

    #[inline(always)]
    fn sum_i32(self, a: Self::I32) -> i32 {
        fold(a, i32::wrapping_add)
    }

    #[inline(always)]
    fn largest_i32(self, a: Self::I32) -> i32 {
        fold(a, i32::max)
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        a.map(|a| a as f32)
    }

    #[inline(always)]
    fn to_bits(self, a: Self::F32) -> Self::I32 {
        a.map(|a| a.to_bits().cast_signed())
    }

    #[inline(always)]
    fn with_bits(self, a: Self::I32) -> Self::F32 {
        a.map(|a| f32::from_bits(a.cast_unsigned()))
    }

    #[inline(always)]
    fn dot_start(self, _correction: i32) -> Self::I32 {
        [0; LANES]
    }

    #[inline(always)]
    fn dot(self, sum: Self::I32, w: Self::Weights, x: i32) -> Self::I32 {
        let x = x.to_ne_bytes().map(u8::cast_signed);
        let mut out = sum;
        for i in 0..LANES {
            for j in 0..4 {
                out[i] += i32::from(w[i][j]) * i32::from(x[j]);
            }
        }
        out
    }

    #[inline(always)]
    fn dot_small(self, sum: Self::I32, w: Self::Small, x: i32) -> Self::I32 {
        let x = x.to_ne_bytes().map(u8::cast_signed);
        let mut out = sum;
        for i in 0..LANES {
            for j in 0..4 {
                out[i] = out[i].wrapping_add(i32::from(w[i][j]) * i32::from(x[j]));
            }
        }
        out
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> Self::Weights {
        // SAFETY: the caller vouches for 64 readable bytes; an array of bytes needs no alignment.
        let bytes = unsafe { from.cast::<[[u8; 4]; LANES]>().read() };
        bytes.map(|four| four.map(|w| (w ^ 0x80).cast_signed()))
    }

    #[inline(always)]
    unsafe fn load_small(self, from: *const u8) -> Self::Small {
        // SAFETY: the caller vouches for 64 readable bytes; an array of bytes needs no alignment.
        unsafe { from.cast::<Self::Small>().read() }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const u8) -> Self::I32 {
        // SAFETY: the caller vouches for 64 readable bytes.
        unsafe { from.cast::<Self::I32>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_i32(self, a: Self::I32, to: *mut u8) {
        // SAFETY: the caller vouches for 64 writable bytes.
        unsafe { to.cast::<Self::I32>().write_unaligned(a) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe { from.cast::<[f32; LANES]>().read() }
    }

    #[inline(always)]
    unsafe fn load_first(self, n: usize, from: *const f32) -> Self::F32 {
        let mut out = [0.0; LANES];
        // SAFETY: the caller vouches for n <= 16 readable values.
        out[..n].copy_from_slice(unsafe { std::slice::from_raw_parts(from, n) });
        out
    }

    #[inline(always)]
    unsafe fn store(self, a: Self::F32, to: *mut f32) {
        // SAFETY: the caller vouches for 16 writable values.
        unsafe { to.cast::<[f32; LANES]>().write(a) }
    }

    #[inline(always)]
    unsafe fn store_first(self, n: usize, a: Self::F32, to: *mut f32) {
        // SAFETY: the caller vouches for n <= 16 writable values.
        unsafe { std::slice::from_raw_parts_mut(to, n) }.copy_from_slice(&a[..n]);
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe { from.cast::<[u16; LANES]>().read() }.map(|bits| f16::from_bits(bits).to_f32())
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe { from.cast::<[u16; LANES]>().read() }.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    unsafe fn store_f16(self, a: Self::F32, to: *mut u16) {
        // SAFETY: the caller vouches for 16 writable values.
        unsafe { to.cast::<[u16; LANES]>().write(a.map(|x| f16::from_f32(x).to_bits())) }
    }

    #[inline(always)]
    unsafe fn store_i8(self, a: Self::I32, to: *mut i8) {
        // SAFETY: the caller vouches for 16 writable bytes.
        unsafe { to.cast::<[i8; LANES]>().write(a.map(|a| a as i8)) }
    }

    #[inline(always)]
    fn prefetch(self, _from: *const u8) {}
}
