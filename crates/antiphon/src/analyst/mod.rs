//! What a message means: one encoder pass for intent, sentiment and entities, joined by patterns for what has a grammar.

mod merge;
mod patterns;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use antiphon_inference::encoder::{Encoded, Encoder, Head, Heads};
use antiphon_inference::format::Package;
use antiphon_inference::tokenizer::{Encoding, Tokenizer};
use antiphon_kernels::{Arena, Pool, ops};

use self::merge::TokenEntity;
use crate::error::{Error, ErrorKind, Result};
use crate::reply::{Analysis, Entity, Intent, Ranked, Sentiment, rounded};

/// An encoder with its heads, ready to read messages.
pub(crate) struct Analyst {
    encoder: Encoder,
    tokenizer: Tokenizer,
    /// Of intent and sentiment.
    text_heads: Heads,
    /// Of entities.
    token_head: Head,
    intent: Classifier,
    sentiment: Classifier,
    entities: Classifier,
}

/// What the numbers of a head mean.
pub(crate) struct Classifier {
    labels: Vec<String>,
    /// Other names of labels.
    aliases: BTreeMap<String, String>,
    /// Logits are divided by it: fitted so that probabilities come true on held-out data (Guo et al. 2017).
    temperature: f32,
    /// Below it the best label does not count as known.
    threshold: Option<f64>,
}

/// A text ready for the encoder.
pub(crate) struct Prepared {
    text: String,
    encoding: Encoding,
}

impl Analyst {
    /// An encoder with its own heads; `trained` are heads of the host, by name, in their place.
    pub(crate) fn load(package: &Package, trained: &BTreeMap<&str, Package>) -> Result<Self> {
        let encoder = Encoder::load(package)?;
        let tokenizer = Tokenizer::from_package(package, encoder.config().vocab)?;
        let hidden = encoder.config().hidden;
        let head = |name: &str| match trained.get(name) {
            Some(heads) => {
                let made_for = heads.manifest.as_ref().and_then(|manifest| manifest.encoder.as_deref());
                let fingerprint = package.fingerprint()?;
                if made_for != Some(fingerprint) {
                    let made_for = made_for.unwrap_or("none");
                    let what = format!("encoder {made_for}, expected that of the analyst, {fingerprint}");
                    return Err(Error::new(ErrorKind::ModelInvalid, what).context(name));
                }
                Classifier::load(heads, name, hidden).map_err(|error| error.context(name))
            }
            None => Classifier::load(package, name, hidden),
        };
        let [(intent, intent_head), (sentiment, sentiment_head)] = [head("intent")?, head("sentiment")?];
        let (entities, token_head) = head("entities")?;
        let text_heads = Heads::fuse(&[intent_head, sentiment_head])?;
        if let Some(tag) = entities.labels.iter().find(|tag| Tag::parse(tag).is_none()) {
            let what = format!("head `entities`: label {tag:?}, expected O, B-… or I-…");
            return Err(Error::new(ErrorKind::ModelInvalid, what));
        }
        patterns::find(""); // compiles the expressions now rather than in the first message
        Ok(Self { encoder, tokenizer, text_heads, token_head, intent, sentiment, entities })
    }

    /// Cuts a text into tokens; cheap, needs no pool.
    pub(crate) fn prepare(&self, text: String) -> Result<Prepared> {
        let encoding = self.tokenizer.encode_message(&text, self.encoder.config().max_tokens)?;
        Ok(Prepared { text, encoding })
    }

    /// One pass over texts that wait together. Of each intent the best `ranked` labels are told.
    pub(crate) fn analyze(
        &self,
        pool: &mut Pool,
        arena: &mut Arena,
        texts: &[&Prepared],
        ranked: usize,
    ) -> Result<Vec<Analysis>> {
        let encoded = self.pass(pool, arena, texts, Some(&self.text_heads), Some(&self.token_head))?;
        Ok(texts.iter().zip(&encoded).map(|(text, encoded)| self.read(text, encoded, ranked)).collect())
    }

    /// One pass for the texts' vectors, of unit length.
    pub(crate) fn embed(
        &self,
        pool: &mut Pool,
        arena: &mut Arena,
        texts: &[&Prepared],
    ) -> Result<Vec<Vec<f32>>> {
        let encoded = self.pass(pool, arena, texts, None, None)?;
        let unit = |mut encoded: Encoded| {
            ops::l2_normalize(&mut encoded.vector);
            encoded.vector
        };
        Ok(encoded.into_iter().map(unit).collect())
    }

    fn pass(
        &self,
        pool: &mut Pool,
        arena: &mut Arena,
        texts: &[&Prepared],
        text_heads: Option<&Heads>,
        token_head: Option<&Head>,
    ) -> Result<Vec<Encoded>> {
        let ids: Vec<&[u32]> = texts.iter().map(|text| text.encoding.ids.as_slice()).collect();
        // A pass is milliseconds long: it is not worth interrupting.
        Ok(self.encoder.pass(pool, arena, &ids, text_heads, token_head, &AtomicBool::new(false))?)
    }

    fn read(&self, text: &Prepared, encoded: &Encoded, ranked: usize) -> Analysis {
        let found = patterns::find(&text.text);
        let named = self.token_entities(&text.encoding, &encoded.tokens);
        Analysis {
            intent: self.intent.intent(&encoded.sequence[0], ranked),
            sentiment: self.sentiment.sentiment(&encoded.sequence[1]),
            entities: entities(&text.text, merge::merge(found, named)),
            tokens: text.encoding.ids.len(),
            truncated: text.encoding.truncated,
        }
    }

    /// Reads the tags of words into spans. A word has the tag of its first token; an `I-` that continues nothing begins a
    /// span, as in the CoNLL scorer.
    fn token_entities(&self, encoding: &Encoding, logits: &[Vec<f32>]) -> Vec<TokenEntity> {
        let mut spans: Vec<(TokenEntity, u32)> = Vec::new();
        let mut open = false;
        for (token, range) in encoding.offsets.iter().enumerate() {
            if range.is_empty() {
                open = false; // a special token
                continue;
            }
            if !encoding.word_start[token] {
                // The rest of a word goes where its first token went.
                if open && let Some((span, _)) = spans.last_mut() {
                    span.range.end = range.end;
                }
                continue;
            }
            let probabilities = self.entities.probabilities(&logits[token]);
            let best = best(&probabilities);
            let confidence = probabilities[best];
            match Tag::parse(&self.entities.labels[best]) {
                Some(Tag::Inside(kind))
                    if open && spans.last().is_some_and(|(span, _)| span.kind == kind) =>
                {
                    let (span, words) = spans.last_mut().expect("a span is open");
                    span.range.end = range.end;
                    span.confidence += confidence;
                    *words += 1;
                }
                Some(Tag::Begin(kind) | Tag::Inside(kind)) => {
                    spans.push((TokenEntity { kind: kind.to_owned(), range: range.clone(), confidence }, 1));
                    open = true;
                }
                Some(Tag::Outside) | None => open = false,
            }
        }
        // A span is as sure as its words on average; what is more likely not there is not reported.
        let threshold = self.entities.threshold.unwrap_or(EVEN);
        let spans = spans
            .into_iter()
            .map(|(span, words)| TokenEntity { confidence: span.confidence / f64::from(words), ..span });
        spans.filter(|span| span.confidence >= threshold).collect()
    }

    /// Bytes of the packed weights.
    pub(crate) fn bytes(&self) -> usize {
        self.encoder.bytes()
    }

    /// About the bytes of what reads text: the vocabulary and the compiled patterns.
    pub(crate) fn text_bytes(&self) -> usize {
        self.tokenizer.bytes() + patterns::BYTES
    }

    /// The head for what users want.
    pub(crate) fn intent(&self) -> &Classifier {
        &self.intent
    }

    /// The head for how users feel.
    pub(crate) fn sentiment(&self) -> &Classifier {
        &self.sentiment
    }

    /// The types of the token head, and its other names for them, each with the type.
    pub(crate) fn entity_kinds<'a>(&'a self) -> BTreeMap<&'a str, &'a str> {
        let kind = |tag: &'a str| match Tag::parse(tag)? {
            Tag::Begin(kind) | Tag::Inside(kind) => Some(kind),
            Tag::Outside => None,
        };
        let Classifier { labels, aliases, .. } = &self.entities;
        let tags = labels.iter().map(|tag| (tag, tag)).chain(aliases);
        tags.filter_map(|(name, tag)| Some((kind(name)?, kind(tag)?))).collect()
    }
}

impl Prepared {
    /// What it holds, its tokens with their offsets included.
    pub(crate) fn bytes(&self) -> usize {
        self.text.capacity() + self.tokens() * TOKEN_BYTES
    }

    pub(crate) fn tokens(&self) -> usize {
        self.encoding.ids.len()
    }

    /// A text of so many tokens, for tests of who is read when.
    #[cfg(test)]
    pub(crate) fn of_tokens(tokens: usize) -> Self {
        let encoding = Encoding {
            ids: vec![0; tokens],
            offsets: vec![0..0; tokens],
            word_start: vec![false; tokens],
            truncated: false,
        };
        Self { text: String::new(), encoding }
    }
}

impl Classifier {
    /// Reads a head, and what its numbers mean.
    fn load(package: &Package, name: &str, hidden: usize) -> Result<(Self, Head)> {
        let manifest = package.manifest.as_ref().and_then(|manifest| manifest.heads.get(name));
        let manifest = manifest.ok_or_else(|| {
            let what = format!("model `{}`: antiphon.json has no head `{name}`, expected one", package.name);
            Error::new(ErrorKind::UnsupportedModel, what)
        })?;
        let head = Head::load(&package.weights, &manifest.tensors, manifest.labels.len(), hidden)?;
        let classifier = Self {
            labels: manifest.labels.clone(),
            aliases: manifest.aliases.clone(),
            temperature: manifest.temperature,
            threshold: manifest.threshold.map(f64::from),
        };
        Ok((classifier, head))
    }

    /// The label of this name, which may be another name of it.
    pub(crate) fn resolve<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        let label = self.aliases.get(name).map_or(name, String::as_str);
        self.labels.iter().any(|known| known == label).then_some(label)
    }

    /// The probability below which the best label does not count as known.
    pub(crate) fn threshold(&self) -> Option<f64> {
        self.threshold
    }

    fn probabilities(&self, logits: &[f32]) -> Vec<f64> {
        let mut probabilities: Vec<f32> = logits.iter().map(|x| x / self.temperature).collect();
        ops::softmax(&mut probabilities);
        probabilities.into_iter().map(f64::from).collect()
    }

    fn intent(&self, logits: &[f32], ranked: usize) -> Intent {
        let probabilities = self.probabilities(logits);
        let mut order: Vec<usize> = (0..probabilities.len()).collect();
        order.sort_by(|&a, &b| probabilities[b].total_cmp(&probabilities[a]).then(a.cmp(&b)));
        let with_confidence = |&label: &usize| Ranked {
            label: self.labels[label].clone(),
            confidence: rounded(probabilities[label]),
        };
        let ranking: Vec<Ranked> = order.iter().take(ranked).map(with_confidence).collect();
        let top = probabilities[order[0]];
        if self.threshold.is_some_and(|threshold| top < threshold) {
            let confidence = rounded(1.0 - top);
            return Intent { label: OUT_OF_SCOPE.into(), confidence, out_of_scope: true, ranking };
        }
        Intent {
            label: ranking[0].label.clone(),
            confidence: ranking[0].confidence,
            out_of_scope: false,
            ranking,
        }
    }

    fn sentiment(&self, logits: &[f32]) -> Sentiment {
        let probabilities = self.probabilities(logits);
        let best = best(&probabilities);
        let scores: BTreeMap<String, f64> =
            self.labels.iter().cloned().zip(probabilities.iter().map(|&p| rounded(p))).collect();
        Sentiment { label: self.labels[best].clone(), confidence: rounded(probabilities[best]), scores }
    }
}

/// A tag of the BIO scheme.
pub(crate) enum Tag<'a> {
    Outside,
    Begin(&'a str),
    Inside(&'a str),
}

impl<'a> Tag<'a> {
    pub(crate) fn parse(tag: &'a str) -> Option<Self> {
        match tag.split_once('-') {
            None if tag == "O" => Some(Self::Outside),
            Some(("B", kind)) => Some(Self::Begin(kind)),
            Some(("I", kind)) => Some(Self::Inside(kind)),
            _ => None,
        }
    }
}

/// The first of the greatest.
fn best(probabilities: &[f64]) -> usize {
    let better = |best: usize, (index, p): (usize, &f64)| if *p > probabilities[best] { index } else { best };
    probabilities.iter().enumerate().fold(0, better)
}

/// Byte spans, in order of position, become entities; code points are counted in one pass.
fn entities(text: &str, spans: Vec<TokenEntity>) -> Vec<Entity> {
    let (mut bytes, mut chars) = (0, 0);
    let mut chars_at = |byte: usize| {
        chars += text[bytes..byte].chars().count();
        bytes = byte;
        chars
    };
    let entity = |TokenEntity { kind, range: Range { start, end }, confidence }| {
        let chars = chars_at(start)..chars_at(end);
        Entity {
            kind,
            value: text[start..end].to_owned(),
            confidence: rounded(confidence),
            start,
            end,
            chars,
        }
    };
    spans.into_iter().map(entity).collect()
}

/// A token's number, its offsets, and whether a word begins with it.
const TOKEN_BYTES: usize = size_of::<u32>() + size_of::<Range<usize>>() + size_of::<bool>();

/// What a message is labelled when no known intent is likely enough.
pub(crate) const OUT_OF_SCOPE: &str = "out_of_scope";

/// As likely as not.
const EVEN: f64 = 0.5;

/// Labels that an analysis ranks.
pub(crate) const RANKING: usize = 5;
