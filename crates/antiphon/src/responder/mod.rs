//! The answering side: a decoder, what it is told, and the batch of sequences that it writes.

pub(crate) mod backend;
pub(crate) mod degrade;
pub(crate) mod foreign;
mod pace;
pub(crate) mod prompt;
pub(crate) mod scheduler;
pub(crate) mod score;
pub(crate) mod sequence;

use antiphon_inference::decoder::{Decoder, DecoderConfig};
use antiphon_inference::format::{Manifest, Package};
use antiphon_inference::parallel::both;
use antiphon_inference::template::ChatTemplate;
use antiphon_inference::tokenizer::{Memo, Tokenizer};

use crate::error::{Error, ErrorKind, Result};

/// Who is to answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Voice {
    /// Nobody: the analysis answers in its own words.
    Template,
    /// A responder of the engine.
    Responder(usize),
    /// A generator of the host.
    Generator(usize),
}

/// A decoder with its tokenizer and chat template.
pub(crate) struct Responder {
    pub(crate) name: String,
    pub(crate) fingerprint: String,
    pub(crate) decoder: Decoder,
    pub(crate) tokenizer: Tokenizer,
    /// None: the model can continue a text, but knows no turns.
    pub(crate) template: Option<ChatTemplate>,
    /// The tokens of turns that may come again.
    pub(crate) memo: Memo,
    /// Whether it does what it is told: a chat model of the host's own, or one whose card says so.
    pub(crate) is_instruct: bool,
    /// Prompt and answer together.
    pub(crate) context_tokens: usize,
}

impl Responder {
    pub(crate) fn load(
        package: &Package,
        name: String,
        context_tokens: Option<usize>,
        threads: usize,
    ) -> Result<Self> {
        let vocab = DecoderConfig::of(package)?.vocab;
        let tokenizer = || Tokenizer::from_package(package, vocab);
        let (tokenizer, decoder) = both(threads, tokenizer, || Decoder::load(package, threads));
        let (decoder, tokenizer) = (decoder?, tokenizer?);
        let template = match package.chat_template {
            Some(_) => Some(ChatTemplate::from_package(package, &tokenizer)?),
            None => None,
        };
        let most = decoder.config().context_tokens;
        let context_tokens = context_tokens.unwrap_or(most);
        if context_tokens > most {
            let what = format!(
                "configuration key `context_tokens` is {context_tokens}, expected at most {most} for `{name}`"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, what));
        }
        let fingerprint = package.fingerprint()?.to_owned();
        let says_so = |manifest: &Manifest| manifest.card.get("instruct") == Some(&true.into());
        let is_instruct = template.is_some() && package.manifest.as_ref().is_none_or(says_so);
        let memo = Memo::default();
        Ok(Self { name, fingerprint, decoder, tokenizer, template, memo, is_instruct, context_tokens })
    }

    /// About the bytes of what reads and writes text: the vocabulary, and turns that may come again.
    pub(crate) fn text_bytes(&self) -> usize {
        self.tokenizer.bytes() + Memo::BYTES
    }

    pub(crate) fn is_end(&self, token: u32) -> bool {
        self.tokenizer.eos_ids().contains(&token)
    }
}
