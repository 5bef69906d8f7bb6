//! Packed weights: tiles of 32 output rows, each one contiguous stream.
//!
//! Q8_0, for each block b of 32 inputs of a tile, 17 cache lines (the file's 34 bytes a row and block):
//!
//! ```text
//! line  0: rows 0..15,  inputs 0..3     64 bytes = 16 rows x 4 consecutive inputs, q + 128
//! line  1: rows 16..31, inputs 0..3
//!  ...
//! line 15: rows 16..31, inputs 28..31
//! line 16: 32 f16 scales
//! ```
//!
//! F32, for each input of a tile, two lines: the 32 rows. Rows past the last one are zero.

use std::fmt;

use half::f16;

use crate::memory::Aligned;

/// Packed weights `[n outputs, k inputs]`; immutable, shared.
pub struct Matrix {
    tiles: Aligned,
    format: Format,
    n: usize,
    k: usize,
}

/// How the weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    F32,
    Q8,
}

/// A size that does not fit: what it is, its value, what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShapeError(String);

impl Matrix {
    /// Packs rows of `k` values; the rows of `parts` stand one below the other.
    ///
    /// # Errors
    /// A part that is not whole rows, no rows at all, `k` of 0, or no memory.
    pub fn f32(parts: &[&[f32]], k: usize) -> Result<Matrix, ShapeError> {
        let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let (n, mut tiles) = Self::allocate(&lens, k, k, k.checked_mul(TILE * size_of::<f32>()))?;
        let rows = parts.iter().flat_map(|part| part.chunks_exact(k));
        for (row, weights) in rows.enumerate() {
            let (tile, lane) = (row / TILE, row % TILE);
            for (i, weight) in weights.iter().enumerate() {
                let at = ((tile * k + i) * TILE + lane) * size_of::<f32>();
                tiles.bytes_mut()[at..at + 4].copy_from_slice(&weight.to_ne_bytes());
            }
        }
        Ok(Matrix { tiles, format: Format::F32, n, k })
    }

    /// Packs rows of `k / 32` GGUF Q8_0 blocks (f16 scale, 32 signed bytes); the rows of `parts` stand one below
    /// the other.
    ///
    /// # Errors
    /// `k` not a multiple of 32, a part that is not whole rows, no rows at all, or no memory.
    pub fn q8_0(parts: &[&[u8]], k: usize) -> Result<Matrix, ShapeError> {
        if !k.is_multiple_of(BLOCK) {
            return Err(ShapeError(format!("q8_0 matrix: k is {k}, expected a multiple of {BLOCK}")));
        }
        let blocks = k / BLOCK;
        let lens: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let (n, mut tiles) =
            Self::allocate(&lens, k, blocks * FILE_BLOCK_BYTES, blocks.checked_mul(Q8_TILE_BLOCK_BYTES))?;
        let rows = parts.iter().flat_map(|part| part.chunks_exact(blocks * FILE_BLOCK_BYTES));
        for (row, file_blocks) in rows.enumerate() {
            let (tile, lane) = (row / TILE, row % TILE);
            let tile =
                &mut tiles.bytes_mut()[tile * blocks * Q8_TILE_BLOCK_BYTES..][..blocks * Q8_TILE_BLOCK_BYTES];
            let packed = tile.chunks_exact_mut(Q8_TILE_BLOCK_BYTES);
            for (packed, file) in packed.zip(file_blocks.chunks_exact(FILE_BLOCK_BYTES)) {
                let (scale, weights) = file.split_at(2);
                packed[Q8_SCALES + 2 * lane..][..2].copy_from_slice(scale);
                for (quad, weights) in weights.chunks_exact(4).enumerate() {
                    let weights = u32::from_ne_bytes([weights[0], weights[1], weights[2], weights[3]]);
                    let weights = (weights ^ 0x8080_8080).to_ne_bytes();
                    packed[quad * 4 * TILE + 4 * lane..][..4].copy_from_slice(&weights);
                }
            }
        }
        Ok(Matrix { tiles, format: Format::Q8, n, k })
    }

    /// Output rows.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Inputs of each row.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of memory the packed weights take.
    pub fn bytes(&self) -> usize {
        self.tiles.len()
    }

    /// Writes one row as f32.
    ///
    /// # Panics
    /// If `row >= n` or `out.len() != k`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        assert!(row < self.n, "row {row} of a matrix of {} rows", self.n);
        assert_eq!(out.len(), self.k, "the output of a row has k values");
        let tile = &self.tiles.bytes()[row / TILE * self.tile_bytes()..][..self.tile_bytes()];
        let lane = row % TILE;
        match self.format {
            Format::F32 => {
                for (out, line) in out.iter_mut().zip(tile.chunks_exact(TILE * 4)) {
                    let w = &line[4 * lane..][..4];
                    *out = f32::from_ne_bytes([w[0], w[1], w[2], w[3]]);
                }
            }
            Format::Q8 => {
                for (out, packed) in out.chunks_exact_mut(BLOCK).zip(tile.chunks_exact(Q8_TILE_BLOCK_BYTES)) {
                    let scale = &packed[Q8_SCALES + 2 * lane..][..2];
                    let scale = f16::from_le_bytes([scale[0], scale[1]]).to_f32();
                    for (quad, out) in out.chunks_exact_mut(4).enumerate() {
                        let weights = &packed[quad * 4 * TILE + 4 * lane..][..4];
                        for (out, weight) in out.iter_mut().zip(weights) {
                            *out = f32::from((weight ^ 0x80).cast_signed()) * scale;
                        }
                    }
                }
            }
        }
    }

    pub(crate) fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn tile_count(&self) -> usize {
        self.n.div_ceil(TILE)
    }

    pub(crate) fn tile_bytes(&self) -> usize {
        match self.format {
            Format::F32 => self.k * TILE * size_of::<f32>(),
            Format::Q8 => self.k / BLOCK * Q8_TILE_BLOCK_BYTES,
        }
    }

    /// `tile_bytes` bytes, at a cache line.
    pub(crate) fn tile(&self, tile: usize) -> *const u8 {
        assert!(tile < self.tile_count());
        // SAFETY: within the allocation, which has tile_count tiles.
        unsafe { self.tiles.as_ptr().add(tile * self.tile_bytes()) }
    }

    /// Counts the rows of parts of so many elements and makes room for their tiles.
    fn allocate(
        lens: &[usize],
        k: usize,
        row_len: usize,
        tile_bytes: Option<usize>,
    ) -> Result<(usize, Aligned), ShapeError> {
        if k == 0 {
            return Err(ShapeError("matrix: k is 0, expected at least 1".into()));
        }
        for (i, len) in lens.iter().enumerate() {
            if !len.is_multiple_of(row_len) {
                return Err(ShapeError(format!(
                    "matrix: part {i} has {len} elements, expected a multiple of {row_len}"
                )));
            }
        }
        let n: usize = lens.iter().map(|len| len / row_len).sum();
        if n == 0 {
            return Err(ShapeError("matrix: no rows, expected at least 1".into()));
        }
        let bytes = tile_bytes.and_then(|bytes| bytes.checked_mul(n.div_ceil(TILE)));
        let tiles = bytes.and_then(Aligned::zeroed);
        let tiles = tiles.ok_or_else(|| ShapeError(format!("matrix: no memory for {n} rows of {k}")))?;
        Ok((n, tiles))
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Matrix")
            .field("n", &self.n)
            .field("k", &self.k)
            .field("format", &self.format)
            .finish()
    }
}

impl ShapeError {
    pub(crate) fn new(message: String) -> Self {
        ShapeError(message)
    }
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShapeError {}

/// Output rows of a tile.
pub(crate) const TILE: usize = 32;
/// Inputs that share a scale.
pub(crate) const BLOCK: usize = 32;
/// Bytes of a block of a Q8 tile, and where in it the scales begin.
pub(crate) const Q8_TILE_BLOCK_BYTES: usize = 17 * 64;
pub(crate) const Q8_SCALES: usize = 16 * 64;
/// Bytes of a block of one row in a GGUF file.
const FILE_BLOCK_BYTES: usize = 34;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_as_they_went_in() {
        for (n, k) in [(1, 1), (31, 7), (32, 32), (33, 5), (100, 64)] {
            let weights: Vec<f32> = (0..n * k).map(|i| i as f32 - 7.5).collect();
            let (first, second) = weights.split_at(n / 3 * k);
            let matrix = Matrix::f32(&[first, second], k).expect("whole rows");
            assert_eq!((matrix.n(), matrix.k()), (n, k));
            let mut row = vec![0.0; k];
            for r in 0..n {
                matrix.row(r, &mut row);
                assert_eq!(row, weights[r * k..][..k]);
            }
        }
    }

    #[test]
    fn q8_rows_are_weight_times_scale() {
        let (n, blocks) = (35, 3);
        let mut file = Vec::new();
        let mut expected = Vec::new();
        for i in 0..n * blocks {
            let scale = f16::from_f32(0.01 * (i + 1) as f32);
            file.extend(scale.to_le_bytes());
            for j in 0..32 {
                let weight = ((i * 37 + j * 11) % 256) as u8 as i8;
                file.push(weight as u8);
                expected.push(f32::from(weight) * scale.to_f32());
            }
        }
        let matrix = Matrix::q8_0(&[&file], blocks * 32).expect("whole rows");
        let mut row = vec![0.0; blocks * 32];
        for r in 0..n {
            matrix.row(r, &mut row);
            assert_eq!(row, expected[r * blocks * 32..][..blocks * 32]);
        }
        assert_eq!(matrix.bytes(), 2 * 32 * blocks * 34);
    }

    #[test]
    fn sizes_that_do_not_fit_are_errors_that_name_them() {
        let message = |result: Result<Matrix, ShapeError>| result.expect_err("must be refused").to_string();
        assert_eq!(message(Matrix::q8_0(&[&[0; 34]], 33)), "q8_0 matrix: k is 33, expected a multiple of 32");
        assert_eq!(
            message(Matrix::q8_0(&[&[0; 34], &[0; 35]], 32)),
            "matrix: part 1 has 35 elements, expected a multiple of 34"
        );
        assert_eq!(
            message(Matrix::f32(&[&[0.0; 7]], 3)),
            "matrix: part 0 has 7 elements, expected a multiple of 3"
        );
        assert_eq!(message(Matrix::f32(&[&[0.0; 7]], 0)), "matrix: k is 0, expected at least 1");
        assert_eq!(message(Matrix::f32(&[], 3)), "matrix: no rows, expected at least 1");
        assert_eq!(message(Matrix::q8_0(&[], 0)), "matrix: k is 0, expected at least 1");
    }
}
