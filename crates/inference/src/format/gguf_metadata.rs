//! Typed access to the metadata of a GGUF file: every error names the key, what it holds and what was expected.

use std::fmt::{self, Display};
use std::ops::RangeInclusive;

use crate::error::{Error, Result, quote};
use crate::format::Bytes;
use crate::format::config::{integer_from, number_from};

/// The key/value pairs in front of the tensors. Values are read from the file's bytes when they are asked for.
pub struct GgufMetadata {
    file: String,
    bytes: Bytes,
    /// In order of their keys.
    entries: Vec<Entry>,
}

/// Where one pair lies in the file; the reader has walked over it and found it whole.
pub(crate) struct Entry {
    /// Start and length.
    pub(crate) key: (usize, u32),
    pub(crate) value_type: ValueType,
    pub(crate) value: usize,
}

/// The types of values, in the order of their numbers in the format.
#[derive(Clone, Copy, Debug, PartialEq)]
#[rustfmt::skip]
pub(crate) enum ValueType { U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64 }

impl GgufMetadata {
    pub(crate) fn new(file: &str, bytes: Bytes, entries: Vec<Entry>) -> Result<Self> {
        let mut metadata = Self { file: file.to_owned(), bytes, entries };
        let mut entries = std::mem::take(&mut metadata.entries);
        entries.sort_unstable_by_key(|entry| metadata.key(entry));
        if let Some(pair) = entries.windows(2).find(|pair| metadata.key(&pair[0]) == metadata.key(&pair[1])) {
            return Err(metadata.fail(metadata.key(&pair[0]), "stands twice".to_owned()));
        }
        metadata.entries = entries;
        Ok(metadata)
    }

    /// All keys, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| self.key(entry))
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// A whole number of any integer type that fits.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::error::ErrorKind::Invalid) when the key is missing or of another type; so for all
    /// that follow.
    pub fn u32(&self, key: &str) -> Result<u32> {
        self.usize_in(key, 0..=u32::MAX as usize).map(|value| value as u32)
    }

    /// A whole number in `range`, of any integer type.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn usize_in(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize> {
        self.required(key, self.opt_usize_in(key, range.clone())?, || integer_from(&range))
    }

    /// A whole number in `range`, where the key is there.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn opt_usize_in(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        self.optional(
            key,
            || integer_from(&range),
            |value| {
                value
                    .integer()
                    .and_then(|value| usize::try_from(value).ok())
                    .filter(|value| range.contains(value))
            },
        )
    }

    /// A number of either float type.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`]; also when it is not finite.
    pub fn f32(&self, key: &str) -> Result<f32> {
        self.f32_in(key, f32::MIN..=f32::MAX)
    }

    /// A number in `range`, of either float type.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn f32_in(&self, key: &str, range: RangeInclusive<f32>) -> Result<f32> {
        self.required(key, self.opt_f32_in(key, range.clone())?, || number_from(&range))
    }

    /// A number in `range`, where the key is there.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn opt_f32_in(&self, key: &str, range: RangeInclusive<f32>) -> Result<Option<f32>> {
        self.optional(
            key,
            || number_from(&range),
            |value| value.float().filter(|value| range.contains(value)),
        )
    }

    /// True or false.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn bool(&self, key: &str) -> Result<bool> {
        self.required(key, self.opt_bool(key)?, || "a bool".to_owned())
    }

    /// True or false, where the key is there.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn opt_bool(&self, key: &str) -> Result<Option<bool>> {
        self.optional(
            key,
            || "a bool".to_owned(),
            |value| match value {
                Scalar::Bool(value) => Some(value),
                _ => None,
            },
        )
    }

    /// A string.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn str(&self, key: &str) -> Result<&str> {
        self.required(key, self.opt_str(key)?, || "a string".to_owned())
    }

    /// A string, where the key is there.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn opt_str(&self, key: &str) -> Result<Option<&str>> {
        self.optional(key, || "a string".to_owned(), Scalar::string)
    }

    /// An array of strings.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn strings(&self, key: &str) -> Result<Vec<&str>> {
        self.array(key, "an array of strings", Scalar::string)
    }

    /// An array of whole numbers of any integer type.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn integers(&self, key: &str) -> Result<Vec<i64>> {
        self.array(key, "an array of integers", Scalar::integer)
    }

    /// An array of numbers of either float type.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn floats(&self, key: &str) -> Result<Vec<f32>> {
        self.array(key, "an array of floats", Scalar::float)
    }

    /// An array of bools.
    ///
    /// # Errors
    /// As [`GgufMetadata::u32`].
    pub fn bools(&self, key: &str) -> Result<Vec<bool>> {
        self.array(key, "an array of bools", |value| match value {
            Scalar::Bool(value) => Some(value),
            _ => None,
        })
    }

    pub(crate) fn value_type(&self, key: &str) -> Option<ValueType> {
        self.find(key).map(|entry| entry.value_type)
    }

    pub(crate) fn fail(&self, key: &str, what: String) -> Error {
        Error::invalid(format!("{}: metadata {}: {what}", quote(&self.file), quote(key)))
    }

    /// Checks what the well-known keys say about one another, so that no model or tokenizer meets a contradiction.
    pub(crate) fn check(&self) -> Result<()> {
        let tokens = self.items_of(TOKENS, "an array of strings", |item| item == ValueType::String)?;
        let scores = self.items_of(SCORES, "an array of floats", ValueType::is_float)?;
        let types = self.items_of(TOKEN_TYPES, "an array of integers", ValueType::is_integer)?;
        for (key, len) in [(SCORES, scores), (TOKEN_TYPES, types)] {
            if let (Some(len), Some(tokens)) = (len, tokens)
                && len != tokens
            {
                return Err(self.fail(key, format!("{len} items, expected {tokens} as in {}", quote(TOKENS))));
            }
        }
        let Some(architecture) = self.opt_str(ARCHITECTURE)? else { return Ok(()) };
        let key = |name: &str| format!("{architecture}.{name}");
        self.opt_usize_in(&key("block_count"), 1..=512)?;
        let width = self.opt_usize_in(&key("embedding_length"), 1..=MAX_WIDTH)?;
        // Some architectures give these two per layer.
        let per_model = |key: &str| self.value_type(key) != Some(ValueType::Array);
        let (heads_key, kv_heads_key) = (key("attention.head_count"), key("attention.head_count_kv"));
        let heads = if per_model(&heads_key) { self.opt_usize_in(&heads_key, 1..=MAX_HEADS)? } else { None };
        if per_model(&kv_heads_key) {
            self.opt_usize_in(&kv_heads_key, 1..=heads.unwrap_or(MAX_HEADS))?;
        }
        if let (Some(width), Some(heads)) = (width, heads) {
            let head_width =
                self.opt_usize_in(&key("attention.key_length"), 1..=MAX_WIDTH)?.unwrap_or(width / heads);
            self.opt_usize_in(&key("rope.dimension_count"), 1..=head_width)?;
        }
        if let Some(tokens) = tokens {
            self.opt_usize_in(&key("vocab_size"), tokens..=tokens)?;
        }
        Ok(())
    }

    fn find(&self, key: &str) -> Option<&Entry> {
        let place = self.entries.binary_search_by_key(&key, |entry| self.key(entry)).ok()?;
        Some(&self.entries[place])
    }

    fn key(&self, entry: &Entry) -> &str {
        let (start, len) = entry.key;
        text(&self.bytes[start..start + len as usize])
    }

    fn optional<'a, T>(
        &'a self,
        key: &str,
        expected: impl Fn() -> String,
        read: impl Fn(Scalar<'a>) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        let mut rest = &self.bytes[entry.value..];
        let value = Scalar::read(entry.value_type, &mut rest);
        let read = value.as_ref().and_then(|value| read(*value)).ok_or_else(|| {
            let held = value.map_or("an array".to_owned(), |value| format!("{} {value}", entry.value_type));
            self.fail(key, format!("{held}, expected {}", expected()))
        })?;
        Ok(Some(read))
    }

    fn required<T>(&self, key: &str, value: Option<T>, expected: impl Fn() -> String) -> Result<T> {
        value.ok_or_else(|| self.fail(key, format!("missing, expected {}", expected())))
    }

    fn array<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl Fn(Scalar<'a>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let array = self.optional_array(key, expected)?;
        let (item_type, count, mut rest) = self.required(key, array, || expected.to_owned())?;
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            let item = Scalar::read(item_type, &mut rest).and_then(&read);
            items.push(
                item.ok_or_else(|| self.fail(key, format!("an array of {item_type}, expected {expected}")))?,
            );
        }
        Ok(items)
    }

    /// How many items an array has, where the key is there; they have to be of a type that `is_expected`.
    fn items_of(
        &self,
        key: &str,
        expected: &str,
        is_expected: fn(ValueType) -> bool,
    ) -> Result<Option<usize>> {
        match self.optional_array(key, expected)? {
            Some((item, ..)) if !is_expected(item) => {
                Err(self.fail(key, format!("an array of {item}, expected {expected}")))
            }
            array => Ok(array.map(|(_, count, _)| count)),
        }
    }

    /// Type, count and bytes of an array's items, where the key is there.
    fn optional_array(&self, key: &str, expected: &str) -> Result<Option<(ValueType, usize, &[u8])>> {
        let Some(entry) = self.find(key) else { return Ok(None) };
        if entry.value_type != ValueType::Array {
            return Err(self.fail(key, format!("{}, expected {expected}", entry.value_type)));
        }
        let mut rest = &self.bytes[entry.value..];
        let item = ValueType::from_id(u32::from_le_bytes(word(&mut rest))).expect("the reader knew it");
        let count = u64::from_le_bytes(word(&mut rest)) as usize;
        Ok(Some((item, count, rest)))
    }
}

impl ValueType {
    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).copied()
    }

    /// What a value takes in the file at least; exactly, where it has a fixed size.
    pub(crate) fn min_bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::String => 8,
            Self::Array => 12,
        }
    }

    fn is_integer(self) -> bool {
        !matches!(self, Self::F32 | Self::F64 | Self::Bool | Self::String | Self::Array)
    }

    fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F64)
    }

    #[rustfmt::skip]
    const ALL: [Self; 13] = [
        Self::U8, Self::I8, Self::U16, Self::I16, Self::U32, Self::I32, Self::F32, Self::Bool, Self::String, Self::Array,
        Self::U64, Self::I64, Self::F64,
    ];
}

impl Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// A value that is not an array.
#[derive(Clone, Copy)]
enum Scalar<'a> {
    Integer(i64),
    /// A u64 that no i64 holds.
    Large(u64),
    Float(f64),
    Bool(bool),
    String(&'a str),
}

impl<'a> Scalar<'a> {
    /// Reads from bytes that the file's reader has already walked over; none for an array.
    fn read(value_type: ValueType, rest: &mut &'a [u8]) -> Option<Self> {
        Some(match value_type {
            ValueType::U8 => Self::Integer(u8::from_le_bytes(word(rest)).into()),
            ValueType::I8 => Self::Integer(i8::from_le_bytes(word(rest)).into()),
            ValueType::U16 => Self::Integer(u16::from_le_bytes(word(rest)).into()),
            ValueType::I16 => Self::Integer(i16::from_le_bytes(word(rest)).into()),
            ValueType::U32 => Self::Integer(u32::from_le_bytes(word(rest)).into()),
            ValueType::I32 => Self::Integer(i32::from_le_bytes(word(rest)).into()),
            ValueType::U64 => {
                let value = u64::from_le_bytes(word(rest));
                i64::try_from(value).map_or(Self::Large(value), Self::Integer)
            }
            ValueType::I64 => Self::Integer(i64::from_le_bytes(word(rest))),
            ValueType::F32 => Self::Float(f32::from_le_bytes(word(rest)).into()),
            ValueType::F64 => Self::Float(f64::from_le_bytes(word(rest))),
            ValueType::Bool => Self::Bool(word::<1>(rest) == [1]),
            ValueType::String => {
                let len = u64::from_le_bytes(word(rest)) as usize;
                let (string, after) = rest.split_at(len);
                *rest = after;
                Self::String(text(string))
            }
            ValueType::Array => return None,
        })
    }

    fn integer(self) -> Option<i64> {
        if let Self::Integer(value) = self { Some(value) } else { None }
    }

    fn float(self) -> Option<f32> {
        if let Self::Float(value) = self { Some(value as f32) } else { None }
    }

    fn string(self) -> Option<&'a str> {
        if let Self::String(value) = self { Some(value) } else { None }
    }
}

impl Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => value.fmt(f),
            Self::Large(value) => value.fmt(f),
            // The shortest text that means the number that was stored.
            Self::Float(value) if f64::from(*value as f32) == *value => (*value as f32).fmt(f),
            Self::Float(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::String(value) => f.write_str(&quote(value)),
        }
    }
}

fn word<const N: usize>(rest: &mut &[u8]) -> [u8; N] {
    let (word, after) = rest.split_first_chunk().expect("the reader walked over it");
    *rest = after;
    *word
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the reader found it valid")
}

const ARCHITECTURE: &str = "general.architecture";
const TOKENS: &str = "tokenizer.ggml.tokens";
const SCORES: &str = "tokenizer.ggml.scores";
const TOKEN_TYPES: &str = "tokenizer.ggml.token_type";
const MAX_WIDTH: usize = 1 << 20;
const MAX_HEADS: usize = 4096;
