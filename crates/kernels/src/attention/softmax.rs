//! Softmax over past positions, sixty-four at a time, in one pass.
//!
//! A query walks over groups of four blocks of sixteen positions from position 0 on, keeps the largest score so far, and rescales
//! what it has when a group brings a larger one. The order depends on positions alone, so a prompt may be cut into
//! chunks anywhere without changing a bit. Keys lie transposed (a line holds one element of sixteen positions), so
//! scores need no sums across lanes; up to four queries share each key and value that is loaded.
//!
//! Cached keys and values are f16. A few queries convert them as they load them. Many, as a prompt has, go together: the keys of a
//! group are converted once, all queries take their scores, then the values are, and all take their sums.

#![allow(clippy::needless_range_loop, reason = "loops of constant length over several register arrays")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::history::{Ask, History, HistoryBlock, NearHistory};
use crate::isa::Kernel;
use crate::kv::{KV_BLOCK, MAX_HEAD_DIM, padded};
use crate::math::exp2;
use crate::plane::{Plane, QuantPlane};
use crate::quant::{self, BLOCK};
use crate::simd::{LANES, Simd};

/// What the pieces of one attention have in common.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) q: Plane,
    pub(crate) out: Plane,
    pub(crate) quantized: Option<QuantPlane>,
    pub(crate) head_dim: usize,
}

/// One head of one row.
#[derive(Clone, Copy)]
struct Query {
    q: *const f32,
    out: *mut f32,
    /// It sees positions `0..visible`.
    visible: usize,
}

/// Room for what the queries of a piece share and gather.
#[repr(align(64))]
struct Scratch {
    states: [[f32; States::width(MAX_HEAD_DIM)]; MAX_QUERIES],
    weights: [Weights; MAX_QUERIES],
    /// Keys of a group, and then its values.
    near: [[f32; MAX_HEAD_DIM * KV_BLOCK]; GROUP],
}

/// What a query weighs the values of a group with.
type Weights = [[f32; KV_BLOCK]; GROUP];

/// What queries have gathered, each in a few vectors: the largest score (in the first lane, as an exponent of two), the sum of weights
/// by lane, the sums of weighted values.
#[derive(Clone, Copy)]
struct States {
    at: *mut f32,
    head_dim: usize,
}

impl States {
    /// # Safety
    /// From there on is room for the states that will be used.
    unsafe fn new(at: *mut f32, head_dim: usize) -> States {
        States { at, head_dim }
    }

    /// Values of one state.
    const fn width(head_dim: usize) -> usize {
        2 * LANES + padded(head_dim)
    }

    #[inline(always)]
    fn of(self, query: usize) -> *mut f32 {
        self.at.wrapping_add(query * Self::width(self.head_dim))
    }

    #[inline(always)]
    fn from(self, query: usize) -> States {
        States { at: self.of(query), ..self }
    }

    /// # Safety
    /// There is room for the state of so many queries.
    #[inline(always)]
    unsafe fn clear<S: Simd>(self, s: S, queries: usize) {
        for j in 0..queries {
            // SAFETY: as the caller says.
            unsafe {
                self.of(j).write(f32::NEG_INFINITY);
                for start in (LANES..Self::width(self.head_dim)).step_by(LANES) {
                    s.store(s.zero(), self.of(j).add(start));
                }
            }
        }
    }

    /// Writes the weighted mean that the first state stands for.
    ///
    /// # Safety
    /// It is written, and the output has head_dim elements, which belong to the caller.
    #[inline(always)]
    unsafe fn finish<S: Simd>(self, s: S, out: *mut f32) {
        // SAFETY: as the caller says.
        unsafe {
            let inverse = s.splat(1.0 / s.sum(s.load(self.at.add(LANES))));
            for start in (0..self.head_dim).step_by(LANES) {
                let n = (self.head_dim - start).min(LANES);
                let sum = s.load(self.at.add(2 * LANES + start));
                s.store_first(n, s.mul(sum, inverse), out.add(start));
            }
        }
    }
}

impl Heads {
    /// Attends with each head of each row.
    #[inline(always)]
    pub(super) fn attend<S: Simd, H: History<Block: Ask>>(
        self,
        s: S,
        history: H,
        rows: Range<usize>,
        heads: Range<usize>,
        visible: impl Fn(usize) -> usize,
    ) {
        let mut scratch = MaybeUninit::<Scratch>::uninit();
        let scratch = scratch.as_mut_ptr();
        let all = rows.len() * heads.len();
        // About equally many at a time, in whole tiles of four.
        let most = all.div_ceil(all.div_ceil(MAX_QUERIES)).next_multiple_of(4);
        for first in (0..all).step_by(most) {
            let count = most.min(all - first);
            let queries = self.queries(&rows, &heads, &visible, first, count);
            gather(s, history, self.head_dim, scratch, &queries[..count]);
            for (j, query) in queries[..count].iter().enumerate() {
                // SAFETY: the scratch has the states of these queries, just written; the output belongs to this piece.
                unsafe {
                    let states = States::new((&raw mut (*scratch).states).cast(), self.head_dim);
                    states.from(j).finish(s, query.out);
                }
            }
        }
        if let Some(quantized) = self.quantized {
            let blocks = heads.start * self.head_dim / BLOCK..heads.end * self.head_dim / BLOCK;
            // SAFETY: these heads of these rows belong to this piece and were just written by it.
            unsafe { quant::quantize(s, self.out, quantized, rows, blocks) };
        }
    }

    /// `count` queries from number `first` on; what fills the rest is not looked at.
    #[inline(always)]
    fn queries(
        self,
        rows: &Range<usize>,
        heads: &Range<usize>,
        visible: &impl Fn(usize) -> usize,
        first: usize,
        count: usize,
    ) -> [Query; MAX_QUERIES] {
        let head_dim = self.head_dim;
        assert!(head_dim <= MAX_HEAD_DIM && heads.end * head_dim <= self.q.width());
        assert!(self.q.width() == self.out.width());
        let query = |index: usize| {
            let (row, head) = (rows.start + index / heads.len(), heads.start + index % heads.len());
            // SAFETY: the head lies within the row, as asserted.
            let (q, out) =
                unsafe { (self.q.row(row).add(head * head_dim), self.out.row(row).add(head * head_dim)) };
            Query { q, out, visible: visible(row) }
        };
        let mut queries = [query(first); MAX_QUERIES];
        for (j, place) in queries[..count].iter_mut().enumerate() {
            *place = query(first + j);
        }
        queries
    }
}

/// What the queries see, into the states of the scratch. A few convert what they load, for many it is converted once.
#[inline(always)]
fn gather<S: Simd, H: History<Block: Ask>>(
    s: S,
    history: H,
    head_dim: usize,
    scratch: *mut Scratch,
    queries: &[Query],
) {
    // SAFETY: the scratch has room for the states and weights of all queries and for a group of heads of MAX_HEAD_DIM.
    unsafe {
        let weights: *mut Weights = (&raw mut (*scratch).weights).cast();
        let states = States::new((&raw mut (*scratch).states).cast(), head_dim);
        states.clear(s, queries.len());
        let tiles = queries.chunks(4).enumerate().map(|(number, queries)| Seen {
            queries,
            states: states.from(4 * number),
            weights: weights.wrapping_add(4 * number),
        });
        if !H::CONVERTS || queries.len() <= FEW_QUERIES {
            for (number, seen) in tiles.enumerate() {
                let (blocks, far) = (0..blocks_seen(seen.queries), number == 0);
                match seen.queries.len() {
                    1 => s.call(Walk::<_, 1> { history, blocks, far, head_dim, seen }),
                    2 => s.call(Walk::<_, 2> { history, blocks, far, head_dim, seen }),
                    3 => s.call(Walk::<_, 3> { history, blocks, far, head_dim, seen }),
                    _ => s.call(Walk::<_, 4> { history, blocks, far, head_dim, seen }),
                }
            }
            return;
        }
        let longest = longest(queries);
        let all = longest.div_ceil(KV_BLOCK);
        for first in (0..all).step_by(GROUP) {
            let near = NearHistory { at: (&raw mut (*scratch).near).cast(), first, head_dim };
            let end = (first + GROUP).min(all);
            let next = Ahead { history, blocks: end..(end + GROUP).min(all) };
            for converted in [Converted::Keys, Converted::Values] {
                for index in first..end {
                    let (block, stored) = (history.block(index), (longest - index * KV_BLOCK).min(KV_BLOCK));
                    match converted {
                        Converted::Keys => near.convert_keys(s, index, block),
                        Converted::Values => near.convert_values(s, index, block, stored),
                    }
                }
                for (number, seen) in tiles.clone().enumerate() {
                    let ahead = next.share(number, tiles.len());
                    let near = Near { history: near, ahead, end, head_dim, seen, converted };
                    match seen.queries.len() {
                        1 => s.call(Tile::<_, 1>(near)),
                        2 => s.call(Tile::<_, 2>(near)),
                        3 => s.call(Tile::<_, 3>(near)),
                        _ => s.call(Tile::<_, 4>(near)),
                    }
                }
            }
        }
    }
}

/// Positions that one of the queries sees.
#[inline(always)]
fn longest(queries: &[Query]) -> usize {
    queries.iter().map(|query| query.visible).max().unwrap_or(0)
}

/// Blocks up to the last position that one of the queries sees.
#[inline(always)]
fn blocks_seen(queries: &[Query]) -> usize {
    longest(queries).div_ceil(KV_BLOCK)
}

/// Blocks that are asked for while others are multiplied, the first ones with the first, keys with keys and values with values:
/// line by line, as all at once they would be in each other's way.
struct Ahead<H> {
    history: H,
    blocks: Range<usize>,
}

impl<H: History<Block: Ask>> Ahead<H> {
    /// What one of some tiles asks for.
    #[inline(always)]
    fn share(&self, tile: usize, tiles: usize) -> Ahead<H> {
        let bound = |tile: usize| self.blocks.start + tile * self.blocks.len() / tiles;
        Ahead { history: self.history, blocks: bound(tile)..bound(tile + 1) }
    }

    /// What is asked for with B blocks from the `index`th on, if anything; the last one fills the rest.
    #[inline(always)]
    fn with<const B: usize>(&self, index: usize) -> Option<[H::Block; B]> {
        if index >= self.blocks.len() {
            return None;
        }
        let mut asked = [self.history.block(self.blocks.end - 1); B];
        for i in 0..B.min(self.blocks.len() - index) {
            asked[i] = self.history.block(self.blocks.start + index + i);
        }
        Some(asked)
    }
}

/// Up to four queries, what they have gathered, and what they weigh the present group with.
#[derive(Clone, Copy)]
struct Seen<'a> {
    queries: &'a [Query],
    /// Of these queries; written before.
    states: States,
    weights: *mut Weights,
}

/// Q queries over some blocks of a history, from the first on.
struct Walk<'a, H, const Q: usize> {
    history: H,
    blocks: Range<usize>,
    /// The history comes from memory: no other tile has just read it.
    far: bool,
    head_dim: usize,
    /// Q of them.
    seen: Seen<'a>,
}

impl<H: History<Block: Ask>, const Q: usize> Kernel for Walk<'_, H, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Walk { history, head_dim, seen, .. } = self;
        for first in self.blocks.clone().step_by(GROUP) {
            let blocks = first..(first + GROUP).min(self.blocks.end);
            let next = blocks.end..(blocks.end + GROUP).min(self.blocks.end);
            let ahead = Ahead { history, blocks: if self.far { next } else { 0..0 } };
            score::<S, H, H, Q>(s, history, blocks.clone(), &ahead, head_dim, seen);
            weigh::<S, H, H, Q>(s, history, blocks, &ahead, head_dim, seen);
        }
    }
}

/// Q queries over what was converted of a group.
struct Tile<'a, H, const Q: usize>(Near<'a, H>);

/// Up to four queries, and what they see of a group.
struct Near<'a, H> {
    history: NearHistory,
    ahead: Ahead<H>,
    /// Behind the last block of the group.
    end: usize,
    head_dim: usize,
    seen: Seen<'a>,
    converted: Converted,
}

/// What of a group was converted.
#[derive(Clone, Copy)]
enum Converted {
    Keys,
    Values,
}

impl<H: History<Block: Ask>, const Q: usize> Kernel for Tile<'_, H, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Near { history, ahead, end, head_dim, seen, converted } = self.0;
        let blocks = history.first..blocks_seen(seen.queries).min(end);
        match converted {
            Converted::Keys => score::<S, NearHistory, H, Q>(s, history, blocks, &ahead, head_dim, seen),
            Converted::Values => weigh::<S, NearHistory, H, Q>(s, history, blocks, &ahead, head_dim, seen),
        }
    }
}

/// Writes the weights of Q queries for the positions of a group, and takes them into the sums of weights.
#[inline(always)]
fn score<S: Simd, H: History, A: History<Block: Ask>, const Q: usize>(
    s: S,
    history: H,
    blocks: Range<usize>,
    ahead: &Ahead<A>,
    head_dim: usize,
    seen: Seen<'_>,
) {
    if blocks.is_empty() {
        return;
    }
    let mut scores = [[s.zero(); GROUP]; Q];
    match (Q, S::WIDE) {
        (_, true) if blocks.len() > 2 => {
            multiply::<S, H, A, Q, 4>(s, history, &blocks, ahead, head_dim, &seen, &mut scores)
        }
        (1, false) => multiply::<S, H, A, Q, 4>(s, history, &blocks, ahead, head_dim, &seen, &mut scores),
        (_, true) | (2, false) => {
            multiply::<S, H, A, Q, 2>(s, history, &blocks, ahead, head_dim, &seen, &mut scores)
        }
        _ => multiply::<S, H, A, Q, 1>(s, history, &blocks, ahead, head_dim, &seen, &mut scores),
    }
    let visible = |j: usize| seen.queries[j].visible.saturating_sub(blocks.start * KV_BLOCK);
    let mut largest = [0.0; Q];
    for j in 0..Q {
        if visible(j) < GROUP * KV_BLOCK {
            for i in 0..GROUP {
                let n = visible(j).saturating_sub(i * KV_BLOCK).min(KV_BLOCK);
                scores[j][i] = s.first(n, scores[j][i], s.splat(f32::NEG_INFINITY));
            }
        }
        let [a, b, c, d] = scores[j];
        largest[j] = s.largest(s.max(s.max(a, b), s.max(c, d)));
    }
    // Scores are scaled, and then powers of two are taken of them and not of e.
    let scale = std::f32::consts::LOG2_E / (head_dim as f32).sqrt();
    for j in 0..Q {
        let state = seen.states.of(j);
        // SAFETY: the states are written, as are the vectors behind the first two for each chunk of the head; there is a row of
        // weights for each query.
        unsafe {
            let largest = largest[j] * scale;
            if largest > state.read() {
                let shrink = exp2(s, s.splat(state.read() - largest));
                state.write(largest);
                for at in (LANES..States::width(head_dim)).step_by(LANES) {
                    s.store(s.mul(s.load(state.add(at)), shrink), state.add(at));
                }
            }
            let mut total = s.load(state.add(LANES));
            let largest = s.splat(-state.read());
            for i in 0..GROUP {
                if visible(j) <= i * KV_BLOCK {
                    break;
                }
                let weight = exp2(s, s.fma(scores[j][i], s.splat(scale), largest));
                s.store(weight, (*seen.weights.add(j))[i].as_mut_ptr());
                total = s.add(total, weight);
            }
            s.store(total, state.add(LANES));
        }
    }
}

/// Products of Q queries and the keys of a group; those of B blocks are computed together, so that enough sums are under way.
#[inline(always)]
fn multiply<S: Simd, H: History, A: History<Block: Ask>, const Q: usize, const B: usize>(
    s: S,
    history: H,
    blocks: &Range<usize>,
    ahead: &Ahead<A>,
    head_dim: usize,
    seen: &Seen<'_>,
    scores: &mut [[S::F32; GROUP]; Q],
) {
    let last = blocks.end - 1;
    for first in (0..blocks.len()).step_by(B) {
        let mut keys = [history.block(last); B];
        for i in 0..B {
            keys[i] = history.block((blocks.start + first + i).min(last));
        }
        let sums = match ahead.with::<B>(first) {
            Some(asked) => multiply_keys::<S, _, _, Q, B>(s, keys, asked, head_dim, seen),
            None => multiply_keys::<S, _, _, Q, B>(s, keys, [(); B], head_dim, seen),
        };
        for j in 0..Q {
            scores[j][first..first + B].copy_from_slice(&sums[j]);
        }
    }
}

/// Products of Q queries and the keys of B blocks.
#[inline(always)]
fn multiply_keys<S: Simd, K: HistoryBlock, A: Ask, const Q: usize, const B: usize>(
    s: S,
    keys: [K; B],
    asked: [A; B],
    head_dim: usize,
    seen: &Seen<'_>,
) -> [[S::F32; B]; Q] {
    let mut sums = [[s.zero(); B]; Q];
    for d in 0..head_dim {
        let mut q = [s.zero(); Q];
        for j in 0..Q {
            // SAFETY: a query has head_dim elements.
            q[j] = s.splat(unsafe { seen.queries[j].q.add(d).read() });
        }
        for i in 0..B {
            // SAFETY: d < head_dim; blocks are complete before this step.
            let key = unsafe { keys[i].key(s, d) };
            asked[i].ask_key(s, d);
            for j in 0..Q {
                sums[j][i] = s.fma(q[j], key, sums[j][i]);
            }
        }
    }
    sums
}

/// Adds the weighted values of a group to the sums of Q queries.
#[inline(always)]
fn weigh<S: Simd, H: History, A: History<Block: Ask>, const Q: usize>(
    s: S,
    history: H,
    blocks: Range<usize>,
    ahead: &Ahead<A>,
    head_dim: usize,
    seen: Seen<'_>,
) {
    let chunks = head_dim.div_ceil(LANES);
    // As many vectors of each query as there are registers for.
    let together = if S::WIDE { 4 } else { 4 / Q };
    let mut chunk = 0;
    while together >= 4 && chunk + 4 <= chunks {
        weigh_chunks::<S, H, A, Q, 4>(s, history, &blocks, ahead, chunk, &seen);
        chunk += 4;
    }
    while together >= 2 && chunk + 2 <= chunks {
        weigh_chunks::<S, H, A, Q, 2>(s, history, &blocks, ahead, chunk, &seen);
        chunk += 2;
    }
    while chunk < chunks {
        weigh_chunks::<S, H, A, Q, 1>(s, history, &blocks, ahead, chunk, &seen);
        chunk += 1;
    }
}

/// C vectors of the head from `chunk` on. Slots that a query does not see are not touched: they may hold anything.
#[inline(always)]
fn weigh_chunks<S: Simd, H: History, A: History<Block: Ask>, const Q: usize, const C: usize>(
    s: S,
    history: H,
    blocks: &Range<usize>,
    ahead: &Ahead<A>,
    chunk: usize,
    seen: &Seen<'_>,
) {
    let at = |j: usize, c: usize| seen.states.of(j).wrapping_add((2 + chunk + c) * LANES);
    // SAFETY: the states and the weights of a group are written; the chunks are within the head; a slot is touched for those who see
    // it, so it was stored.
    unsafe {
        let mut sums = [[s.zero(); C]; Q];
        for j in 0..Q {
            for c in 0..C {
                sums[j][c] = s.load(at(j, c));
            }
        }
        for (i, index) in blocks.clone().enumerate() {
            let block = history.block(index);
            let visible = |j: usize| seen.queries[j].visible.saturating_sub(index * KV_BLOCK).min(KV_BLOCK);
            let mut shared = KV_BLOCK;
            for j in 0..Q {
                shared = shared.min(visible(j));
            }
            // The first vectors ask for whole values.
            match ahead.with::<1>(i) {
                Some([asked]) if chunk == 0 => {
                    add_values::<S, _, _, Q, C>(s, block, asked, i, shared, chunk, seen, &mut sums)
                }
                _ => add_values::<S, _, _, Q, C>(s, block, (), i, shared, chunk, seen, &mut sums),
            }
            for j in 0..Q {
                for slot in shared..visible(j) {
                    for c in 0..C {
                        let value = block.value(s, slot, (chunk + c) * LANES);
                        let weight = s.splat((*seen.weights.add(j))[i][slot]);
                        sums[j][c] = s.fma(weight, value, sums[j][c]);
                    }
                }
            }
        }
        for j in 0..Q {
            for c in 0..C {
                s.store(sums[j][c], at(j, c));
            }
        }
    }
}

/// Adds the weighted values of the `i`th block of a group at the first slots, which all queries see.
///
/// # Safety
/// The slots were stored, the weights are written.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "a part of `weigh_chunks`, which has them all")]
unsafe fn add_values<S: Simd, V: HistoryBlock, A: Ask, const Q: usize, const C: usize>(
    s: S,
    block: V,
    asked: A,
    i: usize,
    slots: usize,
    chunk: usize,
    seen: &Seen<'_>,
    sums: &mut [[S::F32; C]; Q],
) {
    for slot in 0..slots {
        asked.ask_value(s, slot);
        for c in 0..C {
            // SAFETY: as the caller vouches.
            unsafe {
                let value = block.value(s, slot, (chunk + c) * LANES);
                for j in 0..Q {
                    let weight = s.splat((*seen.weights.add(j))[i][slot]);
                    sums[j][c] = s.fma(weight, value, sums[j][c]);
                }
            }
        }
    }
}

/// Queries that go together over converted blocks: their states stay in the first cache.
const MAX_QUERIES: usize = 48;
/// So few convert on their own: it takes as long as converting for all.
const FEW_QUERIES: usize = 8;
/// Blocks of a group.
const GROUP: usize = 4;
