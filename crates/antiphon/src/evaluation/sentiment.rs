//! Sentiments.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::labels::{Labels, examples};
use super::metrics::{Tally, calibration_error, rounded};
use super::speed::{Ranking, Speed, analyze};
use super::{Dataset, EvaluationOptions, Progress, Task};
use crate::engine::Engine;
use crate::error::Result;
use crate::reply::Sentiment;

/// What was measured of sentiments.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SentimentReport {
    /// Texts with a label.
    pub examples: usize,
    /// Share of right labels.
    pub accuracy: f64,
    /// Mean F1 of the labels that occur.
    pub macro_f1: f64,
    /// Mean recall of the labels that occur.
    pub macro_recall: f64,
    /// Calibration error of the best label's probability.
    pub ece: Option<f64>,
    /// How long texts took.
    #[serde(flatten)]
    pub speed: Speed,
    /// Labels that the head does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_labels: Vec<String>,
}

pub(super) fn measure(
    engine: &Engine,
    data: &Dataset,
    options: &EvaluationOptions,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<SentimentReport> {
    let labels = Labels::new(engine.shared().analyst()?.sentiment(), options);
    let examples = examples(data, Task::Sentiment, &labels, options)?;
    let occurring: BTreeSet<&str> = examples.iter().map(|example| example.label.as_str()).collect();
    let texts: Vec<(usize, &str)> =
        examples.iter().map(|example| (example.line, example.text.as_str())).collect();
    let (analyses, speed) = analyze(engine, &texts, Ranking::Best, on_progress)?;

    let mut tally = Tally::default();
    let mut predictions = Vec::with_capacity(examples.len());
    for (example, analysis) in examples.iter().zip(&analyses) {
        let among = options.restrict_labels.then_some(&occurring);
        let (label, probability) = choice(&analysis.sentiment, among);
        tally.add(&example.label, label);
        predictions.push((probability, label == example.label));
    }
    Ok(SentimentReport {
        examples: tally.examples(),
        accuracy: rounded(tally.accuracy()),
        macro_f1: rounded(tally.macro_f1()),
        macro_recall: rounded(tally.macro_recall()),
        ece: calibration_error(&predictions).map(rounded),
        speed,
        unknown_labels: labels.unknown(occurring.into_iter()),
    })
}

/// The label and its probability; among some labels, the others' probability is shared out.
fn choice<'a>(sentiment: &'a Sentiment, among: Option<&BTreeSet<&str>>) -> (&'a str, f64) {
    let whole = (sentiment.label.as_str(), sentiment.confidence);
    let Some(labels) = among else { return whole };
    let allowed = || sentiment.scores.iter().filter(|(label, _)| labels.contains(label.as_str()));
    let all: f64 = allowed().map(|(_, score)| score).sum();
    let best = allowed().reduce(|best, next| if next.1 > best.1 { next } else { best });
    best.map_or(whole, |(label, score)| (label, if all > 0.0 { score / all } else { 0.0 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn among_two_labels_the_third_is_shared_out() {
        let scores = [("negative", 0.1), ("neutral", 0.6), ("positive", 0.3)];
        let sentiment = Sentiment {
            label: "neutral".into(),
            confidence: 0.6,
            scores: scores.map(|(label, score)| (label.to_owned(), score)).into(),
        };
        assert_eq!(choice(&sentiment, None), ("neutral", 0.6));
        let (label, probability) = choice(&sentiment, Some(&["negative", "positive"].into()));
        assert_eq!(label, "positive");
        assert!((probability - 0.75).abs() < 1e-12);
        assert_eq!(choice(&sentiment, Some(&["mixed"].into())), ("neutral", 0.6));
    }
}
