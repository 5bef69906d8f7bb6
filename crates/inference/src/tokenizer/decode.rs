//! From tokens back to text, one token at a time.
//!
//! The dependency decodes whole lists, and panics on some of them; here the file's decoder becomes a list of steps that
//! look at one token each, followed by an assembler that lets only whole code points through. The chunks of a
//! [`Detokenizer`] put together are the decoded text, by construction: decoding a list is pushing it.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use tokenizers::Model as _;
use tokenizers::pre_tokenizers::split::SplitPattern;

use super::model::token_byte;
use super::node::Node;
use super::parts::{MAX_GROWTH, Prefix, bounded, metaspace_prefix, split_pattern};
use super::{Inner, Tokenizer};
use crate::error::{Error, ErrorKind, Result, quote};

/// Turns tokens into text as they come: no chunk ends inside a code point, special tokens do not show.
#[derive(Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Inner>,
    /// Bytes of a code point that is not complete yet.
    pending: Vec<u8>,
    /// Nothing has been decoded yet.
    first: bool,
    /// Characters still to be taken off the front of the text.
    strip: usize,
    /// The last token ended a word; the space shows once another follows.
    space: bool,
}

impl Tokenizer {
    /// A detokenizer at the start of a text.
    pub fn detokenizer(&self) -> Detokenizer {
        let strip = self.0.decoder.strip.map_or(0, |(_, count)| count);
        Detokenizer { tokenizer: Arc::clone(&self.0), pending: Vec::new(), first: true, strip, space: false }
    }

    /// The text of `ids`.
    ///
    /// # Errors
    /// `InvalidArgument` for a number that the model has no row for.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        let mut detokenizer = self.detokenizer();
        let mut text = String::new();
        for &id in ids {
            text.push_str(&detokenizer.push(id)?);
        }
        text.push_str(&detokenizer.finish());
        Ok(text)
    }
}

impl Detokenizer {
    /// The text that is certain once token `id` has come: whole code points, possibly none.
    ///
    /// # Errors
    /// `InvalidArgument` for a number that the model has no row for.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let bytes = self.take(id)?;
        Ok(self.assemble(&bytes))
    }

    /// Whether token `id` keeps the text whole: its bytes complete the code point that is pending, or begin others. A token
    /// without text, such as an end, keeps it whole where nothing is pending.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn fits(&self, id: u32) -> Result<bool> {
        let bytes = self.clone().take(id)?;
        if bytes.is_empty() {
            return Ok(self.pending.is_empty());
        }
        let text = [self.pending.as_slice(), &bytes].concat();
        Ok(std::str::from_utf8(&text).is_ok() || incomplete(&text))
    }

    /// The bytes of a token at this place.
    fn take(&mut self, id: u32) -> Result<Vec<u8>> {
        let tokenizer = Arc::clone(&self.tokenizer);
        if id as usize >= tokenizer.rows {
            let what = format!("token {id} is out of range, the model has {} rows", tokenizer.rows);
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let added = tokenizer.added_token(id);
        if added.is_some_and(|added| added.special) {
            return Ok(Vec::new());
        }
        let token = added.map(|added| added.content.clone()).or_else(|| tokenizer.model.id_to_token(id));
        let Some(token) = token else { return Ok(Vec::new()) }; // a row without a token pads the matrix
        let bytes = self.bytes(&tokenizer.decoder, token, added.is_some());
        self.first = false;
        Ok(bytes)
    }

    /// The rest of the text; what is left of a broken code point shows as U+FFFD.
    pub fn finish(&mut self) -> String {
        let broken = !std::mem::take(&mut self.pending).is_empty();
        if broken { char::REPLACEMENT_CHARACTER.to_string() } else { String::new() }
    }

    fn bytes(&mut self, decoder: &Decoder, token: String, added: bool) -> Vec<u8> {
        let mut text = token;
        if decoder.separator && !self.first {
            text.insert(0, ' ');
        }
        if std::mem::take(&mut self.space) {
            text.insert(0, ' ');
        }
        for step in &decoder.steps {
            match step {
                Step::Replace { from, to } => text = text.replace(from, to),
                Step::Metaspace { replacement, strip_first } => {
                    let blank = if *strip_first && self.first { "" } else { " " };
                    text = text.replace(*replacement, blank);
                }
                Step::WordPiece { prefix, cleanup } => {
                    if !self.first {
                        text = match text.strip_prefix(prefix.as_str()) {
                            Some(rest) => rest.to_owned(),
                            None => format!(" {text}"),
                        };
                    }
                    if *cleanup {
                        text = tidy(&text);
                    }
                }
                Step::Suffix(suffix) => {
                    if let Some(rest) = text.strip_suffix(suffix.as_str()) {
                        self.space = true;
                        text = rest.to_owned();
                    }
                    text = text.replace(suffix, " ");
                }
                Step::Strip { content, count } => {
                    let cut = text.chars().take(*count).take_while(|character| character == content).count();
                    text.drain(..cut * content.len_utf8());
                }
                Step::ByteFallback => {
                    if let Some(byte) = token_byte(&text) {
                        return vec![byte];
                    }
                }
                Step::ByteLevel if added => {}
                Step::ByteLevel => {
                    let bytes: Option<Vec<u8>> =
                        text.chars().map(|character| BYTE_OF.get(&character).copied()).collect();
                    if let Some(bytes) = bytes {
                        return bytes;
                    }
                }
            }
        }
        text.into_bytes()
    }

    /// Adds bytes and hands out what is whole; an invalid sequence becomes U+FFFD at once.
    fn assemble(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        while let Some(chunk) = rest.utf8_chunks().next() {
            let consumed = chunk.valid().len() + chunk.invalid().len();
            let ends = consumed == rest.len();
            text.push_str(chunk.valid());
            if ends && incomplete(chunk.invalid()) {
                rest = chunk.invalid();
                break;
            }
            if !chunk.invalid().is_empty() {
                text.push(char::REPLACEMENT_CHARACTER);
            }
            rest = &rest[consumed..];
        }
        self.pending = rest.to_vec();
        self.strip_front(text)
    }

    fn strip_front(&mut self, text: String) -> String {
        let Some((content, _)) = self.tokenizer.decoder.strip else { return text };
        let mut rest = text.as_str();
        while self.strip > 0 && !rest.is_empty() {
            self.strip = match rest.strip_prefix(content) {
                Some(tail) => {
                    rest = tail;
                    self.strip - 1
                }
                None => 0,
            };
        }
        rest.to_owned()
    }
}

/// The file's decoder.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    steps: Vec<Step>,
    /// No decoder is given: tokens are joined by spaces.
    separator: bool,
    /// Taken off the front of the whole text: which character, how many times at most.
    strip: Option<(char, usize)>,
    growth: usize,
}

#[derive(Debug)]
enum Step {
    Replace { from: String, to: String },
    Metaspace { replacement: char, strip_first: bool },
    WordPiece { prefix: String, cleanup: bool },
    Suffix(String),
    Strip { content: char, count: usize },
    ByteFallback,
    ByteLevel,
}

impl Decoder {
    /// Reads `decoder`.
    pub(super) fn read(file: &Node<'_>) -> Result<Self> {
        let mut decoder = Self::default();
        match file.get("decoder") {
            None => decoder.separator = true,
            Some(node) => {
                let mut fused = false;
                decoder.add(&node, &mut fused, 0)?;
            }
        }
        Ok(decoder)
    }

    fn add(&mut self, node: &Node<'_>, fused: &mut bool, depth: usize) -> Result<()> {
        let kind = node.kind()?;
        if *fused && !matches!(kind, "Strip" | "Fuse" | "Sequence") {
            return Err(node.unsupported(format_args!("is a decoder {} after a Fuse", quote(kind))));
        }
        let step = match kind {
            "Sequence" if depth < MAX_DEPTH => {
                let parts = node.need("decoders")?.items(MAX_STEPS)?;
                return parts.iter().try_for_each(|part| self.add(part, fused, depth + 1));
            }
            "Fuse" => {
                *fused = true;
                return Ok(());
            }
            "Strip" => {
                if node.need("stop")?.number(u64::MAX)? != 0 {
                    return Err(node.unsupported("cuts characters off the end of a token, expected `stop` 0"));
                }
                let count = node.need("start")?.number(MAX_STRIP)? as usize;
                let content = node.need("content")?.character()?;
                if *fused {
                    self.strip = Some((content, count));
                    return Ok(());
                }
                Step::Strip { content, count }
            }
            "Replace" => match split_pattern(&node.need("pattern")?)? {
                SplitPattern::String(from) => {
                    let to = bounded(&node.need("content")?)?.to_owned();
                    self.growth = self.growth.max(1).saturating_mul(to.len().div_ceil(from.len()).max(1));
                    if self.growth > MAX_GROWTH {
                        return Err(
                            node.invalid(format_args!("lets text grow by more than {MAX_GROWTH} times"))
                        );
                    }
                    Step::Replace { from, to }
                }
                SplitPattern::Regex(_) => return Err(node.unsupported("replaces by a regular expression")),
            },
            "Metaspace" => Step::Metaspace {
                replacement: node.need("replacement")?.character()?,
                strip_first: metaspace_prefix(node)? != Prefix::Never,
            },
            "WordPiece" => Step::WordPiece {
                prefix: node.get("prefix").map_or(Ok("##"), |prefix| prefix.text())?.to_owned(),
                cleanup: node.flag("cleanup", true)?,
            },
            "BPEDecoder" => {
                let suffix = node.get("suffix").map_or(Ok("</w>"), |suffix| suffix.text())?;
                if suffix.is_empty() {
                    return Err(node.invalid("has an empty suffix"));
                }
                Step::Suffix(suffix.to_owned())
            }
            "ByteFallback" => Step::ByteFallback,
            "ByteLevel" => Step::ByteLevel,
            other => return Err(node.unsupported(format_args!("is a decoder {}", quote(other)))),
        };
        if self.steps.len() == MAX_STEPS {
            return Err(node.invalid(format_args!("is one of more than {MAX_STEPS} steps")));
        }
        self.steps.push(step);
        Ok(())
    }
}

/// Whether the bytes may still become a code point.
fn incomplete(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

/// The blanks that word-piece tokenization put before marks and contractions.
fn tidy(text: &str) -> String {
    let pairs = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    pairs.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// GPT-2's alphabet: printable bytes stand for themselves, the others for the characters from U+0100 on.
pub(super) fn byte_alphabet() -> impl Iterator<Item = (char, u8)> {
    let mut next = 0x100_u32;
    (0..=u8::MAX).map(move |byte| {
        let printable = matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
        let code = if printable {
            u32::from(byte)
        } else {
            next += 1;
            next - 1
        };
        (char::from_u32(code).expect("the codes are below U+0200"), byte)
    })
}

static BYTE_OF: LazyLock<HashMap<char, u8>> = LazyLock::new(|| byte_alphabet().collect());
const MAX_DEPTH: usize = 8;
const MAX_STEPS: usize = 64;
const MAX_STRIP: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;

    #[test]
    fn the_byte_alphabet_is_the_dependencys() {
        let ours: Vec<char> = byte_alphabet().map(|(character, _)| character).collect();
        assert_eq!(ours.len(), ByteLevel::alphabet().len());
        assert!(ours.iter().all(|character| ByteLevel::alphabet().contains(character)));
        assert_eq!(BYTE_OF[&'Ġ'], b' ');
        assert_eq!(BYTE_OF[&'Ċ'], b'\n');
    }
}
