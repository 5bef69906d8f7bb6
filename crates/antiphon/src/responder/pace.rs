//! How many tokens of a prompt a step reads, so that those who write beside it hardly wait.

use std::time::Duration;

/// A step that also reads a prompt may take so many times as long as one that only writes.
const STRETCH: f64 = 2.2;
/// Fewer tokens would leave the matrix kernels half empty, and a prompt that is hardly read helps nobody.
const LEAST: usize = 8;
/// How much one measurement moves an average: steps on a shared machine vary.
const WEIGHT: f64 = 0.2;

/// What steps have taken so far, in seconds.
#[derive(Debug)]
pub(crate) struct Pace {
    /// The most that a step reads: what it reads where nobody waits.
    most: usize,
    /// A step in which nothing is read.
    writing: Option<f64>,
    /// What one token of a prompt adds to such a step.
    reading: Option<f64>,
}

impl Pace {
    pub(crate) fn new(most: usize) -> Self {
        Self { most, writing: None, reading: None }
    }

    /// Tokens of a prompt for the next step, when so many sequences write in it.
    pub(crate) fn chunk(&self, writers: usize) -> usize {
        match (writers, self.writing, self.reading) {
            (0, ..) => self.most,
            (_, Some(writing), Some(reading)) => {
                (((STRETCH - 1.0) * writing / reading) as usize).clamp(LEAST.min(self.most), self.most)
            }
            _ => LEAST.min(self.most),
        }
    }

    /// Learns from a step with so many who wrote, in which so many tokens of a prompt were read.
    pub(crate) fn learn(&mut self, writers: usize, read: usize, took: Duration) {
        let took = took.as_secs_f64();
        match (writers, read, self.writing) {
            (0, ..) => {}
            (_, 0, _) => blend(&mut self.writing, took),
            // A step that reads takes longer than one that does not, whatever the clock says once.
            (_, _, Some(writing)) => {
                blend(&mut self.reading, (took - writing).max(0.01 * writing) / read as f64)
            }
            (_, _, None) => {}
        }
    }
}

fn blend(average: &mut Option<f64>, value: f64) {
    *average = Some(average.map_or(value, |average| average + WEIGHT * (value - average)));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which a step takes 10 ms, and a token that is read beside it adds some.
    fn learned(added_us: u64) -> Pace {
        let mut pace = Pace::new(128);
        for _ in 0..50 {
            pace.learn(2, 0, Duration::from_millis(10));
            let read = pace.chunk(2);
            pace.learn(2, read, Duration::from_millis(10) + Duration::from_micros(added_us) * read as u32);
        }
        pace
    }

    #[test]
    fn a_prompt_is_read_as_fast_as_those_who_write_allow() {
        assert_eq!(Pace::new(128).chunk(0), 128, "nobody waits");
        assert_eq!(Pace::new(128).chunk(1), LEAST, "nothing is known yet");
        assert!((11..=12).contains(&learned(1000).chunk(2)), "12 ms of 22 for 12 tokens");
        assert_eq!(learned(10).chunk(2), 128, "a step costs much and a token little");
        assert_eq!(learned(50_000).chunk(2), LEAST, "not even one token fits");
        assert_eq!(learned(1000).chunk(0), 128);
        assert_eq!(Pace::new(4).chunk(1), 4, "the setting is the most");
    }
}
