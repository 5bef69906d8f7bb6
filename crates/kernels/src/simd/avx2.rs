//! Sixteen lanes in two 256-bit registers; products of bytes by what the machine has for them.

mod products;

use std::arch::x86_64::*;
use std::marker::PhantomData;

use self::products::{Products, SignTrick, Vnni};
use super::{LANES, Simd};
use crate::isa::Kernel;

/// Machines with AVX2, FMA and F16C.
pub(crate) type Avx2 = Halves<SignTrick>;
/// Those that have AVX-VNNI, too.
pub(crate) type AvxVnni = Halves<Vnni>;

#[derive(Clone, Copy)]
pub(crate) struct Halves<P>(PhantomData<P>);

impl<P: Products> Halves<P> {
    /// # Safety
    /// The machine has AVX2, FMA, F16C and the instructions of `P`.
    #[inline(always)]
    pub(crate) unsafe fn new() -> Self {
        Halves(PhantomData)
    }
}

/// The tree of [`Simd::sum`] from eight lanes on.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
pub(super) unsafe fn sum(a: __m256) -> f32 {
    // SAFETY: as the caller vouches.
    unsafe {
        let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_add_ss(a, _mm_shuffle_ps::<1>(a, a)))
    }
}

/// The tree of [`Simd::largest`] from eight lanes on.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
pub(super) unsafe fn largest(a: __m256) -> f32 {
    // SAFETY: as the caller vouches.
    unsafe {
        let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
        let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        _mm_cvtss_f32(_mm_max_ss(a, _mm_shuffle_ps::<1>(a, a)))
    }
}

/// All ones in the first `n` lanes.
#[inline(always)]
fn mask(n: usize) -> [__m256i; 2] {
    // SAFETY: called only by methods of Halves, which exist only on a machine with AVX2.
    unsafe {
        let n = _mm256_set1_epi32(n as i32);
        [
            _mm256_cmpgt_epi32(n, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            _mm256_cmpgt_epi32(n, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15)),
        ]
    }
}

/// Applies intrinsics that touch no memory to both halves: `self` proves that the machine has them.
macro_rules! both {
    ($f:ident($($arg:ident),*)) => {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe { [$f($($arg[0]),*), $f($($arg[1]),*)] }
    };
}

impl<P: Products> Simd for Halves<P> {
    type F32 = [__m256; 2];
    type I32 = [__m256i; 2];
    type Weights = [P::Weights; 2];
    type Small = [__m256i; 2];

    const WIDE: bool = false;
    /// Sums of as many rows take eight of the sixteen registers. With six rows AVX-VNNI takes half as long again for prompts.
    const PANEL: usize = 4;

    #[inline(always)]
    fn call<K: Kernel>(self, kernel: K) -> K::Output {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe { P::call(self, kernel) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        let x = [x; 2];
        both!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        both!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        both!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn first(self, n: usize, a: Self::F32, b: Self::F32) -> Self::F32 {
        let mask = mask(n);
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe {
            [
                _mm256_blendv_ps(b[0], a[0], _mm256_castsi256_ps(mask[0])),
                _mm256_blendv_ps(b[1], a[1], _mm256_castsi256_ps(mask[1])),
            ]
        }
    }

    #[inline(always)]
    fn sum(self, a: Self::F32) -> f32 {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe { sum(_mm256_add_ps(a[0], a[1])) }
    }

    #[inline(always)]
    fn largest(self, a: Self::F32) -> f32 {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe { largest(_mm256_max_ps(a[0], a[1])) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> Self::I32 {
        let x = [x; 2];
        both!(_mm256_set1_epi32(x))
    }

    #[inline(always)]
    fn add_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        both!(_mm256_add_epi32(a, b))
    }

    #[inline(always)]
    fn sub_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        both!(_mm256_sub_epi32(a, b))
    }

    #[inline(always)]
    fn max_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        both!(_mm256_max_epi32(a, b))
    }

    #[inline(always)]
    fn and_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        both!(_mm256_and_si256(a, b))
    }

    #[inline(always)]
    fn or_i32(self, a: Self::I32, b: Self::I32) -> Self::I32 {
        both!(_mm256_or_si256(a, b))
    }

    #[inline(always)]
    fn shift_left(self, a: Self::I32, bits: i32) -> Self::I32 {
        let bits = self.splat_i32(bits);
        both!(_mm256_sllv_epi32(a, bits))
    }

    #[inline(always)]
    fn shift_right(self, a: Self::I32, bits: i32) -> Self::I32 {
        let bits = self.splat_i32(bits);
        both!(_mm256_srlv_epi32(a, bits))
    }

    #[inline(always)]
    fn halve_i32(self, a: Self::I32) -> Self::I32 {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe { [_mm256_srai_epi32::<1>(a[0]), _mm256_srai_epi32::<1>(a[1])] }
    }

    #[inline(always)]
    fn sum_i32(self, a: Self::I32) -> i32 {
        lanes(a).into_iter().fold(0, i32::wrapping_add)
    }

    #[inline(always)]
    fn largest_i32(self, a: Self::I32) -> i32 {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe {
            let a = _mm256_max_epi32(a[0], a[1]);
            let a = _mm_max_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256::<1>(a));
            let a = _mm_max_epi32(a, _mm_shuffle_epi32::<0b01_00_11_10>(a));
            _mm_cvtsi128_si32(_mm_max_epi32(a, _mm_shuffle_epi32::<0b10_11_00_01>(a)))
        }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I32) -> Self::F32 {
        both!(_mm256_cvtepi32_ps(a))
    }

    #[inline(always)]
    fn to_bits(self, a: Self::F32) -> Self::I32 {
        both!(_mm256_castps_si256(a))
    }

    #[inline(always)]
    fn with_bits(self, a: Self::I32) -> Self::F32 {
        both!(_mm256_castsi256_ps(a))
    }

    #[inline(always)]
    fn dot_start(self, correction: i32) -> Self::I32 {
        self.splat_i32(P::start(correction))
    }

    #[inline(always)]
    fn dot(self, sum: Self::I32, w: Self::Weights, x: i32) -> Self::I32 {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe {
            let x = _mm256_set1_epi32(x);
            [P::dot(sum[0], w[0], x), P::dot(sum[1], w[1], x)]
        }
    }

    #[inline(always)]
    fn dot_small(self, sum: Self::I32, w: Self::Small, x: i32) -> Self::I32 {
        // SAFETY: Halves exist only on a machine with these instructions.
        unsafe {
            let x = _mm256_set1_epi32(x);
            [P::dot_small(sum[0], w[0], x), P::dot_small(sum[1], w[1], x)]
        }
    }

    #[inline(always)]
    unsafe fn load_weights(self, from: *const u8) -> Self::Weights {
        // SAFETY: the caller vouches for 64 readable bytes; Halves exist only on a machine with these instructions.
        unsafe { self.load_i32(from).map(|bytes| P::weights(bytes)) }
    }

    #[inline(always)]
    unsafe fn load_small(self, from: *const u8) -> Self::Small {
        // SAFETY: as the caller vouches.
        unsafe { self.load_i32(from) }
    }

    #[inline(always)]
    unsafe fn load_i32(self, from: *const u8) -> Self::I32 {
        // SAFETY: the caller vouches for 64 readable bytes.
        unsafe { [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(32).cast())] }
    }

    #[inline(always)]
    unsafe fn store_i32(self, a: Self::I32, to: *mut u8) {
        // SAFETY: the caller vouches for 64 writable bytes.
        unsafe {
            _mm256_storeu_si256(to.cast(), a[0]);
            _mm256_storeu_si256(to.add(32).cast(), a[1]);
        }
    }

    #[inline(always)]
    unsafe fn load(self, from: *const f32) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe { [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))] }
    }

    #[inline(always)]
    unsafe fn load_first(self, n: usize, from: *const f32) -> Self::F32 {
        if n == LANES {
            // SAFETY: the caller vouches for n readable values.
            return unsafe { self.load(from) };
        }
        let mask = mask(n);
        // SAFETY: the caller vouches for n readable values; masked lanes are not read.
        unsafe { [_mm256_maskload_ps(from, mask[0]), _mm256_maskload_ps(from.wrapping_add(8), mask[1])] }
    }

    #[inline(always)]
    unsafe fn store(self, a: Self::F32, to: *mut f32) {
        // SAFETY: the caller vouches for 16 writable values.
        unsafe {
            _mm256_storeu_ps(to, a[0]);
            _mm256_storeu_ps(to.add(8), a[1]);
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, n: usize, a: Self::F32, to: *mut f32) {
        if n == LANES {
            // What is stored with a mask is slow to store, and slow to load again. SAFETY: the caller vouches for n writable values.
            return unsafe { self.store(a, to) };
        }
        let mask = mask(n);
        // SAFETY: the caller vouches for n writable values; masked lanes are not written.
        unsafe {
            _mm256_maskstore_ps(to, mask[0], a[0]);
            _mm256_maskstore_ps(to.wrapping_add(8), mask[1], a[1]);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const u16) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable half-precision values.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(from.cast())),
                _mm256_cvtph_ps(_mm_loadu_si128(from.add(8).cast())),
            ]
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const u16) -> Self::F32 {
        // SAFETY: the caller vouches for 16 readable values.
        unsafe {
            let upper = [
                _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())),
                _mm256_cvtepu16_epi32(_mm_loadu_si128(from.add(8).cast())),
            ];
            self.with_bits(self.shift_left(upper, 16))
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, a: Self::F32, to: *mut u16) {
        // SAFETY: the caller vouches for 16 writable half-precision values.
        unsafe {
            _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a[0]));
            _mm_storeu_si128(to.add(8).cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a[1]));
        }
    }

    #[inline(always)]
    unsafe fn store_i8(self, a: Self::I32, to: *mut i8) {
        // SAFETY: the caller vouches for 16 writable bytes.
        unsafe {
            let low = _mm_packs_epi32(_mm256_castsi256_si128(a[0]), _mm256_extracti128_si256::<1>(a[0]));
            let high = _mm_packs_epi32(_mm256_castsi256_si128(a[1]), _mm256_extracti128_si256::<1>(a[1]));
            _mm_storeu_si128(to.cast(), _mm_packs_epi16(low, high));
        }
    }

    #[inline(always)]
    fn prefetch_to_write(self, at: *const u8) {
        // SAFETY: a prefetch of any address is allowed.
        unsafe { std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    fn prefetch(self, from: *const u8) {
        // SAFETY: a prefetch of any address is allowed.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.cast()) }
    }
}

#[inline(always)]
fn lanes(a: [__m256i; 2]) -> [i32; LANES] {
    // SAFETY: both are 64 bytes of plain integers.
    unsafe { std::mem::transmute(a) }
}
