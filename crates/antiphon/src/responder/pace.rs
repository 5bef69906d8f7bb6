//! How many tokens of a prompt a step reads, so that those who write beside it hardly wait.

use std::collections::VecDeque;
use std::time::Duration;

use antiphon_inference::decoder::DecoderConfig;

/// A step that also reads a prompt may take so many times as long as one that only writes: 2.5 is promised, and steps vary.
const STRETCH: f64 = 2.43;
/// A prompt that is read at so much of its speed alone is read fast enough: 0.6 is promised, and steps vary. What is left makes steps
/// shorter.
const ENOUGH: f64 = 0.68;
/// A prompt that is hardly read helps nobody.
const LEAST: usize = 4;
/// How many measurements of a kind count.
const REMEMBERED: usize = 15;
/// What is not known yet is found out in steps of growing chunks: few tokens cost little beside the weights that are read anyway,
/// and say little about many.
const GROWTH: usize = 2;
/// How many products of 8-bit weights take as long as one of attention: an estimate. It only says how the cost of a token grows
/// along a prompt; what the cost is, is measured.
const ATTENTION: f64 = 3.0;

/// What steps have taken so far, in seconds.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The most that a step reads: what it reads where nobody waits.
    most: usize,
    /// By how much a token costs more for each position before it.
    slope: f64,
    /// What the first token of a prompt takes where nobody writes and as many are read as may be.
    alone: Recent,
    /// A step in which nothing is read.
    writing: Recent,
    /// What the first token of a prompt would add to such a step.
    reading: Recent,
    /// The same, as the first steps of a prompt said it. With that the next one begins: what the end of a prompt says of its beginning
    /// hangs on the slope.
    opening: Recent,
    /// Measurements of this prompt so far.
    measured: usize,
    /// What the last such step has read.
    last: usize,
    /// Where the last step began to read; 0 where it did not.
    position: usize,
}

/// The last measurements of a kind. Steps on a shared machine vary, and what one takes that others interrupt says nothing: what is
/// usual is their median.
#[derive(Clone, Debug, Default)]
struct Recent(VecDeque<f64>);

impl Pace {
    pub(crate) fn new(most: usize, config: &DecoderConfig) -> Self {
        let width = config.heads * config.head_dim;
        let shared = (config.heads + 2 * config.kv_heads) * config.head_dim;
        let layer = config.hidden * (shared + width + 3 * config.ffn);
        Self::with(most, ATTENTION * (2 * width) as f64 / layer as f64)
    }

    fn with(most: usize, slope: f64) -> Self {
        Self {
            most,
            slope,
            alone: Recent::default(),
            writing: Recent::default(),
            reading: Recent::default(),
            opening: Recent::default(),
            measured: 0,
            last: 0,
            position: 0,
        }
    }

    /// Tokens of a prompt for the next step, from this position on, when so many sequences write in it. A position before the last one
    /// is that of another prompt.
    pub(crate) fn chunk(&mut self, writers: usize, position: usize) -> usize {
        if position < self.position {
            self.measured = 0;
            self.reading = self.opening.clone();
        }
        self.position = position;
        let least = LEAST.min(self.most);
        match (writers, self.writing.usual(), self.reading.usual()) {
            (0, ..) => self.most,
            (_, Some(writing), Some(reading)) => {
                let cost = self.cost(position);
                let (reading, alone) = (reading * cost, self.alone.usual().map(|alone| alone * cost));
                let longest = (STRETCH - 1.0) * writing / reading;
                // n tokens that take n alone of their own and writing + n reading here, where the one is ENOUGH of the other.
                let spared = alone.map_or(0.0, |alone| alone - ENOUGH * reading);
                let fit = if spared > 0.0 { longest.min(ENOUGH * writing / spared) } else { longest };
                (fit as usize).min(GROWTH * self.last).clamp(least, self.most)
            }
            _ => least,
        }
    }

    /// Learns from a step with so many who wrote, in which so many tokens of a prompt were read from this position on.
    pub(crate) fn learn(&mut self, writers: usize, read: usize, position: usize, took: Duration) {
        let took = took.as_secs_f64();
        match (writers, read, self.writing.usual()) {
            (0, ..) => {
                // The rest of a prompt, if it is small, says what weights cost, not tokens.
                if read == self.most {
                    self.alone.learn(took / (read as f64 * self.cost(position + read / 2)));
                }
            }
            (_, 0, _) => self.writing.learn(took),
            // A step that reads takes longer than one that does not, whatever the clock says once.
            (_, _, Some(writing)) => {
                let added = (took - writing).max(0.01 * writing);
                self.reading.learn(added / (read as f64 * self.cost(position)));
                self.last = read;
                self.measured += 1;
                if self.measured <= REMEMBERED {
                    self.opening = self.reading.clone();
                }
            }
            (_, _, None) => {}
        }
    }

    /// Of a token at this position, where the first one costs one.
    fn cost(&self, position: usize) -> f64 {
        1.0 + self.slope * position as f64
    }
}

impl Recent {
    fn learn(&mut self, value: f64) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(value);
    }

    fn usual(&self) -> Option<f64> {
        let mut values: Vec<f64> = self.0.iter().copied().collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a step takes 10 ms, and a token that is read beside it adds some.
    fn learned(added_us: u64) -> Pace {
        let mut pace = Pace::with(128, 0.0);
        for _ in 0..50 {
            pace.learn(2, 0, 0, Duration::from_millis(10));
            let read = pace.chunk(2, 0);
            pace.learn(2, read, 0, Duration::from_millis(10) + Duration::from_micros(added_us) * read as u32);
        }
        pace
    }

    #[test]
    fn a_prompt_is_read_as_fast_as_those_who_write_allow() {
        assert_eq!(Pace::with(128, 0.0).chunk(0, 0), 128, "nobody waits");
        assert_eq!(Pace::with(128, 0.0).chunk(1, 0), LEAST, "nothing is known yet");
        assert!((13..=14).contains(&learned(1000).chunk(2, 0)), "14 ms of 24.3 for 14 tokens");
        assert_eq!(learned(10).chunk(2, 0), 128, "a step costs much and a token little");
        assert_eq!(learned(50_000).chunk(2, 0), LEAST, "not even one token fits");
        assert_eq!(learned(1000).chunk(0, 0), 128);
        assert_eq!(Pace::with(3, 0.0).chunk(1, 0), 3, "the setting is the most");
    }

    #[test]
    fn what_a_prompt_does_not_need_makes_steps_shorter() {
        let mut pace = learned(1000);
        pace.learn(0, 100, 0, Duration::from_secs(1));
        assert!((13..=14).contains(&pace.chunk(2, 0)), "the rest of a prompt says nothing");
        pace.learn(0, 128, 0, Duration::from_micros(128 * 1300));
        assert_eq!(pace.chunk(2, 0), 10, "10.97 tokens would take 14.3 ms alone and 21 here, so 0.68");
        let mut pace = learned(1000);
        pace.learn(0, 128, 0, Duration::from_micros(128 * 900));
        assert!((13..=14).contains(&pace.chunk(2, 0)), "0.68 is more than a step of 24.3 ms gives");
    }

    #[test]
    fn what_is_not_known_is_found_out_by_and_by() {
        let mut pace = Pace::with(128, 0.0);
        pace.learn(1, 0, 0, Duration::from_millis(10));
        let read = pace.chunk(1, 0);
        pace.learn(1, read, 0, Duration::from_millis(10));
        assert_eq!(pace.chunk(1, 0), GROWTH * read, "that they cost nothing is not believed of many");
    }

    #[test]
    fn steps_that_something_interrupted_change_nothing() {
        let mut pace = learned(1000);
        let usual = pace.chunk(1, 0);
        for _ in 0..3 {
            pace.learn(1, 0, 0, Duration::from_millis(50));
            pace.learn(1, usual, 0, Duration::from_millis(200));
        }
        assert_eq!(pace.chunk(1, 0), usual);
    }

    #[test]
    fn a_prompt_begins_with_what_the_beginning_of_the_last_one_taught() {
        // The estimate is that tokens cost more and more, and they do not.
        let mut pace = Pace::with(128, 0.002);
        let mut prompt = || {
            let (mut position, mut gaps) = (0, Vec::new());
            while position < 2000 {
                pace.learn(1, 0, 0, Duration::from_millis(10));
                let read = pace.chunk(1, position);
                gaps.push(10.0 + read as f64);
                pace.learn(1, read, position, Duration::from_secs_f64(gaps[gaps.len() - 1] / 1e3));
                position += read;
            }
            gaps
        };
        prompt();
        let second = prompt();
        assert!(second.iter().all(|gap| (18.0..28.0).contains(gap)), "{second:?}");
    }

    #[test]
    fn tokens_late_in_a_prompt_cost_more_and_the_next_prompt_begins_afresh() {
        let mut pace = Pace::with(128, 0.002);
        let mut gaps = Vec::new();
        for position in (0..2000).step_by(10) {
            pace.learn(1, 0, 0, Duration::from_millis(10));
            let read = pace.chunk(1, position);
            let took = 10.0 + 0.25 * read as f64 * (1.0 + 0.002 * position as f64);
            gaps.push(took);
            pace.learn(1, read, position, Duration::from_secs_f64(took / 1e3));
        }
        assert!(gaps[10..].iter().all(|gap| (22.0..24.5).contains(gap)), "{gaps:?}");
        assert!(pace.chunk(1, 0) > pace.chunk(1, 2000));
    }
}
