//! Which instructions the kernels use, chosen at run time.

#[cfg(target_arch = "aarch64")]
use crate::simd::Neon;
#[cfg(target_arch = "x86_64")]
use crate::simd::{Avx2, Avx512, AvxVnni};
use crate::simd::{Portable, Simd};

/// Instruction paths; all of them give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, VL, DQ and VNNI: sixteen lanes in one register.
    Avx512,
    /// AVX2, FMA and F16C with AVX-VNNI, as client processors have it that lack AVX-512: sixteen lanes in two registers.
    AvxVnni,
    /// AVX2, FMA and F16C: sixteen lanes in two registers.
    Avx2,
    /// NEON of 64-bit ARM: sixteen lanes in four registers.
    Neon,
    /// Plain Rust, on every machine. Slow where the machine lacks fused multiply-add.
    Portable,
}

impl Isa {
    /// Every path there is, on whatever machine; of those that one machine can have, the fastest first.
    pub const ALL: [Isa; 5] = [Isa::Avx512, Isa::AvxVnni, Isa::Avx2, Isa::Neon, Isa::Portable];

    /// The fastest path this machine has.
    pub fn detect() -> Isa {
        Isa::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Isa::Portable)
    }

    /// Every path this machine has, the fastest first.
    pub fn available() -> Vec<Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect()
    }

    /// Lower-case name for logs and reports.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Portable => "portable",
        }
    }

    fn is_available(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            Isa::Portable => true,
            _ => false, // of another architecture
        }
    }
}

/// Code written once over sixteen lanes. `run` is `#[inline(always)]` in every implementation, so that it is
/// compiled anew inside a function that has the instructions enabled.
pub(crate) trait Kernel {
    type Output;

    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// An [`Isa`] that was found on this machine: the proof the vector types ask for.
#[derive(Clone, Copy)]
pub(crate) struct Path(Isa);

impl Path {
    /// None where the machine lacks the instructions.
    pub(crate) fn new(isa: Isa) -> Option<Path> {
        isa.is_available().then_some(Path(isa))
    }

    /// The path for single slices outside a pool.
    pub(crate) fn detect() -> Path {
        Path(Isa::detect())
    }

    pub(crate) fn isa(self) -> Isa {
        self.0
    }

    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a Path exists only for instructions that were detected.
            Isa::Avx512 => unsafe { Avx512::new() }.call(kernel),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::AvxVnni => unsafe { AvxVnni::new() }.call(kernel),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as above.
            Isa::Avx2 => unsafe { Avx2::new() }.call(kernel),
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            Isa::Neon => unsafe { Neon::new() }.call(kernel),
            _ => Portable.call(kernel),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detected_path_is_the_first_available_one() {
        assert_eq!(Isa::available().first(), Some(&Isa::detect()));
        assert_eq!(Isa::available().last(), Some(&Isa::Portable));
    }

    #[test]
    fn a_path_exists_for_each_available_isa_and_no_other() {
        for isa in Isa::ALL {
            assert_eq!(Path::new(isa).is_some(), Isa::available().contains(&isa), "{}", isa.name());
        }
    }
}
