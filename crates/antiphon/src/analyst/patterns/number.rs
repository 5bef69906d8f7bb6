//! Plain numbers: what no other kind has taken.

use std::sync::LazyLock;

use regex::Regex;

use super::context::is_whole;
use super::{Candidate, Kind, expression};

pub(super) fn find(text: &str, candidates: &mut Vec<Candidate>) {
    // 12, -3, 4.5, 4,5, 1,234.5, 3/4, 50 %
    static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
        expression(r"(?-u)[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?|[0-9]+(?:[.,/][0-9]+)?)(?:\ ?%)?")
    });
    for shape in NUMBER.find_iter(text) {
        // A sign that touches what stands before it is a hyphen.
        let joined = text[..shape.start()].ends_with(|c: char| c.is_alphanumeric() || c == ')');
        let signed = shape.as_str().starts_with(['+', '-']);
        let range = if joined && signed { shape.start() + 1..shape.end() } else { shape.range() };
        if is_whole(text, &range) {
            candidates.push(Candidate::new(Kind::Number, range, 0.9));
        }
    }
}
