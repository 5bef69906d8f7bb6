//! The measures: pure functions of counts and samples, each with its definition.

use std::collections::BTreeMap;
use std::time::Duration;

/// How often each label was wanted, found, and both.
#[derive(Default)]
pub(super) struct Tally {
    by_label: BTreeMap<String, Counts>,
    examples: usize,
}

/// The counts of one label.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    /// In the data and found.
    pub(super) hits: usize,
    /// In the data.
    pub(super) wanted: usize,
    /// Found.
    pub(super) found: usize,
}

impl Tally {
    /// One example: what its label is, and which one was found.
    pub(super) fn add(&mut self, wanted: &str, found: &str) {
        self.examples += 1;
        self.label(wanted).wanted += 1;
        self.label(found).found += 1;
        self.label(wanted).hits += usize::from(wanted == found);
    }

    /// The counts of a label, to be raised.
    pub(super) fn label(&mut self, label: &str) -> &mut Counts {
        self.by_label.entry(label.to_owned()).or_default()
    }

    /// Every label with its counts.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.by_label.iter().map(|(label, counts)| (label.as_str(), *counts))
    }

    /// All labels together.
    pub(super) fn total(&self) -> Counts {
        self.by_label.values().fold(Counts::default(), |sum, counts| Counts {
            hits: sum.hits + counts.hits,
            wanted: sum.wanted + counts.wanted,
            found: sum.found + counts.found,
        })
    }

    pub(super) fn examples(&self) -> usize {
        self.examples
    }

    /// Share of examples whose label was found; 0 of none.
    pub(super) fn accuracy(&self) -> f64 {
        share(self.total().hits, self.examples).unwrap_or(0.0)
    }

    /// Mean F1 of the labels that occur in the data.
    pub(super) fn macro_f1(&self) -> f64 {
        self.mean(Counts::f1)
    }

    /// Mean recall of the labels that occur in the data.
    pub(super) fn macro_recall(&self) -> f64 {
        self.mean(|counts| counts.recall().unwrap_or(0.0))
    }

    fn mean(&self, of: impl Fn(&Counts) -> f64) -> f64 {
        let occurring: Vec<f64> = self.by_label.values().filter(|counts| counts.wanted > 0).map(of).collect();
        mean(&occurring).unwrap_or(0.0)
    }
}

impl Counts {
    /// Share of what was found that is right; none when nothing was found.
    pub(super) fn precision(&self) -> Option<f64> {
        share(self.hits, self.found)
    }

    /// Share of what there is that was found; none when there is nothing.
    pub(super) fn recall(&self) -> Option<f64> {
        share(self.hits, self.wanted)
    }

    /// Harmonic mean of precision and recall; 0 when there are no hits.
    pub(super) fn f1(&self) -> f64 {
        share(2 * self.hits, self.wanted + self.found).unwrap_or(0.0)
    }
}

/// Expected calibration error (Guo et al. 2017): predictions fall by their probability into [`BINS`] bins of equal width,
/// each closed above; the error is the mean over predictions of how far their bin's mean probability is from the bin's
/// share of right ones. None of no predictions.
pub(super) fn calibration_error(predictions: &[(f64, bool)]) -> Option<f64> {
    let mut bins = [(0.0, 0.0); BINS];
    for &(probability, right) in predictions {
        let bin = (probability * BINS as f64).ceil() as usize;
        let (sum, hits) = &mut bins[bin.clamp(1, BINS) - 1];
        *sum += probability;
        *hits += f64::from(u8::from(right));
    }
    // A bin's share of the predictions times its gap of means is the gap of its sums over all predictions.
    let gaps: f64 = bins.iter().map(|(sum, hits)| (sum - hits).abs()).sum();
    (!predictions.is_empty()).then(|| gaps / predictions.len() as f64)
}

/// The nearest rank, in milliseconds; 0 of no samples.
pub(super) fn quantile_ms(samples: &[Duration], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort();
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let sample = sorted.get(rank.clamp(1, sorted.len().max(1)) - 1);
    sample.map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// None of nothing.
pub(super) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// A part of a whole; none of nothing.
pub(super) fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Four digits: more are noise.
pub(super) fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

const BINS: usize = 15;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_of_three_labels_has_the_figures_of_a_hand_count() {
        let mut tally = Tally::default();
        for (wanted, found) in [("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", "c"), ("x", "a")] {
            tally.add(wanted, found);
        }
        assert_eq!(tally.examples(), 6);
        assert_eq!(tally.accuracy(), 0.5);
        let counts: BTreeMap<&str, Counts> = tally.counts().collect();
        assert_eq!(counts["a"], Counts { hits: 2, wanted: 3, found: 3 });
        assert_eq!(counts["c"], Counts { hits: 0, wanted: 0, found: 1 });
        // F1: a 2/3, b 1/2, x 0; c does not occur in the data.
        assert!((tally.macro_f1() - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
        assert!((tally.macro_recall() - (2.0 / 3.0 + 0.5) / 3.0).abs() < 1e-12);
        assert_eq!((counts["x"].precision(), counts["c"].recall()), (None, None));
    }

    #[test]
    fn calibration_error_is_the_weighted_gap_of_the_bins() {
        // Bin 12 of 15 (0.733 to 0.8]: mean 0.775, two of four right; bin 3 (0.133 to 0.2]: 0.2 against none right.
        let predictions = [(0.8, true), (0.8, false), (0.75, true), (0.75, false), (0.2, false)];
        let error = calibration_error(&predictions).unwrap();
        assert!((error - (4.0 * 0.275 + 0.2) / 5.0).abs() < 1e-12, "{error}");
        assert_eq!(calibration_error(&[(1.0, true), (0.0, false)]), Some(0.0));
        assert_eq!(calibration_error(&[]), None);
        // Errors of one bin cancel, those of two do not.
        assert!(calibration_error(&[(0.99, true), (0.95, false)]).unwrap() < 0.48);
        assert!((calibration_error(&[(0.99, true), (0.5, false)]).unwrap() - 0.255).abs() < 1e-12);
    }

    #[test]
    fn quantiles_are_the_nearest_ranks() {
        let samples: Vec<Duration> = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(quantile_ms(&samples, 0.5), 50.0);
        assert_eq!(quantile_ms(&samples, 0.99), 99.0);
        assert_eq!(quantile_ms(&samples[..1], 0.5), 100.0);
        assert_eq!(quantile_ms(&[], 0.5), 0.0);
    }
}
