//! Pieces of products that a thread computes apart: from its own copy of the activations, into its own sums.
//!
//! Nothing of it is part of the run but the weights, so a thread that is late with such a piece may be left behind, and others
//! may compute the piece as well. Whoever is first puts the sums where they belong; that is done inside the run.

use crate::format::Format;
use crate::isa::{Kernel, Path};
use crate::linear::{Activations, Set, multiply};
use crate::matrix::{Matrix, TILE};
use crate::nibbles::PlainGroup;
use crate::plane::QuantPlane;
use crate::simd::Simd;

/// What one thread computes with; it grows to what the largest piece needs and is kept.
#[derive(Default)]
pub(crate) struct Apart {
    /// Rows of blocks, as in the plane they are copied from.
    activations: Vec<u64>,
    stride: usize,
    blocks: usize,
    rows: usize,
    sums: Vec<f32>,
    /// The tiles that are multiplied, one after the other.
    tiles: Vec<(Format, *const u8)>,
    path: Option<Path>,
}

// SAFETY: the pointers are to tiles of matrices, which any thread may read; what keeps them is said in `late`.
unsafe impl Send for Apart {}

impl Apart {
    /// Copies the activations of a step.
    ///
    /// # Safety
    /// The plane is complete, and nobody writes it meanwhile.
    pub(crate) unsafe fn take_activations(&mut self, x: QuantPlane) {
        (self.rows, self.stride, self.blocks) = (x.rows(), x.stride(), x.blocks());
        let bytes = self.rows * self.stride;
        self.activations.resize(bytes.div_ceil(size_of::<u64>()), 0);
        // SAFETY: rows follow each other at the stride; the words have room for all of them.
        unsafe { x.row(0).copy_to_nonoverlapping(self.activations.as_mut_ptr().cast(), bytes) };
    }

    /// Names the tiles that are multiplied next.
    pub(crate) fn take_tiles(&mut self, w: &Matrix, tiles: impl Iterator<Item = usize>, path: Path) {
        self.tiles.clear();
        self.tiles.extend(tiles.map(|tile| w.tile(tile)));
        self.sums.resize(self.tiles.len() * self.rows * TILE, 0.0);
        self.path = Some(path);
    }

    /// Multiplies. Touches nothing but what was taken, and weights.
    ///
    /// # Safety
    /// The matrix of the tiles lives, and has as many inputs as the activations.
    pub(crate) unsafe fn compute(&mut self) {
        if let Some(path) = self.path {
            path.run(Multiply(self));
        }
    }

    /// The sums of the `index`th of the tiles: 32 for each row.
    pub(crate) fn sums(&self, index: usize) -> &[f32] {
        &self.sums[index * self.rows * TILE..][..self.rows * TILE]
    }
}

struct Multiply<'a>(&'a mut Apart);

impl Kernel for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Apart { activations, stride, blocks, rows, sums, tiles, .. } = self.0;
        let x = Activations::Blocks { at: activations.as_ptr().cast(), stride: *stride, count: *blocks };
        let set = Set { x, rows: *rows, index: 0, count: 1 };
        let mut plain = PlainGroup::new();
        for (tile, sums) in tiles.iter().zip(sums.chunks_exact_mut(*rows * TILE)) {
            // SAFETY: `compute` was told that tile and activations fit; there are so many sums.
            unsafe { multiply(s, *tile, set, sums.as_mut_ptr(), &mut plain) };
        }
    }
}
