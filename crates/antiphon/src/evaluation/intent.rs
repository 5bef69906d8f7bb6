//! Intents, and what is no intent of ours.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::labels::{Labels, examples};
use super::metrics::{Tally, calibration_error, rounded, share};
use super::speed::{Ranking, Speed, analyze};
use super::{Dataset, EvaluationOptions, Progress, Task};
use crate::analyst::OUT_OF_SCOPE;
use crate::engine::Engine;
use crate::error::Result;
use crate::reply::Intent;

/// What was measured of intents.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct IntentReport {
    /// Texts with a label.
    pub examples: usize,
    /// Share of right labels, out of scope being one.
    pub accuracy: f64,
    /// Mean F1 of the labels that occur.
    pub macro_f1: f64,
    /// Calibration error of the best label's probability, over in-scope texts; none without any.
    pub ece: Option<f64>,
    /// How long texts took.
    #[serde(flatten)]
    pub speed: Speed,
    /// Share of in-scope texts whose label was found; none without any.
    pub in_scope_accuracy: Option<f64>,
    /// How well foreign texts are told from ours.
    pub out_of_scope: OutOfScope,
    /// Labels that the head does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown_labels: Vec<String>,
}

/// How well foreign texts are told from ours.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct OutOfScope {
    /// Share of foreign texts that were refused; none without any.
    pub recall: Option<f64>,
    /// Share of refused texts that are foreign; none when nothing was refused.
    pub precision: Option<f64>,
}

pub(super) fn measure(
    engine: &Engine,
    data: &Dataset,
    options: &EvaluationOptions,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<IntentReport> {
    let head = engine.shared().analyst()?.intent();
    let labels = Labels::new(head, options);
    let examples = examples(data, Task::Intent, &labels, options)?;
    let occurring: BTreeSet<&str> = examples.iter().map(|example| example.label.as_str()).collect();
    let texts: Vec<(usize, &str)> =
        examples.iter().map(|example| (example.line, example.text.as_str())).collect();
    let ranking = if options.restrict_labels { Ranking::Whole } else { Ranking::Best };
    let (analyses, speed) = analyze(engine, &texts, ranking, on_progress)?;

    let mut tally = Tally::default();
    let mut predictions = Vec::new();
    let mut in_scope = (0, 0);
    for (example, analysis) in examples.iter().zip(&analyses) {
        let choice = if options.restrict_labels {
            Choice::among(&occurring, &analysis.intent, head.threshold())
        } else {
            Choice::of(&analysis.intent)
        };
        tally.add(&example.label, choice.label());
        if example.label != OUT_OF_SCOPE {
            predictions.push((choice.probability, choice.best == example.label));
            in_scope.0 += usize::from(choice.label() == example.label);
            in_scope.1 += 1;
        }
    }
    let foreign = *tally.label(OUT_OF_SCOPE);
    Ok(IntentReport {
        examples: tally.examples(),
        accuracy: rounded(tally.accuracy()),
        macro_f1: rounded(tally.macro_f1()),
        ece: calibration_error(&predictions).map(rounded),
        speed,
        in_scope_accuracy: share(in_scope.0, in_scope.1).map(rounded),
        out_of_scope: OutOfScope {
            recall: foreign.recall().map(rounded),
            precision: foreign.precision().map(rounded),
        },
        unknown_labels: labels.unknown(occurring.into_iter()),
    })
}

/// What the head says of a text.
#[derive(Debug, PartialEq)]
struct Choice<'a> {
    best: &'a str,
    /// Of the best label.
    probability: f64,
    refused: bool,
}

impl<'a> Choice<'a> {
    fn of(intent: &'a Intent) -> Self {
        let best = &intent.ranking[0];
        Self { best: &best.label, probability: best.confidence, refused: intent.out_of_scope }
    }

    /// The choice of a head that had only these labels: the others' probability is shared out. Without an example that is
    /// out of scope nothing is refused.
    fn among(labels: &BTreeSet<&str>, whole: &'a Intent, threshold: Option<f64>) -> Self {
        let allowed = || whole.ranking.iter().filter(|ranked| labels.contains(ranked.label.as_str()));
        let all: f64 = allowed().map(|ranked| ranked.confidence).sum();
        let Some(best) = allowed().next() else {
            // Not one label of the file is known: the best is as wrong as any.
            return Self::of(whole);
        };
        let probability = if all > 0.0 { best.confidence / all } else { 0.0 };
        let refused = labels.contains(OUT_OF_SCOPE) && threshold.is_some_and(|least| probability < least);
        Self { best: &best.label, probability, refused }
    }

    fn label(&self) -> &'a str {
        if self.refused { OUT_OF_SCOPE } else { self.best }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::Ranked;

    fn intent(ranking: &[(&str, f64)]) -> Intent {
        let ranked = |&(label, confidence): &(&str, f64)| Ranked { label: label.into(), confidence };
        let ranking: Vec<Ranked> = ranking.iter().map(ranked).collect();
        Intent {
            label: ranking[0].label.clone(),
            confidence: ranking[0].confidence,
            out_of_scope: false,
            ranking,
        }
    }

    #[test]
    fn among_some_labels_the_probability_of_the_others_is_shared_out() {
        let whole = intent(&[("a", 0.5), ("b", 0.3), ("c", 0.1), ("d", 0.1)]);
        let choice = Choice::among(&["b", "c"].into(), &whole, Some(0.9));
        assert_eq!((choice.label(), choice.refused), ("b", false));
        assert!((choice.probability - 0.75).abs() < 1e-12);
    }

    #[test]
    fn a_restricted_head_refuses_only_where_the_file_has_foreign_texts() {
        let whole = intent(&[("a", 0.5), ("b", 0.3), ("c", 0.2)]);
        let with_foreign: BTreeSet<&str> = ["b", "c", OUT_OF_SCOPE].into();
        assert_eq!(Choice::among(&with_foreign, &whole, Some(0.7)).label(), OUT_OF_SCOPE);
        assert_eq!(Choice::among(&with_foreign, &whole, Some(0.5)).label(), "b");
        assert_eq!(Choice::among(&["b", "c"].into(), &whole, Some(0.7)).label(), "b");
        assert_eq!(Choice::among(&with_foreign, &whole, None).label(), "b");
    }
}
