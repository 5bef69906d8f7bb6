//! Two ways of doing the same, timed in turns: what disturbs the machine disturbs both.

pub mod contest;
pub mod measure;
pub mod random_model;
pub mod roof;

use std::fmt;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long each of two ways took, and how many times faster ours is.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    /// Median of our calls.
    pub ours: Duration,
    /// Median of theirs.
    pub theirs: Duration,
    /// Median over the rounds of theirs / ours.
    pub ratio: f64,
    /// First and third quartile of the ratio.
    pub quartiles: (f64, f64),
}

impl Comparison {
    /// Calls both in turns, in rounds long enough for the clock, after a round that does not count.
    pub fn measure<A, B>(mut ours: impl FnMut() -> A, mut theirs: impl FnMut() -> B) -> Self {
        let (our_calls, their_calls) = (calls_in(ROUND, &mut ours), calls_in(ROUND, &mut theirs));
        let rounds: Vec<(f64, f64)> = (0..ROUNDS)
            .map(|_| (seconds_a_call(our_calls, &mut ours), seconds_a_call(their_calls, &mut theirs)))
            .collect();
        let sorted = |of: fn(&(f64, f64)) -> f64| {
            let mut values: Vec<f64> = rounds.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values
        };
        let ratios = sorted(|(ours, theirs)| theirs / ours);
        Self {
            ours: Duration::from_secs_f64(sorted(|round| round.0)[ROUNDS / 2]),
            theirs: Duration::from_secs_f64(sorted(|round| round.1)[ROUNDS / 2]),
            ratio: ratios[ROUNDS / 2],
            quartiles: (ratios[ROUNDS / 4], ratios[ROUNDS * 3 / 4]),
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let (low, high) = self.quartiles;
        write!(
            f,
            "{:>10.1} us {:>10.1} us {:>7.2} ({low:.2}-{high:.2})",
            us(self.ours),
            us(self.theirs),
            self.ratio
        )
    }
}

fn calls_in<T>(time: Duration, call: &mut impl FnMut() -> T) -> usize {
    let start = Instant::now();
    let mut calls = 0;
    while start.elapsed() < time {
        black_box(call());
        calls += 1;
    }
    calls
}

fn seconds_a_call<T>(calls: usize, call: &mut impl FnMut() -> T) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        black_box(call());
    }
    start.elapsed().as_secs_f64() / calls as f64
}

const ROUNDS: usize = 21;
const ROUND: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_other_way_has_a_ratio_above_one() {
        let sleep = |us| move || std::thread::sleep(Duration::from_micros(us));
        let comparison = Comparison::measure(sleep(100), sleep(2000));
        assert!(comparison.ratio > 1.0 && comparison.ours < comparison.theirs, "{comparison:?}");
    }
}
