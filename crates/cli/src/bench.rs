//! `antiphon bench`: what it costs on this machine.
//!
//! Every figure is a median unless its name says otherwise. A section repeats until it has enough samples or has used its
//! share of time, whichever comes first, so that a slow model does not take an hour.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use antiphon::{
    CacheMode, Engine, EngineConfig, Error, ErrorKind, Event, Generate, Message, ModelSource, Reply, Request,
};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::options::Common;
use crate::output::{Outcome, Output};

#[derive(Args)]
pub(crate) struct Options {
    /// The model that answers: a model directory or a .gguf file [default: the engine's responder]
    #[arg(long, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Print the figures as one JSON object
    #[arg(long)]
    json: bool,
    /// Length of the prompt whose reading is timed
    #[arg(long, value_name = "N", default_value = "128", value_parser = counted(1 << 20))]
    prompt_tokens: usize,
    /// Length of the answers whose writing is timed
    #[arg(long, value_name = "N", default_value = "64", value_parser = counted(1 << 20))]
    decode_tokens: usize,
    /// Answers written at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = counted(256))]
    batch: usize,
}

fn counted(most: u64) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most)
}

pub(crate) fn run(common: &Common, options: &Options, output: &mut Output) -> Outcome {
    let mut config = common.engine_config()?;
    if let Some(path) = &options.model {
        config = config.responder(ModelSource::Path(path.clone()));
    }
    let figures = measure(config, options)?;
    if options.json {
        return output.json(&figures);
    }
    figures.lines().iter().try_for_each(|(name, value)| output.line(&format!("{name:<28} {value}")))
}

/// The shape that hosts compare.
#[derive(Serialize)]
struct Figures {
    open_ms: f64,
    first_token_ms: f64,
    /// Of a turn whose history was read before.
    second_turn_first_token_ms: f64,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: f64,
    batch: usize,
    batch_decode_tokens_per_second: f64,
    analysis: Spread,
    process: Spread,
    cache_hit: Hit,
    /// None where the system does not tell.
    peak_rss_bytes: Option<u64>,
    threads: usize,
    cpu: String,
    kernels: &'static str,
    versions: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Spread {
    p50_ms: f64,
    p99_ms: f64,
}

#[derive(Serialize)]
struct Hit {
    p50_us: f64,
}

fn measure(config: EngineConfig, options: &Options) -> Outcome<Figures> {
    let bar = ProgressBar::new(SECTIONS)
        .with_style(ProgressStyle::with_template("{bar:20} {msg}").expect("the template is well-formed"));
    let concurrent = config.batcher.max_concurrent.max(options.batch);
    let step = |name: &'static str| {
        bar.set_message(name);
        bar.inc(1);
    };
    step("opening");
    let started = Instant::now();
    let engine = Engine::open(config.max_concurrent(concurrent))?;
    let open_ms = ms(started.elapsed());

    step("analysis");
    let analysis = sample(200, || timed(|| engine.analyze_blocking(MESSAGE)))?;
    step("first token");
    let first_token = sample(20, || first_token(&engine))?;
    step("second turn");
    let second_turn = second_turn(&engine, options.prompt_tokens)?;
    step("process");
    let request = || Request::new(MESSAGE).max_tokens(options.decode_tokens);
    let process = sample(50, || timed(|| engine.process_blocking(request().cache(CacheMode::Bypass))))?;
    step("cache");
    engine.process_blocking(request())?;
    let hits = sample(200, || timed(|| engine.process_blocking(request())))?;
    step("prefill");
    let prefill = prefill(&engine, options.prompt_tokens)?;
    step("decode");
    let decode = decode(&engine, options.decode_tokens)?;
    step("batch");
    let batch_decode = batch_decode(&engine, options.batch, options.decode_tokens)?;
    bar.finish_and_clear();

    let spread = |samples: &[f64]| Spread { p50_ms: quantile(samples, 0.5), p99_ms: quantile(samples, 0.99) };
    let mut versions: BTreeMap<String, String> =
        engine.models().into_iter().map(|model| (model.model_name, model.fingerprint)).collect();
    versions.insert("antiphon".into(), env!("CARGO_PKG_VERSION").into());
    Ok(Figures {
        open_ms: rounded(open_ms),
        first_token_ms: quantile(&first_token, 0.5),
        second_turn_first_token_ms: second_turn,
        prefill_tokens_per_second: rounded(prefill),
        decode_tokens_per_second: rounded(decode),
        batch: options.batch,
        batch_decode_tokens_per_second: rounded(batch_decode),
        analysis: spread(&analysis),
        process: spread(&process),
        cache_hit: Hit { p50_us: rounded(quantile(&hits, 0.5) * 1e3) },
        peak_rss_bytes: peak_rss_bytes(),
        threads: engine.threads(),
        cpu: cpu(),
        kernels: engine.kernels(),
        versions,
    })
}

impl Figures {
    /// For people.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let spread = |spread: &Spread| format!("{:.2} ms, p99 {:.2} ms", spread.p50_ms, spread.p99_ms);
        let rate = |rate: f64| format!("{rate:.0} tokens/s");
        vec![
            ("open", format!("{:.0} ms", self.open_ms)),
            ("first token", format!("{:.1} ms", self.first_token_ms)),
            ("first token, second turn", format!("{:.1} ms", self.second_turn_first_token_ms)),
            ("prefill", rate(self.prefill_tokens_per_second)),
            ("decode", rate(self.decode_tokens_per_second)),
            (
                "decode, batch",
                format!("{} ({} at once)", rate(self.batch_decode_tokens_per_second), self.batch),
            ),
            ("analysis", spread(&self.analysis)),
            ("process", spread(&self.process)),
            ("process, cached", format!("{:.0} µs", self.cache_hit.p50_us)),
            (
                "peak memory",
                self.peak_rss_bytes.map_or("unknown".into(), |bytes| format!("{:.0} MB", bytes as f64 / 1e6)),
            ),
            ("machine", format!("{}, {} threads, {} kernels", self.cpu, self.threads, self.kernels)),
        ]
    }
}

/// From the call to the first piece of the answer.
fn first_token(engine: &Engine) -> Result<f64, Error> {
    let started = Instant::now();
    for event in engine.stream(Request::new(MESSAGE).cache(CacheMode::Bypass))? {
        // An answer may be empty: then its end is the first that is seen of it.
        if matches!(event?, Event::Chunk { .. } | Event::Done(_)) {
            break;
        }
    }
    Ok(ms(started.elapsed()))
}

/// Milliseconds to the first token of a turn after one of about `tokens`, whose rows are still there.
fn second_turn(engine: &Engine, tokens: usize) -> Result<f64, Error> {
    let mut run = 0;
    let samples = sample(10, || {
        run += 1;
        let mut turns = vec![Message::user(format!(
            "{} turn{}",
            WORDS[run % WORDS.len()],
            " and then".repeat(tokens.div_ceil(2))
        ))];
        let ask = |turns: &[Message]| {
            engine.generate_blocking(Generate::messages(turns).max_tokens(8).cache(CacheMode::Bypass))
        };
        turns.push(Message::assistant(ask(&turns)?.response));
        turns.push(Message::user("And what then?"));
        Ok(ask(&turns)?.metadata.response_generation.timings_ms.first_token)
    })?;
    Ok(quantile(&samples, 0.5))
}

/// Tokens a second while a prompt of about `tokens` is read.
fn prefill(engine: &Engine, tokens: usize) -> Result<f64, Error> {
    // Each prompt begins with another word, so none finds the rows of an earlier one.
    let mut run = 0;
    let mut read = |words: usize| {
        run += 1;
        let prompt = format!("{}{}", WORDS[run % WORDS.len()], " and then".repeat(words.div_ceil(2)));
        engine.generate_blocking(Generate::prompt(prompt).max_tokens(1).cache(CacheMode::Bypass))
    };
    // Words that make up the tokens: two approximations are exact enough.
    let mut words = tokens.min(16);
    for _ in 0..2 {
        let got = read(words)?.metadata.response_generation.usage.prompt_tokens.max(1);
        words = (words * tokens / got).max(1);
    }
    let rates = sample(10, || {
        let generation = read(words)?.metadata.response_generation;
        let computed = generation.usage.prompt_tokens - generation.usage.cached_tokens;
        Ok(computed as f64 / (generation.timings_ms.prefill / 1e3).max(1e-9))
    })?;
    Ok(quantile(&rates, 0.5))
}

/// Tokens a second while one answer is written.
fn decode(engine: &Engine, tokens: usize) -> Result<f64, Error> {
    let mut seed = 0;
    let mut rates = Vec::new();
    let mut written = 0;
    let started = Instant::now();
    // A model may end its answer early: further seeds until enough was written.
    while (written < 4 * tokens && started.elapsed() < SHARE || written < 2) && seed < 200 {
        seed += 1;
        let reply = engine.generate_blocking(continuation(seed, tokens))?;
        let steps = completion(&reply).saturating_sub(1); // the first token comes with the prompt
        written += completion(&reply);
        if steps > 0 {
            rates.push(steps as f64 / (reply.metadata.response_generation.timings_ms.decode / 1e3).max(1e-9));
        }
    }
    if rates.is_empty() {
        return Err(Error::new(
            ErrorKind::BackendUnavailable,
            "bench: the model ends every answer at once, expected two tokens or more",
        ));
    }
    Ok(quantile(&rates, 0.5))
}

/// Tokens a second of all answers together while `batch` are written at once, their short prompts included.
fn batch_decode(engine: &Engine, batch: usize, tokens: usize) -> Result<f64, Error> {
    let mut seed = 1000;
    let rates = sample(5, || {
        let started = Instant::now();
        let mut streams = Vec::with_capacity(batch);
        for _ in 0..batch {
            seed += 1;
            streams.push(engine.generate_stream(continuation(seed, tokens))?);
        }
        let mut written = 0;
        for event in streams.into_iter().flatten() {
            if let Event::Done(reply) = event? {
                written += completion(&reply);
            }
        }
        Ok(written as f64 / started.elapsed().as_secs_f64())
    })?;
    Ok(quantile(&rates, 0.5))
}

fn continuation(seed: u64, tokens: usize) -> Generate {
    Generate::prompt("Once").max_tokens(tokens).temperature(1.0).seed(seed).cache(CacheMode::Bypass)
}

fn completion(reply: &Reply) -> usize {
    reply.metadata.response_generation.usage.completion_tokens
}

/// Up to `most` samples, at least three, in its share of time.
fn sample(most: usize, mut one: impl FnMut() -> Result<f64, Error>) -> Result<Vec<f64>, Error> {
    let started = Instant::now();
    let mut samples = Vec::with_capacity(most);
    while samples.len() < most && (samples.len() < 3 || started.elapsed() < SHARE) {
        samples.push(one()?);
    }
    Ok(samples)
}

fn timed<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<f64, Error> {
    let started = Instant::now();
    work()?;
    Ok(ms(started.elapsed()))
}

/// The nearest rank, in the precision that is worth printing.
fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    rounded(sorted[rank.clamp(1, sorted.len()) - 1])
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

/// The most memory this process ever had, as Linux counts it.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1024)
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split_once(": "));
    name.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, name)| name.trim().to_owned())
}

/// Twelve words.
const MESSAGE: &str = "Hello, I need help with my account, I cannot log in today";
const WORDS: [&str; 8] = ["One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight"];
/// Time after which a section is content with the samples it has.
const SHARE: Duration = Duration::from_secs(3);
const SECTIONS: u64 = 9;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_the_nearest_ranks() {
        let samples: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&samples, 0.5), 50.0);
        assert_eq!(quantile(&samples, 0.99), 99.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn the_message_has_twelve_words() {
        assert_eq!(MESSAGE.split(' ').count(), 12);
    }
}
