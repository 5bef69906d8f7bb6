//! Softmax over past positions, sixty-four at a time, in one pass.
//!
//! A query walks over groups of four blocks of sixteen positions from position 0 on, keeps the largest score so far, and rescales
//! what it has when a group brings a larger one. The order depends on positions alone, so a prompt may be cut into
//! chunks anywhere without changing a bit. Keys lie transposed (a line holds one element of sixteen positions), so
//! scores need no sums across lanes; the queries of a tile, as many as there are registers for, share each key and value
//! that is loaded.
//!
//! Cached keys and values are f16. With wide vectors they are converted as they are loaded, which costs nothing beside the products,
//! and with others, too, for a few queries. For many, as a prompt has, the keys of a group are converted once, all queries take their
//! scores, then the values are, and all take their sums.

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
        // About equally many at a time, in whole tiles.
        const { assert!(MAX_QUERIES.is_multiple_of(S::PANEL)) };
        let most = all.div_ceil(all.div_ceil(MAX_QUERIES)).next_multiple_of(S::PANEL);
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

/// What the queries see, into the states of the scratch.
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
        // Another thread may have rotated some of them: element by element, they would be waited for several times.
        for query in queries {
            for start in (0..head_dim).step_by(LANES) {
                s.prefetch(query.q.wrapping_add(start).cast());
            }
        }
        let weights: *mut Weights = (&raw mut (*scratch).weights).cast();
        let states = States::new((&raw mut (*scratch).states).cast(), head_dim);
        states.clear(s, queries.len());
        let (longest, count) = (longest(queries), queries.chunks(S::PANEL).len());
        let all = longest.div_ceil(KV_BLOCK);
        let tiles = queries.chunks(S::PANEL).enumerate().map(|(index, queries)| {
            let first = index * S::PANEL;
            let (states, weights) = (states.from(first), weights.wrapping_add(first));
            Tile { seen: Seen { queries, states, weights }, head_dim, all, share: (index, count) }
        });
        let groups = |blocks| (0..all).step_by(blocks).map(move |first| first..(first + blocks).min(all));
        if !H::CONVERTS || S::WIDE || queries.len() <= FEW_QUERIES {
            // One after the other, tiles find a group in the first cache; one alone walks on to the end.
            for blocks in groups(if count > 1 { GROUP } else { all }) {
                tiles
                    .clone()
                    .for_each(|tile| tile.look::<_, _, _, true, true>(s, history, history, blocks.clone()));
            }
            return;
        }
        for blocks in groups(GROUP) {
            let near = NearHistory { at: (&raw mut (*scratch).near).cast(), first: blocks.start, head_dim };
            for index in blocks.clone() {
                near.convert_keys(s, index, history.block(index));
            }
            tiles
                .clone()
                .for_each(|tile| tile.look::<_, _, _, true, false>(s, near, history, blocks.clone()));
            for index in blocks.clone() {
                let stored = (longest - index * KV_BLOCK).min(KV_BLOCK);
                near.convert_values(s, index, history.block(index), stored);
            }
            tiles
                .clone()
                .for_each(|tile| tile.look::<_, _, _, false, true>(s, near, history, blocks.clone()));
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
    /// What one of some tiles asks for of these blocks.
    #[inline(always)]
    fn new(history: H, blocks: Range<usize>, (tile, tiles): (usize, usize)) -> Ahead<H> {
        let bound = |tile: usize| blocks.start + tile * blocks.len() / tiles;
        Ahead { history, blocks: bound(tile)..bound(tile + 1) }
    }

    /// N blocks from the `index`th on, which there is; the last one fills the rest.
    #[inline(always)]
    fn from<const N: usize>(&self, index: usize) -> [H::Block; N] {
        let mut asked = [self.history.block(self.blocks.end - 1); N];
        for i in 0..N.min(self.blocks.len() - index) {
            asked[i] = self.history.block(self.blocks.start + index + i);
        }
        asked
    }
}

/// The queries of a tile, what they have gathered, and what they weigh the present group with.
#[derive(Clone, Copy)]
struct Seen<'a> {
    queries: &'a [Query],
    /// Of these queries; written before.
    states: States,
    weights: *mut Weights,
}

/// Some queries that go together, as many as rows of activations do at most.
#[derive(Clone, Copy)]
struct Tile<'a> {
    seen: Seen<'a>,
    head_dim: usize,
    /// Blocks of the history.
    all: usize,
    /// Which of the tiles it is, and how many there are: it asks for its share of the next group.
    share: (usize, usize),
}

impl Tile<'_> {
    /// Looks at the keys of some blocks, at their values, or at one after the other; what comes next is asked for in `far`, the
    /// history as it was before it was converted.
    #[inline(always)]
    fn look<S: Simd, H: History, A: History<Block: Ask>, const KEYS: bool, const VALUES: bool>(
        self,
        s: S,
        history: H,
        far: A,
        blocks: Range<usize>,
    ) {
        let blocks = blocks.start..blocks.end.min(blocks_seen(self.seen.queries));
        match self.seen.queries.len() {
            1 => s.call(Walk::<_, _, 1, KEYS, VALUES> { tile: self, history, far, blocks }),
            2 => s.call(Walk::<_, _, 2, KEYS, VALUES> { tile: self, history, far, blocks }),
            3 => s.call(Walk::<_, _, 3, KEYS, VALUES> { tile: self, history, far, blocks }),
            5 if S::PANEL > 4 => s.call(Walk::<_, _, 5, KEYS, VALUES> { tile: self, history, far, blocks }),
            6 if S::PANEL > 4 => s.call(Walk::<_, _, 6, KEYS, VALUES> { tile: self, history, far, blocks }),
            _ => s.call(Walk::<_, _, 4, KEYS, VALUES> { tile: self, history, far, blocks }),
        }
    }
}

/// A tile of Q queries on its way over some blocks.
struct Walk<'a, H, A, const Q: usize, const KEYS: bool, const VALUES: bool> {
    tile: Tile<'a>,
    history: H,
    far: A,
    blocks: Range<usize>,
}

impl<H: History, A: History<Block: Ask>, const Q: usize, const KEYS: bool, const VALUES: bool> Kernel
    for Walk<'_, H, A, Q, KEYS, VALUES>
{
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Walk { tile: Tile { seen, head_dim, all, share }, history, far, blocks } = self;
        for first in blocks.clone().step_by(GROUP) {
            let group = first..(first + GROUP).min(blocks.end);
            let ahead = Ahead::new(far, (first + GROUP).min(all)..(first + 2 * GROUP).min(all), share);
            if KEYS {
                score::<S, H, A, Q>(s, history, group.clone(), &ahead, head_dim, seen);
            }
            if VALUES {
                weigh::<S, H, A, Q>(s, history, group, &ahead, head_dim, seen);
            }
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
        // A tile of many has one block to ask for, and asks for it once.
        let sums = match ahead.blocks.len().saturating_sub(first) {
            0 => multiply_keys::<S, _, A::Block, Q, B, 0>(s, keys, [], head_dim, seen),
            1 if B > 1 => multiply_keys::<S, _, _, Q, B, 1>(s, keys, ahead.from(first), head_dim, seen),
            _ => multiply_keys::<S, _, _, Q, B, B>(s, keys, ahead.from(first), head_dim, seen),
        };
        for j in 0..Q {
            scores[j][first..first + B].copy_from_slice(&sums[j]);
        }
    }
}

/// Products of Q queries and the keys of B blocks, while N others are asked for.
#[inline(always)]
fn multiply_keys<S: Simd, K: HistoryBlock, A: Ask, const Q: usize, const B: usize, const N: usize>(
    s: S,
    keys: [K; B],
    asked: [A; N],
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
            if i < N {
                asked[i].ask_key(s, d);
            }
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
            if chunk == 0 && i < ahead.blocks.len() {
                let [asked] = ahead.from(i);
                add_values::<S, _, _, Q, C>(s, block, asked, i, shared, chunk, seen, &mut sums);
            } else {
                add_values::<S, _, _, Q, C>(s, block, (), i, shared, chunk, seen, &mut sums);
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

/// Queries that go together: their states stay in the first cache.
const MAX_QUERIES: usize = 48;
/// So few convert on their own: it takes as long as converting for all.
const FEW_QUERIES: usize = 8;
/// Blocks of a group.
const GROUP: usize = 4;
