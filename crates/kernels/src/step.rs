//! A recorded operation: which pieces it falls into, and which kernel runs on a piece.
//!
//! How a step is cut depends on its sizes and the number of threads, never on chance. The bits of an element do not
//! depend on the cut.

use std::ops::Range;

use crate::apart::Apart;
use crate::attention::{CachedPiece, Heads, PackPiece, SpanPiece, StorePiece};
use crate::isa::Path;
use crate::kv::{KV_BLOCK, KvCells, KvRow};
use crate::linear::{Finish, Finished, Input, Linear, MAX_PANEL, Places};
use crate::matrix::{Matrix, TILE};
use crate::plane::{Plane, QuantPlane};
use crate::program::{Slot, Value};
use crate::quant::{BLOCK, QUANT_BLOCK_BYTES};
use crate::rope::RopeTable;
use crate::rows::{QuantPiece, RowOp, RowPiece};

/// One operation of a program. All threads finish it before any begins the next.
pub(crate) struct Step<'a> {
    pub(crate) op: Op<'a>,
    /// The slot it writes.
    pub(crate) out: usize,
    /// The slot that takes the same rows as int8, if something wants them so.
    pub(crate) quantized: Option<usize>,
    /// The slot that takes the largest value of each tile, if something wants it.
    pub(crate) peaks: Option<usize>,
    /// The interrupt is read before it.
    pub(crate) checkpoint: bool,
}

pub(crate) enum Op<'a> {
    Rows(RowOp<'a, Value>),
    Quantize {
        x: Value,
    },
    Linear {
        x: Value,
        /// The slot of `x` as int8, for a matrix of whole numbers.
        quantized: Option<usize>,
        w: &'a Matrix,
        bias: Option<&'a [f32]>,
        after: After,
    },
    PackKeys {
        k: Value,
        heads: usize,
        head_dim: usize,
        blocks: Vec<Range<usize>>,
    },
    Attend {
        q: Value,
        v: Value,
        keys: usize,
        heads: usize,
        head_dim: usize,
        groups: Vec<RowGroup>,
    },
    Store {
        q: Value,
        k: Value,
        v: Value,
        rope: &'a RopeTable,
        layer: usize,
        kv_heads: usize,
        head_dim: usize,
        rows: &'a [KvRow<'a>],
    },
    AttendCached {
        rotated: Value,
        layer: usize,
        heads: usize,
        kv_heads: usize,
        head_dim: usize,
        rows: &'a [KvRow<'a>],
        groups: Vec<Range<usize>>,
    },
}

/// What follows a product.
#[derive(Clone, Copy)]
pub(crate) enum After {
    Store,
    Gelu,
    Add(Value),
    SwiGlu,
}

/// Rows of one span, and the first block of the span's keys.
pub(crate) struct RowGroup {
    pub(crate) rows: Range<usize>,
    pub(crate) span: Range<usize>,
    pub(crate) first_block: usize,
}

/// Where a run's values are.
#[derive(Clone, Copy)]
pub(crate) struct Buffers<'a> {
    /// The arena, in which slot i begins at `offsets[i]`.
    base: *mut u8,
    offsets: &'a [usize],
    slots: &'a [Slot],
    cells: Option<KvCells>,
    threads: usize,
}

impl<'a> Buffers<'a> {
    /// # Safety
    /// Each slot has its bytes at its offset from `base`, aligned to 64, for as long as the buffers are used; slots
    /// that are in use at the same step do not overlap.
    pub(crate) unsafe fn new(
        base: *mut u8,
        offsets: &'a [usize],
        slots: &'a [Slot],
        cells: Option<KvCells>,
        threads: usize,
    ) -> Self {
        assert_eq!(offsets.len(), slots.len());
        Buffers { base, offsets, slots, cells, threads }
    }

    fn value(&self, v: Value) -> Plane {
        let slot = &self.slots[v.slot];
        assert!(slot.stored && v.rows() == slot.rows && v.offset + v.width() <= slot.width);
        // SAFETY: `new` was told where the slot is; the columns are within its rows.
        unsafe {
            let at = self.base.add(self.offsets[v.slot]).cast::<f32>().add(v.offset);
            Plane::new(at, slot.stride_bytes / size_of::<f32>(), slot.rows, v.width())
        }
    }

    fn plane(&self, slot: usize) -> Plane {
        let Slot { rows, width, stride_bytes, stored, .. } = self.slots[slot];
        assert!(stored, "values that were left out are not looked at");
        // SAFETY: `new` was told where the slot is.
        unsafe {
            let at = self.base.add(self.offsets[slot]).cast::<f32>();
            Plane::new(at, stride_bytes / size_of::<f32>(), rows, width)
        }
    }

    fn quantized(&self, slot: usize) -> QuantPlane {
        let Slot { rows, width, stride_bytes, one_scale, .. } = self.slots[slot];
        // SAFETY: as in `plane`; strides are multiples of 64.
        unsafe { QuantPlane::new(self.base.add(self.offsets[slot]), stride_bytes, rows, width, one_scale) }
    }

    fn cells(&self) -> KvCells {
        self.cells.expect("a run with cached attention was checked to have a store")
    }
}

impl Op<'_> {
    /// Calls `f` with each slot the operation reads.
    pub(crate) fn for_each_input(&self, mut f: impl FnMut(usize)) {
        match self {
            Op::Rows(op) => {
                op.map(|v| f(v.slot));
            }
            Op::Quantize { x } => f(x.slot),
            Op::Linear { x, quantized, after, .. } => {
                f(quantized.unwrap_or(x.slot));
                if let After::Add(residual) = after {
                    f(residual.slot);
                }
            }
            Op::PackKeys { k, .. } => f(k.slot),
            Op::Attend { q, v, keys, .. } => [q.slot, v.slot, *keys].into_iter().for_each(f),
            Op::Store { q, k, v, .. } => [q.slot, k.slot, v.slot].into_iter().for_each(f),
            Op::AttendCached { rotated, .. } => f(rotated.slot),
        }
    }

    /// A piece can write its part of the output as int8 too, because it is made of whole blocks, or of whole rows.
    pub(crate) fn can_quantize(&self, one_scale: bool) -> bool {
        match self {
            Op::Rows(_) => true,
            _ if one_scale => false,
            Op::Linear { .. } => true,
            Op::Attend { head_dim, .. } | Op::AttendCached { head_dim, .. } => head_dim.is_multiple_of(BLOCK),
            Op::Quantize { .. } | Op::PackKeys { .. } | Op::Store { .. } => false,
        }
    }
}

impl Step<'_> {
    /// How many pieces the step has.
    pub(crate) fn piece_count(&self, slots: &[Slot], threads: usize) -> usize {
        let out = &slots[self.out];
        match &self.op {
            Op::Rows(_) | Op::Quantize { .. } => row_pieces(out, threads),
            Op::Store { rows, kv_heads, head_dim, .. } => {
                StoreCut::new(rows, out.width / head_dim, *kv_heads, threads).piece_count()
            }
            Op::Linear { w, after, .. } => LinearCut::new(w, *after, out.rows, threads).piece_count(),
            Op::PackKeys { blocks, .. } => blocks.len(),
            Op::Attend { heads, groups, .. } => groups.len() * heads,
            Op::AttendCached { heads, kv_heads, groups, .. } => {
                CachedCut::new(*heads, *kv_heads, groups, threads).piece_count()
            }
        }
    }

    /// Pieces can be computed apart: products of few rows, which is where a run spends its time when it writes.
    pub(crate) fn is_apart(&self, slots: &[Slot]) -> bool {
        matches!(self.op, Op::Linear { quantized: Some(_), .. }) && slots[self.out].rows <= MAX_PANEL
    }

    /// Copies the activations that all pieces of a step that [is so](Self::is_apart) take.
    ///
    /// # Safety
    /// The slots the step reads are complete, and nobody writes them meanwhile.
    pub(crate) unsafe fn take_activations(&self, buffers: &Buffers<'_>, own: &mut Apart) {
        if let Op::Linear { quantized: Some(slot), .. } = self.op {
            // SAFETY: as the caller vouches.
            unsafe { own.take_activations(buffers.quantized(slot)) };
        }
    }

    /// Names the tiles of a piece.
    pub(crate) fn take_tiles(&self, piece: usize, path: Path, buffers: &Buffers<'_>, own: &mut Apart) {
        if let Op::Linear { w, after, .. } = self.op {
            let rows = buffers.slots[self.out].rows;
            let (_, tiles) = LinearCut::new(w, after, rows, buffers.threads).piece(piece);
            let partner = w.tile_count() / 2;
            let partners = match after {
                After::SwiGlu => tiles.start + partner..tiles.end + partner,
                _ => 0..0,
            };
            own.take_tiles(w, tiles.chain(partners), path);
        }
    }

    /// Asks for the places where the values of a piece go that is computed apart, to come meanwhile.
    pub(crate) fn ask_places(&self, piece: usize, path: Path, buffers: &Buffers<'_>) {
        path.run(Places(self.linear(piece, buffers)));
    }

    /// Puts the sums of a piece that was computed apart where they belong.
    ///
    /// # Safety
    /// As [`Self::run`].
    pub(crate) unsafe fn finish(&self, piece: usize, path: Path, buffers: &Buffers<'_>, own: &Apart) {
        path.run(Finished { linear: self.linear(piece, buffers), sums: own });
    }

    /// A piece of a product.
    ///
    /// # Panics
    /// If the step is none.
    fn linear<'b>(&'b self, piece: usize, buffers: &Buffers<'_>) -> Linear<'b> {
        let Op::Linear { x, quantized: input, w, bias, after } = self.op else {
            unreachable!("only products are taken apart")
        };
        let rows = buffers.slots[self.out].rows;
        let (rows, tiles) = LinearCut::new(w, after, rows, buffers.threads).piece(piece);
        let x = match input {
            Some(slot) => Input::Q8(buffers.quantized(slot)),
            None => Input::F32(buffers.value(x)),
        };
        let finish = match after {
            After::Store => Finish::Store,
            After::Gelu => Finish::Gelu,
            After::Add(residual) => Finish::Add(buffers.value(residual)),
            After::SwiGlu => Finish::SwiGlu { partner: w.tile_count() / 2 },
        };
        let slot = &buffers.slots[self.out];
        let out = slot.stored.then(|| buffers.plane(self.out));
        let quantized = self.quantized.map(|slot| buffers.quantized(slot));
        let peaks = self.peaks.map(|slot| buffers.plane(slot));
        Linear { x, w, bias, finish, width: slot.width, out, quantized, peaks, rows, tiles }
    }

    /// Computes one piece.
    ///
    /// # Safety
    /// The slots the step reads are complete. Nobody else runs the same piece, or reads what the step writes.
    pub(crate) unsafe fn run(&self, piece: usize, path: Path, buffers: &Buffers<'_>) {
        let out = &buffers.slots[self.out];
        let quantized = self.quantized.map(|slot| buffers.quantized(slot));
        let rows_of = |piece: usize| part_of(&(0..out.rows), piece, row_pieces(out, buffers.threads));
        match &self.op {
            Op::Rows(op) => {
                let op = op.map(|v| buffers.value(v));
                path.run(RowPiece { op, out: buffers.plane(self.out), quantized, rows: rows_of(piece) });
            }
            Op::Quantize { x } => {
                let quantized = buffers.quantized(self.out);
                path.run(QuantPiece { x: buffers.value(*x), quantized, rows: rows_of(piece) });
            }
            Op::Linear { .. } => path.run(self.linear(piece, buffers)),
            Op::PackKeys { k, heads, head_dim, blocks } => path.run(PackPiece {
                k: buffers.value(*k),
                keys: buffers.plane(self.out),
                head_count: *heads,
                head_dim: *head_dim,
                block: piece,
                rows: blocks[piece].clone(),
            }),
            Op::Attend { q, v, keys, heads, head_dim, groups } => {
                let group = &groups[piece / heads];
                let (q, out) = (buffers.value(*q), buffers.plane(self.out));
                path.run(SpanPiece {
                    common: Heads { q, out, quantized, head_dim: *head_dim },
                    v: buffers.value(*v),
                    keys: buffers.plane(*keys),
                    head_count: *heads,
                    first_block: group.first_block,
                    span: group.span.clone(),
                    rows: group.rows.clone(),
                    head: piece % heads,
                });
            }
            Op::Store { q, k, v, rope, layer, kv_heads, head_dim, rows } => {
                let cut = StoreCut::new(rows, out.width / head_dim, *kv_heads, buffers.threads);
                let (own_rows, heads, kv_heads) = cut.piece(piece);
                path.run(StorePiece {
                    q: buffers.value(*q),
                    k: buffers.value(*k),
                    v: buffers.value(*v),
                    rotated: buffers.plane(self.out),
                    rope,
                    cells: buffers.cells(),
                    layer: *layer,
                    kv_rows: rows,
                    rows: own_rows,
                    heads,
                    kv_heads,
                });
            }
            Op::AttendCached { rotated, layer, heads, kv_heads, head_dim, rows, groups } => {
                let cut = CachedCut::new(*heads, *kv_heads, groups, buffers.threads);
                let (kv_head, heads, group) = cut.piece(piece);
                if group.is_empty() {
                    return;
                }
                let (q, out) = (buffers.value(*rotated), buffers.plane(self.out));
                path.run(CachedPiece {
                    common: Heads { q, out, quantized, head_dim: *head_dim },
                    cells: buffers.cells(),
                    layer: *layer,
                    kv_head,
                    kv_rows: rows,
                    rows: group,
                    heads,
                });
            }
        }
    }
}

/// Pieces of a step over whole rows: two a thread, and more where the rows of one would not fit in the first cache.
fn row_pieces(out: &Slot, threads: usize) -> usize {
    let most_rows = (ROW_PIECE_BYTES / out.stride_bytes).max(1);
    out.rows.div_ceil(most_rows).max(2 * threads).min(out.rows)
}

/// How rows are stored: by rows, and where these are few by heads, queries first.
///
/// Rows that stand in one block share lines of its keys, which would travel between the threads that write them, so such rows stay
/// together.
struct StoreCut<'a> {
    rows: &'a [KvRow<'a>],
    heads: usize,
    kv_heads: usize,
    row_parts: usize,
    head_parts: usize,
}

impl<'a> StoreCut<'a> {
    fn new(rows: &'a [KvRow<'a>], heads: usize, kv_heads: usize, threads: usize) -> Self {
        let row_parts = rows.len().div_ceil(KV_BLOCK).min(2 * threads);
        let head_parts = (2 * threads / row_parts.max(1)).min(rows.len()).max(1);
        StoreCut { rows, heads, kv_heads, row_parts, head_parts }
    }

    fn piece_count(&self) -> usize {
        self.row_parts * self.head_parts
    }

    /// Some rows, maybe none, and some heads of their queries and of their keys and values.
    fn piece(&self, piece: usize) -> (Range<usize>, Range<usize>, Range<usize>) {
        let (rows, heads) = (piece / self.head_parts, piece % self.head_parts);
        let (start, end) = (self.head(heads), self.head(heads + 1));
        (self.row(rows)..self.row(rows + 1), start.0..end.0, start.1..end.1)
    }

    /// The first row of a part: where a block begins.
    fn row(&self, part: usize) -> usize {
        let block = |row: usize| self.rows[row].table[self.rows[row].position as usize / KV_BLOCK];
        let mut row = part * self.rows.len() / self.row_parts;
        while 0 < row && row < self.rows.len() && block(row) == block(row - 1) {
            row += 1;
        }
        row
    }

    /// The first heads of a part, of queries and of keys and values.
    fn head(&self, part: usize) -> (usize, usize) {
        let at = part * (self.heads + STORE_COST * self.kv_heads) / self.head_parts;
        (at.min(self.heads), at.saturating_sub(self.heads) / STORE_COST)
    }
}

/// How attention over cached rows is cut: by key/value heads and groups of rows, and further where that leaves threads without work.
///
/// A few heads that do not go evenly into the threads are dealt out, and those that are left over are cut by rows:
///
/// ```text
/// thread 0: head 0, the first rows of head 2      thread 1: head 1, the other rows of head 2
/// ```
struct CachedCut<'a> {
    groups: &'a [Range<usize>],
    /// Heads that share a key/value head, and in how many parts they are.
    shared_by: usize,
    parts: usize,
    /// The key/value heads are dealt out to so many,
    shares: usize,
    /// so many to each,
    heads: usize,
    /// and so many are left over.
    left_over: usize,
}

impl<'a> CachedCut<'a> {
    fn new(heads: usize, kv_heads: usize, groups: &'a [Range<usize>], threads: usize) -> Self {
        let largest = groups.iter().map(ExactSizeIterator::len).max().unwrap_or(0);
        // Groups of few rows are no work beside those of many: with one token each of some sequences and a chunk of a prompt, the
        // chunk is what is shared out.
        let large = groups.iter().filter(|group| 2 * group.len() > largest).count().max(1);
        let shared_by = heads / kv_heads;
        let units = large * kv_heads;
        // To convert the keys of a head once more costs less than to wait for the one who has a head more.
        if largest >= threads && units < UNITS_TO_CUT * threads && !units.is_multiple_of(threads) {
            let (heads, left_over) = (kv_heads / threads, kv_heads % threads);
            return CachedCut { groups, shared_by, parts: 1, shares: threads, heads, left_over };
        }
        // No more parts than threads have use for, as each part reads all the keys. Of few heads, parts of one size.
        let parts = threads.div_ceil(units).min(shared_by);
        let parts = if shared_by <= 4 && !shared_by.is_multiple_of(parts) { shared_by } else { parts };
        CachedCut { groups, shared_by, parts, shares: 1, heads: kv_heads, left_over: 0 }
    }

    fn piece_count(&self) -> usize {
        self.shares * (self.heads + self.left_over) * self.groups.len() * self.parts
    }

    /// A key/value head, some of the heads that share it, and some rows, maybe none. All pieces over one key/value head follow each
    /// other: they find it in the second cache.
    fn piece(&self, piece: usize) -> (usize, Range<usize>, Range<usize>) {
        let (piece, part) = (piece / self.parts, piece % self.parts);
        let (piece, group) = (piece / self.groups.len(), &self.groups[piece % self.groups.len()]);
        let (share, number) = (piece / (self.heads + self.left_over), piece % (self.heads + self.left_over));
        let (kv_head, rows) = match number.checked_sub(self.heads) {
            None => (share * self.heads + number, group.clone()),
            Some(left_over) => (self.shares * self.heads + left_over, part_of(group, share, self.shares)),
        };
        let heads = kv_head * self.shared_by..(kv_head + 1) * self.shared_by;
        (kv_head, part_of(&heads, part, self.parts), rows)
    }
}

/// One of several parts of about one size.
fn part_of(whole: &Range<usize>, part: usize, parts: usize) -> Range<usize> {
    whole.start + part * whole.len() / parts..whole.start + (part + 1) * whole.len() / parts
}

/// How a product is cut: by rows, so that a piece's activations stay in the second cache, or with their thread, and by tiles.
struct LinearCut {
    rows: usize,
    rows_of_piece: usize,
    tiles: usize,
    tiles_of_piece: usize,
}

impl LinearCut {
    fn new(w: &Matrix, after: After, rows: usize, threads: usize) -> LinearCut {
        let (tiles, tile_bytes) = match after {
            After::SwiGlu => (w.tile_count() / 2, 2 * w.tile_bytes()),
            _ => (w.tile_count(), w.tile_bytes()),
        };
        debug_assert!(tiles * TILE < w.n() + TILE);
        // One thread has nobody to share with. Of more, each has some pieces, and where they are not too small so many that those who
        // are faster, as neighbours on a shared machine are in turns, take over from those who are not.
        let wanted = if threads == 1 { 1 } else { PIECES * threads };
        let tiles_of_piece = if threads == 1 {
            tiles
        } else {
            let [least, most] = PIECE_WEIGHT_BYTES.map(|bytes| bytes / tile_bytes);
            (tiles / (MOST_PIECES * threads)).max(least).min(tiles / wanted).min(most).max(1)
        };
        let row_bytes =
            if w.is_float() { w.k() * size_of::<f32>() } else { w.k() / BLOCK * QUANT_BLOCK_BYTES };
        let most_rows = (PIECE_ROW_BYTES / row_bytes).max(PIECE_ROWS);
        let rows_of_piece = if rows >= threads * ROWS_OF_ITS_OWN && tiles * tile_bytes <= SMALL_BYTES {
            rows.div_ceil(threads * rows.div_ceil(threads * most_rows))
        } else if rows > MAX_PANEL {
            let parts = wanted.div_ceil(tiles.div_ceil(tiles_of_piece));
            rows.div_ceil(parts).clamp(PIECE_ROWS, most_rows).next_multiple_of(PIECE_ROWS)
        } else {
            rows
        };
        LinearCut { rows, rows_of_piece, tiles, tiles_of_piece }
    }

    fn piece_count(&self) -> usize {
        self.rows.div_ceil(self.rows_of_piece) * self.tiles.div_ceil(self.tiles_of_piece)
    }

    /// Tiles are counted first, so that neighbouring pieces read on where the last one stopped.
    fn piece(&self, piece: usize) -> (Range<usize>, Range<usize>) {
        let columns = self.tiles.div_ceil(self.tiles_of_piece);
        let (row, tile) = (piece / columns * self.rows_of_piece, piece % columns * self.tiles_of_piece);
        (row..(row + self.rows_of_piece).min(self.rows), tile..(tile + self.tiles_of_piece).min(self.tiles))
    }
}

/// To rotate a head of keys and to store it with its values takes so many times as long as to rotate one of queries.
const STORE_COST: usize = 3;
/// Bytes of the rows of one piece of a step over rows.
const ROW_PIECE_BYTES: usize = 32 << 10;
/// Where each thread has so many heads of groups, one more or less no longer matters.
const UNITS_TO_CUT: usize = 4;
/// Pieces of a product for each thread, at least and at most.
const PIECES: usize = 2;
const MOST_PIECES: usize = 8;
/// Bytes of weights that a piece of a product reads, at least and at most: each begins with what is not in the cache, half a
/// microsecond or more.
const PIECE_WEIGHT_BYTES: [usize; 2] = [32 << 10, 256 << 10];
/// Bytes of activations that stay in the second cache while tiles pass by.
const PIECE_ROW_BYTES: usize = 512 << 10;
/// A matrix up to this size is read by every thread, for rows of its own, as steps over whole rows have them: then it is weights that
/// travel between cores, which can be asked for early, and not what another thread has just written.
const SMALL_BYTES: usize = 2 << 20;
/// And if there are so many for each: fewer are through with some weights before the next ones come from memory.
const ROWS_OF_ITS_OWN: usize = 2 * PIECE_ROWS;
/// Rows of a piece are a multiple of this, so that panels are full.
const PIECE_ROWS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_head_of_each_row_is_stored_once_and_rows_of_a_block_together() {
        let table: Vec<u32> = (0..20).collect();
        for (writers, first, read, heads, kv_heads, threads) in (0..3)
            .flat_map(|writers| [0, 7, 16].map(|first| (writers, first)))
            .flat_map(|(writers, first)| [1, 5, 16, 33, 200].map(|read| (writers, first, read)))
            .flat_map(|(a, b, c)| [(1, 1), (9, 3), (4, 4), (32, 2)].map(|(heads, kv)| (a, b, c, heads, kv)))
            .flat_map(|(a, b, c, d, e)| [1, 2, 3, 16].map(|threads| (a, b, c, d, e, threads)))
        {
            let others: Vec<u32> = (20..20 + writers).collect();
            let one_each = others.chunks(1).map(|table| KvRow { table, position: 3 });
            let of_a_prompt = (0..read).map(|row| KvRow { table: &table, position: first + row });
            let rows: Vec<KvRow<'_>> = one_each.chain(of_a_prompt).collect();
            let cut = StoreCut::new(&rows, heads, kv_heads, threads);
            let mut stored = vec![0; rows.len() * (heads + kv_heads)];
            let block = |row: usize| rows[row].table[rows[row].position as usize / KV_BLOCK];
            for (own_rows, queries, keys) in (0..cut.piece_count()).map(|piece| cut.piece(piece)) {
                let slots = queries.chain(keys.start + heads..keys.end + heads);
                for (row, slot) in own_rows.clone().flat_map(|row| slots.clone().map(move |slot| (row, slot)))
                {
                    stored[row * (heads + kv_heads) + slot] += 1;
                }
                if !own_rows.is_empty() && 0 < own_rows.start {
                    assert_ne!(block(own_rows.start), block(own_rows.start - 1), "{own_rows:?}");
                }
            }
            let case = format!("{} rows, {heads} and {kv_heads} heads, {threads} threads", rows.len());
            assert!(stored.iter().all(|times| *times == 1), "{case}");
        }
    }

    #[test]
    fn each_head_of_each_row_attends_once_however_it_is_cut() {
        let cases: [&[usize]; 5] = [&[1], &[1, 12], &[16, 16, 9], &[1, 1, 40, 1], &[8]];
        for (lengths, kv_heads, shared_by, threads) in cases
            .into_iter()
            .flat_map(|lengths| [1, 2, 3, 8].map(|kv_heads| (lengths, kv_heads)))
            .flat_map(|(lengths, kv_heads)| [1, 3, 7].map(|shared_by| (lengths, kv_heads, shared_by)))
            .flat_map(|(a, b, c)| [1, 2, 3, 4].map(|threads| (a, b, c, threads)))
        {
            let ends = lengths.iter().scan(0, |end, len| {
                *end += len;
                Some(*end - len..*end)
            });
            let groups: Vec<Range<usize>> = ends.collect();
            let (heads, rows) = (kv_heads * shared_by, groups.last().map_or(0, |group| group.end));
            let cut = CachedCut::new(heads, kv_heads, &groups, threads);
            let mut attended = vec![0; heads * rows];
            for piece in 0..cut.piece_count() {
                let (kv_head, heads_of_piece, rows_of_piece) = cut.piece(piece);
                for head in heads_of_piece {
                    assert_eq!(head / shared_by, kv_head);
                    rows_of_piece.clone().for_each(|row| attended[head * rows + row] += 1);
                }
            }
            let case = format!("{lengths:?}, {kv_heads} x {shared_by} heads, {threads} threads");
            assert!(attended.iter().all(|times| *times == 1), "{case}");
        }
    }
}
