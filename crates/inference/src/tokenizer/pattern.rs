//! Which regular expressions a tokenizer file may bring.
//!
//! The dependency runs them with a backtracking engine whose limit, once reached, silently ends the splitting: wrong
//! tokens and no error. So we take the patterns of the common families by their exact text, and of the others only
//! those whose backtracking stays linear in the text: no back reference, no choice inside an unbounded repetition, and
//! no two unbounded repetitions in one sequence. With texts cut into segments (see [`super`]) the limit is then out of
//! reach.

use fancy_regex::Expr;

/// Why a pattern is refused, or nothing.
pub(super) fn refusal(pattern: &str) -> Option<&'static str> {
    if KNOWN.contains(&pattern) {
        return None;
    }
    if pattern.is_empty() || pattern.len() > MAX_PATTERN_BYTES {
        return Some("is empty or longer than 1024 bytes");
    }
    match Expr::parse_tree(pattern) {
        Err(_) => Some("is not a regular expression this crate reads"),
        Ok(tree) => check(&tree.expr, 0),
    }
}

fn check(expr: &Expr, depth: usize) -> Option<&'static str> {
    if depth > MAX_DEPTH {
        return Some("is nested too deeply");
    }
    let inner = |expr| check(expr, depth + 1);
    match expr {
        Expr::Empty
        | Expr::Any { .. }
        | Expr::Assertion(_)
        | Expr::Literal { .. }
        | Expr::Delegate { .. } => None,
        Expr::Group(child) | Expr::LookAround(child, _) | Expr::AtomicGroup(child) => inner(child),
        Expr::Alt(children) => children.iter().find_map(inner),
        Expr::Concat(children) => {
            if children.iter().filter(|child| open_ended(child)).count() > 1 {
                return Some("has two unbounded repetitions in one sequence");
            }
            children.iter().find_map(inner)
        }
        Expr::Repeat { child, hi, .. } => {
            if *hi > MAX_COUNT && has_choice(child) {
                return Some("has a choice inside an unbounded repetition");
            }
            if *hi <= MAX_COUNT && open_ended(child) {
                return Some("repeats an unbounded repetition");
            }
            inner(child)
        }
        _ => Some("uses back references or conditions"),
    }
}

/// Whether a repetition without a small bound is part of the expression.
fn open_ended(expr: &Expr) -> bool {
    match expr {
        Expr::Repeat { hi, child, .. } => *hi > MAX_COUNT || open_ended(child),
        Expr::Group(child) | Expr::AtomicGroup(child) => open_ended(child),
        Expr::Alt(children) | Expr::Concat(children) => children.iter().any(open_ended),
        _ => false,
    }
}

/// Whether the expression can match one text in more than one way, or more than one length.
fn has_choice(expr: &Expr) -> bool {
    match expr {
        Expr::Repeat { .. } | Expr::Alt(_) => true,
        Expr::Group(child) | Expr::AtomicGroup(child) | Expr::LookAround(child, _) => has_choice(child),
        Expr::Concat(children) => children.iter().any(has_choice),
        _ => false,
    }
}

/// The split of GPT-2, which the byte-level pre-tokenizer has built in.
pub(super) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The split of Llama 3.
pub(super) const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The split of Qwen 2.
pub(super) const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The split of GPT-4o.
pub(super) const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The split of Tekken (Mistral Nemo and later).
pub(super) const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const KNOWN: &[&str] = &[
    GPT2,
    LLAMA3,
    QWEN2,
    GPT4O,
    TEKKEN,
    // GPT-4's own spelling of the Llama 3 split.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    // Qwen 3.5: marks stay with their letters.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
const MAX_PATTERN_BYTES: usize = 1024;
const MAX_DEPTH: usize = 32;
/// A counted repetition up to this is a bounded one.
const MAX_COUNT: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_the_common_families_and_simple_ones_pass() {
        for pattern in KNOWN.iter().chain(&[
            r"\d",
            r"\s+",
            r"[a-z]+|[0-9]{1,3}",
            r"\p{N}{1,3}",
            " {2,}",
            r"\n+",
            "[一-龥]+",
        ]) {
            assert_eq!(refusal(pattern), None, "{pattern}");
        }
    }

    /// The dependency would end the splitting there without a word.
    #[test]
    fn known_patterns_stay_within_the_engines_limit_on_the_worst_segments() {
        let worst = [
            " ", "\n", "\t ", "a", "A", "ª", "\u{301}", "1", "!", "'", "'s", "a ", " !\n", "/\r", "Aa",
            "\u{A0}", "🦜",
        ];
        for pattern in KNOWN {
            let regex = fancy_regex::Regex::new(pattern).unwrap();
            for unit in worst {
                let segment = unit.repeat(super::super::SEGMENT_BYTES / unit.len());
                for text in [format!("{segment}x"), format!("{segment} "), segment] {
                    let mut end = 0;
                    for found in regex.find_iter(&text) {
                        let found = found.unwrap_or_else(|error| panic!("{pattern} on {unit:?}: {error}"));
                        assert_eq!(found.start(), end, "{pattern} on {unit:?}");
                        end = found.end();
                    }
                    assert_eq!(end, text.len(), "{pattern} on {unit:?}");
                }
            }
        }
    }

    #[test]
    fn catastrophic_patterns_are_refused() {
        for pattern in [
            "(a+)+b",
            "(a*)*",
            "(a|a)*(b+)*",
            "a*a*b",
            r"\s*\s+x",
            "(a|a)*b",
            "a+ ?a+",
            r"(a)\1",
            "((((a{1,9})*)*)*)*",
            "(a{2,}){3}",
            "(",
            "",
        ] {
            assert!(refusal(pattern).is_some(), "{pattern}");
        }
        assert!(refusal(&"(".repeat(600)).is_some());
    }
}
