//! The environment templates run in: what they may call, and how much they may use.
//!
//! Fuel bounds the steps, the writer bounds the output, and every filter and method that can build a long value from
//! short ones is replaced by one that refuses beyond [`MAX_VALUE_BYTES`]. Concatenation happens inside the engine;
//! [`super::source`] refuses templates in which it would compound. There is no loader, no clock and no file.

use std::io::{self, Write};

use minijinja::value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State, Value, filters};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::error as ours;

/// The environment with the template `chat` in it.
pub(super) fn environment(source: String) -> ours::Result<Environment<'static>> {
    let mut environment = Environment::new();
    let syntax = minijinja::syntax::SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the default delimiters are consistent"));
    environment.set_recursion_limit(RECURSION_LIMIT);
    // can build values of any size from small ones; templates of chat models do without them
    ["format", "batch", "slice", "sum", "pprint", "groupby"]
        .iter()
        .for_each(|name| environment.remove_filter(name));
    for (name, filter) in over_sequences() {
        environment.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args = args.into_values();
            let items = args.first().and_then(Value::len).unwrap_or(0);
            if items > MAX_ITEMS { Err(refused(TOO_LARGE)) } else { filter.call(state, &args) }
        });
    }
    environment.add_filter("join", join);
    environment
        .add_filter("replace", |text: String, from: String, to: String| replace(&text, &from, &to, None));
    environment.add_filter("indent", indent);
    environment.add_filter("tojson", to_json);
    environment
        .add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(refused(message)) });
    environment.set_unknown_method_callback(method);
    environment.add_template_owned(NAME, source).map_err(|error| {
        let line = error.line().unwrap_or_default();
        ours::Error::invalid(format!("the chat template, line {line}: {}", error.kind())).with_source(error)
    })?;
    Ok(environment)
}

/// Renders into `output`; the fuel grows with the number of messages.
pub(super) fn render(
    environment: &Environment<'static>,
    messages: usize,
    context: Value,
    output: &mut Capped,
) -> Result<(), Error> {
    let mut environment = environment.clone();
    environment.set_fuel(Some(BASE_FUEL + messages as u64 * FUEL_PER_MESSAGE));
    environment.get_template(NAME)?.render_captured_to(context, output).map(|_| ())
}

/// Output up to a limit.
pub(super) struct Capped {
    bytes: Vec<u8>,
    limit: usize,
}

impl Capped {
    pub(super) fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit }
    }

    pub(super) fn into_text(self) -> ours::Result<String> {
        let text = String::from_utf8(self.bytes);
        text.map_err(|_| {
            ours::Error::new(ours::ErrorKind::Internal, "the chat template's output is not UTF-8")
        })
    }
}

impl Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.limit {
            return Err(io::Error::other(TOO_LARGE));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The engine's own filters that read a whole sequence, which may be longer than memory.
fn over_sequences() -> [(&'static str, Value); 13] {
    [
        ("dictsort", Value::from_function(filters::dictsort)),
        ("list", Value::from_function(filters::list)),
        ("map", Value::from_function(filters::map)),
        ("max", Value::from_function(filters::max)),
        ("min", Value::from_function(filters::min)),
        ("reject", Value::from_function(filters::reject)),
        ("rejectattr", Value::from_function(filters::rejectattr)),
        ("reverse", Value::from_function(filters::reverse)),
        ("select", Value::from_function(filters::select)),
        ("selectattr", Value::from_function(filters::selectattr)),
        ("sort", Value::from_function(filters::sort)),
        ("string", Value::from_function(filters::string)),
        ("unique", Value::from_function(filters::unique)),
    ]
}

fn join(value: Value, joiner: Option<String>) -> Result<Value, Error> {
    let joiner = joiner.unwrap_or_default();
    let mut text = String::new();
    for (index, item) in value.try_iter()?.enumerate() {
        if index > 0 {
            text.push_str(&joiner);
        }
        match item.as_str() {
            Some(item) => text.push_str(item),
            None => text.push_str(&item.to_string()),
        }
        check_size(text.len())?;
    }
    Ok(Value::from(text))
}

fn replace(text: &str, from: &str, to: &str, count: Option<usize>) -> Result<Value, Error> {
    let matches = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
    let matches = count.map_or(matches, |count| matches.min(count));
    check_size(matches.saturating_mul(to.len()).saturating_add(text.len()))?;
    Ok(Value::from(text.replacen(from, to, matches)))
}

fn indent(
    text: String,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
) -> Result<Value, Error> {
    let width = width.unwrap_or(4);
    check_size(width.saturating_mul(text.lines().count() + 1).saturating_add(text.len()))?;
    let pad = " ".repeat(width);
    let lines = text.split('\n').enumerate().map(|(index, line)| {
        let padded =
            if index == 0 { first.unwrap_or(false) } else { blank.unwrap_or(false) || !line.is_empty() };
        if padded { format!("{pad}{line}") } else { line.to_owned() }
    });
    Ok(Value::from(lines.collect::<Vec<_>>().join("\n")))
}

/// JSON as Python writes it, which is what models have seen: no escapes for HTML.
fn to_json(value: Value, indent: Option<Value>, options: Kwargs) -> Result<Value, Error> {
    let indent = indent.or(options.get("indent")?).filter(|indent| !indent.is_none());
    for known in ["ensure_ascii", "sort_keys", "separators"] {
        _ = options.get::<Option<Value>>(known)?;
    }
    options.assert_all_used()?;
    let mut output = Capped::new(MAX_VALUE_BYTES);
    let written = match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut output, Spaced)),
        Some(indent) => {
            let width = usize::try_from(indent)?;
            check_size(width.saturating_mul(1 << 10))?;
            let pad = " ".repeat(width);
            value.serialize(&mut Serializer::with_formatter(
                &mut output,
                PrettyFormatter::with_indent(pad.as_bytes()),
            ))
        }
    };
    written.map_err(|_| refused(TOO_LARGE))?;
    String::from_utf8(output.bytes).map(Value::from).map_err(|_| refused("wrote JSON that is not UTF-8"))
}

/// `{"a": 1, "b": [2, 3]}`.
struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// The methods of Python's strings and dictionaries that templates use.
fn method(state: &mut State<'_, '_>, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if value.kind() == ValueKind::Map {
        return match name {
            "items" | "keys" | "values" => {
                let _: () = from_args(args)?;
                let keys = value.try_iter()?;
                let part = |key: Value| -> Result<Value, Error> {
                    Ok(match name {
                        "keys" => key,
                        "values" => value.get_item(&key)?,
                        _ => Value::from(vec![key.clone(), value.get_item(&key)?]),
                    })
                };
                keys.map(part).collect::<Result<Vec<_>, _>>().map(Value::from)
            }
            "get" => {
                let (key, default): (Value, Option<Value>) = from_args(args)?;
                let found = value.get_item(&key)?;
                Ok(if found.is_undefined() { default.unwrap_or(Value::from(())) } else { found })
            }
            _ => Err(Error::from(ErrorKind::UnknownMethod)),
        };
    }
    let text = value.as_str().ok_or_else(|| Error::from(ErrorKind::UnknownMethod))?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let (set,): (Option<String>,) = from_args(args)?;
            let cut = |character: char| {
                set.as_ref().map_or(character.is_whitespace(), |set| set.contains(character))
            };
            let text = if name == "rstrip" { text } else { text.trim_start_matches(cut) };
            Ok(Value::from(if name == "lstrip" { text } else { text.trim_end_matches(cut) }))
        }
        "startswith" | "endswith" => {
            let (affix,): (String,) = from_args(args)?;
            Ok(Value::from(if name == "startswith" {
                text.starts_with(&affix)
            } else {
                text.ends_with(&affix)
            }))
        }
        "split" => {
            let (separator, limit): (Option<String>, Option<i64>) = from_args(args)?;
            let pieces =
                usize::try_from(limit.unwrap_or(-1)).map_or(usize::MAX, |limit| limit.saturating_add(1));
            Ok(match separator {
                Some(separator) if separator.is_empty() => {
                    return Err(refused("splits at an empty separator"));
                }
                Some(separator) => text.splitn(pieces, &separator).map(Value::from).collect(),
                None if pieces == usize::MAX => text.split_whitespace().map(Value::from).collect(),
                None => return Err(Error::from(ErrorKind::UnknownMethod)),
            })
        }
        "replace" => {
            let (from, to, count): (String, String, Option<usize>) = from_args(args)?;
            replace(text, &from, &to, count)
        }
        "join" => {
            let (items,): (Value,) = from_args(args)?;
            join(items, Some(text.to_owned()))
        }
        "find" => {
            let (part,): (String,) = from_args(args)?;
            Ok(Value::from(text.find(&part).map_or(-1, |at| text[..at].chars().count() as i64)))
        }
        "count" => {
            let (part,): (String,) = from_args(args)?;
            Ok(Value::from(text.matches(&part).count()))
        }
        "upper" | "lower" | "title" | "capitalize" => {
            let _: () = from_args(args)?;
            state.apply_filter(name, std::slice::from_ref(value))
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

fn check_size(bytes: usize) -> Result<(), Error> {
    if bytes > MAX_VALUE_BYTES { Err(refused(TOO_LARGE)) } else { Ok(()) }
}

fn refused(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// What a template is told that builds too much.
pub(super) const TOO_LARGE: &str = "builds a value larger than it may";
const NAME: &str = "chat";
const MAX_VALUE_BYTES: usize = 4 << 20;
/// More than a string this long has letters, too: `string` and `reverse` count them.
const MAX_ITEMS: usize = 4 << 20;
const RECURSION_LIMIT: usize = 64;
const BASE_FUEL: u64 = 50_000;
const FUEL_PER_MESSAGE: u64 = 2_000;
