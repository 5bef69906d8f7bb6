//! From named tensors to packed matrices.

use antiphon_kernels::{Format, Matrix};

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Dtype, Weights};

/// Packs tensors `[rows, k]`, stacked by rows. Each part keeps the file's bits where kernels compute with them; parts that do
/// not go together, and types that no kernel has, become F32.
pub(crate) fn load(weights: &Weights, parts: &[(&str, usize)], k: usize) -> Result<Matrix> {
    let views =
        parts.iter().map(|&(name, rows)| weights.expect(name, &[rows, k])).collect::<Result<Vec<_>>>()?;
    let packed: Option<Vec<(Format, &[u8])>> =
        views.iter().map(|view| format(view.dtype).map(|format| (format, view.bytes))).collect();
    let rows: Vec<usize> = parts.iter().map(|&(_, rows)| rows).collect();
    match packed.filter(|parts| go_together(parts, &rows)) {
        Some(packed) => Matrix::new(&packed, k),
        None => {
            let values = views.iter().map(|view| view.to_f32()).collect::<Result<Vec<_>>>()?;
            let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
            Matrix::f32(&values, k)
        }
    }
    .map_err(|error| Error::new(ErrorKind::Invalid, format!("tensor `{}`: {error}", parts[0].0)))
}

/// One matrix holds all parts: numbers or steps of a scale, and a new format only where a tile begins.
fn go_together(parts: &[(Format, &[u8])], rows: &[usize]) -> bool {
    let mut row = 0;
    parts.windows(2).zip(rows).all(|(pair, rows)| {
        row += rows;
        let [(one, _), (other, _)] = pair else { unreachable!("windows of two") };
        one.is_float() == other.is_float() && (one == other || row % Matrix::TILE_ROWS == 0)
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

/// Reads a tensor of one dimension.
pub(crate) fn vector(weights: &Weights, name: &str, len: usize) -> Result<Vec<f32>> {
    weights.expect(name, &[len])?.to_f32()
}
