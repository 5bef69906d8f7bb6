//! Chat turns without analysis.

use std::ops::ControlFlow;

use antiphon::{EngineConfig, ErrorKind, Event, Generate, Message};

use crate::{engine, open};
use pollster::block_on;

#[test]
fn turns_are_continued_without_an_analysis() {
    let messages = vec![Message::user("Hello, I need help with my account")];
    let mut events = Vec::new();
    let reply = engine()
        .on_generate_event(Generate::messages(messages.clone()).max_tokens(24), |event| {
            events.push(event);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(matches!(events[0], Event::Chunk { index: 0, .. }));
    assert!(reply.analysis().is_none());
    assert!(!reply.response.is_empty());
    let again = block_on(engine().generate(Generate::messages(messages).max_tokens(24))).unwrap();
    assert_eq!(again.response, reply.response);
}

#[test]
fn a_raw_prompt_is_continued_as_it_stands() {
    let reply = engine().generate_blocking(Generate::prompt("I would like to").max_tokens(5)).unwrap();
    assert!(reply.metadata.response_generation.usage.prompt_tokens >= 4);
}

#[test]
fn bad_turns_are_refused() {
    for (request, kind) in [
        (Generate::messages([]), ErrorKind::InvalidArgument),
        (Generate::prompt(" "), ErrorKind::InvalidText),
        (Generate::messages(vec![Message::user("x"); 101]), ErrorKind::InvalidArgument),
        (Generate::prompt("x ".repeat(5000)), ErrorKind::ContextFull),
        (
            Generate::from_json(r#"{"messages": [{"role": "tool", "content": "x"}]}"#)
                .unwrap_or(Generate::messages([])),
            ErrorKind::InvalidArgument,
        ),
    ] {
        assert_eq!(engine().generate_blocking(request).unwrap_err().kind(), kind);
    }
}

#[test]
fn without_a_responder_a_message_gets_a_template_and_a_turn_an_error() {
    let engine = open(EngineConfig::default().responder(None));
    let reply = engine.process_blocking(antiphon::Request::new("Where is order 4711?")).unwrap();
    assert_eq!(reply.metadata.response_generation.degraded, Some(antiphon::Degraded::Template));
    assert!(reply.response.contains("4711"), "{}", reply.response);
    let error = engine.generate_blocking(Generate::messages([Message::user("x")])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BackendUnavailable);
    assert!(!engine.health().diagnostics.is_empty());
}
