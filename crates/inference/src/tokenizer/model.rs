//! The vocabulary model of a tokenizer file: read, checked and built.
//!
//! Each check stands for something that makes the dependency panic, or silently lose text: merges outside of the
//! vocabulary, two tokens with one number, numbers without an embedding row, characters that no token can spell.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::ModelWrapper;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::unigram::Unigram;
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::node::Node;
use super::parts::Facts;
use crate::error::{Error, Result, quote};

/// The model and what was learned while reading it.
pub(super) struct Model {
    pub(super) model: ModelWrapper,
    /// The token that stands for everything unknown.
    pub(super) unknown: Option<u32>,
    /// Unknown characters are spelled by tokens `<0xHH>`.
    pub(super) byte_fallback: bool,
    /// About what it holds.
    pub(super) bytes: usize,
}

impl Model {
    /// Reads `model`; every number has to be below `rows`.
    pub(super) fn read(node: &Node<'_>, facts: Facts, rows: usize) -> Result<Self> {
        match kind(node)? {
            "BPE" => bpe(node, facts, rows),
            "WordPiece" => word_piece(node, rows),
            "WordLevel" => word_level(node, rows),
            "Unigram" => unigram(node, rows),
            other => Err(node.unsupported(format_args!("is a {}", quote(other)))),
        }
    }
}

/// The model's type; files of early versions do not name it.
fn kind<'a>(node: &Node<'a>) -> Result<&'a str> {
    if node.get("type").is_some() {
        return node.kind();
    }
    Ok(match node.need("vocab")?.value() {
        Value::Array(_) => "Unigram",
        _ if node.get("merges").is_some() => "BPE",
        _ if node.get("max_input_chars_per_word").is_some() => "WordPiece",
        _ => "WordLevel",
    })
}

fn bpe(node: &Node<'_>, facts: Facts, rows: usize) -> Result<Model> {
    if node.get("dropout").is_some_and(|dropout| dropout.value().as_f64() != Some(0.0)) {
        return Err(node.unsupported("has a dropout: the same text would give different tokens"));
    }
    let vocab = vocabulary(&node.need("vocab")?, rows)?;
    let prefix = node.get("continuing_subword_prefix").map_or(Ok(""), |prefix| prefix.text())?;
    let suffix = node.get("end_of_word_suffix").map_or(Ok(""), |suffix| suffix.text())?;
    let merges = merges(&node.need("merges")?, &vocab, prefix)?;
    let bytes = vocabulary_bytes(&vocab) + map_bytes(merges.len(), size_of::<((u32, u32), (u32, u32))>());
    let unknown = unknown(node, &vocab)?;
    let byte_fallback = node.flag("byte_fallback", false)?;

    let spells_bytes =
        byte_fallback && (0..=u8::MAX).all(|byte| vocab.contains_key(byte_token(byte).as_str()));
    let spells_characters = facts.byte_level
        && prefix.is_empty()
        && suffix.is_empty()
        && ByteLevel::alphabet().iter().all(|character| vocab.contains_key(character.to_string().as_str()));
    if unknown.is_none() && !spells_bytes && !spells_characters {
        let what = "has neither an unknown token nor a token for each of the 256 bytes: some characters would be lost";
        return Err(node.invalid(what));
    }

    let builder = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .fuse_unk(node.flag("fuse_unk", false)?)
        .byte_fallback(byte_fallback)
        .ignore_merges(node.flag("ignore_merges", false)?)
        .cache_capacity(0); // the cache is per thread, outlives the tokenizer and holds users' words
    let builder =
        if prefix.is_empty() { builder } else { builder.continuing_subword_prefix(prefix.to_owned()) };
    let builder = if suffix.is_empty() { builder } else { builder.end_of_word_suffix(suffix.to_owned()) };
    let builder = match unknown {
        Some(_) => builder.unk_token(node.need("unk_token")?.text()?.to_owned()),
        None => builder,
    };
    let model = builder.build().map_err(|error| node.invalid("cannot be built").with_source(error))?;
    Ok(Model { model: model.into(), unknown, byte_fallback, bytes })
}

/// The pairs in order of rank: both sides and their union have to be tokens.
fn merges(node: &Node<'_>, vocab: &Vocab, prefix: &str) -> Result<Vec<(String, String)>> {
    let array = node.array()?;
    let mut merges = Vec::with_capacity(array.len());
    let mut union = String::new();
    for (rank, merge) in array.iter().enumerate() {
        let pair = match merge {
            Value::String(text) => text.split_once(' ').filter(|(_, right)| !right.contains(' ')),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(left), Value::String(right)] => Some((left.as_str(), right.as_str())),
                _ => None,
            },
            _ => None,
        };
        let (left, right) =
            pair.ok_or_else(|| node.invalid(format_args!("[{rank}] is not a pair of tokens")))?;
        let tail = right.strip_prefix(prefix).ok_or_else(|| {
            node.invalid(format_args!(
                "[{rank}]: {} does not begin with the prefix {}",
                quote(right),
                quote(prefix)
            ))
        })?;
        union.clear();
        union.push_str(left);
        union.push_str(tail);
        for token in [left, right, union.as_str()] {
            if !vocab.contains_key(token) {
                return Err(node.invalid(format_args!("[{rank}]: {} is not in the vocabulary", quote(token))));
            }
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}

fn word_piece(node: &Node<'_>, rows: usize) -> Result<Model> {
    let vocab = vocabulary(&node.need("vocab")?, rows)?;
    let unknown = needed_unknown(node, &vocab)?;
    let bytes = vocabulary_bytes(&vocab);
    let longest =
        node.get("max_input_chars_per_word").map_or(Ok(100), |limit| limit.number(MAX_WORD_CHARS))?;
    let built = WordPiece::builder()
        .vocab(vocab)
        .unk_token(unknown_text(node)?.to_owned())
        .continuing_subword_prefix(
            node.get("continuing_subword_prefix").map_or(Ok("##"), |p| p.text())?.to_owned(),
        )
        .max_input_chars_per_word(longest as usize)
        .build();
    let model = built.map_err(|error| node.invalid("cannot be built").with_source(error))?;
    Ok(Model { model: model.into(), unknown: Some(unknown), byte_fallback: false, bytes })
}

fn word_level(node: &Node<'_>, rows: usize) -> Result<Model> {
    let vocab = vocabulary(&node.need("vocab")?, rows)?;
    let unknown = needed_unknown(node, &vocab)?;
    let bytes = vocabulary_bytes(&vocab);
    let built = WordLevel::builder().vocab(vocab).unk_token(unknown_text(node)?.to_owned()).build();
    let model = built.map_err(|error| node.invalid("cannot be built").with_source(error))?;
    Ok(Model { model: model.into(), unknown: Some(unknown), byte_fallback: false, bytes })
}

fn unigram(node: &Node<'_>, rows: usize) -> Result<Model> {
    let vocab = node.need("vocab")?;
    let array = vocab.array()?;
    if array.len() > rows {
        return Err(
            vocab.invalid(format_args!("has {} tokens, the model has {rows} embedding rows", array.len()))
        );
    }
    let mut seen = HashMap::with_capacity(array.len());
    let mut pieces = Vec::with_capacity(array.len());
    for (id, entry) in array.iter().enumerate() {
        let piece = entry.as_array().and_then(|pair| match pair.as_slice() {
            [Value::String(text), score] => {
                score.as_f64().filter(|score| score.is_finite()).map(|score| (text, score))
            }
            _ => None,
        });
        let (text, score) =
            piece.ok_or_else(|| vocab.invalid(format_args!("[{id}] is not a token and a finite score")))?;
        if text.is_empty() {
            return Err(vocab.invalid(format_args!("[{id}] is the empty token")));
        }
        if let Some(first) = seen.insert(text.as_str(), id) {
            return Err(vocab.invalid(format_args!("[{id}]: {} is already token {first}", quote(text))));
        }
        pieces.push((text.clone(), score));
    }
    let unknown = node.need("unk_id")?.number(array.len().saturating_sub(1) as u64)? as usize;
    let byte_fallback = node.flag("byte_fallback", false)?;
    let texts = || pieces.iter().map(|(text, _)| text.len());
    // A map, a list, and a tree with a node for about every second byte.
    let bytes = map_bytes(texts().count(), size_of::<(String, u32)>())
        + texts().map(|length| 2 * text_bytes(length) + length / 2 * TREE_NODE_BYTES).sum::<usize>();
    let built = Unigram::from(pieces, Some(unknown), byte_fallback);
    let mut model: ModelWrapper =
        built.map_err(|error| node.invalid("cannot be built").with_source(error))?.into();
    model.resize_cache(0); // it holds users' words
    Ok(Model { model, unknown: Some(unknown as u32), byte_fallback, bytes })
}

/// Tokens and their numbers: each number once and below `rows`.
fn vocabulary(node: &Node<'_>, rows: usize) -> Result<Vocab> {
    let object = node.object()?;
    let mut taken = vec![false; rows.min(MAX_ROWS)];
    let mut vocab = Vec::with_capacity(object.len());
    for (token, id) in object {
        let id = checked_id(id, rows).ok_or_else(|| {
            node.invalid(format_args!(
                "{} has number {}, expected one below the {rows} embedding rows",
                quote(token),
                quote(&id.to_string())
            ))
        })?;
        if std::mem::replace(&mut taken[id as usize], true) {
            return Err(
                node.invalid(format_args!("{} has number {id}, which another token has too", quote(token)))
            );
        }
        vocab.push((token.clone(), id));
    }
    Ok(vocab.into_iter().collect())
}

/// About what the dependency holds for a vocabulary: a map from texts to numbers and one back.
fn vocabulary_bytes(vocab: &Vocab) -> usize {
    let texts: usize = vocab.keys().map(|text| text_bytes(text.len())).sum();
    2 * (map_bytes(vocab.len(), size_of::<(String, u32)>()) + texts)
}

/// A hash map of so many entries: a power of two of places, of which seven of eight are used at most, with a byte each.
fn map_bytes(entries: usize, entry_bytes: usize) -> usize {
    (entries * 8).div_ceil(7).next_power_of_two() * (entry_bytes + 1)
}

/// What the system's allocator takes for a text of so many bytes.
fn text_bytes(length: usize) -> usize {
    (length + size_of::<usize>()).next_multiple_of(16).max(32)
}

/// A whole number below `rows`.
pub(super) fn checked_id(id: &Value, rows: usize) -> Option<u32> {
    id.as_u64().and_then(|id| u32::try_from(id).ok()).filter(|id| (*id as usize) < rows.min(MAX_ROWS))
}

fn unknown_text<'a>(node: &Node<'a>) -> Result<&'a str> {
    node.get("unk_token").map_or(Ok("[UNK]"), |unknown| unknown.text())
}

/// The number of `unk_token`, which has to be a token if it is named.
fn unknown(node: &Node<'_>, vocab: &Vocab) -> Result<Option<u32>> {
    let Some(unknown) = node.get("unk_token") else { return Ok(None) };
    let text = unknown.text()?;
    let id = vocab.get(text).copied();
    id.map(Some)
        .ok_or_else(|| unknown.invalid(format_args!("is {}, which is not in the vocabulary", quote(text))))
}

fn needed_unknown(node: &Node<'_>, vocab: &Vocab) -> Result<u32> {
    let text = unknown_text(node)?;
    let missing =
        || -> Error { node.invalid(format_args!("has no token {} for what is unknown", quote(text))) };
    vocab.get(text).copied().ok_or_else(missing)
}

/// How SentencePiece writes a byte.
pub(super) fn byte_token(byte: u8) -> String {
    format!("<0x{byte:02X}>")
}

/// The byte that `<0xHH>` stands for; exactly two hexadecimal digits.
pub(super) fn token_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    let strict = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if strict { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// No vocabulary comes near it; a bound for what is allocated.
pub(super) const MAX_ROWS: usize = 1 << 24;
const MAX_WORD_CHARS: u64 = 1000;
/// A node of a tree of texts: itself, and a map of few children.
const TREE_NODE_BYTES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens_are_read_strictly() {
        assert_eq!(token_byte("<0x0A>"), Some(10));
        assert_eq!(token_byte("<0xff>"), Some(255));
        for token in ["<0x-1>", "<0xZZ>", "<0x", "<0x>", "<0x1>", "<0x001>", "<0x+1>", "0x0A", "<0X0A>"] {
            assert_eq!(token_byte(token), None, "{token}");
        }
    }
}
