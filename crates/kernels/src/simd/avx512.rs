//! Sixteen lanes in one 512-bit register; int8 products by VNNI.

use std::arch::x86_64::*;

use super::{LANES, Simd, avx2};
use crate::isa::Kernel;

#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// # Safety
    /// The machine has AVX2, FMA, F16C and AVX-512 F, BW, VL, DQ, VNNI.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Avx512(())
    }
}

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}

/// Wraps intrinsics that touch no memory: `self` proves that the machine has them.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: an Avx512 exists only on a machine with these instructions.
        unsafe { $call }
    };
}

impl Simd for Avx512 {
    type F32 = __m512;
    type I32 = __m512i;
    type Weights = __m512i;
    type Small = __m512i;

    const WIDE: bool = true;
    const PANEL: usize = 6;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        #[inline(never)] // registers are allocated for one kernel at a time
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
        fn enabled<K: Kernel>(simd: Avx512, kernel: K) -> K::Output {
            kernel.run(simd)
        }
        intrinsic!(enabled(self, kernel))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        intrinsic!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        intrinsic!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn first(self, n: usize, a: __m512, b: __m512) -> __m512 {
        intrinsic!(_mm512_mask_blend_ps(mask(n), b, a))
    }

    #[inline(always)]
    fn sum(self, a: __m512) -> f32 {
        intrinsic!(avx2::sum(_mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a))))
    }

    #[inline(always)]
    fn largest(self, a: __m512) -> f32 {
        intrinsic!(avx2::largest(_mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a))))
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m512i {
        intrinsic!(_mm512_set1_epi32(x))
    }

    #[inline(always)]
    fn add_i32(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(_mm512_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub_i32(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(_mm512_sub_epi32(a, b))
    }

    #[inline(always)]
    fn max_i32(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(_mm512_max_epi32(a, b))
    }

    #[inline(always)]
    fn and_i32(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(_mm512_and_si512(a, b))
    }

    #[inline(always)]
    fn or_i32(self, a: __m512i, b: __m512i) -> __m512i {
        intrinsic!(_mm512_or_si512(a, b))
    }

    #[inline(always)]
    fn shift_left(self, a: __m512i, bits: i32) -> __m512i {
        intrinsic!(_mm512_sllv_epi32(a, _mm512_set1_epi32(bits)))
    }

    #[inline(always)]
    fn shift_right(self, a: __m512i, bits: i32) -> __m512i {
        intrinsic!(_mm512_srlv_epi32(a, _mm512_set1_epi32(bits)))
    }

    #[inline(always)]
    fn halve_i32(self, a: __m512i) -> __m512i {
        intrinsic!(_mm512_srai_epi32::<1>(a))
    }

    #[inline(always)]
    fn sum_i32(self, a: __m512i) -> i32 {
        intrinsic!(_mm512_reduce_add_epi32(a))
    }

    #[inline(always)]
    fn largest_i32(self, a: __m512i) -> i32 {
        intrinsic!(_mm512_reduce_max_epi32(a))
    }

    #[inline(always)]
    fn to_f32(self, a: __m512i) -> __m512 {
        intrinsic!(_mm512_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn ldexp(self, x: __m512, n: __m512) -> __m512 {
        intrinsic!(_mm512_scalef_ps(x, n))
    }

    #[inline(always)]
    fn to_bits(self, a: __m512) -> __m512i {
        intrinsic!(_mm512_castps_si512(a))
    }

    #[inline(always)]
    fn with_bits(self, a: __m512i) -> __m512 {
        intrinsic!(_mm512_castsi512_ps(a))
    }

    #[inline(always)]
    fn dot_start(self, correction: i32) -> __m512i {
        self.splat_i32(correction)
    }

    #[inline(always)]
    fn dot(self, sum: __m512i, w: __m512i, x: i32) -> __m512i {
        // Unsigned weights times signed activations: |sum| stays below 2^23, far from saturating.
        intrinsic!(_mm512_dpbusd_epi32(sum, w, _mm512_set1_epi32(x)))
    }

    #[inline(always)]
    fn dot_small(self, sum: __m512i, w: __m512i, x: i32) -> __m512i {
        self.dot(sum, w, x)
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_small(self, from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const u8) -> __m512i {
        // SAFETY: the caller vouches for 64 readable bytes.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_i32(self, a: __m512i, to: *mut u8) {
        // SAFETY: the caller vouches for 64 writable bytes.
        unsafe { _mm512_storeu_si512(to.cast(), a) }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> __m512 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe { _mm512_loadu_ps(from) }
    }

    #[inline(always)]
    unsafe fn load_first(self, n: usize, from: *const f32) -> __m512 {
        if n == LANES {
            // SAFETY: the caller vouches for n readable values.
            return unsafe { self.load(from) };
        }
        // SAFETY: the caller vouches for n readable values; masked lanes are not read.
        unsafe { _mm512_maskz_loadu_ps(mask(n), from) }
    }

    #[inline(always)]
    unsafe fn store(self, a: __m512, to: *mut f32) {
        // SAFETY: the caller vouches for 16 writable values.
        unsafe { _mm512_storeu_ps(to, a) }
    }

    #[inline(always)]
    unsafe fn store_first(self, n: usize, a: __m512, to: *mut f32) {
        if n == LANES {
            // What is stored with a mask is slow to load again. SAFETY: the caller vouches for n writable values.
            return unsafe { self.store(a, to) };
        }
        // SAFETY: the caller vouches for n writable values; masked lanes are not written.
        unsafe { _mm512_mask_storeu_ps(to, mask(n), a) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> __m512 {
        // SAFETY: the caller vouches for 16 readable half-precision values.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> __m512 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe {
            let upper = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(upper))
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, a: __m512, to: *mut u16) {
        // SAFETY: the caller vouches for 16 writable half-precision values.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a)) }
    }

    #[inline(always)]
    unsafe fn store_i8(self, a: __m512i, to: *mut i8) {
        // SAFETY: the caller vouches for 16 writable bytes.
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(a)) }
    }

    #[inline(always)]
    fn prefetch_to_write(self, at: *const u8) {
        // SAFETY: a prefetch of any address is allowed.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        intrinsic!(_mm_prefetch::<_MM_HINT_T1>(from.cast()))
    }
}
