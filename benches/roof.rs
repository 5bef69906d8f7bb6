//! What the machine itself could do: bytes read and 8-bit products in a second. A share of it says more than a time.
#![allow(unsafe_code, reason = "functions for one instruction set, called where it is there")]

use std::hint::black_box;
use std::sync::Barrier;
use std::time::Instant;

use antiphon_kernels::memory::ask_for_huge_pages;

/// Bytes a second that so many threads read from a buffer of this size, each its own part over and over: the best of several
/// tries, with what the processor fetches ahead by itself and with being asked for more. The buffer lies in large pages where the
/// system has them, as our weights do.
pub fn read(bytes: usize, threads: usize) -> f64 {
    let mut buffer = Vec::with_capacity(bytes);
    ask_for_huge_pages(buffer.spare_capacity_mut());
    buffer.resize(bytes, 1_u8);
    let parts: Vec<&[u8]> = buffer.chunks(bytes.div_ceil(threads)).collect();
    let passes = (READ_IN_A_TRY / bytes).max(1);
    let seconds = AHEAD.map(|ahead| {
        fastest(threads, |thread| {
            for _ in 0..passes {
                black_box(sum(black_box(parts[thread]), ahead));
            }
        })
    });
    (bytes * passes) as f64 / seconds.into_iter().fold(f64::INFINITY, f64::min)
}

/// Multiplications and additions of 8-bit numbers in a second on so many threads; none without AVX-512 VNNI.
pub fn multiply(threads: usize) -> Option<f64> {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
        // SAFETY: the machine has the instructions.
        let seconds = fastest(threads, |_| unsafe { avx512::multiply(DOT_PRODUCTS) });
        return Some((threads * DOT_PRODUCTS * avx512::OPERATIONS) as f64 / seconds);
    }
    let _ = threads;
    None
}

fn sum(part: &[u8], ahead: usize) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the machine has the instructions.
        return unsafe { avx512::sum(part, ahead) };
    }
    sum_of_words(part, ahead)
}

/// Four cache lines at a time, in sums that do not wait for each other; asks for those so many bytes ahead, unless that is 0.
#[inline(always)]
fn sum_of_words(part: &[u8], ahead: usize) -> u64 {
    let mut sums = [0_u64; 32];
    for lines in part.chunks_exact(256) {
        #[cfg(target_arch = "x86_64")]
        if ahead > 0 {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            for line in (0..256).step_by(64) {
                // SAFETY: asking for a line that is not there does nothing.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(lines.as_ptr().wrapping_add(ahead + line).cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = ahead;
        for (sum, word) in sums.iter_mut().zip(lines.as_chunks().0) {
            *sum = sum.wrapping_add(u64::from_ne_bytes(*word));
        }
    }
    sums.into_iter().fold(0, u64::wrapping_add)
}

/// Seconds of the fastest try in which all threads work at once.
fn fastest(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let attempt = || {
        let barrier = Barrier::new(threads);
        std::thread::scope(|scope| {
            let work = |thread| {
                let (barrier, work) = (&barrier, &work);
                move || {
                    barrier.wait();
                    let start = Instant::now();
                    work(thread);
                    start.elapsed().as_secs_f64()
                }
            };
            let workers: Vec<_> = (0..threads).map(|thread| scope.spawn(work(thread))).collect();
            let seconds = workers.into_iter().map(|worker| worker.join().expect("reading does not panic"));
            seconds.fold(0.0, f64::max)
        })
    };
    (0..TRIES).map(|_| attempt()).fold(f64::INFINITY, f64::min)
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{_mm512_dpbusd_epi32, _mm512_set1_epi8, _mm512_set1_epi32};
    use std::hint::black_box;

    /// In a vector of 64: a multiplication and an addition each.
    pub(super) const OPERATIONS: usize = 128;

    #[target_feature(enable = "avx512f,avx512vnni")]
    pub(super) fn multiply(count: usize) {
        // As many as hide the latency of both units that have the instruction, and few enough for registers.
        let mut sums: [_; 16] = std::array::from_fn(|index| _mm512_set1_epi32(index as i32));
        let (bytes, weights) = black_box((_mm512_set1_epi8(1), _mm512_set1_epi8(2)));
        for _ in 0..count / sums.len() {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, bytes, weights);
            }
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub(super) fn sum(part: &[u8], ahead: usize) -> u64 {
        super::sum_of_words(part, ahead)
    }
}

/// How far ahead lines are asked for, in bytes; as far as our kernels do, and half of it.
const AHEAD: [usize; 3] = [0, 4096, 8192];
const TRIES: usize = 5;
/// Enough that starting together does not count.
const READ_IN_A_TRY: usize = 512 << 20;
const DOT_PRODUCTS: usize = 1 << 27;
