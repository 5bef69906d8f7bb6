//! Attention within spans and over cached positions.

use std::ops::Range;

use antiphon_kernels::{Isa, KV_BLOCK, KvRow, KvStore, Pool, RopeStyle, RopeTable};
use half::f16;
use proptest::prelude::*;

use crate::support::{
    Random, all_rows, assert_close, assert_same_bits, pools, run_everywhere, run_on, table,
};

/// Attention of one query over some keys and values, in double precision.
fn attend_twin(q: &[f32], keys: &[&[f32]], values: &[&[f32]]) -> Vec<f32> {
    let scale = 1.0 / (q.len() as f64).sqrt();
    let dot = |k: &[f32]| q.iter().zip(k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>() * scale;
    let scores: Vec<f64> = keys.iter().map(|k| dot(k)).collect();
    let largest = scores.iter().copied().fold(f64::MIN, f64::max);
    let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let element =
        |d: usize| weights.iter().zip(values).map(|(w, v)| w * f64::from(v[d])).sum::<f64>() / total;
    (0..q.len()).map(|d| element(d) as f32).collect()
}

fn spans_of(lens: &[usize]) -> Vec<Range<usize>> {
    let mut end = 0;
    lens.iter()
        .map(|len| {
            end += len;
            end - len..end
        })
        .collect()
}

#[test]
fn attention_in_spans_matches_its_twin_in_double_precision() {
    let mut random = Random::new(30);
    for (heads, head_dim, lens) in [
        (1, 1, vec![1]),
        (3, 7, vec![5, 1, 18]),
        (2, 16, vec![16, 17, 15]),
        (4, 32, vec![3, 40]),
        (2, 64, vec![33]),
        (1, 100, vec![2, 2, 50]),
        (1, 256, vec![20]),
    ] {
        let spans = spans_of(&lens);
        let (rows, width) = (lens.iter().sum(), heads * head_dim);
        let mut qkv = random.floats(rows * 3 * width);
        qkv.iter_mut().for_each(|x| *x *= 3.0);
        let (inputs, ids) = (table(&qkv, 3 * width), all_rows(rows));
        let y = run_everywhere(|p| {
            let qkv = p.embed(&inputs, &ids);
            let part = |i: usize| qkv.columns(i * width..(i + 1) * width);
            p.attend(part(0), part(1), part(2), heads, &spans)
        });
        let cell = |row: usize, part: usize, head: usize| {
            &qkv[row * 3 * width + part * width + head * head_dim..][..head_dim]
        };
        for span in &spans {
            for row in span.clone() {
                for head in 0..heads {
                    let keys: Vec<&[f32]> = span.clone().map(|row| cell(row, 1, head)).collect();
                    let values: Vec<&[f32]> = span.clone().map(|row| cell(row, 2, head)).collect();
                    let expected = attend_twin(cell(row, 0, head), &keys, &values);
                    assert_close(&y[row * width + head * head_dim..][..head_dim], &expected, 1e-5, "span");
                }
            }
        }
    }
}

#[test]
fn a_sequence_attends_alike_alone_and_in_a_batch() {
    let mut random = Random::new(31);
    let (heads, width, lens) = (3, 96, [9, 30, 1, 17]);
    let spans = spans_of(&lens);
    let x = random.floats(57 * 3 * width);
    let inputs = table(&x, 3 * width);
    let attend = |ids: &[u32], spans: &[Range<usize>]| {
        run_everywhere(|p| {
            let qkv = p.embed(&inputs, ids.to_vec().leak());
            let part = |i: usize| qkv.columns(i * width..(i + 1) * width);
            p.attend(part(0), part(1), part(2), heads, spans.to_vec().leak())
        })
    };
    let together = attend(&all_rows(57), &spans);
    for span in spans {
        let ids: Vec<u32> = span.clone().map(|row| row as u32).collect();
        let alone = attend(&ids, std::slice::from_ref(&(0..span.len())));
        assert_same_bits(&alone, &together[span.start * width..span.end * width], "alone");
    }
}

/// A decoder's attention over random rows of several sequences.
struct Decoder {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    rope: RopeTable,
    /// Of each sequence, rows of q, k and v for each position.
    sequences: Vec<Vec<f32>>,
    tables: Vec<Vec<u32>>,
    blocks: usize,
}

impl Decoder {
    fn new(random: &mut Random, heads: usize, kv_heads: usize, head_dim: usize, lens: &[usize]) -> Decoder {
        let width = (heads + 2 * kv_heads) * head_dim;
        let rope = RopeTable::new(head_dim, 300, 10_000.0, None, RopeStyle::Halves);
        let counts: Vec<usize> = lens.iter().map(|len| len.div_ceil(KV_BLOCK)).collect();
        let blocks = counts.iter().sum::<usize>() + 3;
        // Blocks are handed out from both ends in turn, so that tables are neither sorted nor contiguous.
        let mut free: std::collections::VecDeque<u32> = (0..blocks as u32).collect();
        let mut next = || if random.below(2) == 0 { free.pop_front() } else { free.pop_back() };
        let tables =
            counts.iter().map(|&n| (0..n).map(|_| next().expect("enough blocks")).collect()).collect();
        let sequences = lens.iter().map(|len| random.floats(len * width)).collect();
        Decoder { heads, kv_heads, head_dim, rope, sequences, tables, blocks }
    }

    fn width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    fn store(&self) -> KvStore {
        KvStore::new(2, self.kv_heads, self.head_dim, self.blocks).expect("small")
    }

    /// Runs (sequence, position) rows as one step in layer 1.
    fn step(&self, pool: &mut Pool, store: &mut KvStore, rows: &[(usize, usize)]) -> Vec<f32> {
        let width = self.width();
        let x: Vec<f32> = rows
            .iter()
            .flat_map(|&(s, position)| self.sequences[s][position * width..][..width].to_vec())
            .collect();
        let (inputs, ids) = (table(&x, width), all_rows(rows.len()));
        let kv_rows: Vec<KvRow<'_>> = rows
            .iter()
            .map(|&(s, position)| KvRow { table: &self.tables[s], position: position as u32 })
            .collect();
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        run_on(pool, Some(store), |p| {
            let qkv = p.embed(&inputs, &ids);
            let (q, k, v) = (qkv.columns(0..q), qkv.columns(q..q + kv), qkv.columns(q + kv..q + 2 * kv));
            let q = p.store_cached(q, k, v, self.heads, self.kv_heads, 1, &self.rope, &kv_rows);
            p.attend_cached(q, self.heads, self.kv_heads, 1, &kv_rows)
        })
    }

    fn rotated(&self, x: &[f32], position: usize) -> Vec<f32> {
        let half = self.head_dim / 2;
        let mut out = x.to_vec();
        for i in 0..half {
            let angle = position as f64 * 10_000f64.powf(-(i as f64) / half as f64);
            let (a, b) = (f64::from(x[i]), f64::from(x[i + half]));
            out[i] = (a * angle.cos() - b * angle.sin()) as f32;
            out[i + half] = (b * angle.cos() + a * angle.sin()) as f32;
        }
        out
    }

    fn twin(&self, sequence: usize, position: usize) -> Vec<f32> {
        let half = |x: &f32| f16::from_f32(*x).to_f32();
        let cell = |position: usize, head: usize| {
            &self.sequences[sequence][position * self.width() + head * self.head_dim..][..self.head_dim]
        };
        let mut out = Vec::new();
        for head in 0..self.heads {
            let kv_head = head / (self.heads / self.kv_heads);
            let key = |p: usize| self.rotated(cell(p, self.heads + kv_head), p).iter().map(half).collect();
            let value = |p: usize| cell(p, self.heads + self.kv_heads + kv_head).iter().map(half).collect();
            let keys: Vec<Vec<f32>> = (0..=position).map(key).collect();
            let values: Vec<Vec<f32>> = (0..=position).map(value).collect();
            let (keys, values): (Vec<&[f32]>, Vec<&[f32]>) =
                (keys.iter().map(Vec::as_slice).collect(), values.iter().map(Vec::as_slice).collect());
            out.extend(attend_twin(&self.rotated(cell(position, head), position), &keys, &values));
        }
        out
    }
}

#[test]
fn cached_attention_matches_its_twin_in_double_precision() {
    let mut random = Random::new(32);
    for (heads, kv_heads, head_dim, len) in
        [(1, 1, 2, 3), (4, 2, 16, 40), (9, 3, 64, 150), (7, 1, 20, 18), (2, 2, 100, 65), (14, 2, 256, 17)]
    {
        let decoder = Decoder::new(&mut random, heads, kv_heads, head_dim, &[len]);
        let rows: Vec<(usize, usize)> = (0..len).map(|position| (0, position)).collect();
        let mut pool = Pool::new(2, Isa::detect()).expect("a pool");
        let y = decoder.step(&mut pool, &mut decoder.store(), &rows);
        for (position, y) in y.chunks(heads * head_dim).enumerate() {
            // A rotated key that lies between two halves may fall to either side: 2^-11 of relative error.
            assert_close(y, &decoder.twin(0, position), 1e-4, &format!("position {position}"));
        }
    }
}

#[test]
fn cached_attention_has_the_same_bits_on_every_path_with_every_number_of_threads() {
    let mut random = Random::new(33);
    for (heads, kv_heads, head_dim) in [(4, 2, 32), (3, 1, 20), (2, 2, 64)] {
        let decoder = Decoder::new(&mut random, heads, kv_heads, head_dim, &[37, 5, 64, 140]);
        let rows: Vec<(usize, usize)> = [37, 5, 64, 140].into_iter().enumerate().flat_map(rows_of).collect();
        let mut expected = None;
        for pool in &mut pools() {
            let y = decoder.step(pool, &mut decoder.store(), &rows);
            let expected = expected.get_or_insert_with(|| y.clone());
            assert_same_bits(&y, expected, pool.isa().name());
        }
    }
}

fn rows_of((sequence, len): (usize, usize)) -> impl Iterator<Item = (usize, usize)> {
    (0..len).map(move |position| (sequence, position))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(30))]

    #[test]
    fn a_prompt_may_be_cut_into_chunks_anywhere(
        seed in any::<u64>(), lens in prop::collection::vec(1usize..200, 1..4), most in 1usize..40, threads in 1usize..4,
    ) {
        let mut random = Random::new(seed);
        let decoder = Decoder::new(&mut random, 6, 2, 24, &lens);
        let width = 6 * 24;
        let mut pool = Pool::new(threads, Isa::detect()).expect("a pool");
        let whole: Vec<Vec<f32>> = lens
            .iter()
            .enumerate()
            .map(|(s, len)| {
                let rows: Vec<(usize, usize)> = rows_of((s, *len)).collect();
                decoder.step(&mut pool, &mut decoder.store(), &rows)
            })
            .collect();
        // Steps take chunks of random length of all sequences that are not over, as a scheduler would.
        let mut store = decoder.store();
        let mut done = vec![0; lens.len()];
        while done != lens {
            let mut rows = Vec::new();
            for (s, len) in lens.iter().enumerate() {
                let chunk = random.below(most + 1).min(len - done[s]);
                rows.extend((done[s]..done[s] + chunk).map(|position| (s, position)));
                done[s] += chunk;
            }
            if rows.is_empty() {
                continue;
            }
            let y = decoder.step(&mut pool, &mut store, &rows);
            for (&(s, position), y) in rows.iter().zip(y.chunks(width)) {
                assert_same_bits(y, &whole[s][position * width..][..width], &format!("{s}, {position}"));
            }
        }
    }
}

#[test]
fn what_a_block_held_before_is_never_seen() {
    let mut random = Random::new(34);
    let clean = Decoder::new(&mut random, 4, 2, 32, &[20]);
    let mut broken = Decoder::new(&mut random, 4, 2, 32, &[32]);
    broken.tables[0].clone_from(&clean.tables[0]);
    broken.sequences[0].fill(f32::NAN);
    broken.blocks = clean.blocks;
    let rows: Vec<(usize, usize)> = (0..20).map(|position| (0, position)).collect();
    for pool in &mut pools() {
        let expected = clean.step(pool, &mut clean.store(), &rows);
        let mut store = clean.store();
        let all: Vec<(usize, usize)> = (0..32).map(|position| (0, position)).collect();
        assert!(broken.step(pool, &mut store, &all).iter().all(|y| y.is_nan()));
        assert_same_bits(&clean.step(pool, &mut store, &rows), &expected, "after NaN");
    }
}

#[test]
fn a_broken_query_key_or_value_shows_in_the_rows_that_see_it() {
    let mut random = Random::new(35);
    for column in [0, 64, 70, 96, 127] {
        let mut decoder = Decoder::new(&mut random, 2, 1, 32, &[40]);
        let width = decoder.width();
        decoder.sequences[0][17 * width + column] = f32::NAN;
        let rows: Vec<(usize, usize)> = (0..40).map(|position| (0, position)).collect();
        for pool in &mut pools() {
            let y = decoder.step(pool, &mut decoder.store(), &rows);
            for (position, y) in y.chunks(64).enumerate() {
                let sees = if column < 64 { position == 17 } else { position >= 17 };
                assert_eq!(y.iter().any(|y| y.is_nan()), sees, "column {column}, position {position}");
            }
        }
    }
}

#[test]
fn rows_beside_a_broken_sequence_are_as_if_alone() {
    let mut random = Random::new(36);
    let mut decoder = Decoder::new(&mut random, 4, 1, 32, &[8, 8]);
    decoder.sequences[0].fill(f32::INFINITY);
    let mut pool = Pool::new(2, Isa::detect()).expect("a pool");
    let alone: Vec<(usize, usize)> = rows_of((1, 8)).collect();
    let both: Vec<(usize, usize)> = (0..2).map(|s| (s, 8)).flat_map(rows_of).collect();
    let expected = decoder.step(&mut pool, &mut decoder.store(), &alone);
    let y = decoder.step(&mut pool, &mut decoder.store(), &both);
    assert_same_bits(&y[8 * 128..], &expected, "beside a broken one");
    assert!(y[..8 * 128].iter().all(|y| !y.is_finite()));
}
