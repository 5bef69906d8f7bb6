//! From named tensors to packed matrices.

use antiphon_kernels::Matrix;

use crate::error::{Error, ErrorKind, Result};
use crate::format::{Dtype, Weights};

/// Packs tensors `[rows, k]`, stacked by rows. Q8_0 keeps the file's bits when every part has them; anything else becomes
/// F32.
pub(crate) fn load(weights: &Weights, parts: &[(&str, usize)], k: usize) -> Result<Matrix> {
    let views =
        parts.iter().map(|&(name, rows)| weights.expect(name, &[rows, k])).collect::<Result<Vec<_>>>()?;
    if views.iter().all(|view| view.dtype == Dtype::Q8_0) {
        let bytes: Vec<&[u8]> = views.iter().map(|view| view.bytes).collect();
        Matrix::q8_0(&bytes, k)
    } else {
        let values = views.iter().map(|view| view.to_f32()).collect::<Result<Vec<_>>>()?;
        let values: Vec<&[f32]> = values.iter().map(Vec::as_slice).collect();
        Matrix::f32(&values, k)
    }
    .map_err(|error| Error::new(ErrorKind::Invalid, format!("tensor `{}`: {error}", parts[0].0)))
}

/// Reads a tensor of one dimension.
pub(crate) fn vector(weights: &Weights, name: &str, len: usize) -> Result<Vec<f32>> {
    weights.expect(name, &[len])?.to_f32()
}
