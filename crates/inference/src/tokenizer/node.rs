//! A place inside a JSON file: the value and the path to it, so that a refusal can name both.

use std::fmt::Display;

use serde_json::Value;

use crate::error::{Error, Result, quote};

/// One value of the file and how one gets there.
pub(super) struct Node<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// The root, called by the file's name.
    pub(super) fn root(file: &str, value: &'a Value) -> Self {
        Self { path: format!("{file}: "), value }
    }

    /// The member `key`; absent and `null` are the same.
    pub(super) fn get(&self, key: &str) -> Option<Node<'a>> {
        let value = self.value.get(key).filter(|value| !value.is_null())?;
        let dot = if self.path.ends_with(": ") { "" } else { "." };
        Some(Node { path: format!("{}{dot}{key}", self.path), value })
    }

    /// The member `key`, which has to be there.
    pub(super) fn need(&self, key: &str) -> Result<Node<'a>> {
        self.get(key).ok_or_else(|| self.invalid(format_args!("has no `{key}`")))
    }

    /// The elements of an array of at most `limit`.
    pub(super) fn items(&self, limit: usize) -> Result<Vec<Node<'a>>> {
        let items = self.array()?;
        if items.len() > limit {
            return Err(self.invalid(format_args!("{} elements, at most {limit} are allowed", items.len())));
        }
        let at = |(index, value)| Node { path: format!("{}[{index}]", self.path), value };
        Ok(items.iter().enumerate().map(at).collect())
    }

    /// The elements of an array, without their paths: for long ones.
    pub(super) fn array(&self) -> Result<&'a [Value]> {
        self.value.as_array().map(Vec::as_slice).ok_or_else(|| self.expected("an array"))
    }

    /// The members of an object.
    pub(super) fn object(&self) -> Result<&'a serde_json::Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.expected("an object"))
    }

    /// The text.
    pub(super) fn text(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// The one character of a text.
    pub(super) fn character(&self) -> Result<char> {
        let mut characters = self.text()?.chars();
        match (characters.next(), characters.next()) {
            (Some(character), None) => Ok(character),
            _ => Err(self.expected("one character")),
        }
    }

    /// The truth value.
    pub(super) fn boolean(&self) -> Result<bool> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    /// The whole number, within `0..=limit`.
    pub(super) fn number(&self, limit: u64) -> Result<u64> {
        let number = self.value.as_u64().ok_or_else(|| self.expected("a whole number"))?;
        if number > limit {
            return Err(self.invalid(format_args!("{number}, at most {limit} is allowed")));
        }
        Ok(number)
    }

    /// The member `key` as a truth value, or `default`.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |node| node.boolean())
    }

    /// The value as it stands in the file.
    pub(super) fn value(&self) -> &'a Value {
        self.value
    }

    /// What this component calls itself.
    pub(super) fn kind(&self) -> Result<&'a str> {
        self.need("type")?.text()
    }

    /// The refusal of this place.
    pub(super) fn invalid(&self, what: impl Display) -> Error {
        Error::invalid(format!("{} {what}", self.path.trim_end()))
    }

    /// The refusal of a kind this crate does not run.
    pub(super) fn unsupported(&self, what: impl Display) -> Error {
        Error::new(crate::error::ErrorKind::Unsupported, format!("{} {what}", self.path.trim_end()))
    }

    fn expected(&self, what: &str) -> Error {
        let found = match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Number(value) => quote(&value.to_string()),
            Value::String(value) => quote(value),
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        };
        self.invalid(format_args!("is {found}, expected {what}"))
    }
}
