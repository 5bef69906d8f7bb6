//! Faults of caches and queues, named after their cases.

use std::time::Duration;

use antiphon::{
    CacheMode, CacheOutcome, Engine, EngineConfig, ErrorKind, Event, FinishReason, Generate, Message,
    ModelSource, ReplyStream, Request, RequestOptions,
};

use crate::open;

/// Greedy, and as long as it may be: it never takes the token that ends a turn of the bundled responder.
fn long(tokens: usize) -> Request {
    let mut options = RequestOptions::default();
    options.logit_bias.insert(3, -100.0);
    Request::new("Hello, I need help with my account").options(options).max_tokens(tokens)
}

/// An engine whose queue holds requests back until so many wait, so that the test decides when they run.
fn held(batch: usize, max_queue: usize) -> Engine {
    let config = format!(
        r#"{{"batcher": {{"max_concurrent": {batch}, "window_ms": 10000, "max_queue": {max_queue}, "max_queue_tokens": 1000000000,
            "timeout_ms": 600000}}}}"#
    );
    open(EngineConfig::from_json(&config).unwrap())
}

fn text(stream: ReplyStream) -> String {
    let events: Vec<Event> = stream.into_iter().collect::<Result<_, _>>().unwrap();
    let Some(Event::Done(reply)) = events.last() else { panic!("no end") };
    reply.response.clone()
}

#[test]
fn faults_81_of_a_thousand_equal_requests_the_first_may_leave_at_any_time() {
    let engine = held(2, 10);
    let mut streams: Vec<ReplyStream> = (0..1000).map(|_| engine.stream(long(64)).unwrap()).collect();
    assert_eq!((engine.cache().stats().misses, engine.cache().stats().joined), (1, 999));
    streams[0].canceller().cancel();
    drop(streams.drain(..500));
    let _other = engine.stream(long(1)).unwrap();
    let texts: Vec<String> = streams.into_iter().map(text).collect();
    assert_eq!(texts.len(), 500);
    assert!(texts.iter().all(|other| *other == texts[0] && !other.is_empty()));
    assert_eq!(engine.cache().stats().misses, 2);
}

#[test]
fn faults_83_a_replay_goes_on_when_its_entry_is_gone() {
    let engine = open(EngineConfig::default());
    let first = engine.process_blocking(long(32)).unwrap();
    let mut replay = engine.stream(long(32)).unwrap();
    let _ = replay.next_blocking(Duration::from_secs(60));
    engine.cache().clear(None);
    let reply = replay.into_iter().find_map(|event| match event.unwrap() {
        Event::Done(reply) => Some(reply),
        _ => None,
    });
    let reply = reply.unwrap();
    assert_eq!(
        (reply.metadata.response_generation.cache, reply.response),
        (CacheOutcome::Hit, first.response)
    );
}

#[test]
fn faults_84_what_is_kept_is_whole_wherever_streams_are_cut() {
    let whole = open(EngineConfig::default()).process_blocking(long(200)).unwrap();
    for events in 0..20 {
        let engine = open(EngineConfig::default());
        let mut cut = engine.stream(long(200)).unwrap();
        for _ in 0..events {
            let _ = cut.next_blocking(Duration::from_secs(60));
        }
        drop(cut);
        // Late before it begins, or a hit if the cut came too late to cut.
        let _ = engine.process_blocking(long(200).deadline(Duration::from_nanos(1)));
        let again = engine.process_blocking(long(200)).unwrap();
        assert_eq!(
            (again.response, again.metadata.response_generation.finish_reason),
            (whole.response.clone(), FinishReason::Length)
        );
    }
}

#[test]
fn faults_87_a_full_queue_says_how_long_it_is_and_when_to_come_back() {
    let engine = held(5, 2);
    let waiting: Vec<_> = (0..2).map(|_| engine.stream(long(8).cache(CacheMode::Bypass)).unwrap()).collect();
    let error = engine.stream(long(8).cache(CacheMode::Bypass)).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.to_string().contains("2 requests") && error.retry_after().is_some(), "{error}");
    assert_eq!(waiting.len(), 2);
}

#[test]
fn faults_86_no_time_and_no_count_tells_a_tenant_what_another_has_asked() {
    let engine = open(EngineConfig::default());
    let ask =
        |tenant: &str| engine.process_blocking(long(16).tenant(tenant)).unwrap().metadata.response_generation;
    assert_eq!(ask("a").cache, CacheOutcome::Miss);
    assert_eq!(ask("a").cache, CacheOutcome::Hit);
    let other = ask("b");
    assert_eq!((other.cache, other.usage.cached_tokens), (CacheOutcome::Miss, 0));
}

/// The bundled responder with an output matrix of its own, and no numbers in the row that reads the token " 7".
fn poisoned() -> (tempfile::TempDir, Engine) {
    let files = crate::responder_files();
    let read = |name: &str| std::fs::read(files.path().join(name)).unwrap();
    let weights = read("model.safetensors");
    let (length, rest) = weights.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let table = header["model.embed_tokens.weight"].clone();
    let place = |index: usize| table["data_offsets"][index].as_u64().unwrap() as usize;
    let (matrix, mut data) = (data[place(0)..place(1)].to_vec(), data.to_vec());
    let row = table["shape"][1].as_u64().unwrap() as usize;
    let start = place(0) + row * crate::faults::token("Ġ7") as usize;
    // A Q8_0 block is an F16 scale and 32 whole numbers.
    data[start..start + row].chunks_exact_mut(34).for_each(|block| block[..2].copy_from_slice(&F16_NAN));
    header["lm_head.weight"] = table.clone();
    header["lm_head.weight"]["data_offsets"] = serde_json::json!([data.len(), data.len() + matrix.len()]);
    let header = header.to_string();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data, &matrix].concat();
    std::fs::write(files.path().join("model.safetensors"), file).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&read("config.json")).unwrap();
    config["tie_word_embeddings"] = false.into();
    std::fs::write(files.path().join("config.json"), config.to_string()).unwrap();
    let config = r#"{"batcher": {"max_concurrent": 8, "window_ms": 10000}}"#;
    let source = ModelSource::Path(files.path().to_owned());
    let engine = open(EngineConfig::from_json(config).unwrap().responder(source));
    (files, engine)
}

const F16_NAN: [u8; 2] = 0x7e00_u16.to_le_bytes();

#[test]
fn faults_90_of_eight_in_a_batch_only_the_poisoned_one_fails() {
    let (_files, engine) = poisoned();
    let ask = |text: &str| {
        let request = Generate::messages([Message::user(text)]).options(long(24).options);
        engine.generate_stream(request.cache(CacheMode::Bypass)).unwrap()
    };
    let texts: Vec<String> =
        (0..7).map(|number| format!("Please cancel order {}", "123456".repeat(number + 1))).collect();
    // Eight begin together: with the poisoned one, and with an eighth that is well.
    let together = |eighth: &str| {
        let streams: Vec<ReplyStream> = texts.iter().map(|text| ask(text)).collect();
        let eighth = ask(eighth);
        let answers: Vec<String> = streams.into_iter().map(text).collect();
        (answers, eighth.into_iter().find_map(Result::err).map(|error| error.kind()))
    };
    let (well, none) = together("Hello");
    let (beside, failure) = together("Please cancel order 7");
    assert_eq!((none, failure), (None, Some(ErrorKind::ModelInvalid)));
    assert_eq!(well, beside);
    assert!(well.iter().all(|answer| !answer.is_empty()));
}

#[test]
fn faults_91_ten_thousand_that_wait_all_hear_of_the_end() {
    let engine = held(1024, 20_000);
    let waiting: Vec<_> =
        (0..10_000).map(|_| engine.stream(long(8).cache(CacheMode::Bypass)).unwrap()).collect();
    engine.close().unwrap();
    engine.close().unwrap();
    // A few may have been answered before.
    let told = waiting.into_iter().filter_map(|stream| stream.into_iter().find_map(Result::err));
    let closed = told.map(|error| assert_eq!(error.kind(), ErrorKind::Closed)).count();
    assert!(closed > 0);
    let text = engine.metrics_text();
    assert!(
        text.contains(&format!(r#"ai_requests_total{{endpoint="process",status="closed"}} {closed}"#)),
        "{text}"
    );
    let answered = format!(r#"ai_requests_total{{endpoint="process",status="success"}} {}"#, 10_000 - closed);
    assert!(closed == 10_000 || text.contains(&answered), "{text}");
}
