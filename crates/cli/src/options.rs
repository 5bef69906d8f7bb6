//! Options that several commands share: how the engine opens, and every option of a request.

use std::path::PathBuf;

use antiphon::{
    CacheMode, EngineConfig, Error, ErrorKind, Message, ModelSource, Overflow, Priority, RequestOptions,
    Result,
};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::input;

/// How the engine opens.
#[derive(Args, Clone)]
#[command(next_help_heading = "Engine")]
pub(crate) struct Common {
    /// Configuration, JSON or TOML by its extension
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where relative paths of models begin
    #[arg(long, global = true, value_name = "DIR")]
    models: Option<PathBuf>,
    /// The model that understands: `bundled`, a model directory, or `none`
    #[arg(long, global = true, value_name = "PATH")]
    analyst: Option<String>,
    /// The model that answers: `bundled`, a model directory, a .gguf file, or `none`
    #[arg(long, global = true, value_name = "PATH")]
    responder: Option<String>,
    /// Threads that compute [default: the CPU quota of the process]
    #[arg(long, global = true, value_name = "N")]
    threads: Option<usize>,
}

impl Common {
    /// The configuration: the file, then the options over it.
    pub(crate) fn engine_config(&self) -> Result<EngineConfig> {
        let mut config = self.config.as_deref().map_or_else(|| Ok(EngineConfig::default()), read_config)?;
        if let Some(dir) = &self.models {
            config = config.models_dir(dir);
        }
        if let Some(analyst) = &self.analyst {
            config = config.analyst(slot(analyst));
        }
        if let Some(responder) = &self.responder {
            config = config.responder(slot(responder));
        }
        if let Some(threads) = self.threads {
            config = config.threads(threads);
        }
        Ok(config)
    }

    /// Whether an analyst was named, here or in a file.
    pub(crate) fn names_analyst(&self) -> bool {
        self.analyst.is_some() || self.config.is_some()
    }
}

fn slot(name: &str) -> Option<ModelSource> {
    (name != "none").then(|| ModelSource::from(name))
}

fn read_config(path: &std::path::Path) -> Result<EngineConfig> {
    let text = input::file(path, input::CONFIG_BYTES, ErrorKind::InvalidConfig)?;
    let name = path.display();
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("json") => EngineConfig::from_json(&text)
            .map_err(|error| Error::new(error.kind(), format!("file `{name}`: {error}"))),
        Some("toml") => toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            Error::new(ErrorKind::InvalidConfig, format!("file `{name}`: line {line}: {}", error.message()))
        }),
        _ => {
            let what = format!("file `{name}`: expected a name that ends in .json or .toml");
            Err(Error::new(ErrorKind::InvalidConfig, what))
        }
    }
}

/// Every option of a request but the model, which is a name for some commands and a path for others.
#[derive(Args, Clone)]
#[command(next_help_heading = "Request")]
pub(crate) struct RequestFlags {
    /// Longest answer in tokens [default: 256]
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// 0 is greedy; 0 to 2 [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Only the N likeliest tokens
    #[arg(long, value_name = "N")]
    top_k: Option<usize>,
    /// Only the likeliest tokens that make up this share
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Only tokens at least so likely relative to the likeliest
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Divides the logits of tokens that occurred [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    repetition_penalty: Option<f32>,
    /// Subtracted once from tokens that occurred in the answer [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    presence_penalty: Option<f32>,
    /// Subtracted for each time a token occurred in the answer [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    frequency_penalty: Option<f32>,
    /// Added to the logits of a token; may be repeated
    #[arg(long, value_name = "ID=VALUE", value_parser = bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Seed of a sampled answer
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Text that ends the answer and is not part of it; may be repeated
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Log-probabilities of each token and of N alternatives (in JSON)
    #[arg(long, value_name = "N")]
    logprobs: Option<usize>,
    /// Time for the queue, the prompt and the answer together
    #[arg(long, value_name = "MS")]
    deadline_ms: Option<u64>,
    /// Who goes first when requests wait
    #[arg(long, value_parser = named::<Priority>(&["low", "normal", "high"]))]
    priority: Option<Priority>,
    /// Whether a cached answer may serve
    #[arg(long, value_parser = named::<CacheMode>(&["use", "refresh", "bypass"]))]
    cache: Option<CacheMode>,
    /// What happens to a history that does not fit
    #[arg(long, value_parser = named::<Overflow>(&["error", "truncate_oldest"]))]
    overflow: Option<Overflow>,
    /// Whose request it is [default: default]
    #[arg(long, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// The user
    #[arg(long, value_name = "ID")]
    pub(crate) user: Option<String>,
    /// The conversation
    #[arg(long, value_name = "ID")]
    pub(crate) conversation: Option<String>,
    /// Further knowledge, a JSON object of at most 4 KiB
    #[arg(long, value_name = "JSON")]
    context: Option<String>,
    /// Earlier turns: a JSON file of {"role", "content"}, oldest first
    #[arg(long, value_name = "FILE")]
    history: Option<PathBuf>,
}

impl RequestFlags {
    /// The options of a request; what was not given keeps its default.
    pub(crate) fn options(&self, model: Option<String>) -> RequestOptions {
        let mut options = RequestOptions::default();
        set(&mut options.max_tokens, self.max_tokens);
        set(&mut options.temperature, self.temperature);
        set(&mut options.repetition_penalty, self.repetition_penalty);
        set(&mut options.presence_penalty, self.presence_penalty);
        set(&mut options.frequency_penalty, self.frequency_penalty);
        set(&mut options.priority, self.priority);
        set(&mut options.cache, self.cache);
        set(&mut options.overflow, self.overflow);
        options.top_k = self.top_k;
        options.top_p = self.top_p;
        options.min_p = self.min_p;
        options.seed = self.seed;
        options.logprobs = self.logprobs;
        options.deadline_ms = self.deadline_ms;
        options.logit_bias = self.logit_bias.iter().copied().collect();
        options.stop.clone_from(&self.stop);
        options.model = model;
        options
    }

    /// The context, if it is a JSON object.
    pub(crate) fn context(&self) -> Result<Map<String, Value>> {
        self.context
            .as_deref()
            .map_or_else(|| Ok(Map::new()), |json| input::parse(json, "--context", "a JSON object"))
    }

    /// The earlier turns.
    pub(crate) fn history(&self) -> Result<Vec<Message>> {
        self.history.as_deref().map_or_else(|| Ok(Vec::new()), |path| input::json_file(path, TURNS))
    }
}

fn set<T>(option: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *option = value;
    }
}

/// `ID=VALUE`
fn bias(text: &str) -> Result<(u32, f32), String> {
    let (id, value) = text.split_once('=').ok_or("expected ID=VALUE")?;
    let id = id.parse().map_err(|_| "expected a token id before the `=`")?;
    let value = value.parse().map_err(|_| "expected a number behind the `=`")?;
    Ok((id, value))
}

/// One of the names that the value has in JSON.
pub(crate) fn named<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    names: &'static [&'static str],
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value(Value::String(name)))
}

/// What a file of chat turns holds.
pub(crate) const TURNS: &str = r#"an array of {"role": "system", "user" or "assistant", "content": text}"#;
