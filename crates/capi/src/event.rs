//! One step of a stream.

use antiphon::Event;

use crate::answer::{antiphon_analysis, antiphon_reply};
use crate::handle::Handle;
use crate::text::{Text, antiphon_text};

/// What the message means; before the first chunk.
pub const ANTIPHON_EVENT_ANALYSIS: i32 = 1;
/// A piece of the answer.
pub const ANTIPHON_EVENT_CHUNK: i32 = 2;
/// The whole reply; the last event.
pub const ANTIPHON_EVENT_DONE: i32 = 3;

/// One step of a stream. Set `struct_size` to sizeof before a call fills it in. What it points to is lent: until the next call
/// on the stream, or until the callback returns.
#[repr(C)]
pub struct antiphon_event {
    pub struct_size: u32,
    /// ANTIPHON_EVENT_ANALYSIS, ANTIPHON_EVENT_CHUNK or ANTIPHON_EVENT_DONE; later versions may have more.
    pub kind: i32,
    /// Of a chunk, else empty; ends with a whole character.
    pub text: antiphon_text,
    /// Of a chunk: its number, from 0.
    pub index: u64,
    /// Of the analysis event, else NULL.
    pub analysis: *const antiphon_analysis,
    /// Of the done event, else NULL.
    pub reply: *const antiphon_reply,
}

/// What an event that was handed out points to.
pub(crate) enum Lending {
    Nothing,
    Analysis(Handle<antiphon_analysis>),
    Chunk(Text, u64),
    Done(Handle<antiphon_reply>),
}

impl Lending {
    pub(crate) fn describe(&self) -> antiphon_event {
        let mut event = antiphon_event {
            struct_size: size_of::<antiphon_event>() as u32,
            kind: 0,
            text: antiphon_text::EMPTY,
            index: 0,
            analysis: std::ptr::null(),
            reply: std::ptr::null(),
        };
        match self {
            Self::Nothing => {}
            Self::Analysis(analysis) => {
                (event.kind, event.analysis) = (ANTIPHON_EVENT_ANALYSIS, analysis.lend());
            }
            Self::Chunk(text, index) => {
                (event.kind, event.text, event.index) = (ANTIPHON_EVENT_CHUNK, text.lend(), *index);
            }
            Self::Done(reply) => (event.kind, event.reply) = (ANTIPHON_EVENT_DONE, reply.lend()),
        }
        event
    }
}

impl From<Event> for Lending {
    fn from(event: Event) -> Self {
        match event {
            Event::Analysis(analysis) => Self::Analysis(Handle::new(antiphon_analysis::new(analysis))),
            Event::Chunk { content, index, .. } => Self::Chunk(content.as_str().into(), index),
            Event::Done(reply) => Self::Done(Handle::new(antiphon_reply::new(reply))),
            // The core has no others; one that is added comes with a kind of its own.
            _ => Self::Nothing,
        }
    }
}
