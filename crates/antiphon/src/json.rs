//! Objects that hosts hand in as JSON: read strictly. What is wrong is named by its place, and no string is repeated, which
//! could be a user's text or a secret.

use std::fmt::{self, Display};

use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

/// Reads an object that is called `what` in errors, which are of this kind.
pub(crate) fn read<T: DeserializeOwned>(kind: ErrorKind, what: &str, json: &str) -> Result<T> {
    let value = serde_json::from_str(json).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Error::new(kind, format!("{what} is not JSON at line {line}, column {column}, expected an object"))
    })?;
    T::deserialize(Strict(value)).map_err(|fault| {
        let place =
            if fault.place.is_empty() { what.to_owned() } else { format!("{what}: `{}`", fault.place) };
        Error::new(kind, format!("{place} {}", fault.what))
    })
}

/// What is wrong, and where.
#[derive(Debug)]
struct Fault {
    place: String,
    what: String,
}

impl Fault {
    fn new(what: String) -> Self {
        Self { place: String::new(), what }
    }

    /// The same, in that part of a whole.
    fn within(mut self, part: &str) -> Self {
        let joint = if self.place.is_empty() || self.place.starts_with('[') { "" } else { "." };
        self.place = format!("{part}{joint}{}", self.place);
        self
    }
}

impl Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(what: T) -> Self {
        Self::new(format!("is not as expected: {what}"))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(value) => value.to_string(),
            Unexpected::Unsigned(number) => number.to_string(),
            Unexpected::Signed(number) => number.to_string(),
            Unexpected::Float(number) => number.to_string(),
            Unexpected::Str(_) => "a string".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "an object".to_owned(),
            Unexpected::Unit | Unexpected::Option => "null".to_owned(),
            _ => "something else".to_owned(),
        };
        Self::new(format!("is {found}, expected {}", in_words(&expected.to_string())))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("is none of these, expected one of: {}", expected.join(", ")))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(format!("has the unknown key `{field}`, expected one of: {}", expected.join(", ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(format!("lacks the key `{field}`"))
    }
}

/// What serde expects, without the names of Rust.
fn in_words(expected: &str) -> &str {
    match expected {
        "a sequence" => "a list",
        "a map" => "an object",
        "a boolean" => "true or false",
        "f32" | "f64" => "a number",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number of at least 0",
        "i32" | "i64" => "a whole number",
        of_rust if of_rust.starts_with("struct ") => "an object",
        words => words,
    }
}

/// A value that is taken for what it is: serde would take a list for an object, too, its fields in their order.
struct Strict(Value);

impl<'de> Deserializer<'de> for Strict {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(value),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(values) => visitor.visit_seq(Items { values: values.into_iter(), index: 0 }),
            Value::Object(keys) => visitor.visit_map(Entries { keys: keys.into_iter(), next: None }),
            Value::Number(number) => {
                if let Some(number) = number.as_u64() {
                    visitor.visit_u64(number)
                } else if let Some(number) = number.as_i64() {
                    visitor.visit_i64(number)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or(f64::NAN))
                }
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0 {
            Value::Array(_) => Err(de::Error::invalid_type(Unexpected::Seq, &visitor)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        // All enums that hosts write are names.
        let name: StringDeserializer<Fault> = String::deserialize(self)?.into_deserializer();
        visitor.visit_enum(name)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

struct Items {
    values: std::vec::IntoIter<Value>,
    index: usize,
}

impl<'de> SeqAccess<'de> for Items {
    type Error = Fault;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        let Some(value) = self.values.next() else { return Ok(None) };
        let place = format!("[{}]", self.index);
        self.index += 1;
        seed.deserialize(Strict(value)).map(Some).map_err(|fault| fault.within(&place))
    }
}

struct Entries {
    keys: serde_json::map::IntoIter,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = Fault;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Fault> {
        self.next = self.keys.next();
        self.next.as_ref().map(|(key, _)| seed.deserialize(Key(key.clone()))).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Fault> {
        let (key, value) = self.next.take().unwrap_or_default();
        seed.deserialize(Strict(value)).map_err(|fault| fault.within(&key))
    }
}

/// A key: a name, or a number by its digits.
struct Key(String);

impl<'de> Deserializer<'de> for Key {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_string(self.0)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.parse() {
            Ok(number) => visitor.visit_u32(number),
            Err(_) => Err(Fault::new(format!("has a key that is not {}", in_words("u32")))),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use crate::{EngineConfig, Request};

    #[test]
    fn a_wrong_value_is_named_by_its_place_and_not_repeated() {
        let config = |json| EngineConfig::from_json(json).unwrap_err().to_string();
        let request = |rest: &str| {
            let json = format!(r#"{{"message": "x", {rest}}}"#);
            Request::from_json(&json).unwrap_err().to_string()
        };
        for (error, expected) in [
            (config("[]"), "configuration is a list, expected an object"),
            (config("{"), "configuration is not JSON at line 1, column 1, expected an object"),
            (
                config(r#"{"threads": "two"}"#),
                "configuration: `threads` is a string, expected a whole number of at least 0",
            ),
            (
                config(r#"{"threads": -1}"#),
                "configuration: `threads` is -1, expected a whole number of at least 0",
            ),
            (
                config(r#"{"cache": "redis://u:canary@h"}"#),
                "configuration: `cache` is a string, expected an object",
            ),
            (config(r#"{"cache": []}"#), "configuration: `cache` is a list, expected an object"),
            (config(r#"{"quota": [1, 60000]}"#), "configuration: `quota` is a list, expected an object"),
            (
                config(r#"{"quota": {"requests": 1, "burst": 2}}"#),
                "configuration: `quota` has the unknown key `burst`, expected one of: requests, window_ms",
            ),
            (
                request(r#""history": [{"role": "user", "content": "a"}, ["user", "canary"]]"#),
                "request: `history[1]` is a list, expected an object",
            ),
            (
                request(r#""history": [{"role": "canary", "content": "a"}]"#),
                "request: `history[0].role` is none of these, expected one of: system, user, assistant",
            ),
            (request(r#""history": [{"role": "user"}]"#), "request: `history[0]` lacks the key `content`"),
            (
                request(r#""options": {"logit_bias": {"canary": 1}}"#),
                "request: `options.logit_bias` has a key that is not a whole number from 0 to 4294967295",
            ),
            (
                request(r#""options": {"logit_bias": {"7": "canary"}}"#),
                "request: `options.logit_bias.7` is a string, expected a number",
            ),
            (request(r#""options": {"priority": 1}"#), "request: `options.priority` is 1, expected a string"),
        ] {
            assert_eq!(error, expected);
        }
    }
}
