//! Entities, by exact span and type.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::dataset::{Marked, Record, Span};
use super::metrics::{Counts, Tally, rounded};
use super::speed::{Ranking, Speed, analyze};
use super::{Dataset, EvaluationOptions, Progress};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::reply::Entity;

/// What was measured of entities, those of the patterns included: it is what a host gets.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntitiesReport {
    /// Texts.
    pub examples: usize,
    /// All types together.
    #[serde(flatten)]
    pub all: EntityScore,
    /// Each type that the file has or that was found.
    pub per_type: BTreeMap<String, EntityScore>,
    /// How long texts took.
    #[serde(flatten)]
    pub speed: Speed,
}

/// How well entities are found. An entity is right when its span and its type are those of the file.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct EntityScore {
    /// Share of found entities that are right; 0 when none was found.
    pub precision: f64,
    /// Share of the file's entities that were found; 0 when it has none.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Entities of the file.
    pub support: usize,
}

pub(super) fn measure(
    engine: &Engine,
    data: &Dataset,
    options: &EvaluationOptions,
    on_progress: &mut dyn FnMut(Progress),
) -> Result<EntitiesReport> {
    let kinds = engine.shared().analyst()?.entity_kinds();
    let marked = |record: &Record| record.marked(options.without_handles);
    let mut examples = data.records().iter().map(marked).collect::<Result<Vec<Marked>>>()?;
    // A text that was nothing but handles.
    examples.retain(|example| !options.without_handles || !example.text.is_empty());
    for example in &mut examples {
        example.spans.retain_mut(|span| match translate(&span.kind, &options.map, &kinds) {
            Some(kind) => {
                span.kind = kind;
                true
            }
            None => false,
        });
    }
    let occurring: BTreeSet<&str> =
        examples.iter().flat_map(|example| &example.spans).map(|span| span.kind.as_str()).collect();
    if occurring.is_empty() {
        return Err(Error::new(ErrorKind::InvalidArgument, "no record has an entity, expected one"));
    }
    let texts: Vec<(usize, &str)> =
        examples.iter().map(|example| (example.line, example.text.as_str())).collect();
    let (analyses, speed) = analyze(engine, &texts, Ranking::Best, on_progress)?;

    let mut tally = Tally::default();
    for (example, analysis) in examples.iter().zip(&analyses) {
        let found = analysis.entities.iter().map(span);
        let found = found.filter(|span| !options.restrict_labels || occurring.contains(span.kind.as_str()));
        count(&mut tally, &example.spans, found);
    }
    Ok(EntitiesReport {
        examples: examples.len(),
        all: EntityScore::of(tally.total()),
        per_type: tally.counts().map(|(kind, counts)| (kind.to_owned(), EntityScore::of(counts))).collect(),
        speed,
    })
}

impl EntityScore {
    fn of(counts: Counts) -> Self {
        Self {
            precision: rounded(counts.precision().unwrap_or(0.0)),
            recall: rounded(counts.recall().unwrap_or(0.0)),
            f1: rounded(counts.f1()),
            support: counts.wanted,
        }
    }
}

/// Counts one text's entities; each counts once.
fn count(tally: &mut Tally, wanted: &[Span], found: impl Iterator<Item = Span>) {
    let wanted: BTreeSet<&Span> = wanted.iter().collect();
    for span in &wanted {
        tally.label(&span.kind).wanted += 1;
    }
    for span in found.collect::<BTreeSet<_>>() {
        let counts = tally.label(&span.kind);
        counts.found += 1;
        counts.hits += usize::from(wanted.contains(&span));
    }
}

fn span(entity: &Entity) -> Span {
    Span { start: entity.chars.start, end: entity.chars.end, kind: entity.kind.clone() }
}

/// What a type of the file is called here; none: it is dropped. The map decides first; a type that the head does not have
/// is then read as its usual synonym, if the head has that.
fn translate(kind: &str, map: &BTreeMap<String, String>, kinds: &BTreeMap<&str, &str>) -> Option<String> {
    let kind = map.get(kind).map_or(kind, String::as_str);
    if kind.is_empty() {
        return None;
    }
    if let Some(known) = kinds.get(kind) {
        return Some((*known).to_owned());
    }
    let lower = kind.to_lowercase();
    let usual = SYNONYMS.iter().find(|(_, names)| names.contains(&lower.as_str())).map(|(kind, _)| *kind);
    Some(usual.filter(|kind| kinds.contains_key(kind)).unwrap_or(kind).to_owned())
}

/// What the types of the token head are called in common schemes, in lower case.
const SYNONYMS: [(&str, &[&str]); 4] = [
    ("person", &["person", "per"]),
    ("location", &["location", "loc", "gpe"]),
    ("organization", &["organization", "organisation", "org", "corporation", "company"]),
    ("product", &["product", "prod"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, end: usize, kind: &str) -> Span {
        Span { start, end, kind: kind.into() }
    }

    #[test]
    fn only_exact_spans_of_the_right_type_count() {
        let mut tally = Tally::default();
        let wanted = [span(0, 4, "person"), span(9, 13, "location"), span(20, 25, "person")];
        // Right; right span, wrong type; a character short; and one that is not there.
        let found =
            [span(0, 4, "person"), span(9, 13, "person"), span(20, 24, "person"), span(30, 31, "number")];
        count(&mut tally, &wanted, found.into_iter());
        let all = EntityScore::of(tally.total());
        assert_eq!((all.precision, all.recall, all.f1, all.support), (0.25, 0.3333, 0.2857, 3));
        let mut score = |kind: &str| EntityScore::of(*tally.label(kind));
        let person = score("person");
        assert_eq!((person.precision, person.recall, person.f1), (0.3333, 0.5, 0.4));
        assert_eq!(score("location").recall, 0.0);
        assert_eq!(score("number").support, 0);
    }

    #[test]
    fn types_are_translated_by_the_map_then_the_head_then_the_usual_names() {
        let kinds: BTreeMap<&str, &str> =
            [("person", "person"), ("place", "location"), ("location", "location")].into();
        let map: BTreeMap<String, String> = [("MISC", ""), ("GPE", "site"), ("ORG", "person")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        let of = |kind: &str| translate(kind, &map, &kinds);
        assert_eq!(of("MISC"), None);
        assert_eq!(of("GPE").as_deref(), Some("site"), "the map comes before the usual names");
        assert_eq!(of("ORG").as_deref(), Some("person"));
        assert_eq!(of("PER").as_deref(), Some("person"));
        assert_eq!(of("LOC").as_deref(), Some("location"));
        assert_eq!(of("place").as_deref(), Some("location"), "an alias of the head");
        assert_eq!(of("product").as_deref(), Some("product"), "the head has no such type");
        assert_eq!(of("order_id").as_deref(), Some("order_id"));
    }
}
