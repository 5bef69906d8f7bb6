//! `model.safetensors.index.json`: which file of a model in several files holds which tensor.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::{Error, Result, quote};
use crate::format::files::check_plain_name;
use crate::format::json;
use crate::format::weights::Shard;

/// The checked contents of an index.
pub(crate) struct Index {
    weight_map: Map<String, Value>,
}

impl Index {
    /// The name of the file in a model directory.
    pub(crate) const FILE: &'static str = "model.safetensors.index.json";

    /// Reads an index; every file in it is the plain name of a safetensors file.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let fail = |what: String| Error::invalid(format!("{}: {what}", quote(Self::FILE)));
        let mut index = json::parse_object(Self::FILE, bytes, MAX_VALUES)?;
        let Some(Value::Object(weight_map)) = index.remove("weight_map") else {
            return Err(fail("`weight_map` is missing or not an object".to_owned()));
        };
        for (tensor, file) in &weight_map {
            let checked = match file.as_str() {
                Some(file) if file.ends_with(".safetensors") => check_plain_name(file),
                _ => Err(format!("path {}, expected a .safetensors file", quote(&file.to_string()))),
            };
            checked.map_err(|what| fail(format!("tensor {}: {what}", quote(tensor))))?;
        }
        let index = Self { weight_map };
        let files = index.files().len();
        if !(1..=MAX_FILES).contains(&files) {
            return Err(fail(format!("{files} files, expected 1 to {MAX_FILES}")));
        }
        Ok(index)
    }

    /// The files, in alphabetical order.
    pub(crate) fn files(&self) -> BTreeSet<&str> {
        self.weight_map.values().filter_map(Value::as_str).collect()
    }

    /// Checks that `shard`, read from `file`, holds the tensors that the index places there, and no others.
    pub(crate) fn check(&self, file: &str, shard: &Shard) -> Result<()> {
        let fail = |what: String| Err(Error::invalid(format!("{}: {what}", quote(Self::FILE))));
        for tensor in shard.names() {
            match self.weight_map.get(tensor).and_then(Value::as_str) {
                Some(mapped) if mapped == file => {}
                Some(mapped) => {
                    let (tensor, mapped, file) = (quote(tensor), quote(mapped), quote(file));
                    return fail(format!("tensor {tensor}: mapped to {mapped}, but {file} has it too"));
                }
                None => return fail(format!("tensor {}: in {}, but not mapped", quote(tensor), quote(file))),
            }
        }
        let mut mapped = self.weight_map.iter().filter(|(_, mapped)| mapped.as_str() == Some(file));
        match mapped.find(|(tensor, _)| shard.tensor(tensor).is_none()) {
            Some((tensor, _)) => {
                fail(format!("tensor {}: mapped to {}, which lacks it", quote(tensor), quote(file)))
            }
            None => Ok(()),
        }
    }
}

/// Twice the tensors that one file may have, each a key and a value.
const MAX_VALUES: usize = 400_000;
const MAX_FILES: usize = 1024;
