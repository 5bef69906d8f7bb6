//! The serving core: what it costs to wait, what a batch gains, what a long prompt does to its neighbours, what overload does.
//!
//! `cargo bench -p antiphon-benches --bench serving [-- SECONDS]` (of overload; 10). Each ratio is of two things measured in
//! turns in this run.
#![allow(clippy::print_stdout, reason = "a command for people: its output is its result")]

use std::error::Error;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use antiphon::plugin::{Generator, PluginError, Plugins};
use antiphon::{
    CacheMode, Engine, EngineConfig, ErrorKind, Event, FinishReason, Generate, Message, ModelSource, Request,
};
use antiphon_benches::random_model::{END, SHAPE_135M};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

fn main() -> Outcome {
    let seconds = std::env::args().filter_map(|word| word.parse().ok()).next_back().unwrap_or(10);
    let folder = tempfile::tempdir()?;
    SHAPE_135M.write(folder.path())?;

    println!("waiting\n{}", waiting()?);
    for (name, model) in [("bundled", None), ("135M, random", Some(folder.path()))] {
        println!("eight at once, {name}\n{}", eight_at_once(model)?);
    }
    println!("beside a prompt of 1,500 tokens, 135M, random\n{}", beside_a_prompt(folder.path())?);
    println!("second turn on a history of 512 tokens, 135M, random\n{}", second_turn(folder.path())?);
    println!(
        "four times as many as it can do, {seconds} s, bundled\n{}",
        overload(Duration::from_secs(seconds))?
    );
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
    let engine = engine(Some(model), 8)?;
    let mut ratios = Vec::new();
    for round in 0..ROUNDS {
        let alone = first_token(&engine, &long_prompt(&format!("alone {round}"), 1500))?;
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
        ratios.push((quantile(&beside, 0.95) / quantile(&usual, 0.95), alone / read));
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

/// Requests that come four times as fast as they can be answered, whatever becomes of earlier ones.
fn overload(time: Duration) -> Outcome<String> {
    let engine =
        Engine::open(EngineConfig::from_json(r#"{"batcher": {"max_queue": 64, "timeout_ms": 1000}}"#)?)?;
    let ask = |number: usize| {
        Request::new(format!("Where is order {number}?")).max_tokens(32).cache(CacheMode::Bypass)
    };
    // As many callers as places, each with one request after another.
    let capacity = {
        let (done, started) = (Mutex::new(0), Instant::now());
        std::thread::scope(|scope| {
            for caller in 0..5 {
                let (engine, done) = (&engine, &done);
                scope.spawn(move || {
                    while started.elapsed() < Duration::from_secs(3) {
                        let reply = engine.process_blocking(ask(caller));
                        let whole = reply.is_ok_and(|reply| reply.finish_reason() != FinishReason::Deadline);
                        *done.lock().expect("no panic") += usize::from(whole);
                    }
                });
            }
        });
        done.into_inner()? as f64 / started.elapsed().as_secs_f64()
    };
    let gap = Duration::from_secs_f64(0.25 / capacity);
    let (sender, receiver) = mpsc::channel::<(Instant, antiphon::ReplyStream)>();
    let receiver = Arc::new(Mutex::new(receiver));
    let readers: Vec<_> = (0..96)
        .map(|_| {
            let receiver = Arc::clone(&receiver);
            std::thread::spawn(move || {
                let mut ends = Vec::new();
                loop {
                    let next = receiver.lock().expect("no panic").recv();
                    let Ok((since, stream)) = next else { return ends };
                    let last = stream.into_iter().last();
                    let whole = matches!(&last, Some(Ok(Event::Done(reply))) if reply.finish_reason() != FinishReason::Deadline);
                    ends.push((since.elapsed().as_secs_f64(), whole));
                }
            })
        })
        .collect();
    let (mut refusals, started, mut number) = (Vec::new(), Instant::now(), 0);
    while started.elapsed() < time {
        let due = gap * number as u32;
        std::thread::sleep(due.saturating_sub(started.elapsed()));
        let since = Instant::now();
        match engine.stream(ask(number)) {
            Ok(stream) => sender.send((since, stream))?,
            Err(error) if error.kind() == ErrorKind::Overloaded => {
                refusals.push(since.elapsed().as_secs_f64())
            }
            Err(error) => return Err(error.into()),
        }
        number += 1;
    }
    drop(sender);
    let ends: Vec<(f64, bool)> = readers
        .into_iter()
        .map(|reader| reader.join().map_err(|_| "a thread panicked"))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let whole = ends.iter().filter(|(_, whole)| *whole).count() as f64 / started.elapsed().as_secs_f64();
    let took: Vec<f64> = ends.iter().map(|(took, _)| *took).collect();
    Ok(format!(
        "    can do {capacity:.0}/s, {number} came in {:.0} s: {whole:.0}/s answered whole ({:.0} %), refused after {:.3} ms (p99), \
         the slowest ended after {:.0} ms of 1000 allowed",
        time.as_secs_f64(),
        100.0 * whole / capacity,
        1e3 * quantile(&refusals, 0.99),
        1e3 * took.iter().copied().fold(0.0, f64::max)
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

fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied().unwrap_or(f64::NAN)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    quantile(&values.collect::<Vec<_>>(), 0.5)
}

fn threads_now() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * 4096
}

const ROUNDS: usize = 5;
const LONG: Duration = Duration::from_secs(600);
