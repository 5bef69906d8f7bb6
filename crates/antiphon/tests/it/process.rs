//! One message through everything.

use antiphon::{CacheMode, CacheOutcome, ErrorKind, FinishReason, Message, Request};

use crate::{engine, open};
use pollster::block_on;

#[test]
fn the_first_message_of_the_readme_is_answered() {
    let reply = block_on(engine().process(Request::new("Hello, I need help with my account"))).unwrap();
    assert_eq!(reply.intent, "help_request");
    assert!(reply.confidence > 0.5);
    assert_eq!(reply.entities[0].value, "account");
    assert!(!reply.response.trim().is_empty());
    let generation = &reply.metadata.response_generation;
    assert_eq!(generation.finish_reason, FinishReason::Stop);
    assert_eq!(generation.model, "responder");
    assert_eq!(generation.degraded, None);
    let usage = generation.usage;
    assert_eq!(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert!(generation.repro.models["analyst"].starts_with("blake3:"));
    assert!(generation.repro.models["responder"].starts_with("blake3:"));
    assert!(generation.timings_ms.total >= generation.timings_ms.first_token);
    assert_eq!(
        reply.analysis().unwrap(),
        engine().analyze_blocking("Hello, I need help with my account").unwrap()
    );
}

#[test]
fn a_reply_serializes_in_the_shape_of_the_ai_service() {
    let reply = engine().process_blocking(Request::new("Where is order 4711?").max_tokens(4)).unwrap();
    let json = serde_json::to_value(&reply).unwrap();
    let keys =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&json), "confidence entities intent metadata response sentiment");
    let metadata = &json["metadata"];
    assert_eq!(
        keys(metadata),
        "intent_analysis nlp_processing response_generation sentiment_analysis timestamp"
    );
    assert_eq!(keys(&metadata["nlp_processing"]), "tokens truncated");
    assert_eq!(keys(&metadata["intent_analysis"]), "confidence label out_of_scope ranking");
    assert_eq!(keys(&metadata["sentiment_analysis"]["scores"]), "negative neutral positive");
    let generation = &metadata["response_generation"];
    assert_eq!(keys(generation), "cache degraded finish_reason model repro timings_ms usage");
    assert_eq!(keys(&generation["usage"]), "cached_tokens completion_tokens prompt_tokens total_tokens");
    assert_eq!(keys(&generation["timings_ms"]), "analysis decode first_token prefill queue total");
    let timestamp = metadata["timestamp"].as_str().unwrap();
    assert!(timestamp.len() == 24 && timestamp.ends_with('Z'), "{timestamp}");
}

#[test]
fn an_equal_request_is_answered_from_the_cache() {
    let engine = open(antiphon::EngineConfig::default());
    let request = || Request::new("I want my money back").max_tokens(16);
    let first = engine.process_blocking(request()).unwrap();
    let second = engine.process_blocking(request()).unwrap();
    let outcome = |reply: &antiphon::Reply| reply.metadata.response_generation.cache;
    assert_eq!((outcome(&first), outcome(&second)), (CacheOutcome::Miss, CacheOutcome::Hit));
    assert_eq!(
        (&first.response, &first.entities, first.confidence),
        (&second.response, &second.entities, second.confidence)
    );
    for other in [
        request().tenant("other"),
        request().cache(CacheMode::Refresh),
        request().cache(CacheMode::Bypass),
        request().temperature(1.0),
        request().max_tokens(15),
    ] {
        assert_eq!(outcome(&engine.process_blocking(other).unwrap()), CacheOutcome::Miss);
    }
    let stats = engine.cache().stats();
    assert_eq!(stats.hits, 1);
    assert!(stats.bytes > 0 && stats.bytes <= stats.max_bytes);
    engine.cache().clear(None);
    assert_eq!(engine.cache().stats().entries, 0);
    assert_eq!(outcome(&engine.process_blocking(request()).unwrap()), CacheOutcome::Miss);
}

#[test]
fn a_sampled_answer_reports_its_seed_and_the_seed_gives_it_again() {
    let request = Request::new("Tell me something").temperature(1.5).max_tokens(24);
    let drawn = engine().process_blocking(request.clone()).unwrap();
    let seed = drawn.metadata.response_generation.repro.seed.unwrap();
    let again = engine().process_blocking(request.seed(seed)).unwrap();
    assert_eq!(again.response, drawn.response);
    assert_eq!(again.metadata.response_generation.repro.seed, Some(seed));
}

#[test]
fn the_history_changes_the_answer_and_fits_by_leaving_out_the_oldest() {
    let turn = |i: usize| {
        [Message::user(format!("question {i} {}", "about my order ".repeat(20))), Message::assistant("Yes.")]
    };
    let history: Vec<Message> = (0..40).flat_map(turn).collect();
    let request = Request::new("And now?").max_tokens(8);
    let reply = engine().process_blocking(request.clone().history(history.clone())).unwrap();
    let usage = reply.metadata.response_generation.usage;
    assert!(usage.prompt_tokens > 100, "{usage:?}");
    // As much of it is left as fits, turn by turn.
    let (mut refused, request) = (0, request.overflow(antiphon::Overflow::Error));
    let fits = history.chunks(2).enumerate().find_map(|(left_out, _)| {
        match engine().process_blocking(request.clone().history(&history[2 * left_out..])) {
            Ok(reply) => Some(reply.metadata.response_generation.usage),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ContextFull);
                refused += 1;
                None
            }
        }
    });
    assert!(refused > 10, "{refused} histories were too long");
    assert_eq!(usage.prompt_tokens, fits.expect("a short history").prompt_tokens);
}

#[test]
fn an_unknown_model_and_a_foreign_token_are_refused() {
    let error = engine().process_blocking(Request::new("x").model("gpt")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnknownModel);
    assert!(error.to_string().contains("responder"), "{error}");
    let mut options = antiphon::RequestOptions::default();
    options.logit_bias.insert(u32::MAX, 1.0);
    let error = engine().process_blocking(Request::new("x").options(options)).unwrap_err();
    assert!(error.to_string().contains("`logit_bias`"), "{error}");
}

#[test]
fn a_biased_token_is_never_written() {
    let request = || Request::new("Hello, I need help with my account").max_tokens(12).logprobs(0);
    let first_tokens = |request| {
        let events: Result<Vec<_>, _> = engine().stream(request).unwrap().into_iter().collect();
        let ids = events.unwrap().into_iter().filter_map(|event| match event {
            antiphon::Event::Chunk { logprobs, .. } => logprobs,
            _ => None,
        });
        ids.flatten().map(|token| token.id).collect::<Vec<_>>()
    };
    let before = first_tokens(request());
    let mut biased = request();
    biased.options.logit_bias.insert(before[0], -100.0);
    assert!(!first_tokens(biased).contains(&before[0]));
}

#[test]
fn faults_45_no_error_holds_a_text_of_the_user() {
    let canary = "CANARY-4711";
    let requests = [
        Request::new(canary).temperature(f32::NAN),
        Request::new(canary.repeat(1000)),
        Request::new("x").tenant(canary.repeat(100)),
        Request::new("x").history(vec![Message::user(canary); 200]),
        Request::new("x").context("note", canary.repeat(1000)),
        Request::new("x").stop(canary.repeat(100)),
        Request::new("x").model(canary),
        Request::new("x")
            .history(vec![Message::user(canary.repeat(900))])
            .overflow(antiphon::Overflow::Error),
    ];
    for request in requests {
        let error = engine().process_blocking(request).unwrap_err();
        let shown = format!("{error} {error:?} {}", serde_json::to_string(&error).unwrap());
        assert!(!shown.contains("CANARY"), "{shown}");
    }
}
