//! Element types of safetensors and GGUF: names, ids, and how many bytes a run of elements takes.

use std::fmt;

/// How the elements of a tensor are stored.
#[allow(non_camel_case_types, missing_docs, reason = "the formats' own names say what the types are")]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[rustfmt::skip]
pub enum Dtype {
    F64, F32, F16, BF16,
    Bool, U8, I8, U16, I16, U32, I32, U64, I64, C64,
    F8_E5M2, F8_E4M3, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ, F6_E2M3, F6_E3M2, F4,
    Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q8_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, Q8_K,
    IQ1_S, IQ1_M, IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S, IQ4_NL, IQ4_XS, TQ1_0, TQ2_0, MXFP4, NVFP4,
}

impl Dtype {
    /// The type that a safetensors header calls `name`.
    pub fn from_safetensors(name: &str) -> Option<Self> {
        Self::SAFETENSORS.iter().find(|(known, _)| *known == name).map(|&(_, dtype)| dtype)
    }

    /// The type with this number in a GGUF tensor info.
    pub fn from_ggml(id: u32) -> Option<Self> {
        Self::GGML.iter().find(|(known, _)| *known == id).map(|&(_, dtype)| dtype)
    }

    /// Elements in the smallest whole piece, and the bytes it takes.
    #[rustfmt::skip]
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F64 | Self::U64 | Self::I64 | Self::C64 => (1, 8),
            Self::F32 | Self::U32 | Self::I32 => (1, 4),
            Self::F16 | Self::BF16 | Self::U16 | Self::I16 => (1, 2),
            Self::Bool | Self::U8 | Self::I8 => (1, 1),
            Self::F8_E5M2 | Self::F8_E4M3 | Self::F8_E8M0 | Self::F8_E4M3FNUZ | Self::F8_E5M2FNUZ => (1, 1),
            Self::F6_E2M3 | Self::F6_E3M2 => (4, 3),
            Self::F4 => (2, 1),
            Self::Q4_0 => (32, 18), Self::Q4_1 => (32, 20), Self::Q5_0 => (32, 22), Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34), Self::Q8_1 => (32, 36),
            Self::Q2_K => (256, 84), Self::Q3_K => (256, 110), Self::Q4_K => (256, 144), Self::Q5_K => (256, 176),
            Self::Q6_K => (256, 210), Self::Q8_K => (256, 292),
            Self::IQ1_S => (256, 50), Self::IQ1_M => (256, 56), Self::IQ2_XXS => (256, 66), Self::IQ2_XS => (256, 74),
            Self::IQ2_S => (256, 82), Self::IQ3_XXS => (256, 98), Self::IQ3_S => (256, 110), Self::IQ4_NL => (32, 18),
            Self::IQ4_XS => (256, 136), Self::TQ1_0 => (256, 54), Self::TQ2_0 => (256, 66),
            Self::MXFP4 => (32, 17), Self::NVFP4 => (64, 36),
        }
    }

    /// Bytes that `elements` take; none when they are not whole blocks or the number does not fit.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        let (block_elements, block_bytes) = self.block();
        if elements.is_multiple_of(block_elements) {
            (elements / block_elements).checked_mul(block_bytes)
        } else {
            None
        }
    }

    #[rustfmt::skip]
    const SAFETENSORS: &'static [(&'static str, Self)] = &[
        ("F64", Self::F64), ("F32", Self::F32), ("F16", Self::F16), ("BF16", Self::BF16),
        ("BOOL", Self::Bool), ("U8", Self::U8), ("I8", Self::I8), ("U16", Self::U16), ("I16", Self::I16),
        ("U32", Self::U32), ("I32", Self::I32), ("U64", Self::U64), ("I64", Self::I64), ("C64", Self::C64),
        ("F8_E5M2", Self::F8_E5M2), ("F8_E4M3", Self::F8_E4M3), ("F8_E8M0", Self::F8_E8M0),
        ("F8_E4M3FNUZ", Self::F8_E4M3FNUZ), ("F8_E5M2FNUZ", Self::F8_E5M2FNUZ),
        ("F6_E2M3", Self::F6_E2M3), ("F6_E3M2", Self::F6_E3M2), ("F4", Self::F4),
    ];

    /// Numbers 4, 5, 31 to 33 and 36 to 38 were withdrawn from the format.
    #[rustfmt::skip]
    const GGML: &'static [(u32, Self)] = &[
        (0, Self::F32), (1, Self::F16), (2, Self::Q4_0), (3, Self::Q4_1), (6, Self::Q5_0), (7, Self::Q5_1),
        (8, Self::Q8_0), (9, Self::Q8_1), (10, Self::Q2_K), (11, Self::Q3_K), (12, Self::Q4_K), (13, Self::Q5_K),
        (14, Self::Q6_K), (15, Self::Q8_K), (16, Self::IQ2_XXS), (17, Self::IQ2_XS), (18, Self::IQ3_XXS),
        (19, Self::IQ1_S), (20, Self::IQ4_NL), (21, Self::IQ3_S), (22, Self::IQ2_S), (23, Self::IQ4_XS),
        (24, Self::I8), (25, Self::I16), (26, Self::I32), (27, Self::I64), (28, Self::F64), (29, Self::IQ1_M),
        (30, Self::BF16), (34, Self::TQ1_0), (35, Self::TQ2_0), (39, Self::MXFP4), (40, Self::NVFP4),
    ];
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
