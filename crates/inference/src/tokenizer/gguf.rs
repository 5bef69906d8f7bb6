//! The tokenizer inside a GGUF file: its metadata written as the `tokenizer.json` that says the same, so that one reader
//! checks and builds both.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::SpecialTokens;
use super::model::token_byte;
use super::pattern::{GPT2, GPT4O, LLAMA3, QWEN2, TEKKEN};
use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::GgufMetadata;

/// The tokenizer of the metadata in the form of `tokenizer.json`.
pub(super) fn file(metadata: &GgufMetadata) -> Result<Value> {
    let vocabulary = Vocabulary::read(metadata)?;
    match metadata.str(MODEL)? {
        "gpt2" => byte_level(metadata, &vocabulary),
        "llama" => sentence_piece(metadata, &vocabulary),
        other => Err(unsupported(MODEL, other, "gpt2 or llama")),
    }
}

/// The tokens with a role.
pub(super) fn special(metadata: &GgufMetadata, rows: usize) -> Result<SpecialTokens> {
    let id = |key: &str| -> Result<Option<u32>> {
        let id = metadata.opt_usize_in(key, 0..=rows.saturating_sub(1))?;
        Ok(id.map(|id| id as u32))
    };
    let mut eos = Vec::new();
    for key in ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"] {
        eos.extend(id(key)?.filter(|id| !eos.contains(id)));
    }
    Ok(SpecialTokens {
        bos: id("tokenizer.ggml.bos_token_id")?,
        eos,
        unknown: id("tokenizer.ggml.unknown_token_id")?,
        padding: id("tokenizer.ggml.padding_token_id")?,
    })
}

/// The tokens in order and what each is.
struct Vocabulary<'a> {
    tokens: Vec<&'a str>,
    types: Vec<i64>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a GgufMetadata) -> Result<Self> {
        let tokens = metadata.strings(TOKENS)?;
        let mut seen = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            if let Some(first) = seen.insert(*token, id) {
                return Err(invalid(TOKENS, format!("token {id} {} is already token {first}", quote(token))));
            }
        }
        let types = if metadata.has(TYPES) { metadata.integers(TYPES)? } else { vec![NORMAL; tokens.len()] };
        same_length(TYPES, types.len(), tokens.len())?;
        for (id, (kind, token)) in types.iter().zip(&tokens).enumerate() {
            if !(0..=BYTE).contains(kind) {
                return Err(invalid(TYPES, format!("token {id} has type {kind}, expected 0 to {BYTE}")));
            }
            if *kind == BYTE && token_byte(token).is_none() {
                return Err(invalid(
                    TOKENS,
                    format!("token {id} is {}, expected a byte like `<0x0A>`", quote(token)),
                ));
            }
        }
        Ok(Self { tokens, types })
    }

    fn added(&self) -> Value {
        let added = self.tokens.iter().zip(&self.types).enumerate().filter(|(_, (token, kind))| {
            matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED) && !token.is_empty()
        });
        let entry = |(id, (token, kind)): (usize, (&&str, &i64))| json!({"id": id, "content": token, "special": *kind != USER_DEFINED, "normalized": false});
        added.map(entry).collect()
    }

    fn ids(&self) -> Map<String, Value> {
        self.tokens.iter().enumerate().map(|(id, token)| ((*token).to_owned(), Value::from(id))).collect()
    }
}

/// GPT-2's kind: merges over bytes, split by one of the known patterns.
fn byte_level(metadata: &GgufMetadata, vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let merges = metadata.strings("tokenizer.ggml.merges")?;
    let name = metadata.opt_str(PRE)?.unwrap_or("default");
    let (patterns, ignore_merges): (&[&str], bool) = match name {
        "default" => (&[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], false),
        "gpt-2" | "gpt2" | "phi-2" | "mpt" | "olmo" | "jina-es" | "jina-de" => (&[GPT2], false),
        "llama3" | "llama-v3" | "llama-bpe" | "falcon3" => (&[LLAMA3], true),
        "dbrx" | "smaug-bpe" => (&[LLAMA3], false),
        "qwen2" | "deepseek-r1-qwen" => (&[QWEN2], false),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" | "exaone" => {
            (&[r"\p{N}", GPT2], false)
        }
        "gpt-4o" | "llama4" => (&[GPT4O], false),
        "tekken" => (&[TEKKEN], true),
        other => return Err(unsupported(PRE, other, "one of the known families")),
    };
    let split =
        |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"});
    let mut parts: Vec<Value> = patterns.iter().map(split).collect();
    parts.push(json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}));
    Ok(json!({
        "added_tokens": vocabulary.added(),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts},
        "decoder": {"type": "ByteLevel"},
        "model": {"type": "BPE", "vocab": vocabulary.ids(), "merges": merges, "ignore_merges": ignore_merges},
    }))
}

/// SentencePiece's kind: a token's score says when it is put together, bytes stand for what has no token.
fn sentence_piece(metadata: &GgufMetadata, vocabulary: &Vocabulary<'_>) -> Result<Value> {
    let scores = metadata.floats("tokenizer.ggml.scores")?;
    same_length("tokenizer.ggml.scores", scores.len(), vocabulary.tokens.len())?;
    if let Some(id) = scores.iter().position(|score| !score.is_finite()) {
        return Err(invalid("tokenizer.ggml.scores", format!("token {id} has no finite score")));
    }
    let unknown = vocabulary.types.iter().position(|kind| *kind == UNKNOWN);
    let prefix = metadata.opt_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let mut normalizers = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})];
    let mut decoders = vec![
        json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        normalizers.insert(0, json!({"type": "Prepend", "prepend": "▁"}));
        decoders.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "added_tokens": vocabulary.added(),
        "normalizer": {"type": "Sequence", "normalizers": normalizers},
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": {
            "type": "BPE", "vocab": vocabulary.ids(), "merges": merges_by_score(vocabulary, &scores),
            "byte_fallback": true, "fuse_unk": true, "unk_token": unknown.map(|id| vocabulary.tokens[id]),
        },
    }))
}

/// The merges that put every ordinary token together from two others, best score first.
fn merges_by_score(vocabulary: &Vocabulary<'_>, scores: &[f32]) -> Vec<Value> {
    let ordinary =
        vocabulary.tokens.iter().zip(&vocabulary.types).enumerate().filter(|(_, (token, kind))| {
            matches!(**kind, UNDEFINED | NORMAL) && token.len() <= MAX_MERGED_BYTES
        });
    let ids: HashMap<&str, usize> = ordinary.map(|(id, (token, _))| (*token, id)).collect();
    let mut merges = Vec::new();
    for (&token, &id) in &ids {
        for (cut, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(cut);
            if let (Some(&left_id), Some(&right_id)) = (ids.get(left), ids.get(right)) {
                merges.push((scores[id], left.len(), id, left_id, right_id));
            }
        }
    }
    // of one token, the longer left part first, as the Hugging Face converter has it
    merges.sort_unstable_by(|a, b| {
        b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then((a.2, a.3, a.4).cmp(&(b.2, b.3, b.4)))
    });
    let text = |id: usize| vocabulary.tokens[id];
    merges.into_iter().map(|(_, _, _, left, right)| json!([text(left), text(right)])).collect()
}

fn same_length(key: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(invalid(key, format!("has {found} elements, expected {expected} as in `{TOKENS}`")))
}

fn invalid(key: &str, what: String) -> Error {
    Error::invalid(format!("`{key}`: {what}"))
}

fn unsupported(key: &str, found: &str, expected: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("`{key}` is {}, expected {expected}", quote(found)))
}

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const UNDEFINED: i64 = 0;
const NORMAL: i64 = 1;
const UNKNOWN: i64 = 2;
const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
const BYTE: i64 = 6;
/// Longer tokens are never put together; a bound for the time this takes.
const MAX_MERGED_BYTES: usize = 256;
