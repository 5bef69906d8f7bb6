//! Normalizers and pre-tokenizers: from the file's description to the dependency's types, checked on the way.
//!
//! Nothing of the file is handed to the dependency's own reader: what we do not build here does not run. Every pipeline
//! exists twice, for text at the start of a sequence and for text further inside, where no leading space is prepended.

use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{
    BertNormalizer, ByteLevel as ByteLevelNormalizer, Lowercase, NFC, NFD, NFKC, NFKD, Nmt, Precompiled,
    Prepend, Replace, Sequence as NormalizerSequence, Strip, StripAccents,
};
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::delimiter::CharDelimiterSplit;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::fixed_length::FixedLength;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::punctuation::Punctuation;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::pre_tokenizers::unicode_scripts::UnicodeScripts;
use tokenizers::pre_tokenizers::whitespace::{Whitespace, WhitespaceSplit};
use tokenizers::{NormalizerWrapper, PreTokenizerWrapper, SplitDelimiterBehavior};

use super::node::Node;
use super::{charsmap, pattern};
use crate::error::{Result, quote};

/// What stands before the model.
pub(super) struct Pipeline {
    pub(super) normalizer: Option<NormalizerWrapper>,
    pub(super) pre_tokenizer: Option<PreTokenizerWrapper>,
}

/// Both pipelines and what is true of either.
pub(super) struct Pipelines {
    /// For text at the start of a sequence.
    pub(super) start: Pipeline,
    /// For text that continues one: nothing is prepended.
    pub(super) inner: Pipeline,
    pub(super) facts: Facts,
}

/// What the rest of the tokenizer needs to know about the pipeline.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Facts {
    /// When a space is prepended.
    pub(super) prefix: Prefix,
    /// Text reaches the model as one character per byte.
    pub(super) byte_level: bool,
    growth: usize,
}

/// When a space is prepended to a piece of text.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, PartialOrd)]
pub(super) enum Prefix {
    /// Never.
    #[default]
    Never,
    /// At the start of the sequence only.
    First,
    /// At the start and after every added token.
    Segment,
}

impl Pipelines {
    /// Reads `normalizer` and `pre_tokenizer` of the file.
    pub(super) fn read(file: &Node<'_>) -> Result<Self> {
        let mut facts = Facts { growth: 1, ..Facts::default() };
        let mut build = |start| -> Result<Pipeline> {
            facts.growth = 1;
            let mut reader = Reader { start, facts: &mut facts, left: MAX_PARTS };
            let normalizer =
                file.get("normalizer").map(|node| reader.normalizer(&node, 0)).transpose()?.flatten();
            let pre_tokenizer =
                file.get("pre_tokenizer").map(|node| reader.pre_tokenizer(&node, 0)).transpose()?;
            Ok(Pipeline { normalizer, pre_tokenizer })
        };
        let (start, inner) = (build(true)?, build(false)?);
        Ok(Self { start, inner, facts })
    }
}

struct Reader<'f> {
    start: bool,
    facts: &'f mut Facts,
    left: usize,
}

impl Reader<'_> {
    /// Counts a component and its nesting.
    fn enter(&mut self, node: &Node<'_>, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(node.invalid(format_args!("is nested more than {MAX_DEPTH} deep")));
        }
        self.left = self
            .left
            .checked_sub(1)
            .ok_or_else(|| node.invalid(format_args!("is one of more than {MAX_PARTS} parts")))?;
        Ok(())
    }

    /// Counts how much longer a text can become.
    fn grow(&mut self, node: &Node<'_>, times: usize) -> Result<()> {
        self.facts.growth = self.facts.growth.saturating_mul(times.max(1));
        if self.facts.growth > MAX_GROWTH {
            return Err(node.invalid(format_args!("lets text grow by more than {MAX_GROWTH} times")));
        }
        Ok(())
    }

    fn normalizer(&mut self, node: &Node<'_>, depth: usize) -> Result<Option<NormalizerWrapper>> {
        self.enter(node, depth)?;
        Ok(Some(match node.kind()? {
            "Sequence" => {
                let mut parts = Vec::new();
                for part in node.need("normalizers")?.items(MAX_PARTS)? {
                    parts.extend(self.normalizer(&part, depth + 1)?);
                }
                NormalizerSequence::new(parts).into()
            }
            "BertNormalizer" | "Bert" => BertNormalizer::new(
                node.flag("clean_text", true)?,
                node.flag("handle_chinese_chars", true)?,
                node.get("strip_accents").map(|flag| flag.boolean()).transpose()?,
                node.flag("lowercase", true)?,
            )
            .into(),
            "Strip" => {
                if !self.start {
                    return Ok(None); // what continues a text has no end of its own to trim
                }
                Strip::new(node.flag("strip_left", true)?, node.flag("strip_right", true)?).into()
            }
            "StripAccents" => StripAccents.into(),
            "NFC" => NFC.into(),
            "NFD" => NFD.into(),
            "NFKC" => NFKC.into(),
            "NFKD" => NFKD.into(),
            "Nmt" => Nmt.into(),
            "Lowercase" => Lowercase.into(),
            "ByteLevel" => {
                self.facts.byte_level = true;
                ByteLevelNormalizer::new().into()
            }
            "Precompiled" => {
                let map = node.need("precompiled_charsmap")?;
                let map = charsmap::checked(map.text()?).map_err(|reason| map.invalid(reason))?;
                self.grow(node, CHARSMAP_GROWTH)?;
                let built =
                    Precompiled::from(&map).map_err(|_| node.invalid("holds a map that cannot be read"))?;
                NormalizerWrapper::Precompiled(built)
            }
            "Prepend" => {
                self.facts.prefix = Prefix::Segment;
                let prepend = node.need("prepend")?;
                if !self.start {
                    return Ok(None);
                }
                Prepend::new(bounded(&prepend)?.to_owned()).into()
            }
            "Replace" => {
                let content = node.need("content")?;
                let content = bounded(&content)?;
                let (pattern, shortest) = match split_pattern(&node.need("pattern")?)? {
                    SplitPattern::String(text) => (ReplacePattern::String(text.clone()), text.len()),
                    SplitPattern::Regex(text) => (ReplacePattern::Regex(text), 1),
                };
                self.grow(node, content.len().div_ceil(shortest))?;
                let built = Replace::new(pattern, content);
                built.map_err(|_| node.invalid("has a pattern that cannot be compiled"))?.into()
            }
            other => return Err(node.unsupported(format_args!("is a normalizer {}", quote(other)))),
        }))
    }

    fn pre_tokenizer(&mut self, node: &Node<'_>, depth: usize) -> Result<PreTokenizerWrapper> {
        self.enter(node, depth)?;
        Ok(match node.kind()? {
            "Sequence" => {
                let parts = node.need("pretokenizers")?.items(MAX_PARTS)?;
                let parts = parts.iter().map(|part| self.pre_tokenizer(part, depth + 1));
                Sequence::new(parts.collect::<Result<_>>()?).into()
            }
            "BertPreTokenizer" => BertPreTokenizer.into(),
            "ByteLevel" => {
                self.facts.byte_level = true;
                let prefix = node.flag("add_prefix_space", true)?;
                if prefix {
                    self.facts.prefix = Prefix::Segment;
                }
                ByteLevel::new(prefix && self.start, true, node.flag("use_regex", true)?).into()
            }
            "CharDelimiterSplit" => CharDelimiterSplit::new(node.need("delimiter")?.character()?).into(),
            "Metaspace" => {
                let scheme = match (metaspace_prefix(node)?, self.start) {
                    (Prefix::Never, _) | (_, false) => PrependScheme::Never,
                    (Prefix::First, true) => PrependScheme::First,
                    (Prefix::Segment, true) => PrependScheme::Always,
                };
                let prefix = metaspace_prefix(node)?;
                if prefix > self.facts.prefix {
                    self.facts.prefix = prefix;
                }
                Metaspace::new(node.need("replacement")?.character()?, scheme, node.flag("split", true)?)
                    .into()
            }
            "Whitespace" => Whitespace.into(),
            "WhitespaceSplit" => WhitespaceSplit.into(),
            "Punctuation" => Punctuation::new(behavior(node)?).into(),
            "Digits" => Digits::new(node.flag("individual_digits", false)?).into(),
            "UnicodeScripts" => UnicodeScripts::new().into(),
            "Split" => {
                let split = Split::new(
                    split_pattern(&node.need("pattern")?)?,
                    behavior(node)?,
                    node.flag("invert", false)?,
                );
                split.map_err(|_| node.invalid("has a pattern that cannot be compiled"))?.into()
            }
            "FixedLength" => {
                let length = node.get("length").map_or(Ok(5), |length| length.number(MAX_FIXED_LENGTH))?;
                if length == 0 {
                    return Err(node.invalid("has length 0, expected at least 1"));
                }
                FixedLength::new(length as usize).into()
            }
            other => return Err(node.unsupported(format_args!("is a pre-tokenizer {}", quote(other)))),
        })
    }
}

/// When a `Metaspace` component prepends its replacement; old files say `add_prefix_space`.
pub(super) fn metaspace_prefix(node: &Node<'_>) -> Result<Prefix> {
    let scheme = match node.get("prepend_scheme") {
        None => Prefix::Segment,
        Some(scheme) => match scheme.text()? {
            "always" => Prefix::Segment,
            "first" => Prefix::First,
            "never" => Prefix::Never,
            other => {
                return Err(
                    scheme.invalid(format_args!("is {}, expected always, first or never", quote(other)))
                );
            }
        },
    };
    Ok(if node.flag("add_prefix_space", true)? { scheme } else { Prefix::Never })
}

/// `{"String": …}` or `{"Regex": …}`, the latter within the bounds of [`pattern`].
pub(super) fn split_pattern(node: &Node<'_>) -> Result<SplitPattern> {
    if let Some(text) = node.get("String") {
        if text.text()?.is_empty() {
            return Err(text.invalid("is empty, expected something to look for"));
        }
        return Ok(SplitPattern::String(bounded(&text)?.to_owned()));
    }
    let regex = node.need("Regex")?;
    match pattern::refusal(regex.text()?) {
        Some(reason) => Err(regex.unsupported(format_args!("{} {reason}", quote(regex.text()?)))),
        None => Ok(SplitPattern::Regex(regex.text()?.to_owned())),
    }
}

fn behavior(node: &Node<'_>) -> Result<SplitDelimiterBehavior> {
    let Some(behavior) = node.get("behavior") else { return Ok(SplitDelimiterBehavior::Isolated) };
    Ok(match behavior.text()? {
        "Removed" => SplitDelimiterBehavior::Removed,
        "Isolated" => SplitDelimiterBehavior::Isolated,
        "MergedWithPrevious" => SplitDelimiterBehavior::MergedWithPrevious,
        "MergedWithNext" => SplitDelimiterBehavior::MergedWithNext,
        "Contiguous" => SplitDelimiterBehavior::Contiguous,
        other => return Err(behavior.invalid(format_args!("is {}, not a split behavior", quote(other)))),
    })
}

/// The text, at most 64 bytes.
pub(super) fn bounded<'a>(node: &Node<'a>) -> Result<&'a str> {
    let text = node.text()?;
    if text.len() > MAX_CONTENT_BYTES {
        return Err(node
            .invalid(format_args!("is {} bytes long, at most {MAX_CONTENT_BYTES} are allowed", text.len())));
    }
    Ok(text)
}

const MAX_DEPTH: usize = 8;
const MAX_PARTS: usize = 64;
const MAX_CONTENT_BYTES: usize = 64;
/// The factor by which all replacements together may lengthen a text.
pub(super) const MAX_GROWTH: usize = 256;
/// What SentencePiece's own map comes to, at its most.
const CHARSMAP_GROWTH: usize = 16;
const MAX_FIXED_LENGTH: u64 = 1 << 20;
