//! The most telling sentences of a text: those that together cover most of what it is about in few words, near its centre
//! and its beginning, and unlike each other.

use antiphon_kernels::ops;

use super::split::Sentence;
use super::words::Words;
use crate::engine::Engine;
use crate::error::Result;
use crate::passes::{self, Quick};
use crate::ticket::{Ticket, ticket};

/// A sentence that may be part of the summary.
struct Candidate {
    index: usize,
    vector: Vec<f32>,
}

/// The indices of the `wanted` most telling sentences, ascending.
///
/// A long text is read in sections: the best of each meet in a final round, so that memory is bounded by a section and time
/// is linear in the text. Where more are wanted than a final round holds, each section gives its share.
pub(super) async fn extract(
    engine: &Engine,
    sentences: &[Sentence<'_>],
    wanted: usize,
) -> Result<Vec<usize>> {
    let words = Words::new(sentences);
    let count = sentences.len();
    let sections = count.div_ceil(SECTION_SENTENCES);
    let has_final = wanted < sections * FINALISTS;
    let mut finalists = Vec::new();
    let mut centre = Vec::new();
    for section in 0..sections {
        let (start, end) = (section * count / sections, (section + 1) * count / sections);
        let vectors = vectors(engine, &sentences[start..end]).await?;
        let own_centre = mean(&vectors);
        let share = wanted * end / count - wanted * start / count;
        let places = if has_final { wanted.min(FINALISTS) } else { share };
        add(&mut centre, &own_centre);
        let candidates =
            (start..end).zip(vectors).map(|(index, vector)| Candidate { index, vector }).collect();
        let best = pick(&words, candidates, &own_centre, places).into_iter();
        // Without a final round nobody asks for the vectors again.
        let keep = |best: Candidate| if has_final { best } else { Candidate { vector: Vec::new(), ..best } };
        finalists.extend(best.map(keep));
    }
    if sections > 1 && has_final {
        ops::l2_normalize(&mut centre);
        finalists = pick(&words, finalists, &centre, wanted);
    }
    let mut chosen: Vec<usize> = finalists.into_iter().map(|candidate| candidate.index).collect();
    chosen.sort_unstable();
    Ok(chosen)
}

/// Takes `wanted` candidates one after the other, each time the one that adds most.
///
/// What a choice is worth is the F measure that its words can be expected to have against a summary of the text: twice the
/// chances of its distinct words over its length and the summary's. A word that is there already adds nothing, which keeps
/// repetition out; so does nearness of vectors (maximal marginal relevance, Carbonell and Goldstein 1998).
fn pick(words: &Words, mut candidates: Vec<Candidate>, centre: &[f32], wanted: usize) -> Vec<Candidate> {
    let expected = words.mean_length() * wanted as f32 * EXPECTED_SHARE;
    let merit = |candidate: &Candidate| {
        let short = if words.is_short(candidate.index) { SHORT } else { 0.0 };
        let place = words.place(candidate.index);
        let lead = place.map_or(-FILLER, |place| LEAD * (-(place as f32) / LEAD_SENTENCES).exp());
        lead + CENTRAL * ops::dot(&candidate.vector, centre) - short
    };
    let merits: Vec<f32> = candidates.iter().map(merit).collect();
    let mut nearest = vec![0.0_f32; candidates.len()];
    let mut taken = vec![false; candidates.len()];
    let mut covered = vec![false; words.vocabulary()];
    let (mut hits, mut length) = (0.0, 0.0);
    for _ in 0..wanted.min(candidates.len()) {
        let gain = |place: usize| -> f32 {
            let new = words.of(candidates[place].index).iter().filter(|&&word| !covered[word as usize]);
            new.map(|&word| words.chance(word)).sum()
        };
        let value = |place: usize| {
            let length = length + words.length(candidates[place].index) + expected;
            2.0 * (hits + gain(place)) / length.max(1.0) + merits[place] - ALIKE * nearest[place]
        };
        let free = (0..candidates.len()).filter(|&place| !taken[place]);
        let best = free.map(|place| (place, value(place))).reduce(|a, b| if b.1 > a.1 { b } else { a });
        let Some((best, _)) = best else { break };
        hits += gain(best);
        length += words.length(candidates[best].index);
        words.of(candidates[best].index).iter().for_each(|&word| covered[word as usize] = true);
        taken[best] = true;
        for (near, candidate) in nearest.iter_mut().zip(&candidates) {
            *near = near.max(ops::dot(&candidate.vector, &candidates[best].vector));
        }
    }
    let mut taken = taken.into_iter();
    candidates.retain(|_| taken.next().unwrap_or_default());
    candidates
}

/// The sentences' vectors. They are asked for in slices of one pass, one after the other: whatever else the engine has to do
/// comes in between.
async fn vectors(engine: &Engine, sentences: &[Sentence<'_>]) -> Result<Vec<Vec<f32>>> {
    let mut vectors = Vec::with_capacity(sentences.len());
    let mut rest = sentences;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |sentence: &&Sentence<'_>| {
            bytes += clip(sentence.text).len() + SLICE_BYTES / SLICE_SENTENCES;
            bytes <= SLICE_BYTES
        };
        let (slice, left) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        vectors.extend(embed(engine, slice).await?);
        rest = left;
    }
    Ok(vectors)
}

fn embed(engine: &Engine, sentences: &[Sentence<'_>]) -> Ticket<Vec<Vec<f32>>> {
    let (ticket, answer) = ticket();
    let submit = || {
        let shared = engine.shared();
        let analyst = shared.analyst()?;
        let prepare = |sentence: &Sentence<'_>| analyst.prepare(clip(sentence.text).to_owned());
        let texts = sentences.iter().map(prepare).collect::<Result<Vec<_>>>()?;
        shared.queue.submit_quick(passes::bytes(&texts), || Quick::Embed(texts, answer))
    };
    match submit() {
        Ok(()) => ticket,
        Err(error) => Ticket::ready(Err(error)),
    }
}

/// As much of a sentence as its vector is taken from.
fn clip(text: &str) -> &str {
    &text[..text.floor_char_boundary(CLIP_BYTES)]
}

/// The direction of the mean.
fn mean(vectors: &[Vec<f32>]) -> Vec<f32> {
    let mut mean = Vec::new();
    vectors.iter().for_each(|vector| add(&mut mean, vector));
    ops::l2_normalize(&mut mean);
    mean
}

fn add(sum: &mut Vec<f32>, vector: &[f32]) {
    sum.resize(vector.len(), 0.0);
    sum.iter_mut().zip(vector).for_each(|(sum, x)| *sum += x);
}

// The weights were fitted on dialogues with their summaries, for three sentences; what they stand beside, the expected F
// measure, is a number between 0 and 1.

/// The summary that is expected, in mean sentences for each one that is wanted.
const EXPECTED_SHARE: f32 = 1.0 / 3.0;
/// The bonus of the first sentence that is about something, and over how many it fades by a factor of e.
const LEAD: f32 = 0.05;
const LEAD_SENTENCES: f32 = 2.0;
/// The bonus of a sentence at the text's centre.
const CENTRAL: f32 = 0.05;
/// What a sentence of hardly a word loses.
const SHORT: f32 = 0.03;
/// What a sentence loses that is about nothing.
const FILLER: f32 = 0.06;
/// What a sentence loses that means the same as one that is there.
const ALIKE: f32 = 0.02;

/// Sentences of a section.
const SECTION_SENTENCES: usize = 512;
/// Most sentences of a section that meet those of others.
const FINALISTS: usize = 8;
/// A slice takes about one pass of the encoder.
const SLICE_BYTES: usize = 4096;
const SLICE_SENTENCES: usize = 64;
/// Of a longer sentence the beginning has to do.
const CLIP_BYTES: usize = 512;
