//! The tokens with a role, as the files beside `tokenizer.json` name them.

use serde_json::Value;

use super::model::checked_id;
use super::{Inner, Tokenizer};
use crate::error::{Error, Result, quote};
use crate::format::Package;

/// The tokens a model gives a role, as far as its files name them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SpecialTokens {
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Each of these ends an answer; the one that templates know as `eos_token` first.
    pub eos: Vec<u32>,
    /// Stands for what cannot be spelled.
    pub unknown: Option<u32>,
    /// Fills up.
    pub padding: Option<u32>,
}

/// Collects them from `tokenizer_config.json`, `generation_config.json` and `config.json`, in this order.
pub(super) fn from_configs(package: &Package, tokenizer: &Tokenizer) -> Result<SpecialTokens> {
    let files = [
        ("generation_config.json", package.generation_config.as_ref()),
        ("config.json", Some(&package.config)),
    ];
    let find = |role: &str| -> Result<Vec<u32>> {
        let mut ids: Vec<u32> = Vec::new();
        if let Some(config) = &package.tokenizer_config {
            ids.extend(named(config, &format!("{role}_token"), tokenizer)?);
        }
        for (file, config) in files {
            for id in config.map_or(Ok(Vec::new()), |config| {
                numbered(file, config, &format!("{role}_token_id"), &tokenizer.0)
            })? {
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        Ok(ids)
    };
    let first = |role| find(role).map(|ids| ids.first().copied());
    Ok(SpecialTokens {
        bos: first("bos")?,
        eos: find("eos")?,
        unknown: first("unk")?,
        padding: first("pad")?,
    })
}

/// The number of the token that `key` names: a text, or an object with the text as `content`.
fn named(config: &Value, key: &str, tokenizer: &Tokenizer) -> Result<Option<u32>> {
    let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Ok(None) };
    let text = value.as_str().or_else(|| value.get("content").and_then(Value::as_str));
    let text =
        text.ok_or_else(|| Error::invalid(format!("tokenizer_config.json: `{key}` is not a token")))?;
    // some files name a token that the vocabulary has not
    Ok(tokenizer.token_id(text))
}

/// The numbers under `key`: one or a list; -1 stands for none.
fn numbered(file: &str, config: &Value, key: &str, inner: &Inner) -> Result<Vec<u32>> {
    let values = match config.get(key) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    let number = |value: &Value| {
        checked_id(value, inner.rows).ok_or_else(|| {
            let found = quote(&value.to_string());
            Error::invalid(format!(
                "{file}: `{key}` is {found}, expected a token below the {} embedding rows",
                inner.rows
            ))
        })
    };
    values.iter().filter(|value| value.as_i64() != Some(-1)).map(number).collect()
}
