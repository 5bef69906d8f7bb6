//! Rows in an arena that many threads read and write at once.
//!
//! A plane is a pointer with sizes. What makes its use sound is said where pieces are run (`executor`): a step's
//! pieces write disjoint ranges, and nobody reads a range before the step that writes it is over.

use crate::quant::QUANT_BLOCK_BYTES;

/// Rows of f32: a value, or some columns of one.
#[derive(Clone, Copy)]
pub(crate) struct Plane {
    at: *mut f32,
    stride: usize,
    rows: usize,
    width: usize,
}

impl Plane {
    /// # Safety
    /// For each of `rows` rows, `width` values from `at + row * stride` on are readable and writable as long as the
    /// plane is used.
    pub(crate) unsafe fn new(at: *mut f32, stride: usize, rows: usize, width: usize) -> Plane {
        Plane { at, stride, rows, width }
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    pub(crate) fn width(self) -> usize {
        self.width
    }

    pub(crate) fn stride(self) -> usize {
        self.stride
    }

    /// `width` values.
    #[inline(always)]
    pub(crate) fn row(self, row: usize) -> *mut f32 {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `new` was told that this row exists.
        unsafe { self.at.add(row * self.stride) }
    }
}

/// Rows of quantized activations; the layout of a row is `quant`'s.
#[derive(Clone, Copy)]
pub(crate) struct QuantPlane {
    at: *mut u8,
    stride: usize,
    rows: usize,
    blocks: usize,
    one_scale: bool,
}

impl QuantPlane {
    /// # Safety
    /// For each of `rows` rows, `stride` bytes from `at + row * stride` on are readable and writable as long as the
    /// plane is used; `stride` holds `blocks` blocks; `at` and `stride` are multiples of 4.
    pub(crate) unsafe fn new(
        at: *mut u8,
        stride: usize,
        rows: usize,
        blocks: usize,
        one_scale: bool,
    ) -> QuantPlane {
        QuantPlane { at, stride, rows, blocks, one_scale }
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    /// All blocks of a row have the scale of the first.
    pub(crate) fn has_one_scale(self) -> bool {
        self.one_scale
    }

    pub(crate) fn blocks(self) -> usize {
        self.blocks
    }

    pub(crate) fn stride(self) -> usize {
        self.stride
    }

    #[inline(always)]
    pub(crate) fn row(self, row: usize) -> *mut u8 {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `new` was told that this row exists.
        unsafe { self.at.add(row * self.stride) }
    }

    #[inline(always)]
    pub(crate) fn block(self, row: usize, block: usize) -> *mut u8 {
        assert!(block < self.blocks, "block {block} of {}", self.blocks);
        // SAFETY: a row has so many blocks.
        unsafe { self.row(row).add(block * QUANT_BLOCK_BYTES) }
    }
}
