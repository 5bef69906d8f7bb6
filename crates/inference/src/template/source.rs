//! A template's source before it runs: brought into the dialect of the engine, and judged by what it could build.
//!
//! `{% generation %}` blocks, which mark text for training, become blocks that are always taken. Then a look at every
//! assignment bounds how values can grow: a variable's weight is how many inputs it can be put together from. Weights
//! that compound (`{% set x = x ~ x %}`, thirty times or in a loop) mean memory that no fuel bounds, and are refused.
//! What remains is trusted like the weights it came with: a loop may add a piece at each step.

use std::collections::HashMap;

use crate::error::{Error, ErrorKind, Result};

/// The source as the engine takes it.
pub(super) fn prepared(source: &str) -> Result<String> {
    if source.trim().is_empty() || source.len() > MAX_TEMPLATE_BYTES {
        let what =
            format!("the chat template has {} bytes, expected 1 to {MAX_TEMPLATE_BYTES}", source.len());
        return Err(Error::invalid(what));
    }
    let mut prepared = String::with_capacity(source.len());
    let mut end = 0;
    for tag in tags(source) {
        let name = match tag.body {
            "generation" => "if true",
            "endgeneration" => "endif",
            _ => continue,
        };
        prepared.push_str(&source[end..tag.start]);
        prepared.push_str(name);
        end = tag.start + tag.body.len();
    }
    prepared.push_str(&source[end..]);
    judge(&prepared)?;
    Ok(prepared)
}

/// What stands inside `{% … %}` or `{{ … }}`, without the marks for white space.
struct Tag<'a> {
    body: &'a str,
    start: usize,
}

fn tags(source: &str) -> Vec<Tag<'_>> {
    let mut tags = Vec::new();
    let mut at = 0;
    while let Some(found) = source[at..].find('{') {
        let open = at + found;
        let close = match source.as_bytes().get(open + 1) {
            Some(b'%') => "%}",
            Some(b'{') => "}}",
            Some(b'#') => {
                at = source[open..].find("#}").map_or(source.len(), |end| open + end + 2);
                continue;
            }
            _ => {
                at = open + 1;
                continue;
            }
        };
        let inside = open + 2;
        let end = inside + end_of_tag(&source[inside..], close);
        let body = source[inside..end].trim_start_matches(['-', '+']).trim_start();
        let start = end - body.len();
        tags.push(Tag { body: body.trim_end_matches(['-', '+']).trim_end(), start });
        at = (end + 2).min(source.len());
    }
    tags
}

/// Where the tag ends; `close` inside a string does not count.
fn end_of_tag(text: &str, close: &str) -> usize {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            _ if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), _) if open == character => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(character),
            (None, _) if text[at..].starts_with(close) => return at,
            (None, _) => {}
        }
    }
    text.len()
}

/// Refuses sources whose values compound.
fn judge(source: &str) -> Result<()> {
    let refuse = |what: &str| Err(Error::new(ErrorKind::Unsupported, format!("the chat template {what}")));
    let mut flows = Vec::new();
    let mut macros: HashMap<&str, Vec<&str>> = HashMap::new();
    let tags = tags(source);
    let lists: Vec<Vec<Lexeme<'_>>> = tags.iter().map(|tag| lexemes(tag.body)).collect();
    for list in &lists {
        match list.as_slice() {
            [Lexeme::Name("call" | "filter"), ..] => return refuse("uses a call or filter block"),
            [Lexeme::Name("for"), rest @ ..] if rest.last() == Some(&Lexeme::Name("recursive")) => {
                return refuse("uses a recursive loop");
            }
            [Lexeme::Name("macro"), Lexeme::Name(name), parameters @ ..] => {
                let names = arguments(parameters).into_iter().filter_map(|argument| match argument.first() {
                    Some(Lexeme::Name(name)) => Some(*name),
                    _ => None,
                });
                macros.insert(name, names.collect());
            }
            _ => {}
        }
    }
    let mut captures: Vec<&str> = Vec::new();
    for list in &lists {
        match list.as_slice() {
            [Lexeme::Name("set"), rest @ ..] | [Lexeme::Name("with"), rest @ ..] => {
                let assigned = rest.iter().position(|lexeme| *lexeme == Lexeme::Sign('='));
                let names = rest[..assigned.unwrap_or(rest.len())].iter().filter_map(Lexeme::name);
                match assigned {
                    Some(at) => names.for_each(|name| flows.push((name, &rest[at + 1..]))),
                    None if list[0] == Lexeme::Name("set") => captures.extend(names.take(1)),
                    None => {}
                }
            }
            [Lexeme::Name("endset"), ..] => _ = captures.pop(),
            [Lexeme::Name("for"), rest @ ..] => {
                let place =
                    rest.iter().position(|lexeme| *lexeme == Lexeme::Name("in")).unwrap_or(rest.len());
                let (names, value) = rest.split_at(place);
                names.iter().filter_map(Lexeme::name).for_each(|name| flows.push((name, value)));
            }
            _ => {}
        }
        if list
            .windows(2)
            .any(|pair| pair[1] == Lexeme::Sign('*') && !matches!(pair[0], Lexeme::Text(0..=MAX_REPEATED)))
        {
            return refuse("multiplies something other than a short string");
        }
        if list.contains(&Lexeme::LongNumber) {
            return refuse("has a number of more than 4 digits");
        }
        captures.iter().for_each(|name| flows.push((name, list)));
        for (at, lexeme) in list.iter().enumerate() {
            let Some(parameters) = lexeme.name().and_then(|name| macros.get(name)) else { continue };
            if list.first() != Some(&Lexeme::Name("macro")) {
                parameters
                    .iter()
                    .zip(arguments(&list[at + 1..]))
                    .for_each(|(name, value)| flows.push((name, value)));
            }
        }
    }
    let mut weights: HashMap<&str, u64> = HashMap::new();
    for _ in 0..PASSES {
        for (name, value) in &flows {
            let weight = weigh(value, &weights);
            let held = weights.entry(name).or_insert(1);
            *held = (*held).max(weight);
            if *held > MAX_WEIGHT {
                return refuse("puts values together that would grow without bound");
            }
        }
    }
    Ok(())
}

/// How many inputs the value is put together from: all of its names if it concatenates, else the heaviest.
fn weigh(value: &[Lexeme<'_>], weights: &HashMap<&str, u64>) -> u64 {
    let grows =
        value.iter().any(|lexeme| matches!(lexeme, Lexeme::Sign('~' | '+' | '*') | Lexeme::Name("join")));
    let repeats = value.contains(&Lexeme::Sign('*'));
    let mut condition = false;
    let (mut sum, mut heaviest) = (0_u64, 1);
    for lexeme in value {
        match lexeme {
            Lexeme::Name("if") => condition = true,
            Lexeme::Name("else") => condition = false,
            Lexeme::Name(name) if !condition => {
                // `ns.text` is known by its path, `message.content` by its first name
                let first = name.split('.').next().unwrap_or(name);
                let weight = weights.get(name).or_else(|| weights.get(first)).copied();
                sum = sum.saturating_add(weight.unwrap_or(u64::from(!name.starts_with('.'))));
                heaviest = heaviest.max(weight.unwrap_or(1));
            }
            _ => {}
        }
    }
    if grows { sum.max(1).saturating_mul(if repeats { REPEAT_WEIGHT } else { 1 }) } else { heaviest }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lexeme<'a> {
    /// A name with its attributes.
    Name(&'a str),
    /// A string of so many bytes.
    Text(usize),
    /// A number that no prompt needs, but a bomb does.
    LongNumber,
    Sign(char),
}

impl<'a> Lexeme<'a> {
    fn name(&self) -> Option<&'a str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Text(_) | Self::LongNumber | Self::Sign(_) => None,
        }
    }
}

/// Names, strings and signs; short numbers and filters' names carry no weight and are left out.
fn lexemes(body: &str) -> Vec<Lexeme<'_>> {
    let mut lexemes = Vec::new();
    let mut at = 0;
    while let Some(character) = body[at..].chars().next() {
        let rest = &body[at..];
        if character == '"' || character == '\'' {
            let length = end_of_string(&rest[1..], character);
            lexemes.push(Lexeme::Text(length));
            at += 2 + length;
        } else if character.is_alphanumeric() || matches!(character, '_' | '.') {
            let length =
                rest.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.'))).unwrap_or(rest.len());
            let word = &rest[..length];
            let filter = lexemes.last() == Some(&Lexeme::Sign('|')) && word != "join";
            let literal = matches!(
                word,
                "true" | "false" | "none" | "True" | "False" | "None" | "not" | "and" | "or" | "is"
            );
            if character.is_ascii_digit() {
                lexemes.extend((length > MAX_DIGITS).then_some(Lexeme::LongNumber));
            } else if !filter && !literal {
                lexemes.push(Lexeme::Name(word));
            }
            at += length;
        } else {
            if !character.is_whitespace() {
                lexemes.push(Lexeme::Sign(character));
            }
            at += character.len_utf8();
        }
        at = at.min(body.len());
    }
    lexemes
}

fn end_of_string(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return at,
            _ => {}
        }
    }
    text.len()
}

/// The arguments of a call: what stands between its commas, without `name=`.
fn arguments<'a, 'b>(call: &'b [Lexeme<'a>]) -> Vec<&'b [Lexeme<'a>]> {
    let mut arguments = Vec::new();
    let (mut depth, mut start) = (0, 1);
    for (at, lexeme) in call.iter().enumerate() {
        match lexeme {
            Lexeme::Sign('(' | '[' | '{') => depth += 1,
            Lexeme::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        let comma = *lexeme == Lexeme::Sign(',') && depth == 1;
        if comma || depth == 0 {
            arguments.extend(call.get(start..at).filter(|argument| !argument.is_empty()));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    arguments
}

const MAX_TEMPLATE_BYTES: usize = 64 << 10;
/// How often the flows are followed: loops that compound pass the limit within these.
const PASSES: usize = 16;
const MAX_WEIGHT: u64 = 4096;
/// What a repetition counts for.
const REPEAT_WEIGHT: u64 = 1024;
const MAX_DIGITS: usize = 4;
/// The longest string that may be repeated: indentation.
const MAX_REPEATED: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_blocks_become_blocks_that_are_taken() {
        let source = "{%- generation -%}{{ x }}{% endgeneration %}{{ '{% generation %}' }}";
        assert_eq!(prepared(source).unwrap(), "{%- if true -%}{{ x }}{% endif %}{{ '{% generation %}' }}");
    }

    #[test]
    fn values_that_compound_are_refused() {
        let straight: String = (0..30).map(|n| format!("{{% set a{} = a{n} ~ a{n} %}}", n + 1)).collect();
        for bomb in [
            "{% set x = x ~ x %}".repeat(30).as_str(),
            &straight,
            "{% for i in range(40) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
            "{% for i in range(40) %}{% set x %}{{ x ~ x }}{% endset %}{% endfor %}",
            "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('a') }}",
            "{% for a in [b ~ b] %}{% for b in [a ~ a] %}{% endfor %}{% endfor %}",
            "{% set x = 'a' * 1000 %}{% set y = x * 1000 %}{% set z = y * 1000 %}",
            "{{ 'a' * 90000000 }}",
        ] {
            assert!(prepared(bomb).is_err(), "{bomb}");
        }
    }

    #[test]
    fn assignments_that_add_a_piece_at_a_time_pass() {
        for source in [
            "{% set content = content if content else '' %}",
            "{% set ns.text = ns.text + message.content %}{% set ns.index = ns.index + 1 %}",
            "{% set messages = [{'role': 'system', 'content': ''}] + messages %}",
            "{% set content = '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' ~ message['content'] %}",
            "{% macro show(value, depth) %}{{ '  ' * depth }}{{ show(value.inner, depth + 1) }}{% endmacro %}",
        ] {
            assert!(prepared(source).is_ok(), "{source}");
        }
    }
}
