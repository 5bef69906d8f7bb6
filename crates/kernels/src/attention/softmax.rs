//! Softmax over past positions, thirty-two at a time, in one pass.
//!
//! A query walks over pairs of blocks of sixteen positions from position 0 on, keeps the largest score so far, and rescales
//! what it has when a pair brings a larger one. The order depends on positions alone, so a prompt may be cut into
//! chunks anywhere without changing a bit. Keys lie transposed (a line holds one element of sixteen positions), so
//! scores need no sums across lanes; up to four queries share each key and value that is loaded.
//!
//! Cached keys and values are f16. A few queries convert them as they load them; many, as a prompt has, go together over
//! two blocks at a time, which are converted once for all.

#![allow(clippy::needless_range_loop, reason = "loops of constant length over several register arrays")]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::history::{History, HistoryBlock, NearHistory};
use crate::isa::Kernel;
use crate::kv::{KV_BLOCK, MAX_HEAD_DIM, padded};
use crate::math::exp;
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
    keys: [[f32; MAX_HEAD_DIM * KV_BLOCK]; NEAR_BLOCKS],
    values: [[f32; MAX_HEAD_DIM * KV_BLOCK]; NEAR_BLOCKS],
}

/// What queries have gathered, each in a few vectors: the largest score (in the first lane), the sum of weights by lane, the sums
/// of weighted values.
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
    pub(super) fn attend<S: Simd, H: History>(
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
            gather(s, history, self.head_dim, scratch, &queries[..count.next_multiple_of(4)], count);
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

    /// `count` queries from number `first` on; the last one fills the rest.
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
        let mut queries = [query(first + count - 1); MAX_QUERIES];
        for (j, place) in queries[..count].iter_mut().enumerate() {
            *place = query(first + j);
        }
        queries
    }
}

/// What the queries see, into the states of the scratch. `count` of them count; a few convert what they load, for many it is
/// converted once, a few blocks at a time.
#[inline(always)]
fn gather<S: Simd, H: History>(
    s: S,
    history: H,
    head_dim: usize,
    scratch: *mut Scratch,
    queries: &[Query],
    count: usize,
) {
    // SAFETY: the scratch has room for the states of all queries and for NEAR_BLOCKS blocks of heads of MAX_HEAD_DIM.
    unsafe {
        let states = States::new((&raw mut (*scratch).states).cast(), head_dim);
        states.clear(s, queries.len());
        if !H::CONVERTS || count <= FEW_QUERIES {
            for at in (0..count).step_by(4) {
                let (far, states, queries) = (at == 0, states.from(at), &queries[at..count.min(at + 4)]);
                let blocks = 0..blocks_seen(queries);
                match queries.len() {
                    1 => s.call(Tile::<_, 1> { history, blocks, far, head_dim, queries, states }),
                    2 => s.call(Tile::<_, 2> { history, blocks, far, head_dim, queries, states }),
                    3 => s.call(Tile::<_, 3> { history, blocks, far, head_dim, queries, states }),
                    _ => s.call(Tile::<_, 4> { history, blocks, far, head_dim, queries, states }),
                }
            }
            return;
        }
        let (keys, values) = ((&raw mut (*scratch).keys).cast(), (&raw mut (*scratch).values).cast());
        let longest = queries.iter().map(|query| query.visible).max().unwrap_or(0);
        let all = blocks_seen(queries);
        for first in (0..all).step_by(NEAR_BLOCKS) {
            let near = NearHistory { keys, values, first, head_dim };
            let end = (first + NEAR_BLOCKS).min(all);
            for index in first..end {
                near.convert(s, index, history.block(index), (longest - index * KV_BLOCK).min(KV_BLOCK));
            }
            for next in end..(end + NEAR_BLOCKS).min(all) {
                history.block(next).prefetch(s, head_dim);
            }
            for (tile, queries) in queries.chunks_exact(4).enumerate() {
                let blocks = first..blocks_seen(queries).clamp(first, end);
                let states = states.from(4 * tile);
                s.call(Tile::<_, 4> { history: near, blocks, far: false, head_dim, queries, states });
            }
        }
    }
}

/// Blocks up to the last position that one of the queries sees.
#[inline(always)]
fn blocks_seen(queries: &[Query]) -> usize {
    let longest = queries.iter().map(|query| query.visible).max().unwrap_or(0);
    longest.div_ceil(KV_BLOCK)
}

/// Q queries over some blocks of a history, from an even one on.
struct Tile<'a, H, const Q: usize> {
    history: H,
    blocks: Range<usize>,
    /// The history comes from memory: no other tile has just read it.
    far: bool,
    head_dim: usize,
    /// Q of them.
    queries: &'a [Query],
    /// Of these queries; written before.
    states: States,
}

impl<H: History, const Q: usize> Kernel for Tile<'_, H, Q> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        match (Q, S::WIDE) {
            (1, true) => self.walk::<S, 8, 8>(s),
            (1, false) | (2, true) => self.walk::<S, 4, 4>(s),
            (2, false) | (_, true) => self.walk::<S, 2, 2>(s),
            (_, false) => self.walk::<S, 1, 2>(s),
        }
    }
}

impl<H: History, const Q: usize> Tile<'_, H, Q> {
    /// Takes G blocks at a time, a whole number of pairs; scores of B blocks are computed together, so that enough sums are
    /// under way.
    #[inline(always)]
    fn walk<S: Simd, const B: usize, const G: usize>(self, s: S) {
        assert_eq!(self.queries.len(), Q);
        let scale = s.splat(1.0 / (self.head_dim as f32).sqrt());
        for first in self.blocks.clone().step_by(G) {
            let n = (self.blocks.end - first).min(G);
            let mut blocks = [self.history.block(first); G];
            for (i, block) in blocks.iter_mut().enumerate().take(n) {
                *block = self.history.block(first + i);
            }
            if self.far {
                for next in first + G..(first + 2 * G).min(self.blocks.end) {
                    self.history.block(next).prefetch(s, self.head_dim);
                }
            }
            let mut scores = [[s.zero(); Q]; G];
            for some in (0..G).step_by(B) {
                for d in 0..self.head_dim {
                    let mut q = [s.zero(); Q];
                    for j in 0..Q {
                        // SAFETY: a query has head_dim elements.
                        q[j] = s.splat(unsafe { self.queries[j].q.add(d).read() });
                    }
                    for i in some..some + B {
                        // SAFETY: d < head_dim; blocks are complete before this step.
                        let key = unsafe { blocks[i].key(s, d) };
                        for j in 0..Q {
                            scores[i][j] = s.fma(q[j], key, scores[i][j]);
                        }
                    }
                }
            }
            for i in (0..n).step_by(2) {
                let mut counts = [[0; 2]; Q];
                let mut pair = [[s.zero(); 2]; Q];
                for j in 0..Q {
                    for half in 0..2 {
                        pair[j][half] = s.mul(scores[i + half][j], scale);
                        let before = (first + i + half) * KV_BLOCK;
                        counts[j][half] = self.queries[j].visible.saturating_sub(before).min(KV_BLOCK);
                    }
                }
                // SAFETY: the states are written, and each query sees so many positions of the blocks, which are stored.
                unsafe { absorb(s, [blocks[i], blocks[i + 1]], &pair, &counts, self.states) };
            }
        }
    }
}

/// The weights of a pair of blocks for each of Q queries.
#[repr(align(64))]
struct Weights<const Q: usize>([[[f32; KV_BLOCK]; 2]; Q]);

/// Takes a pair of blocks into the states; query j sees the first `counts[j]` positions of each.
///
/// # Safety
/// The states of Q queries are written, and hold a score already if one of them sees nothing of the pair. The first
/// `counts[j]` positions of the blocks are stored.
#[inline(always)]
unsafe fn absorb<S: Simd, B: HistoryBlock, const Q: usize>(
    s: S,
    blocks: [B; 2],
    scores: &[[S::F32; 2]; Q],
    counts: &[[usize; 2]; Q],
    states: States,
) {
    let chunks = states.head_dim.div_ceil(LANES);
    let mut weights = Weights([[[0.0; KV_BLOCK]; 2]; Q]);
    let mut seen = *scores;
    // In phases, so that the chains of several queries are under way at once.
    for j in 0..Q {
        for half in 0..2 {
            seen[j][half] = s.first(counts[j][half], scores[j][half], s.splat(f32::NEG_INFINITY));
        }
    }
    let mut largest = [0.0; Q];
    for j in 0..Q {
        largest[j] = s.largest(s.max(seen[j][0], seen[j][1]));
    }
    // SAFETY: the states are written, and have a vector for each chunk behind two others; a row of weights has 16 places.
    unsafe {
        for j in 0..Q {
            let state = states.of(j);
            if largest[j] > state.read() {
                let shrink = exp(s, s.splat(state.read() - largest[j]));
                state.write(largest[j]);
                for vector in 1..2 + chunks {
                    let at = state.add(vector * LANES);
                    s.store(s.mul(s.load(at), shrink), at);
                }
            }
        }
        for j in 0..Q {
            let total = states.of(j).add(LANES);
            let mut sum = s.load(total);
            let largest = s.splat(states.of(j).read());
            for half in 0..2 {
                let weight = exp(s, s.sub(seen[j][half], largest));
                s.store(weight, weights.0[j][half].as_mut_ptr());
                sum = s.add(sum, weight);
            }
            s.store(sum, total);
        }
    }
    // As many vectors of each query as there are registers for.
    let together = if S::WIDE { 4 } else { 4 / Q };
    let mut chunk = 0;
    // SAFETY: the chunks are within the head; the rest is as the caller says.
    unsafe {
        while together >= 4 && chunk + 4 <= chunks {
            weigh::<S, B, Q, 4>(s, blocks, &weights, counts, chunk, states);
            chunk += 4;
        }
        while together >= 2 && chunk + 2 <= chunks {
            weigh::<S, B, Q, 2>(s, blocks, &weights, counts, chunk, states);
            chunk += 2;
        }
        while chunk < chunks {
            weigh::<S, B, Q, 1>(s, blocks, &weights, counts, chunk, states);
            chunk += 1;
        }
    }
}

/// Adds the weighted values of a pair of blocks, C vectors of the head from `chunk` on. Slots that a query does not see
/// are not touched: they may hold anything.
///
/// # Safety
/// As for `absorb`, and the chunks are within the head.
#[inline(always)]
unsafe fn weigh<S: Simd, B: HistoryBlock, const Q: usize, const C: usize>(
    s: S,
    blocks: [B; 2],
    weights: &Weights<Q>,
    counts: &[[usize; 2]; Q],
    chunk: usize,
    states: States,
) {
    let at = |j: usize, c: usize| states.of(j).wrapping_add((2 + chunk + c) * LANES);
    // SAFETY: as the caller says; every query sees the shared slots.
    unsafe {
        let mut sums = [[s.zero(); C]; Q];
        for j in 0..Q {
            for c in 0..C {
                sums[j][c] = s.load(at(j, c));
            }
        }
        for half in 0..2 {
            let mut shared = KV_BLOCK;
            for count in counts {
                shared = shared.min(count[half]);
            }
            for slot in 0..shared {
                for c in 0..C {
                    let value = blocks[half].value(s, slot, (chunk + c) * LANES);
                    for j in 0..Q {
                        sums[j][c] = s.fma(s.splat(weights.0[j][half][slot]), value, sums[j][c]);
                    }
                }
            }
            for j in 0..Q {
                for slot in shared..counts[j][half] {
                    for c in 0..C {
                        let value = blocks[half].value(s, slot, (chunk + c) * LANES);
                        sums[j][c] = s.fma(s.splat(weights.0[j][half][slot]), value, sums[j][c]);
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

/// Queries that go together over converted blocks: their states stay in the first cache.
const MAX_QUERIES: usize = 48;
/// So few convert on their own: it takes as long as converting for all.
const FEW_QUERIES: usize = 8;
/// Blocks that are converted together.
const NEAR_BLOCKS: usize = 2;
