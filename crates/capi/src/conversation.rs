//! A conversation that remembers its turns.

use std::ffi::c_char;

use antiphon::{Conversation, ConversationConfig};

use crate::engine::antiphon_engine;
use crate::error::antiphon_error;
use crate::guard::{boxed, free, guard, lent, lent_mut, place};
use crate::request::antiphon_request;
use crate::stream::antiphon_stream;
use crate::text::read;

/// A conversation: each answer knows the turns before it. One thread at a time.
pub struct antiphon_conversation(Conversation);

/// A conversation. The options are a JSON object (`tenant_id`, `user_id`, `conversation_id`, `history`); NULL and 0 are the
/// defaults. Freed with antiphon_conversation_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_conversation_new(
    engine: *const antiphon_engine,
    options_json: *const c_char,
    len: usize,
    out: *mut *mut antiphon_conversation,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, a place, and `len` readable bytes.
        let (out, engine, options) = unsafe {
            (place(out, "out")?, lent(engine, "engine")?, read("options_json", options_json, len)?)
        };
        let options = if options.is_empty() {
            ConversationConfig::default()
        } else {
            ConversationConfig::from_json(options)?
        };
        *out = boxed(antiphon_conversation(engine.engine.conversation(options)?));
        Ok(0)
    })
}

/// Says something; the answer comes as a stream. The answer before has to be read to its end, or its stream be freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_conversation_say(
    conversation: *mut antiphon_conversation,
    request: *const antiphon_request,
    out: *mut *mut antiphon_stream,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for a conversation that nobody else uses, a request, and a place.
        let (out, conversation, request) = unsafe {
            (place(out, "out")?, lent_mut(conversation, "conversation")?, lent(request, "request")?)
        };
        *out = boxed(antiphon_stream::new(conversation.0.say(request.to_process())?));
        Ok(0)
    })
}

/// Frees a conversation; NULL is fine. Its streams go on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_conversation_free(conversation: *mut antiphon_conversation) {
    // SAFETY: NULL, or a conversation that nobody else uses.
    unsafe { free(conversation) };
}
