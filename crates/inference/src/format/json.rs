//! JSON from foreign files: bounded in depth and values before anything is built, duplicate keys refused.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::{Error, Result, quote};

/// What a text of JSON holds at most, counted without building anything.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Extent {
    /// Values of any kind, keys included.
    pub(crate) values: usize,
    /// Objects below the outermost one.
    pub(crate) inner_objects: usize,
    /// Items of arrays.
    pub(crate) items: usize,
    /// Bytes of the outermost object's keys.
    pub(crate) key_bytes: usize,
}

/// Parses an object of at most `max_values` values.
pub(crate) fn parse_object(file: &str, bytes: &[u8], max_values: usize) -> Result<Map<String, Value>> {
    let text = text(file, bytes)?;
    let extent = measure(file, text)?;
    if extent.values > max_values {
        return Err(Error::invalid(format!(
            "{}: {} values, expected at most {max_values}",
            quote(file),
            extent.values
        )));
    }
    match serde_json::from_str(text) {
        Ok(Unique(Value::Object(map))) => Ok(map),
        Ok(_) => Err(Error::invalid(format!("{}: expected a JSON object", quote(file)))),
        Err(error) => Err(syntax_error(file, error)),
    }
}

/// The bytes as text: UTF-8 without a byte order mark.
pub(crate) fn text<'a>(file: &str, bytes: &'a [u8]) -> Result<&'a str> {
    let what = match bytes {
        [0xEF, 0xBB, 0xBF, ..] => "begins with a byte order mark".to_owned(),
        [0xFF, 0xFE, ..] | [0xFE, 0xFF, ..] => "is UTF-16".to_owned(),
        _ => match std::str::from_utf8(bytes) {
            Ok(text) => return Ok(text),
            Err(error) => format!("invalid UTF-8 after byte {}", error.valid_up_to()),
        },
    };
    Err(Error::invalid(format!("{}: {what}, expected JSON in plain UTF-8", quote(file))))
}

/// Counts what `text` holds at most, whether or not it is valid, and refuses it where it nests too deep.
pub(crate) fn measure(file: &str, text: &str) -> Result<Extent> {
    let mut extent = Extent { values: 1, ..Extent::default() };
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    let mut is_array = 0u64; // one bit a level
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            extent.key_bytes += usize::from(depth == 1 && in_string);
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                if depth == MAX_DEPTH {
                    return Err(Error::invalid(format!(
                        "{}: nests deeper than {MAX_DEPTH} levels",
                        quote(file)
                    )));
                }
                let array = byte == b'[';
                is_array = is_array << 1 | u64::from(array);
                extent.values += 1;
                extent.items += usize::from(array);
                extent.inner_objects += usize::from(!array && depth > 0);
                depth += 1;
            }
            b'}' | b']' => {
                is_array >>= 1;
                depth = depth.saturating_sub(1);
            }
            b',' => {
                extent.values += 1;
                extent.items += usize::from(is_array & 1 == 1);
            }
            b':' => extent.values += 1,
            _ => {}
        }
    }
    Ok(extent)
}

/// What serde found wrong, with the file it was in.
pub(crate) fn syntax_error(file: &str, error: serde_json::Error) -> Error {
    let message: String = error.to_string().chars().take(MAX_MESSAGE_CHARS).collect();
    Error::invalid(format!("{}: {message}", quote(file))).with_source(error)
}

/// A value in which no object has two keys alike.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueVisitor)
    }
}

struct UniqueVisitor;

impl<'de> Visitor<'de> for UniqueVisitor {
    type Value = Unique;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Unique, E> {
        Ok(Unique(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Unique, E> {
        Ok(Unique(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Unique, E> {
        Ok(Unique(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Unique, A::Error> {
        let mut items = Vec::new();
        while let Some(Unique(item)) = access.next_element()? {
            items.push(item);
        }
        Ok(Unique(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Unique, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {}", quote(&key))));
            }
            let Unique(value) = access.next_value()?;
            map.insert(key, value);
        }
        Ok(Unique(Value::Object(map)))
    }
}

/// Deeper than any real file, and shallow enough for every stack.
const MAX_DEPTH: usize = 64;
const MAX_MESSAGE_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_extent_bounds_what_a_text_holds() {
        let text = r#"{"ab": {"c": [1, 2, 3]}, "d\"": [], "e": {}}"#;
        let extent = measure("x.json", text).expect("it is shallow");
        assert_eq!((extent.inner_objects, extent.items), (2, 4));
        assert!(extent.key_bytes >= 5 && extent.values >= 12, "{extent:?}");
        // Nonsense is counted too; the parser refuses it later.
        measure("x.json", "]]}}\"").expect("it is shallow");
    }

    #[test]
    fn a_duplicate_key_is_refused_at_any_depth() {
        let error = parse_object("x.json", br#"{"a": [{"b": 1, "b": 2}]}"#, 100).expect_err("b stands twice");
        assert!(error.to_string().contains("duplicate key `b`"), "{error}");
    }
}
