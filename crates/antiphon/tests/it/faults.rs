//! Inputs and models that are well-formed and still strange: FAULTS 35 to 43.

use std::path::Path;

use antiphon::{
    CacheMode, Engine, EngineConfig, ErrorKind, FinishReason, Generate, Message, ModelSource, Overflow,
    Request, RequestOptions,
};

use crate::{engine, open, responder_files};

/// The bundled responder with one tensor overwritten, opened as somebody's own model.
fn altered(tensor: &str, value: f32) -> (tempfile::TempDir, Engine) {
    let dir = responder_files();
    let path = dir.path().join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let json: serde_json::Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
    assert_eq!(json[tensor]["dtype"], "F32");
    let offset = |index: usize| 8 + header + json[tensor]["data_offsets"][index].as_u64().unwrap() as usize;
    for slot in bytes[offset(0)..offset(1)].chunks_exact_mut(4) {
        slot.copy_from_slice(&value.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    let engine = open(EngineConfig::default().responder(ModelSource::Path(dir.path().to_owned())));
    (dir, engine)
}

/// The id of a token of the bundled responder.
pub(crate) fn token(text: &str) -> u32 {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/responder/tokenizer.json");
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let added = json["added_tokens"].as_array().unwrap().iter().find(|token| token["content"] == text);
    let id = added.map(|token| &token["id"]).unwrap_or(&json["model"]["vocab"][text]);
    id.as_u64().expect("a token of that text") as u32
}

fn biased(token: u32) -> Request {
    let mut options = RequestOptions::default();
    options.logit_bias.insert(token, 100.0);
    options.cache = CacheMode::Bypass;
    options.max_tokens = 12;
    Request::new("Hello").options(options)
}

#[test]
fn faults_10_and_43_weights_that_are_not_numbers_end_in_a_typed_error() {
    for value in [f32::NAN, f32::INFINITY] {
        let (_dir, engine) = altered("model.norm.weight", value);
        for _ in 0..2 {
            let error = engine.process_blocking(Request::new("Hello")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ModelInvalid, "{error}");
        }
        engine.analyze_blocking("The rest goes on").unwrap();
    }
}

#[test]
fn faults_43_logits_that_are_all_equal_end_by_length() {
    let (_dir, engine) = altered("model.norm.weight", 0.0);
    let reply = engine.process_blocking(Request::new("Hello").max_tokens(20)).unwrap();
    let generation = &reply.metadata.response_generation;
    assert!(matches!(generation.finish_reason, FinishReason::Length | FinishReason::Stop));
    assert!(generation.usage.completion_tokens <= 20);
}

#[test]
fn faults_43_a_model_that_only_ends_gives_an_empty_answer() {
    let reply = engine().process_blocking(biased(token("<|end|>"))).unwrap();
    assert_eq!(reply.response, "");
    assert_eq!(reply.finish_reason(), FinishReason::Stop);
}

#[test]
fn faults_43_bytes_that_are_no_text_are_not_written() {
    // In the byte-level alphabet of GPT-2, U+0122 stands for the byte 0x80, which begins no code point, and U+00C3 for
    // itself, which begins one that another byte has to end.
    for (byte, is_wanted) in [('\u{122}', false), ('\u{c3}', true)] {
        let reply = engine().process_blocking(biased(token(&byte.to_string()))).unwrap();
        let text = &reply.response;
        assert!(!text.contains(char::REPLACEMENT_CHARACTER), "{text:?}");
        assert_eq!(text.contains(|c| ('\u{c0}'..='\u{ff}').contains(&c)), is_wanted, "{text:?}");
    }
}

#[test]
fn faults_35_a_message_beyond_the_context_is_an_error_and_a_history_gives_way() {
    let engine = open(EngineConfig::default().context_tokens(128));
    let long = "word and another ".repeat(60);
    let error = engine.process_blocking(Request::new(&long)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ContextFull);
    assert!(error.to_string().contains("128"), "{error}");
    let request =
        Request::new("Hello").history([Message::user(&long), Message::assistant("Yes?")]).max_tokens(4);
    engine.process_blocking(request.clone()).unwrap();
    assert_eq!(
        engine.process_blocking(request.overflow(Overflow::Error)).unwrap_err().kind(),
        ErrorKind::ContextFull
    );
    // The system text is never left out: alone it is too long, so the request is refused.
    let turns = [Message::system(&long), Message::user("Hello")];
    assert_eq!(
        engine.generate_blocking(Generate::messages(turns)).unwrap_err().kind(),
        ErrorKind::ContextFull
    );
}

#[test]
fn faults_39_a_million_messages_and_broken_turns_are_ours_to_refuse() {
    let many = Generate::messages(vec![Message::user("x"); 1_000_000]);
    let error = engine().generate_blocking(many).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("1000000 messages"), "{error}");
    for role in ["", "tool", "User", "<|user|>"] {
        let json = format!(r#"{{"messages": [{{"role": "{role}", "content": "x"}}]}}"#);
        assert_eq!(Generate::from_json(&json).unwrap_err().kind(), ErrorKind::InvalidArgument, "{role}");
    }
    // Two turns of one side in a row, and an answer first, are turns like any other.
    let turns = [Message::assistant("Yes?"), Message::user("a"), Message::user("b"), Message::system("c")];
    engine().generate_blocking(Generate::messages(turns).max_tokens(2)).unwrap();
}

#[test]
fn faults_40_patterns_and_schemas_are_not_offered_and_say_so() {
    for format in [r#"{"type": "regex", "pattern": "(a+)+b"}"#, r#"{"type": "json_schema", "schema": {}}"#] {
        let json = format!(r#"{{"message": "x", "options": {{"response_format": {format}}}}}"#);
        let error = engine().process_blocking(Request::from_json(&json).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.to_string().contains("`response_format`"), "{error}");
    }
}
