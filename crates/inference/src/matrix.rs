//! From named tensors to packed matrices.

use antiphon_kernels::memory::Room;
use antiphon_kernels::{Format, Matrix};

use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::{Dtype, Weights};

/// Reads tensors and packs them side by side.
pub(crate) struct Packer<'a> {
    pub(crate) weights: &'a Weights,
    room: Room,
}

impl<'a> Packer<'a> {
    /// For all tensors of a model.
    pub(crate) fn of_all(weights: &'a Weights) -> Self {
        // Tiles are filled up to 32 rows: seldom many in comparison, and what finds no room has memory of its own.
        let bytes = weights.bytes();
        Self { weights, room: Room::new(bytes + bytes / 64) }
    }

    /// For some of them, each in memory of its own.
    pub(crate) fn of_few(weights: &'a Weights) -> Self {
        Self { weights, room: Room::new(0) }
    }

    /// Packs tensors `[rows, k]`, stacked by rows. Each part keeps the file's bits where kernels compute with them; parts that do
    /// not go together, and types that no kernel has, become F32.
    ///
    /// The tensors are read here, some tiles at a time, so that what is read is packed and hashed while it is in the cache, and the
    /// file is never in memory as a whole.
    pub(crate) fn matrix(&self, parts: &[(&str, usize)], k: usize) -> Result<Matrix> {
        self.pack(parts, k, format)
    }

    /// The same for the matrices of a layer: with one scale a row where the model is made for it.
    pub(crate) fn layer_matrix(&self, parts: &[(&str, usize)], k: usize) -> Result<Matrix> {
        if !self.weights.one_scale {
            return self.matrix(parts, k);
        }
        self.pack(parts, k, |dtype| if dtype == Dtype::Q8_0 { Some(Format::Q8_ROW) } else { format(dtype) })
    }

    fn pack(
        &self,
        parts: &[(&str, usize)],
        k: usize,
        format: impl Fn(Dtype) -> Option<Format>,
    ) -> Result<Matrix> {
        let views = parts
            .iter()
            .map(|&(name, rows)| self.weights.expect(name, &[rows, k]))
            .collect::<Result<Vec<_>>>()?;
        let packed: Option<Vec<(Format, usize)>> = views
            .iter()
            .zip(parts)
            .map(|(view, &(_, rows))| format(view.dtype).map(|format| (format, rows)))
            .collect();
        let fail = |error| Error::new(ErrorKind::Invalid, format!("tensor `{}`: {error}", parts[0].0));
        let Some(packed) = packed.filter(|parts| go_together(parts)) else {
            let values = views.iter().map(|view| view.to_f32()).collect::<Result<Vec<_>>>()?;
            let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
            return Matrix::f32(&values, k).map_err(fail);
        };
        let mut matrix = Matrix::zeroed_in(&self.room, &packed, k).map_err(fail)?;
        let mut row = 0;
        for (view, (format, _)) in views.iter().zip(packed) {
            let row_bytes = Matrix::row_bytes(format, k);
            let tile_bytes = Matrix::TILE_ROWS * row_bytes;
            view.pieces((PIECE_BYTES / tile_bytes).max(1) * tile_bytes, |rows| {
                if format == Format::Q8_ROW {
                    check_scales(view.name, rows, row_bytes)?;
                }
                matrix.put_rows(row, rows);
                row += rows.len() / row_bytes;
                Ok(())
            })?;
        }
        Ok(matrix)
    }

    /// Reads a tensor of one dimension.
    pub(crate) fn vector(&self, name: &str, len: usize) -> Result<Vec<f32>> {
        self.weights.expect(name, &[len])?.to_f32()
    }
}

/// Refuses rows of Q8_0 blocks whose scales differ.
fn check_scales(name: &str, rows: &[u8], row_bytes: usize) -> Result<()> {
    let block_bytes = Format::Q8_ROW.block().1;
    let differ = |row: &[u8]| row.chunks_exact(block_bytes).any(|block| block[..2] != row[..2]);
    if rows.chunks_exact(row_bytes).any(differ) {
        let name = quote(name);
        return Err(Error::invalid(format!(
            "tensor {name}: a row has blocks of several scales, expected one a row as config.json says"
        )));
    }
    Ok(())
}

/// One matrix holds all parts: a new format begins only where a tile does.
fn go_together(parts: &[(Format, usize)]) -> bool {
    let mut row = 0;
    parts.windows(2).all(|pair| {
        let [(one, rows), (other, _)] = pair else { unreachable!("windows of two") };
        row += rows;
        one.goes_with(*other) && (one == other || row % Matrix::TILE_ROWS == 0)
    })
}

fn format(dtype: Dtype) -> Option<Format> {
    Some(match dtype {
        Dtype::F32 => Format::F32,
        Dtype::F16 => Format::F16,
        Dtype::BF16 => Format::BF16,
        Dtype::Q8_0 => Format::Q8_0,
        Dtype::Q4_0 => Format::Q4_0,
        Dtype::Q4_1 => Format::Q4_1,
        Dtype::Q5_0 => Format::Q5_0,
        Dtype::Q5_1 => Format::Q5_1,
        Dtype::Q4_K => Format::Q4_K,
        Dtype::Q5_K => Format::Q5_K,
        Dtype::Q6_K => Format::Q6_K,
        _ => return None,
    })
}

/// What is read at a time, about: it stays in the second cache beside the tiles that it goes to.
const PIECE_BYTES: usize = 1 << 17;
