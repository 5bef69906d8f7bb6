//! How weights are stored: the element types of GGUF files that have tiles.

/// A storage type, by its name in GGUF files.
#[allow(non_camel_case_types, missing_docs, reason = "the formats' own names say what the types are")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[rustfmt::skip]
pub enum Format {
    F32, F16, BF16,
    Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q4_K, Q5_K, Q6_K,
    /// Q8_0 in the file, but all blocks of a row have one scale. Products take activations with one scale a row, too.
    Q8_ROW,
}

impl Format {
    /// Inputs of the smallest whole piece of a row, and the bytes it takes.
    pub const fn block(self) -> (usize, usize) {
        match self {
            Format::F32 => (1, 4),
            Format::F16 | Format::BF16 => (1, 2),
            Format::Q8_0 | Format::Q8_ROW => (32, 34),
            Format::Q4_0 => (32, 18),
            Format::Q4_1 => (32, 20),
            Format::Q5_0 => (32, 22),
            Format::Q5_1 => (32, 24),
            Format::Q4_K => (256, 144),
            Format::Q5_K => (256, 176),
            Format::Q6_K => (256, 210),
        }
    }

    /// One matrix may hold both: their products take activations alike.
    pub fn goes_with(self, other: Format) -> bool {
        let takes = |format: Format| (format.is_float(), format == Format::Q8_ROW);
        takes(self) == takes(other)
    }

    /// Weights are numbers, not steps of a scale; products with them take activations as f32, not as int8.
    pub const fn is_float(self) -> bool {
        matches!(self, Format::F32 | Format::F16 | Format::BF16)
    }
}
