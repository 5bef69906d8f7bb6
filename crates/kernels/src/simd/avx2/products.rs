//! Products of unsigned weights and signed activations, a register of 32 bytes at a time: the exact sign trick of AVX2, and
//! the one instruction of AVX-VNNI.

use std::arch::asm;
use std::arch::x86_64::*;

use super::Halves;
use crate::isa::Kernel;

/// How a machine multiplies bytes: the instructions it has for that, beside AVX2, FMA and F16C.
pub(crate) trait Products: Copy + 'static {
    /// 32 weight bytes made ready for `dot`.
    type Weights: Copy;

    /// What a sum starts from, given -128 times the sum of the activations.
    fn start(correction: i32) -> i32;

    /// Runs a kernel in a function that has the instructions enabled.
    ///
    /// # Safety
    /// The machine has the instructions.
    unsafe fn call<K: Kernel>(simd: Halves<Self>, kernel: K) -> K::Output;

    /// # Safety
    /// The machine has the instructions.
    unsafe fn weights(bytes: __m256i) -> Self::Weights;

    /// # Safety
    /// The machine has the instructions.
    unsafe fn dot(sum: __m256i, w: Self::Weights, x: __m256i) -> __m256i;

    /// # Safety
    /// The machine has the instructions.
    unsafe fn dot_small(sum: __m256i, w: __m256i, x: __m256i) -> __m256i;
}

/// AVX2: |w| times x with the sign of w, in pairs of 16 bits.
#[derive(Clone, Copy)]
pub(crate) struct SignTrick;

impl Products for SignTrick {
    /// The signed weights and their magnitudes.
    type Weights = [__m256i; 2];

    #[inline(always)]
    fn start(_correction: i32) -> i32 {
        0 // the weights are made signed again, so there is nothing to correct
    }

    #[inline(always)]
    unsafe fn call<K: Kernel>(simd: Halves<Self>, kernel: K) -> K::Output {
        #[inline(never)] // registers are allocated for one kernel at a time
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enabled<K: Kernel>(simd: Halves<SignTrick>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: as the caller vouches.
        unsafe { enabled(simd, kernel) }
    }

    #[inline(always)]
    unsafe fn weights(bytes: __m256i) -> Self::Weights {
        // SAFETY: as the caller vouches.
        unsafe {
            let w = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
            [w, _mm256_abs_epi8(w)]
        }
    }

    #[inline(always)]
    unsafe fn dot(sum: __m256i, [w, magnitude]: Self::Weights, x: __m256i) -> __m256i {
        // w * x = |w| * (x with the sign of w). |w| <= 128 and |x| <= 127, so a pair is at most 32512: it fits.
        // SAFETY: as the caller vouches.
        unsafe { Self::dot_small(sum, magnitude, _mm256_sign_epi8(x, w)) }
    }

    #[inline(always)]
    unsafe fn dot_small(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // Unsigned weights times signed activations: a pair is at most 2 * 63 * 127, far from saturating.
        // SAFETY: as the caller vouches.
        unsafe {
            let pairs = _mm256_maddubs_epi16(w, x);
            in_turn(_mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))))
        }
    }
}

/// The same sum, which is complete before the next one is begun. Without this the compiler takes the products of two or three rows
/// one row after the other and keeps all weights that were made ready on the stack meanwhile: two rows took longer than three.
#[inline]
#[target_feature(enable = "avx2")]
fn in_turn(mut sum: __m256i) -> __m256i {
    // SAFETY: no instruction.
    unsafe { asm!("/* {0} */", inout(ymm_reg) sum, options(nomem, nostack, preserves_flags)) };
    sum
}

/// AVX-VNNI: `vpdpbusd` without AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Vnni;

impl Products for Vnni {
    /// As they are: q + 128.
    type Weights = __m256i;

    #[inline(always)]
    fn start(correction: i32) -> i32 {
        correction
    }

    #[inline(always)]
    unsafe fn call<K: Kernel>(simd: Halves<Self>, kernel: K) -> K::Output {
        #[inline(never)] // registers are allocated for one kernel at a time
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn enabled<K: Kernel>(simd: Halves<Vnni>, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        // SAFETY: as the caller vouches.
        unsafe { enabled(simd, kernel) }
    }

    #[inline(always)]
    unsafe fn weights(bytes: __m256i) -> __m256i {
        bytes
    }

    #[inline(always)]
    unsafe fn dot(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // Unsigned weights times signed activations: four products are added in 32 bits, and nothing saturates.
        // SAFETY: as the caller vouches.
        unsafe { _mm256_dpbusd_avx_epi32(sum, w, x) }
    }

    #[inline(always)]
    unsafe fn dot_small(sum: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: as the caller vouches.
        unsafe { Self::dot(sum, w, x) }
    }
}
