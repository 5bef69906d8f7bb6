//! `antiphon.json`: what a model directory of this project holds, with sizes and checksums.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::files::check_plain_name;
use crate::format::json;

/// The manifest of a model directory. Unknown keys are refused.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of the manifest; 1.
    pub schema: u32,
    /// The model's name: `[a-z0-9][a-z0-9._-]{0,63}`.
    pub name: String,
    /// The model's version.
    pub version: String,
    /// What the model does.
    pub task: String,
    /// The licence of the weights.
    pub licence: String,
    /// Every file of the directory but the manifest itself.
    pub files: Vec<ManifestFile>,
    /// Classifiers over an encoder, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub heads: BTreeMap<String, HeadManifest>,
    /// For a directory of heads alone: the fingerprint of the encoder they were trained on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoder: Option<String>,
    /// How the model was made and what it measures.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub card: Map<String, Value>,
}

/// One file of a manifest.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// The plain name of a file in the directory.
    pub path: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The file's size.
    pub bytes: u64,
}

/// One classifier over an encoder.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct HeadManifest {
    /// The labels, in the order of the head's outputs.
    pub labels: Vec<String>,
    /// Other names of labels: from the other name to the label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, String>,
    /// What logits are divided by before the softmax; default 1.
    #[serde(default = "one")]
    pub temperature: f32,
    /// The confidence below which the answer is out of scope; none: everything is in scope.
    #[serde(default)]
    pub threshold: Option<f32>,
    /// What the head's tensors are called: `{tensors}.weight` and `{tensors}.bias`.
    pub tensors: String,
}

impl Manifest {
    /// The name of the file in a model directory.
    pub const FILE: &'static str = "antiphon.json";

    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another schema, [`ErrorKind::Invalid`] for anything else that is not as it should be.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let fail = |what: String| Error::invalid(format!("{}: {what}", quote(Self::FILE)));
        if bytes.len() as u64 > MAX_MANIFEST_BYTES {
            return Err(fail(format!("{} bytes, expected at most {MAX_MANIFEST_BYTES}", bytes.len())));
        }
        let map = json::parse_object(Self::FILE, bytes, MAX_VALUES)?;
        match map.get("schema").map(|schema| (schema.as_u64(), schema)) {
            Some((Some(SCHEMA), _)) => {}
            Some((Some(schema), _)) => {
                let message = format!("{}: schema {schema}, expected {SCHEMA}", quote(Self::FILE));
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            Some((None, schema)) => {
                return Err(fail(format!("`schema` is {}, expected {SCHEMA}", quote(&schema.to_string()))));
            }
            None => return Err(fail(format!("`schema` is missing, expected {SCHEMA}"))),
        }
        let manifest: Self = serde_json::from_value(Value::Object(map))
            .map_err(|error| json::syntax_error(Self::FILE, error))?;
        manifest.check().map_err(fail)?;
        Ok(manifest)
    }

    /// The entry of this file.
    pub fn file(&self, path: &str) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.path == path)
    }

    fn check(&self) -> std::result::Result<(), String> {
        if !is_model_name(&self.name) {
            return Err(format!("name {}, expected `[a-z0-9][a-z0-9._-]{{0,63}}`", quote(&self.name)));
        }
        let mut paths = HashSet::new();
        for file in &self.files {
            check_plain_name(&file.path)?;
            // On some file systems two names that differ by case are one file.
            if file.path == Self::FILE || !paths.insert(file.path.to_ascii_lowercase()) {
                return Err(format!("path {} stands twice or is the manifest itself", quote(&file.path)));
            }
            if file.sha256().is_none() {
                let (path, digest) = (quote(&file.path), quote(&file.sha256));
                return Err(format!(
                    "path {path}: sha256 {digest}, expected 64 lower-case hexadecimal digits"
                ));
            }
        }
        if let Some(encoder) = self.encoder.as_deref().filter(|encoder| !is_fingerprint(encoder)) {
            return Err(format!("encoder {}, expected `blake3:` and 64 hexadecimal digits", quote(encoder)));
        }
        self.heads
            .iter()
            .try_for_each(|(name, head)| head.check().map_err(|what| format!("head {}: {what}", quote(name))))
    }
}

impl ManifestFile {
    /// The checksum as bytes; none where it is not 64 lower-case hexadecimal digits.
    pub(crate) fn sha256(&self) -> Option<[u8; 32]> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let (pairs, []) = self.sha256.as_bytes().as_chunks::<2>() else { return None };
        let bytes = pairs
            .iter()
            .map(|&[high, low]| Some(digit(high)? << 4 | digit(low)?))
            .collect::<Option<Vec<_>>>()?;
        bytes.try_into().ok()
    }
}

impl HeadManifest {
    fn check(&self) -> std::result::Result<(), String> {
        if !(1..=MAX_LABELS).contains(&self.labels.len()) {
            return Err(format!("{} labels, expected 1 to {MAX_LABELS}", self.labels.len()));
        }
        let mut names = HashSet::new();
        for name in self.labels.iter().chain(self.aliases.keys()) {
            if name.is_empty() || name.len() > MAX_LABEL_BYTES || name.contains(char::is_control) {
                return Err(format!(
                    "label {}, expected 1 to {MAX_LABEL_BYTES} printable bytes",
                    quote(name)
                ));
            }
            if !names.insert(name) {
                return Err(format!("label or alias {} stands twice", quote(name)));
            }
        }
        if let Some(label) = self.aliases.values().find(|label| !self.labels.contains(label)) {
            return Err(format!("aliases of {}, which is not a label", quote(label)));
        }
        if !(self.temperature > 0.0 && self.temperature <= MAX_TEMPERATURE) {
            return Err(format!(
                "temperature {}, expected a number above 0, at most {MAX_TEMPERATURE}",
                self.temperature
            ));
        }
        if let Some(threshold) = self.threshold
            && !(0.0..=1.0).contains(&threshold)
        {
            return Err(format!("threshold {threshold}, expected a number from 0 to 1"));
        }
        Ok(())
    }
}

/// Whether a model may be called so: `[a-z0-9][a-z0-9._-]{0,63}`, nothing that is a path, nothing that differs by case
/// alone.
pub fn is_model_name(name: &str) -> bool {
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 64
        && name.starts_with(first)
        && name.chars().all(|c| first(c) || matches!(c, '.' | '_' | '-'))
}

fn is_fingerprint(text: &str) -> bool {
    text.strip_prefix("blake3:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn one() -> f32 {
    1.0
}

pub(crate) const MAX_MANIFEST_BYTES: u64 = 1 << 20;
const SCHEMA: u64 = 1;
const MAX_VALUES: usize = 1 << 15;
const MAX_LABELS: usize = 4096;
const MAX_LABEL_BYTES: usize = 256;
const MAX_TEMPERATURE: f32 = 100.0;
