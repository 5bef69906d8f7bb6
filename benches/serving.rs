//! The serving core: what it costs to wait, what a batch gains, what a long prompt does to its neighbours, how soon it can be
//! cancelled.
//!
//! `cargo bench -p antiphon-benches --bench serving [-- NAME]` (waiting, eight, prompt, turn, cancel; else all). Each ratio is of
//! two things measured in turns in this run.
#![allow(clippy::print_stdout, reason = "a command for people: its output is its result")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use antiphon::plugin::{Generator, PluginError, Plugins};
use antiphon::{CacheMode, Engine, EngineConfig, ErrorKind, Event, Generate, Message, ModelSource, Request};
use antiphon_benches::measure::{median, quantile, resident_bytes, threads_now};
use antiphon_benches::random_model::{END, SHAPE_135M};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let folder = tempfile::tempdir()?;
    SHAPE_135M.write(folder.path())?;

    let wanted = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    let wants = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted == name);
    if wants("waiting") {
        println!("waiting\n{}", waiting()?);
    }
    for (name, model) in [("bundled", None), ("135M, random", Some(folder.path()))] {
        if wants("eight") {
            println!("eight at once, {name}\n{}", eight_at_once(model)?);
        }
    }
    if wants("prompt") {
        println!("beside a prompt of 1,500 tokens, 135M, random\n{}", beside_a_prompt(folder.path())?);
    }
    if wants("turn") {
        println!("second turn on a history of 512 tokens, 135M, random\n{}", second_turn(folder.path())?);
    }
    if wants("cancel") {
        println!("cancelled in a prompt of 2,000 tokens, 135M, random\n{}", cancelled(folder.path())?);
    }
    Ok(())
}

/// Ten thousand streams that wait behind one that does not end: what each holds, and that none has a thread.
fn waiting() -> Outcome<String> {
    let config = r#"{"responder": null, "batcher": {"max_concurrent": 1, "max_queue": 10000, "max_queue_tokens": 1000000000,
        "timeout_ms": 600000}}"#;
    let engine =
        Engine::open_with(EngineConfig::from_json(config)?, Plugins::new().add_generator(Arc::new(Silent)))?;
    let ask = |number: usize| Request::new(format!("Where is order {number}?")).cache(CacheMode::Bypass);
    let mut first = engine.stream(ask(0))?;
    let _analysis = first.next_blocking(LONG);
    while !engine.metrics_text().contains("antiphon_running_requests 1") {
        std::thread::sleep(Duration::from_millis(1));
    }
    let (threads, resident) = (threads_now(), resident_bytes());
    let streams = (1..=10_000).map(|number| engine.stream(ask(number))).collect::<Result<Vec<_>, _>>()?;
    let each = resident_bytes().saturating_sub(resident) / streams.len();
    let counted = engine.metrics_text();
    let ledger =
        counted.lines().find_map(|line| line.strip_prefix(r#"antiphon_memory_bytes{part="queue"} "#));
    let ledger: usize = ledger.unwrap_or("0").parse()?;
    let more = threads_now() as i64 - threads as i64;
    let started = Instant::now();
    engine.close()?;
    let told = streams.into_iter().filter_map(|stream| stream.into_iter().find_map(Result::err)).count();
    Ok(format!(
        "    10000 waiting streams: {each} bytes each ({} in the ledger), {more} threads more; {told} heard of the end in {:.0} ms",
        ledger / 10_000,
        1e3 * started.elapsed().as_secs_f64()
    ))
}

/// A generator that says nothing.
struct Silent;

impl Generator for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn generate(
        &self,
        _: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError> {
        while write("").is_continue() {
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

/// Tokens a second of eight answers, one after another and all at once.
fn eight_at_once(model: Option<&Path>) -> Outcome<String> {
    let engine = engine(model, 8)?;
    let mut run = 0;
    let mut one_round = || -> Outcome<(f64, f64)> {
        run += 1;
        let ask = |number: usize| answer(&[Message::user(format!("{run} {number}"))], 64);
        let rate = |work: &dyn Fn() -> Outcome<usize>| -> Outcome<f64> {
            let started = Instant::now();
            Ok(work()? as f64 / started.elapsed().as_secs_f64())
        };
        let one_by_one = rate(&|| (0..8).map(|number| written(engine.generate_stream(ask(number))?)).sum())?;
        let at_once = rate(&|| {
            let streams =
                (8..16).map(|number| engine.generate_stream(ask(number))).collect::<Result<Vec<_>, _>>()?;
            streams.into_iter().map(written).sum()
        })?;
        Ok((one_by_one, at_once))
    };
    one_round()?;
    let rounds = (0..ROUNDS).map(|_| one_round()).collect::<Outcome<Vec<_>>>()?;
    let ratio = median(rounds.iter().map(|(one, eight)| eight / one));
    let (one, eight) = (median(rounds.iter().map(|r| r.0)), median(rounds.iter().map(|r| r.1)));
    Ok(format!("    {one:.0} tokens/s one at a time, {eight:.0} at once: {ratio:.2} times as many"))
}

/// A running stream while another's prompt is read, and that prompt beside one that is read alone.
fn beside_a_prompt(model: &Path) -> Outcome<String> {
    let config = EngineConfig::default().max_concurrent(8).kv_cache_bytes(96 << 20);
    let engine = Engine::open(config.responder(ModelSource::Path(model.to_owned())))?;
    // A pool for some 4,400 tokens that was used before: memory that never was has to come from the system first, in pages that
    // are large, so a few steps would wait for it.
    first_token(&engine, &long_prompt("before", 4000))?;
    let alone = |round: usize| first_token(&engine, &long_prompt(&format!("alone {round}"), 1500));
    let (mut ratios, mut before) = (Vec::new(), alone(0)?);
    for round in 0..ROUNDS {
        let mut running =
            engine.generate_stream(answer(&[Message::user(format!("running {round}"))], 2000))?;
        let mut gaps = |until: &mut dyn FnMut(usize) -> bool| -> Outcome<Vec<f64>> {
            let (mut gaps, mut last) = (Vec::new(), Instant::now());
            while !until(gaps.len()) {
                let Poll::Ready(Some(event)) = running.next_blocking(LONG) else { break };
                if matches!(event?, Event::Chunk { .. }) {
                    gaps.push(last.elapsed().as_secs_f64());
                    last = Instant::now();
                }
            }
            Ok(gaps)
        };
        let usual = gaps(&mut |count| count == 100)?;
        let prompt = long_prompt(&format!("beside {round}"), 1500);
        let other = engine.clone();
        let reader =
            std::thread::spawn(move || first_token(&other, &prompt).map_err(|error| error.to_string()));
        let beside = gaps(&mut |_| reader.is_finished())?;
        let read = reader.join().map_err(|_| "a thread panicked")??;
        drop(running);
        let after = alone(round + 1)?;
        ratios.push((quantile(&beside, 0.95) / quantile(&usual, 0.95), (before + after) / 2.0 / read));
        before = after;
    }
    Ok(format!(
        "    gap between tokens, p95: {:.2} times the usual; the prompt is read at {:.0} % of its speed alone",
        median(ratios.iter().map(|r| r.0)),
        100.0 * median(ratios.iter().map(|r| r.1))
    ))
}

/// The first token of a second turn beside that of the first.
fn second_turn(model: &Path) -> Outcome<String> {
    let engine = engine(Some(model), 8)?;
    let rounds = (0..ROUNDS).map(|round| -> Outcome<f64> {
        let mut turns = long_prompt(&format!("turn {round}"), 512);
        let first = first_token(&engine, &turns)?;
        turns.push(Message::assistant(engine.generate_blocking(answer(&turns, 8))?.response));
        turns.push(Message::user("And what then?"));
        Ok(first_token(&engine, &turns)? / first)
    });
    let rounds = rounds.collect::<Outcome<Vec<f64>>>()?;
    Ok(format!("    first token after {:.0} % of the first turn's time", 100.0 * median(rounds.into_iter())))
}

/// Fifty prompts, each cancelled at a random point while it is read: how long `cancel` takes, and until the rows are free.
fn cancelled(model: &Path) -> Outcome<String> {
    let engine = engine(Some(model), 8)?;
    let whole = first_token(&engine, &long_prompt("whole", 2000))?;
    // A layer of a chunk: within it, nobody looks whether to go on.
    let bound = whole * CHUNK as f64 / 2000.0 / SHAPE_135M.layers as f64 + 0.010;
    let (mut returned, mut left) = (Vec::new(), Vec::new());
    for point in 0..50 {
        let mut stream = engine.generate_stream(answer(&long_prompt(&format!("cut {point}"), 2000), 1))?;
        // Fractional parts of multiples of the golden ratio are spread evenly.
        std::thread::sleep(Duration::from_secs_f64(
            whole * (f64::from(point) * 0.618_033_988_75).fract() * 0.9,
        ));
        let since = Instant::now();
        stream.canceller().cancel();
        returned.push(since.elapsed().as_secs_f64());
        while !engine.metrics_text().contains("antiphon_running_requests 0") {
            std::thread::sleep(Duration::from_micros(100));
        }
        left.push(since.elapsed().as_secs_f64());
        let Poll::Ready(Some(Err(error))) = stream.next_blocking(LONG) else {
            return Err("a cancelled stream went on".into());
        };
        assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}");
    }
    let ms = |times: &[f64], share| 1e3 * quantile(times, share);
    Ok(format!(
        "    cancel returned after {:.3} ms (slowest {:.3}), the batch was rid of it after {:.1} ms (slowest {:.1}); one layer of a chunk + 10 ms: {:.1} ms",
        ms(&returned, 0.5),
        ms(&returned, 1.0),
        ms(&left, 0.5),
        ms(&left, 1.0),
        1e3 * bound
    ))
}

fn engine(model: Option<&Path>, concurrent: usize) -> Outcome<Engine> {
    let config = EngineConfig::default().max_concurrent(concurrent);
    let source = model.map_or(ModelSource::Bundled, |folder| ModelSource::Path(folder.to_owned()));
    Ok(Engine::open(config.responder(source))?)
}

/// An answer of so many tokens: the token that ends a turn is never taken.
fn answer(turns: &[Message], tokens: usize) -> Generate {
    let mut request = Generate::messages(turns).max_tokens(tokens).cache(CacheMode::Bypass);
    request.options.logit_bias.insert(END, -100.0);
    request
}

/// Turns of about so many tokens that begin like none before.
fn long_prompt(beginning: &str, tokens: usize) -> Vec<Message> {
    vec![Message::user(format!("{beginning}{}", " and then".repeat(tokens / 2)))]
}

/// Seconds to the first token.
fn first_token(engine: &Engine, turns: &[Message]) -> Outcome<f64> {
    let reply = engine.generate_blocking(answer(turns, 1))?;
    Ok(reply.metadata.response_generation.timings_ms.first_token / 1e3)
}

fn written(stream: antiphon::ReplyStream) -> Outcome<usize> {
    let mut tokens = 0;
    for event in stream {
        if let Event::Done(reply) = event? {
            tokens = reply.metadata.response_generation.usage.completion_tokens;
        }
    }
    Ok(tokens)
}

const ROUNDS: usize = 9;
/// `batcher.prompt_chunk_tokens` as it comes.
const CHUNK: usize = 128;
const LONG: Duration = Duration::from_secs(600);
