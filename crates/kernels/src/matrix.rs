//! Packed weights: tiles of 32 output rows, each one contiguous stream of exactly the bytes its rows have in a file.
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
//! Q8_ROW, for each block, 16 such lines, and after all blocks a line of 32 f16 scales.
//!
//! F32, for each input of a tile, two lines: the 32 rows; F16 and BF16, one. Fewer bits: see [`crate::nibbles`]. Rows past the
//! last one are zero.

use std::fmt;
use std::ops::Range;

use half::{bf16, f16};

use crate::format::Format;
use crate::late;
use crate::memory::{Aligned, LINE, Room};
use crate::nibbles::{self, Nibbles};
use crate::quant::BLOCK;

/// Packed weights `[n outputs, k inputs]`; immutable, shared.
pub struct Matrix {
    tiles: Aligned,
    sections: Vec<Section>,
    n: usize,
    k: usize,
}

/// Tiles of one format.
struct Section {
    format: Format,
    tiles: Range<usize>,
    /// Where in the matrix they begin.
    start: usize,
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
        let rows: Vec<_> = parts.iter().map(|part| (Format::F32, part.len(), k)).collect();
        let mut matrix = Self::zeroed_in(&Room::new(0), &whole_rows(&rows)?, k)?;
        for (row, weights) in parts.iter().flat_map(|part| part.chunks_exact(k)).enumerate() {
            let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
            matrix.put_rows(row, &bytes);
        }
        Ok(matrix)
    }

    /// Packs rows of `k` weights as GGUF files have them; the rows of `parts` stand one below the other, each part in its own
    /// format.
    ///
    /// # Errors
    /// As [`Matrix::zeroed_in`], and a part that is not whole rows.
    pub fn new(parts: &[(Format, &[u8])], k: usize) -> Result<Matrix, ShapeError> {
        let rows: Vec<_> =
            parts.iter().map(|&(format, bytes)| (format, bytes.len(), Self::row_bytes(format, k))).collect();
        let mut matrix = Self::zeroed_in(&Room::new(0), &whole_rows(&rows)?, k)?;
        let mut row = 0;
        for &(format, bytes) in parts {
            matrix.put_rows(row, bytes);
            row += bytes.len() / Self::row_bytes(format, k);
        }
        Ok(matrix)
    }

    /// Takes room for parts of so many rows of `k` weights, one below the other, each in its own format; all weights are zero until
    /// [`Matrix::put_rows`] brings them.
    ///
    /// # Errors
    /// `k` of 0 or not whole blocks, no rows at all, or no memory. Formats that do not go together ([`Format::goes_with`]), or
    /// another format where no tile begins: not at a multiple of [`Matrix::TILE_ROWS`] rows.
    pub fn zeroed_in(room: &Room, parts: &[(Format, usize)], k: usize) -> Result<Matrix, ShapeError> {
        if k == 0 {
            return Err(ShapeError("matrix: k is 0, expected at least 1".into()));
        }
        if k > MOST_OF_ONE_SCALE && parts.iter().any(|(format, _)| *format == Format::Q8_ROW) {
            return Err(ShapeError(format!(
                "matrix of Q8_ROW: k is {k}, expected at most {MOST_OF_ONE_SCALE}"
            )));
        }
        let (mut n, mut end) = (0_usize, 0_usize);
        let mut sections: Vec<Section> = Vec::new();
        for (i, &(format, rows)) in parts.iter().enumerate() {
            let (inputs, _) = format.block();
            if !k.is_multiple_of(inputs) {
                return Err(ShapeError(format!(
                    "matrix of {format:?}: k is {k}, expected a multiple of {inputs}"
                )));
            }
            if !parts[0].0.goes_with(format) {
                return Err(ShapeError(format!(
                    "matrix: part {i} is {format:?}, expected a format like that of part 0"
                )));
            }
            if sections.last().is_none_or(|section| section.format != format) {
                if !n.is_multiple_of(TILE) {
                    return Err(ShapeError(format!(
                        "matrix: part {i} of {format:?} begins at row {n}, expected a multiple of {TILE}"
                    )));
                }
                sections.push(Section { format, tiles: n / TILE..n / TILE, start: end });
            }
            n = n.saturating_add(rows);
            let section = sections.last_mut().expect("there is one now");
            section.tiles.end = n.div_ceil(TILE);
            let bytes = section.tiles.len().saturating_mul(TILE).saturating_mul(packed_row_bytes(format, k));
            end = section.start.saturating_add(bytes);
        }
        if n == 0 {
            return Err(ShapeError("matrix: no rows, expected at least 1".into()));
        }
        let tiles =
            room.zeroed(end).ok_or_else(|| ShapeError(format!("matrix: no memory for {n} rows of {k}")))?;
        sections.retain(|section| !section.tiles.is_empty());
        Ok(Matrix { tiles, sections, n, k })
    }

    /// Puts rows as a file has them into their tiles, the first at `row`. Where whole tiles come at once, each line of a tile
    /// is written while it is in the first cache.
    ///
    /// # Panics
    /// If they are not whole rows of the format they have there, or reach past the last row.
    pub fn put_rows(&mut self, mut row: usize, mut weights: &[u8]) {
        while !weights.is_empty() {
            assert!(row < self.n, "row {row} of a matrix of {} rows", self.n);
            let (format, range) = self.tile_range(row / TILE);
            let row_bytes = Self::row_bytes(format, self.k);
            let lane = row % TILE;
            let rows = (weights.len() / row_bytes).min(TILE - lane);
            assert!(rows > 0 && row + rows <= self.n, "{} bytes at row {row}", weights.len());
            let (now, rest) = weights.split_at(rows * row_bytes);
            put(format, &mut self.tiles.bytes_mut()[range], lane, now, row_bytes);
            (row, weights) = (row + rows, rest);
        }
    }

    /// Bytes that a row of `k` weights takes in a file; `k` is whole blocks of the format.
    pub fn row_bytes(format: Format, k: usize) -> usize {
        let (inputs, bytes) = format.block();
        (k / inputs).saturating_mul(bytes)
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
        let (format, range) = self.tile_range(row / TILE);
        let (tile, lane) = (&self.tiles.bytes()[range], row % TILE);
        match format {
            Format::F32 => read_numbers(tile, lane, out, f32::from_ne_bytes),
            Format::F16 => read_numbers(tile, lane, out, |bytes| f16::from_le_bytes(bytes).to_f32()),
            Format::BF16 => read_numbers(tile, lane, out, |bytes| bf16::from_le_bytes(bytes).to_f32()),
            Format::Q8_0 => read_bytes(tile, lane, out),
            Format::Q8_ROW => read_whole(tile, lane, out),
            Format::Q4_0 => nibbles::read_row::<nibbles::Q4_0>(tile, lane, out),
            Format::Q4_1 => nibbles::read_row::<nibbles::Q4_1>(tile, lane, out),
            Format::Q5_0 => nibbles::read_row::<nibbles::Q5_0>(tile, lane, out),
            Format::Q5_1 => nibbles::read_row::<nibbles::Q5_1>(tile, lane, out),
            Format::Q4_K => nibbles::read_row::<nibbles::Q4_K>(tile, lane, out),
            Format::Q5_K => nibbles::read_row::<nibbles::Q5_K>(tile, lane, out),
            Format::Q6_K => nibbles::read_row::<nibbles::Q6_K>(tile, lane, out),
        }
    }

    /// Products take activations as f32, not as int8.
    pub(crate) fn is_float(&self) -> bool {
        self.sections[0].format.is_float()
    }

    /// Products take activations with one scale a row.
    pub(crate) fn takes_one_scale(&self) -> bool {
        self.sections[0].format == Format::Q8_ROW
    }

    /// Some tiles are unpacked before they are multiplied.
    pub(crate) fn is_unpacked(&self) -> bool {
        let is_plain = |format: Format| format.is_float() || matches!(format, Format::Q8_0 | Format::Q8_ROW);
        self.sections.iter().any(|section| !is_plain(section.format))
    }

    pub(crate) fn tile_count(&self) -> usize {
        self.n.div_ceil(TILE)
    }

    /// Bytes of a tile, on average.
    pub(crate) fn tile_bytes(&self) -> usize {
        self.tiles.len() / self.tile_count()
    }

    /// The format of a tile and its bytes, which begin at a cache line.
    #[inline]
    pub(crate) fn tile(&self, tile: usize) -> (Format, *const u8) {
        let (format, range) = self.tile_range(tile);
        (format, self.tiles.bytes()[range].as_ptr())
    }

    /// # Panics
    /// If there is no such tile.
    #[inline]
    fn tile_range(&self, tile: usize) -> (Format, Range<usize>) {
        let section = self.sections.iter().find(|section| section.tiles.contains(&tile));
        let section = section.unwrap_or_else(|| panic!("tile {tile} of {}", self.tile_count()));
        let bytes = TILE * packed_row_bytes(section.format, self.k);
        let start = section.start + (tile - section.tiles.start) * bytes;
        (section.format, start..start + bytes)
    }

    /// Output rows of a tile.
    pub const TILE_ROWS: usize = TILE;
}

/// From the lengths of parts and of their rows to numbers of rows.
fn whole_rows(parts: &[(Format, usize, usize)]) -> Result<Vec<(Format, usize)>, ShapeError> {
    let rows = |(i, &(format, len, row_len)): (usize, &(Format, usize, usize))| match row_len {
        0 => Ok((format, 0)), // refused for its k
        _ if len.is_multiple_of(row_len) => Ok((format, len / row_len)),
        _ => {
            Err(ShapeError(format!("matrix: part {i} has {len} elements, expected a multiple of {row_len}")))
        }
    };
    parts.iter().enumerate().map(rows).collect()
}

/// Puts rows of a file into a tile, from this lane on.
fn put(format: Format, tile: &mut [u8], lane: usize, rows: &[u8], row_bytes: usize) {
    let lanes = rows.chunks_exact(row_bytes).zip(lane..TILE);
    match format {
        Format::F32 => put_groups(tile, lanes, 4, put_number::<4>),
        Format::F16 | Format::BF16 => put_groups(tile, lanes, 2, put_number::<2>),
        Format::Q8_0 => put_groups(tile, lanes, Q8_0_BYTES, put_bytes),
        Format::Q8_ROW => put_whole(tile, lanes),
        Format::Q4_0 => put_nibbles::<nibbles::Q4_0>(tile, lanes),
        Format::Q4_1 => put_nibbles::<nibbles::Q4_1>(tile, lanes),
        Format::Q5_0 => put_nibbles::<nibbles::Q5_0>(tile, lanes),
        Format::Q5_1 => put_nibbles::<nibbles::Q5_1>(tile, lanes),
        Format::Q4_K => put_nibbles::<nibbles::Q4_K>(tile, lanes),
        Format::Q5_K => put_nibbles::<nibbles::Q5_K>(tile, lanes),
        Format::Q6_K => put_nibbles::<nibbles::Q6_K>(tile, lanes),
    }
}

fn put_nibbles<'a, F: Nibbles>(tile: &mut [u8], lanes: impl Iterator<Item = (&'a [u8], usize)> + Clone) {
    put_groups(tile, lanes, F::FILE_BYTES, nibbles::pack::<F>);
}

/// Puts one group of every row, so many bytes of a file, and then the next: its lines stay in the first cache meanwhile.
#[inline(always)]
fn put_groups<'a>(
    tile: &mut [u8],
    lanes: impl Iterator<Item = (&'a [u8], usize)> + Clone,
    file_bytes: usize,
    put: impl Fn(&[u8], usize, &mut [u8]),
) {
    for (group, packed) in tile.chunks_exact_mut(TILE * file_bytes).enumerate() {
        for (row, lane) in lanes.clone() {
            put(&row[group * file_bytes..][..file_bytes], lane, packed);
        }
    }
}

fn put_number<const BYTES: usize>(file: &[u8], lane: usize, line: &mut [u8]) {
    line[BYTES * lane..][..BYTES].copy_from_slice(file);
}

fn put_bytes(file: &[u8], lane: usize, packed: &mut [u8]) {
    let (scale, weights) = file.split_at(2);
    packed[TILE * BLOCK + 2 * lane..][..2].copy_from_slice(scale);
    put_weights(weights, lane, packed);
}

/// Puts 32 weights of a row into the lines of a block.
fn put_weights(weights: &[u8], lane: usize, packed: &mut [u8]) {
    for (quad, weights) in weights.as_chunks::<4>().0.iter().enumerate() {
        let weights = u32::from_ne_bytes(*weights) ^ 0x8080_8080;
        packed[quad * 4 * TILE + 4 * lane..][..4].copy_from_slice(&weights.to_ne_bytes());
    }
}

/// Puts whole rows; the scale of their first block is that of all.
fn put_whole<'a>(tile: &mut [u8], lanes: impl Iterator<Item = (&'a [u8], usize)> + Clone) {
    let (weights, scales) = tile.split_at_mut(tile.len() - 2 * TILE);
    for (row, lane) in lanes.clone() {
        scales[2 * lane..][..2].copy_from_slice(&row[..2]);
    }
    for (block, packed) in weights.chunks_exact_mut(TILE * BLOCK).enumerate() {
        for (row, lane) in lanes.clone() {
            put_weights(&row[block * Q8_0_BYTES + 2..][..BLOCK], lane, packed);
        }
    }
}

fn read_numbers<const BYTES: usize>(
    tile: &[u8],
    lane: usize,
    out: &mut [f32],
    number: impl Fn([u8; BYTES]) -> f32,
) {
    for (out, line) in out.iter_mut().zip(tile.chunks_exact(TILE * BYTES)) {
        *out = number(line[BYTES * lane..][..BYTES].try_into().expect("so many bytes"));
    }
}

fn read_bytes(tile: &[u8], lane: usize, out: &mut [f32]) {
    for (out, packed) in out.chunks_exact_mut(BLOCK).zip(tile.chunks_exact(TILE * Q8_0_BYTES)) {
        read_weights(packed, &packed[TILE * BLOCK..], lane, out);
    }
}

fn read_whole(tile: &[u8], lane: usize, out: &mut [f32]) {
    let (weights, scales) = tile.split_at(tile.len() - 2 * TILE);
    for (out, packed) in out.chunks_exact_mut(BLOCK).zip(weights.chunks_exact(TILE * BLOCK)) {
        read_weights(packed, scales, lane, out);
    }
}

/// Reads 32 weights of a row from the lines of a block and a line of scales.
fn read_weights(packed: &[u8], scales: &[u8], lane: usize, out: &mut [f32]) {
    let scale = &scales[2 * lane..][..2];
    let scale = f16::from_le_bytes([scale[0], scale[1]]).to_f32();
    // Together first: then the rest is done many at a time.
    let mut weights = [0u8; BLOCK];
    for (quad, weights) in weights.chunks_exact_mut(4).enumerate() {
        weights.copy_from_slice(&packed[quad * 4 * TILE + 4 * lane..][..4]);
    }
    for (out, weight) in out.iter_mut().zip(weights) {
        *out = f32::from((weight ^ 0x80).cast_signed()) * scale;
    }
}

/// Bytes that a row of `k` weights takes in its tile.
fn packed_row_bytes(format: Format, k: usize) -> usize {
    match format {
        Format::Q8_ROW => k.saturating_add(2),
        _ => Matrix::row_bytes(format, k),
    }
}

impl Drop for Matrix {
    fn drop(&mut self) {
        if !late::all_done() {
            // Better lost than freed under the eyes of a thread that reads them.
            std::mem::forget(std::mem::replace(&mut self.tiles, Aligned::empty()));
        }
    }
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let formats: Vec<Format> = self.sections.iter().map(|section| section.format).collect();
        f.debug_struct("Matrix").field("n", &self.n).field("k", &self.k).field("formats", &formats).finish()
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
/// Inputs of a row with one scale: so many products fit in 32 bits.
const MOST_OF_ONE_SCALE: usize = 1 << 16;
/// Bytes of 32 weights in a file.
const Q8_0_BYTES: usize = Format::Q8_0.block().1;
const _: () = assert!(TILE * 2 == LINE);

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
        let matrix = Matrix::new(&[(Format::Q8_0, &file)], blocks * 32).expect("whole rows");
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
        let q8 = |bytes: &'static [u8]| (Format::Q8_0, bytes);
        assert_eq!(
            message(Matrix::new(&[q8(&[0; 34])], 33)),
            "matrix of Q8_0: k is 33, expected a multiple of 32"
        );
        assert_eq!(
            message(Matrix::new(&[q8(&[0; 34]), q8(&[0; 35])], 32)),
            "matrix: part 1 has 35 elements, expected a multiple of 34"
        );
        assert_eq!(
            message(Matrix::new(&[q8(&[0; 34]), (Format::F32, &[0; 128])], 32)),
            "matrix: part 1 is F32, expected a format like that of part 0"
        );
        assert_eq!(
            message(Matrix::new(&[q8(&[0; 34]), (Format::Q4_0, &[0; 18])], 32)),
            "matrix: part 1 of Q4_0 begins at row 1, expected a multiple of 32"
        );
        assert_eq!(
            message(Matrix::f32(&[&[0.0; 7]], 3)),
            "matrix: part 0 has 7 elements, expected a multiple of 3"
        );
        assert_eq!(message(Matrix::f32(&[&[0.0; 7]], 0)), "matrix: k is 0, expected at least 1");
        assert_eq!(message(Matrix::f32(&[], 3)), "matrix: no rows, expected at least 1");
        assert_eq!(message(Matrix::new(&[], 0)), "matrix: k is 0, expected at least 1");
    }
}
