//! Text to tokens and back: the files of the common families, hardened.
//!
//! The files are read and checked here; the `tokenizers` crate supplies the algorithms. Template text is encoded with
//! the added tokens (`<|im_start|>` and its kin), a user's text by the same parts without them, so that whatever a user
//! writes stays text. Long texts are cut into segments before a space where there is one, so that no step sees more than
//! [`SEGMENT_BYTES`] without a break and time stays linear.

mod charsmap;
mod decode;
mod encode;
mod frame;
mod gguf;
mod memo;
mod model;
mod node;
mod parts;
mod pattern;
mod special;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use serde_json::Value;
use tokenizers::{AddedToken, AddedVocabulary, Model as _, ModelWrapper};

use self::decode::Decoder;
pub use self::decode::Detokenizer;
pub use self::encode::{Encoding, Part};
use self::frame::Frame;
pub use self::memo::Memo;
use self::model::{MAX_ROWS, Model, checked_id};
use self::node::Node;
use self::parts::Pipelines;
pub use self::special::SpecialTokens;
use crate::error::{Error, ErrorKind, Result, quote};
use crate::format::{Package, json};

/// A tokenizer; cheap to clone, good from any thread.
#[derive(Clone)]
pub struct Tokenizer(Arc<Inner>);

struct Inner {
    model: ModelWrapper,
    unknown: Option<u32>,
    byte_fallback: bool,
    pipelines: Pipelines,
    /// The tokens that template text may contain.
    added: AddedVocabulary,
    /// No added tokens: what user text is encoded with.
    none: AddedVocabulary,
    /// Numbers that user text never becomes.
    control: HashSet<u32>,
    frame: Frame,
    decoder: Decoder,
    special: SpecialTokens,
    rows: usize,
    tokens: usize,
    bytes: usize,
}

impl Tokenizer {
    /// The tokenizer of a package: its `tokenizer.json`, or what its GGUF file says.
    ///
    /// # Errors
    /// `NotFound` if there is none, else as [`Self::from_json`].
    pub fn from_package(package: &Package, vocab_rows: usize) -> Result<Self> {
        if let Some(metadata) = &package.gguf {
            let tokenizer = Self::from_value("tokenizer.ggml", &gguf::file(metadata)?, vocab_rows)?;
            return Ok(tokenizer.with_special(gguf::special(metadata, vocab_rows)?));
        }
        let missing =
            || Error::new(ErrorKind::NotFound, format!("model `{}` has no tokenizer.json", package.name));
        let tokenizer = Self::from_json(package.tokenizer.as_ref().ok_or_else(missing)?, vocab_rows)?;
        let special = special::from_configs(package, &tokenizer)?;
        Ok(tokenizer.with_special(special))
    }

    /// Reads `tokenizer.json`; every token's number has to be below `vocab_rows`, the rows of the embedding matrix.
    ///
    /// # Errors
    /// `Invalid` for a file that contradicts itself or would lose text, `Unsupported` for parts this crate does not run.
    pub fn from_json(bytes: &[u8], vocab_rows: usize) -> Result<Self> {
        if bytes.len() > MAX_FILE_BYTES {
            let what = format!("tokenizer.json: {} bytes, at most {MAX_FILE_BYTES} are allowed", bytes.len());
            return Err(Error::invalid(what));
        }
        let file = json::parse_object("tokenizer.json", bytes, MAX_FILE_VALUES)?;
        Self::from_value("tokenizer.json", &Value::Object(file), vocab_rows)
    }

    fn from_value(name: &str, file: &Value, vocab_rows: usize) -> Result<Self> {
        let rows = vocab_rows.min(MAX_ROWS);
        let file = Node::root(name, file);
        if let Some(version) = file.get("version").filter(|version| version.value() != "1.0") {
            return Err(version.unsupported("is not 1.0"));
        }
        let pipelines = Pipelines::read(&file)?;
        let frame = Frame::read(&file, rows)?;
        let decoder = Decoder::read(&file)?;
        let declared = read_added(&file, rows)?;
        let Model { model, unknown, byte_fallback, bytes } =
            guarded("building the tokenizer", || Model::read(&file.need("model")?, pipelines.facts, rows))?;

        let added = guarded("adding tokens", || add_tokens(&file, &declared, &model, &pipelines))?;
        let control = declared.iter().filter(|(_, token)| !is_blank(token)).map(|(id, _)| *id);
        let control = control.filter(|id| Some(*id) != unknown).collect();
        let tokens = model.get_vocab_size().max(declared.keys().max().map_or(0, |id| *id as usize + 1));
        let special = SpecialTokens { unknown, ..SpecialTokens::default() };
        let none = AddedVocabulary::new();
        let inner = Inner {
            model,
            unknown,
            byte_fallback,
            pipelines,
            added,
            none,
            control,
            frame,
            decoder,
            special,
            rows,
            tokens,
            bytes,
        };
        Ok(Self(Arc::new(inner)))
    }

    fn with_special(self, special: SpecialTokens) -> Self {
        let mut inner = Arc::into_inner(self.0).expect("nobody else has seen the new tokenizer");
        inner.special = SpecialTokens { unknown: special.unknown.or(inner.unknown), ..special };
        Self(Arc::new(inner))
    }

    /// The number of `token`, added tokens first.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.0.added.token_to_id(token, &self.0.model)
    }

    /// The text of token `id` as the vocabulary writes it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.0.added_token(id).map(|added| added.content.clone()).or_else(|| self.0.model.id_to_token(id))
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.0.tokens
    }

    /// About the bytes of memory that its vocabulary takes.
    pub fn bytes(&self) -> usize {
        self.0.bytes
    }

    /// Whether `id` is an added token that user text never becomes.
    pub fn is_control(&self, id: u32) -> bool {
        self.0.control.contains(&id)
    }

    /// The tokens with a role.
    pub fn special(&self) -> &SpecialTokens {
        &self.0.special
    }

    /// The token that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.0.special.bos
    }

    /// The tokens that end an answer.
    pub fn eos_ids(&self) -> &[u32] {
        &self.0.special.eos
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.0.tokens)
            .field("special", &self.0.special)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn added_token(&self, id: u32) -> Option<&AddedToken> {
        self.added.get_added_tokens_decoder().get(&id)
    }
}

/// The added tokens as the file declares them.
fn read_added(file: &Node<'_>, rows: usize) -> Result<HashMap<u32, AddedToken>> {
    let mut tokens = HashMap::new();
    let mut contents = HashSet::new();
    let Some(list) = file.get("added_tokens") else { return Ok(tokens) };
    for node in list.items(MAX_ADDED_TOKENS)? {
        let content = node.need("content")?.text()?;
        if content.is_empty() || content.len() > MAX_ADDED_TOKEN_BYTES {
            return Err(node.invalid(format_args!(
                "has {} bytes, expected 1 to {MAX_ADDED_TOKEN_BYTES}",
                content.len()
            )));
        }
        let id = node.need("id")?;
        let id = checked_id(id.value(), rows).ok_or_else(|| {
            let found = quote(&id.value().to_string());
            id.invalid(format_args!("is {found}, expected a number below the {rows} embedding rows"))
        })?;
        let special = node.flag("special", false)?;
        let token = AddedToken::from(content, special)
            .single_word(node.flag("single_word", false)?)
            .lstrip(node.flag("lstrip", false)?)
            .rstrip(node.flag("rstrip", false)?)
            .normalized(node.flag("normalized", !special)?);
        if !contents.insert(content) {
            return Err(node.invalid(format_args!("{} is already an added token", quote(content))));
        }
        if tokens.insert(id, token).is_some() {
            return Err(node
                .invalid(format_args!("{} has number {id}, which another added token has", quote(content))));
        }
    }
    Ok(tokens)
}

/// Puts the added tokens into the dependency's vocabulary, which hands out numbers by itself, and checks its numbers.
fn add_tokens(
    file: &Node<'_>,
    declared: &HashMap<u32, AddedToken>,
    model: &ModelWrapper,
    pipelines: &Pipelines,
) -> Result<AddedVocabulary> {
    let mut in_order: Vec<_> = declared.iter().collect();
    in_order.sort_unstable_by_key(|(id, _)| **id);
    for (id, token) in &in_order {
        let held = model.id_to_token(**id).filter(|held| *held != token.content);
        if let Some(held) = held {
            let (content, held) = (quote(&token.content), quote(&held));
            return Err(file.invalid(format_args!("added token {content} has the number of {held}")));
        }
    }
    let mut added = AddedVocabulary::new();
    added
        .add_tokens(
            in_order.iter().map(|(_, token)| (*token).clone()),
            model,
            pipelines.inner.normalizer.as_ref(),
        )
        .map_err(|error| file.invalid("`added_tokens` cannot be matched").with_source(error))?;
    for (id, token) in in_order {
        let given = added.token_to_id(&token.content, model);
        if given != Some(*id) {
            let content = quote(&token.content);
            return Err(file.invalid(format_args!("added token {content} has a number that leaves a gap")));
        }
    }
    Ok(added)
}

/// Ordinary white space that some vocabularies list as added tokens: text, not control.
fn is_blank(token: &AddedToken) -> bool {
    !token.special && token.content.chars().all(|character| character.is_whitespace() || character == '▁')
}

/// Runs the dependency's code: a panic there is our error. Its message and the text stay out of ours.
fn guarded<T>(doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Internal, format!("{doing}: the tokenizers crate failed")))
    })
}

const MAX_FILE_BYTES: usize = 64 << 20;
/// Twice what the largest vocabularies need.
const MAX_FILE_VALUES: usize = 8 << 20;
const MAX_ADDED_TOKENS: usize = 1 << 16;
const MAX_ADDED_TOKEN_BYTES: usize = 512;
/// The longest text one call encodes.
pub const MAX_TEXT_BYTES: usize = 1 << 20;
/// The longest stretch that is encoded without a cut.
pub const SEGMENT_BYTES: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_inside_becomes_an_error_that_does_not_repeat_it() {
        let error = guarded::<()>("encoding", || panic!("canary")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(!format!("{error:?} {error}").contains("canary"));
    }
}
