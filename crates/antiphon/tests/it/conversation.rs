//! Conversations remember.

use antiphon::{ConversationConfig, ErrorKind, Event, Message, Request, Role};

use crate::engine;

fn conversation() -> antiphon::Conversation {
    engine().conversation(ConversationConfig::default()).unwrap()
}

fn read(stream: antiphon::ReplyStream) -> String {
    let reply = stream.into_iter().last().unwrap().unwrap();
    let Event::Done(reply) = reply else { panic!("no end") };
    reply.response
}

#[test]
fn each_answer_enters_the_history() {
    let mut conversation = conversation();
    let first = read(conversation.say(Request::new("Hello").max_tokens(12)).unwrap());
    let second = read(conversation.say(Request::new("Where is order 4711?").max_tokens(12)).unwrap());
    let expected = [
        Message::user("Hello"),
        Message::assistant(first),
        Message::user("Where is order 4711?"),
        Message::assistant(second),
    ];
    assert_eq!(conversation.history(), expected);
    conversation.reset();
    assert!(conversation.history().is_empty());
}

#[test]
fn a_cut_answer_enters_as_far_as_it_was_read() {
    let mut conversation = conversation();
    let mut stream =
        conversation.say(Request::new("Hello, I need help with my account")).unwrap().into_iter();
    stream.next();
    let Some(Ok(Event::Chunk { content, .. })) = stream.next() else { panic!("no chunk") };
    drop(stream);
    let history = conversation.history();
    assert_eq!(history[1], Message::new(Role::Assistant, content));
    read(conversation.say(Request::new("Go on").max_tokens(4)).unwrap());
    assert_eq!(conversation.history().len(), 4);
}

#[test]
fn a_second_message_before_the_end_is_refused() {
    let mut conversation = conversation();
    let stream = conversation.say(Request::new("Hello, I need help with my account")).unwrap();
    let error = conversation.say(Request::new("And?")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    drop(stream);
    read(conversation.say(Request::new("And?").max_tokens(2)).unwrap());
}

#[test]
fn a_conversation_may_begin_in_the_middle() {
    let before = vec![Message::user("Hi"), Message::assistant("Hello, how can I help?")];
    let config =
        ConversationConfig::default().tenant("acme").user("u").conversation("c").history(before.clone());
    let mut conversation = engine().conversation(config).unwrap();
    read(conversation.say(Request::new("Where is order 4711?").max_tokens(4)).unwrap());
    assert_eq!(conversation.history()[..2], before);
    conversation.reset();
    assert_eq!(conversation.history(), before);
}

#[test]
fn bad_ids_are_refused() {
    let error = engine().conversation(ConversationConfig::default().tenant("")).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
}
