//! Typed access to a config of JSON: every error names file, key, value and what was expected.

use std::fmt::{Debug, Display};
use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result, quote};

/// Reads the keys of one object. A key whose value is null counts as missing.
#[derive(Clone, Debug)]
pub struct ConfigReader<'a> {
    /// The file, then the keys that lead to this object.
    place: String,
    map: &'a Map<String, Value>,
}

impl<'a> ConfigReader<'a> {
    /// Reads from `config`, an object that stands in `file`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is not an object.
    pub fn new(config: &'a Value, file: &str) -> Result<Self> {
        match config {
            Value::Object(map) => Ok(Self { place: format!("{}: ", quote(file)), map }),
            _ => Err(Error::invalid(format!("{}: expected a JSON object", quote(file)))),
        }
    }

    /// Whether the key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] when it is missing or anything else; so for all that follow.
    pub fn usize_in(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        self.required(key, self.opt_usize_in(key, range.clone())?, || integer_from(&range))
    }

    /// A whole number in `range`, where there is one.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`].
    pub fn opt_usize_in(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        self.optional(
            key,
            || integer_from(&range),
            |value| {
                value
                    .as_u64()
                    .and_then(|value| usize::try_from(value).ok())
                    .filter(|value| range.contains(value))
            },
        )
    }

    /// A number in `range`.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`].
    pub fn f32_in(&self, key: &str, range: RangeInclusive<f32>) -> Result<f32> {
        self.required(key, self.opt_f32_in(key, range.clone())?, || number_from(&range))
    }

    /// A number in `range`, where there is one.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`].
    pub fn opt_f32_in(&self, key: &str, range: RangeInclusive<f32>) -> Result<Option<f32>> {
        self.optional(
            key,
            || number_from(&range),
            |value| value.as_f64().map(|value| value as f32).filter(|value| range.contains(value)),
        )
    }

    /// True or false; `default` where the key is missing.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`].
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.optional(key, || "true or false".to_owned(), Value::as_bool)?.unwrap_or(default))
    }

    /// A string.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`].
    pub fn str(&self, key: &str) -> Result<&'a str> {
        self.required(key, self.opt_str(key)?, || "a string".to_owned())
    }

    /// A string, where there is one.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`].
    pub fn opt_str(&self, key: &str) -> Result<Option<&'a str>> {
        self.optional(key, || "a string".to_owned(), Value::as_str)
    }

    /// One of the strings in `known`.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`]; [`ErrorKind::Unsupported`] for a string that is not in `known`.
    pub fn str_in(&self, key: &str, known: &[&str]) -> Result<&'a str> {
        let value = self.required(key, self.opt_str(key)?, || known.join(" or "))?;
        self.known(key, value, known)
    }

    /// One of the strings in `known`; `default` where the key is missing.
    ///
    /// # Errors
    /// As [`ConfigReader::str_in`].
    pub fn str_or_in(&self, key: &str, default: &'a str, known: &[&str]) -> Result<&'a str> {
        match self.opt_str(key)? {
            Some(value) => self.known(key, value, known),
            None => Ok(default),
        }
    }

    /// The object under this key, where there is one.
    ///
    /// # Errors
    /// As [`ConfigReader::usize_in`].
    pub fn opt_object(&self, key: &str) -> Result<Option<ConfigReader<'a>>> {
        let map = self.optional(key, || "an object".to_owned(), Value::as_object)?;
        Ok(map.map(|map| ConfigReader { place: format!("{}{}: ", self.place, quote(key)), map }))
    }

    /// The value under this key, where there is one.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn optional<T>(
        &self,
        key: &str,
        expected: impl Fn() -> String,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let read = read(value).ok_or_else(|| {
            let shown = match value {
                Value::Array(_) => "an array".to_owned(),
                Value::Object(_) => "an object".to_owned(),
                value => quote(&value.to_string()),
            };
            Error::invalid(format!("{}{} is {shown}, expected {}", self.place, quote(key), expected()))
        })?;
        Ok(Some(read))
    }

    fn required<T>(&self, key: &str, value: Option<T>, expected: impl Fn() -> String) -> Result<T> {
        value.ok_or_else(|| {
            Error::invalid(format!("{}{} is missing, expected {}", self.place, quote(key), expected()))
        })
    }

    fn known(&self, key: &str, value: &'a str, known: &[&str]) -> Result<&'a str> {
        if known.contains(&value) {
            return Ok(value);
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("{}{} is {}, expected {}", self.place, quote(key), quote(value), known.join(" or ")),
        ))
    }
}

pub(crate) fn integer_from(range: &RangeInclusive<impl Display>) -> String {
    format!("an integer from {} to {}", range.start(), range.end())
}

pub(crate) fn number_from(range: &RangeInclusive<impl Debug>) -> String {
    format!("a number from {:?} to {:?}", range.start(), range.end())
}
