//! Sixteen lanes in four 128-bit registers of 64-bit ARM; int8 products by exact widening multiplies.
//!
//! The one instruction for them, `sdot`, is not yet among the stable intrinsics.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{LANES, Simd};
use crate::isa::Kernel;

#[derive(Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    /// # Safety
    /// The machine has NEON.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Neon(())
    }
}

/// Applies intrinsics that touch no memory to each quarter: `self` proves that the machine has them.
macro_rules! each {
    ($f:ident($($arg:ident),*)) => {
        // SAFETY: a Neon exists only on a machine with these instructions.
        unsafe { [$f($($arg[0]),*), $f($($arg[1]),*), $f($($arg[2]),*), $f($($arg[3]),*)] }
    };
}

/// `a > b ? a : b`; the instruction for it would give NaN if one is NaN.
#[inline(always)]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: called only by methods of Neon, which exists only on a machine with NEON.
    unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
}

/// `a < b ? a : b`; the instruction for it would give NaN if one is NaN.
#[inline(always)]
fn smaller(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    // SAFETY: as above.
    unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
}

/// The products of four rows of four weights and four activations, added to a lane for each row.
#[inline(always)]
fn dot(sum: int32x4_t, w: int8x16_t, x: int8x16_t) -> int32x4_t {
    // |w| <= 128 and |x| <= 127, so the sum of two products is at most 32512: it fits into 16 bits.
    // SAFETY: called only by methods of Neon, which exists only on a machine with NEON.
    unsafe {
        let products = [vmull_s8(vget_low_s8(w), vget_low_s8(x)), vmull_high_s8(w, x)];
        vpadalq_s16(sum, vpaddq_s16(products[0], products[1]))
    }
}

impl Simd for Neon {
    type F32 = [float32x4_t; 4];
    type I32 = [int32x4_t; 4];
    /// Signed again.
    type Weights = [int8x16_t; 4];
    type Small = [int8x16_t; 4];

    const WIDE: bool = false;
    /// Sums of as many rows take sixteen of the 32 registers, weights four.
    const PANEL: usize = 4;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        #[inline(never)] // registers are allocated for one kernel at a time
        #[target_feature(enable = "neon")]
        fn enabled<K: Kernel>(simd: Neon, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: a Neon exists only on a machine with these instructions.
        unsafe { enabled(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: a Neon exists only on a machine with these instructions.
        [unsafe { vdupq_n_f32(x) }; 4]
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vaddq_f32(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vsubq_f32(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vmulq_f32(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        each!(vdivq_f32(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        each!(vfmaq_f32(c, a, b)) // the sum stands first
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        [larger(a[0], b[0]), larger(a[1], b[1]), larger(a[2], b[2]), larger(a[3], b[3])]
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        [smaller(a[0], b[0]), smaller(a[1], b[1]), smaller(a[2], b[2]), smaller(a[3], b[3])]
    }

    #[inline(always)]
    fn first(self, n: usize, a: Self::F32, b: Self::F32) -> Self::F32 {
        // SAFETY: a Neon exists only on a machine with these instructions; the lanes are an array of four numbers.
        unsafe {
            let lane = vld1q_u32([0, 1, 2, 3].as_ptr());
            let choose = |quarter: usize| {
                let left = vdupq_n_u32((n as u32).saturating_sub(4 * quarter as u32));
                vbslq_f32(vcltq_u32(lane, left), a[quarter], b[quarter])
            };
            [choose(0), choose(1), choose(2), choose(3)]
        }
    }

    #[inline(always)]
    fn sum(self, a: Self::F32) -> f32 {
        // SAFETY: a Neon exists only on a machine with these instructions.
        unsafe {
            let a = vaddq_f32(vaddq_f32(a[0], a[2]), vaddq_f32(a[1], a[3]));
            let a = vaddq_f32(a, vextq_f32::<2>(a, a));
            vgetq_lane_f32::<0>(vaddq_f32(a, vdupq_laneq_f32::<1>(a)))
        }
    }

    #[inline(always)]
    fn largest(self, a: Self::F32) -> f32 {
        // SAFETY: a Neon exists only on a machine with these instructions.
        unsafe {
            let a = larger(larger(a[0], a[2]), larger(a[1], a[3]));
            let a = larger(a, vextq_f32::<2>(a, a));
            vgetq_lane_f32::<0>(larger(a, vdupq_laneq_f32::<1>(a)))
        }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        // SAFETY: a Neon exists only on a machine with these instructions.
        [unsafe { vdupq_n_s32(x) }; 4]
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        each!(vaddq_s32(a, b))
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        each!(vsubq_s32(a, b))
    }

    #[inline(always)]
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        each!(vmaxq_s32(a, b))
    }

    #[inline(always)]
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        each!(vandq_s32(a, b))
    }

    #[inline(always)]
    fn or_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        each!(vorrq_s32(a, b))
    }

    #[inline(always)]
    fn shift_left(self, a: Self::I32, bits: i32) -> Self::I32 {
        let bits = self.splat_i32(bits);
        each!(vshlq_s32(a, bits))
    }

    #[inline(always)]
    fn shift_right(self, a: Self::I32, bits: i32) -> Self::I32 {
        let (a, left) = (each!(vreinterpretq_u32_s32(a)), self.splat_i32(-bits));
        let shifted = each!(vshlq_u32(a, left));
        each!(vreinterpretq_s32_u32(shifted))
    }

    #[inline(always)]
    fn halve_i32(self, a: Self::I32) -> Self::I32 {
        let left = self.splat_i32(-1);
        each!(vshlq_s32(a, left))
    }

    #[inline(always)]
    fn sum_i32(self, a: Self::I32) -> i32 {
        // SAFETY: a Neon exists only on a machine with these instructions.
        unsafe { vaddvq_s32(vaddq_s32(vaddq_s32(a[0], a[2]), vaddq_s32(a[1], a[3]))) }
    }

    #[inline(always)]
    fn largest_i32(self, a: Self::I32) -> i32 {
        // SAFETY: a Neon exists only on a machine with these instructions.
        unsafe { vmaxvq_s32(vmaxq_s32(vmaxq_s32(a[0], a[2]), vmaxq_s32(a[1], a[3]))) }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        each!(vcvtq_f32_s32(a))
    }

    #[inline(always)]
    fn to_bits(self, a: Self::F32) -> Self::I32 {
        each!(vreinterpretq_s32_f32(a))
    }

    #[inline(always)]
    fn with_bits(self, a: Self::I32) -> Self::F32 {
        each!(vreinterpretq_f32_s32(a))
    }

    #[inline(always)]
    fn dot_start(self, _correction: i32) -> Self::I32 {
        self.splat_i32(0) // the weights are made signed again, so there is nothing to correct
    }

    #[inline(always)]
    fn dot(self, sum: Self::I32, w: Self::Weights, x: i32) -> Self::I32 {
        let x = self.splat_i32(x);
        let x = each!(vreinterpretq_s8_s32(x));
        [dot(sum[0], w[0], x[0]), dot(sum[1], w[1], x[1]), dot(sum[2], w[2], x[2]), dot(sum[3], w[3], x[3])]
    }

    #[inline(always)]
    fn dot_small(self, sum: Self::I32, w: Self::Small, x: i32) -> Self::I32 {
        self.dot(sum, w, x) // up to 63, they are the same signed
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> Self::Weights {
        // SAFETY: the caller vouches for 64 readable bytes.
        let (bytes, flip) = unsafe { (self.load_small(from), [vdupq_n_s8(-128); 4]) };
        each!(veorq_s8(bytes, flip))
    }

    #[inline(always)]
    unsafe fn load_small(self, from: *const u8) -> Self::Small {
        let from = from.cast::<i8>();
        // SAFETY: the caller vouches for 64 readable bytes.
        unsafe { [vld1q_s8(from), vld1q_s8(from.add(16)), vld1q_s8(from.add(32)), vld1q_s8(from.add(48))] }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const u8) -> Self::I32 {
        // SAFETY: the caller vouches for 64 readable bytes; bytes need no alignment.
        let bytes = unsafe { self.load_small(from) };
        each!(vreinterpretq_s32_s8(bytes))
    }

    #[inline(always)]
    unsafe fn store_i32(self, a: Self::I32, to: *mut u8) {
        let bytes = each!(vreinterpretq_u8_s32(a));
        for (quarter, bytes) in bytes.into_iter().enumerate() {
            // SAFETY: the caller vouches for 64 writable bytes; bytes need no alignment.
            unsafe { vst1q_u8(to.add(16 * quarter), bytes) };
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe { [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))] }
    }

    #[inline(always)]
    unsafe fn load_first(self, n: usize, from: *const f32) -> Self::F32 {
        // SAFETY: the caller vouches for `n` readable values; an array has 16.
        unsafe {
            if n == LANES {
                return self.load(from);
            }
            let mut values = [0.0; LANES];
            values[..n].copy_from_slice(std::slice::from_raw_parts(from, n));
            self.load(values.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, a: Self::F32, to: *mut f32) {
        for (quarter, values) in a.into_iter().enumerate() {
            // SAFETY: the caller vouches for 16 writable values.
            unsafe { vst1q_f32(to.add(4 * quarter), values) };
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, n: usize, a: Self::F32, to: *mut f32) {
        // SAFETY: the caller vouches for `n` writable values; an array has 16.
        unsafe {
            if n == LANES {
                return self.store(a, to);
            }
            let mut values = [0.0; LANES];
            self.store(a, values.as_mut_ptr());
            std::slice::from_raw_parts_mut(to, n).copy_from_slice(&values[..n]);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable half-precision values.
        unsafe {
            let quarter = |at: usize| vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.add(at))));
            [quarter(0), quarter(4), quarter(8), quarter(12)]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe {
            let quarter = |at: usize| vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(from.add(at))));
            [quarter(0), quarter(4), quarter(8), quarter(12)]
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, a: Self::F32, to: *mut u16) {
        for (quarter, values) in a.into_iter().enumerate() {
            // SAFETY: the caller vouches for 16 writable half-precision values.
            unsafe { vst1_u16(to.add(4 * quarter), vreinterpret_u16_f16(vcvt_f16_f32(values))) };
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, a: Self::I32, to: *mut i8) {
        // SAFETY: the caller vouches for 16 writable bytes.
        unsafe {
            let low = vcombine_s16(vmovn_s32(a[0]), vmovn_s32(a[1]));
            let high = vcombine_s16(vmovn_s32(a[2]), vmovn_s32(a[3]));
            vst1q_s8(to, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
        }
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        // SAFETY: a prefetch of any address is allowed, and changes nothing that the program sees.
        unsafe {
            asm!("prfm pldl2keep, [{}]", in(reg) from, options(readonly, nostack, preserves_flags));
        }
    }
}
