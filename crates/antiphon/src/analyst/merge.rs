//! One list of entities from two finders: the patterns and the token head.
//!
//! The rule for overlaps: a pattern's find was validated (a date exists, a host is one), so **it beats the token head**.
//! A plain `number` is the exception: it is what remains when nothing knows better, so it yields to the token head.
//! Among finds of equal standing **the longer wins, then the more confident, then the earlier**.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use super::patterns::Found;

/// An entity in the text: what the token head finds, and what a merge gives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenEntity {
    /// The entity type as hosts see it.
    pub kind: String,
    /// Where it is, in UTF-8 bytes.
    pub range: Range<usize>,
    /// 0 to 1.
    pub confidence: f64,
}

/// Merges what the patterns `found` with what the token head `tagged`: in order of appearance, nothing overlapping.
pub(crate) fn merge(found: Vec<Found>, tagged: Vec<TokenEntity>) -> Vec<TokenEntity> {
    let from_patterns = found.into_iter().map(|Found { kind, range, confidence }| {
        let standing = if kind == "number" { Standing::Remainder } else { Standing::Validated };
        (standing, TokenEntity { kind: kind.to_owned(), range, confidence })
    });
    let from_head = tagged.into_iter().map(|entity| (Standing::Tagged, entity));
    let mut ranked: Vec<_> =
        from_patterns.chain(from_head).filter(|(_, entity)| !entity.range.is_empty()).collect();
    ranked.sort_by(|(standing, a), (other, b)| {
        (standing, Reverse(a.range.len()))
            .cmp(&(other, Reverse(b.range.len())))
            .then(b.confidence.total_cmp(&a.confidence))
            .then(a.range.start.cmp(&b.range.start))
    });
    let mut taken: BTreeMap<usize, TokenEntity> = BTreeMap::new();
    for (_, entity) in ranked {
        // Those taken do not overlap, so the last one that starts before our end decides.
        let nearest = taken.range(..entity.range.end).next_back();
        if nearest.is_none_or(|(_, other)| other.range.end <= entity.range.start) {
            taken.insert(entity.range.start, entity);
        }
    }
    taken.into_values().collect()
}

/// The better first.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Standing {
    Validated,
    Tagged,
    Remainder,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(kind: &'static str, range: Range<usize>) -> Found {
        Found { kind, range, confidence: 0.9 }
    }

    fn tagged(kind: &'static str, range: Range<usize>, confidence: f64) -> TokenEntity {
        TokenEntity { kind: kind.into(), range, confidence }
    }

    fn outline(entities: &[TokenEntity]) -> Vec<(&str, Range<usize>)> {
        entities.iter().map(|e| (&*e.kind, e.range.clone())).collect()
    }

    #[test]
    fn validated_pattern_beats_a_longer_tag() {
        let merged = merge(vec![found("email", 5..20)], vec![tagged("person", 0..30, 0.99)]);
        assert_eq!(outline(&merged), [("email", 5..20)]);
    }

    #[test]
    fn plain_number_yields_to_the_token_head() {
        let merged = merge(vec![found("number", 9..14)], vec![tagged("invoice_id", 8..14, 0.6)]);
        assert_eq!(outline(&merged), [("invoice_id", 8..14)]);
    }

    #[test]
    fn among_tags_the_longer_wins_then_the_more_confident_then_the_earlier() {
        let merged = merge(vec![], vec![tagged("a", 0..4, 0.9), tagged("b", 0..8, 0.5)]);
        assert_eq!(outline(&merged), [("b", 0..8)]);
        let merged = merge(vec![], vec![tagged("a", 0..4, 0.5), tagged("b", 2..6, 0.9)]);
        assert_eq!(outline(&merged), [("b", 2..6)]);
        let merged = merge(vec![], vec![tagged("b", 2..6, 0.9), tagged("a", 0..4, 0.9)]);
        assert_eq!(outline(&merged), [("a", 0..4)]);
    }

    #[test]
    fn separate_finds_all_stay_in_order_of_appearance() {
        let merged = merge(
            vec![found("money", 20..25), found("number", 0..1)],
            vec![tagged("city", 10..15, 0.7), tagged("empty", 7..7, 1.0)],
        );
        assert_eq!(outline(&merged), [("number", 0..1), ("city", 10..15), ("money", 20..25)]);
    }
}
