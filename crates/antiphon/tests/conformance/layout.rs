//! How a conformance file is laid out: what fits stands on one line, all else an item a line.

use serde_json::Value;

/// The text of a file.
pub(crate) fn print(json: &Value) -> String {
    let mut text = String::new();
    write(json, 0, 0, &mut text);
    text.push('\n');
    text
}

/// `before` and `indent`: columns that are taken on this line, and by those that follow.
fn write(value: &Value, before: usize, indent: usize, text: &mut String) {
    let line = on_one_line(value);
    if before + line.chars().count() < WIDTH {
        return text.push_str(&line);
    }
    let (open, close, items) = match value {
        Value::Object(map) => {
            let entries = ordered(map).into_iter().map(|(key, value)| (format!("{}: ", quoted(key)), value));
            ('{', '}', entries.collect::<Vec<_>>())
        }
        Value::Array(items) => ('[', ']', items.iter().map(|item| (String::new(), item)).collect()),
        _ => return text.push_str(&line),
    };
    let inner = indent + STEP;
    text.push(open);
    for (index, (key, item)) in items.into_iter().enumerate() {
        text.push_str(if index == 0 { "\n" } else { ",\n" });
        text.push_str(&" ".repeat(inner));
        text.push_str(&key);
        write(item, inner + key.chars().count(), inner, text);
    }
    text.push('\n');
    text.push_str(&" ".repeat(indent));
    text.push(close);
}

fn on_one_line(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| format!("{}: {}", quoted(key), on_one_line(value));
            format!("{{{}}}", ordered(map).into_iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(on_one_line).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// What a reader looks for first, then the rest by name, then what is long.
fn ordered(map: &serde_json::Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    let place = |key: &str, among: &[&str]| among.iter().position(|other| *other == key);
    entries.sort_by_key(|(key, _)| {
        let first = place(key, &FIRST).unwrap_or(FIRST.len());
        (first, place(key, &LAST).map_or(0, |last| last + 1))
    });
    entries
}

fn quoted(key: &str) -> Value {
    Value::from(key)
}

const FIRST: [&str; 16] = [
    "about",
    "name",
    "needs",
    "call",
    "type",
    "code",
    "kind",
    "role",
    "message",
    "response",
    "value",
    "label",
    "confidence",
    "start",
    "end",
    "content",
];
const LAST: [&str; 5] = ["steps", "cases", "gives", "fails", "metadata"];
const STEP: usize = 2;
const WIDTH: usize = 118;
