//! The patterns against sentences that were labelled by guidelines: `models/evaluation/grammar.jsonl`.
//!
//! Even lines served to tune the patterns, odd lines only to report; the lines from [`WRITTEN_LATER`] on were written
//! when the patterns were done. What is missed or too much is printed of the even lines alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::find;

/// Type and the span in code points.
type Span = (String, usize, usize);

#[derive(Clone, Copy, Default)]
struct Counts {
    right: usize,
    found: usize,
    labelled: usize,
}

impl Counts {
    fn f1(self) -> f64 {
        2.0 * self.right as f64 / (self.found + self.labelled).max(1) as f64
    }
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(counts: I) -> Self {
        counts.fold(Self::default(), |sum, counts| Self {
            right: sum.right + counts.right,
            found: sum.found + counts.found,
            labelled: sum.labelled + counts.labelled,
        })
    }
}

#[test]
fn labelled_sentences_are_read_above_the_floor() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/evaluation/grammar.jsonl");
    let file = std::fs::read_to_string(path).unwrap();
    // By type: the even lines, the odd lines, those written later.
    let mut counts: BTreeMap<String, [Counts; 3]> = BTreeMap::new();
    for (line, record) in (1..).zip(file.lines()) {
        let record: Value = serde_json::from_str(record).unwrap();
        let text = record["text"].as_str().unwrap();
        let (labelled, found) = (labels(text, &record), finds(text));
        let part = if line < WRITTEN_LATER { line % 2 } else { 2 };
        for span in labelled.union(&found) {
            let (is_labelled, is_found) = (labelled.contains(span), found.contains(span));
            let counts = &mut counts.entry(span.0.clone()).or_default()[part];
            counts.labelled += usize::from(is_labelled);
            counts.found += usize::from(is_found);
            counts.right += usize::from(is_labelled && is_found);
            if part == 0 && is_labelled != is_found {
                let what = if is_found { "too much" } else { "missed" };
                println!("{what}: {} {:?} in {text:?}", span.0, value(text, span));
            }
        }
    }
    for (kind, parts) in &counts {
        report(kind, parts);
    }
    let parts = [0, 1, 2].map(|part| counts.values().map(|parts| parts[part]).sum());
    report("all", &parts);
    let all: Counts = parts.into_iter().sum();
    assert!(file.lines().count() >= 300 && all.labelled >= 500);
    assert!(all.f1() >= FLOOR && parts.iter().all(|part| part.f1() >= FLOOR));
}

/// The labels of a record, after a check that its offsets are those of its values.
fn labels(text: &str, record: &Value) -> BTreeSet<Span> {
    let read = |entity: &Value| {
        let at = |name: &str| entity[name].as_u64().unwrap() as usize;
        let span = (entity["type"].as_str().unwrap().to_owned(), at("start"), at("end"));
        assert_eq!(value(text, &span), entity["value"].as_str().unwrap(), "{text:?}");
        span
    };
    record["entities"].as_array().unwrap().iter().map(read).collect()
}

/// What the patterns find, but plain numbers, which the file does not label.
fn finds(text: &str) -> BTreeSet<Span> {
    let chars = |bytes: usize| text[..bytes].chars().count();
    let found = find(text).into_iter().filter(|found| found.kind != "number");
    found.map(|f| (f.kind.to_owned(), chars(f.range.start), chars(f.range.end))).collect()
}

fn value(text: &str, (_, start, end): &Span) -> String {
    text.chars().skip(*start).take(end - start).collect()
}

fn report(kind: &str, parts: &[Counts; 3]) {
    let percent = |counts: Counts| format!("{:6.2} ({:3})", 100.0 * counts.f1(), counts.labelled);
    let [even, odd, later] = parts.map(percent);
    println!("{kind:10} F1 {} even {even} odd {odd} later {later}", percent(parts.iter().copied().sum()));
}

/// F1 by exact span and type that the patterns have to keep.
const FLOOR: f64 = 0.95;
/// The first line that was written when the patterns were done.
const WRITTEN_LATER: usize = 654;
