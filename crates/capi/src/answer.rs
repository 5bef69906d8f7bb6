//! What a message means, and the answer to it.

use std::sync::OnceLock;

use antiphon::{Analysis, FinishReason, Reply};

use crate::guard::{free, lent, quietly, sized_mut};
use crate::handle::Handle;
use crate::text::{Text, antiphon_text, json};

/// What a message means.
pub struct antiphon_analysis {
    analysis: Analysis,
    intent: Text,
    sentiment: Text,
    entities: Vec<(Text, Text)>,
    json: OnceLock<Text>,
}

/// Something that a message names. Set `struct_size` to sizeof before a call fills it in.
#[repr(C)]
pub struct antiphon_entity {
    pub struct_size: u32,
    /// What it is ("order_id", "person", ...): `type` in JSON.
    pub r#type: antiphon_text,
    pub value: antiphon_text,
    /// Where it is in the message, in bytes.
    pub start: usize,
    pub end: usize,
    pub confidence: f64,
}

/// An answer with all that is known about it.
pub struct antiphon_reply {
    reply: Reply,
    response: Text,
    finish_reason: Text,
    analysis: OnceLock<Option<Handle<antiphon_analysis>>>,
    json: OnceLock<Text>,
}

/// What the user wants: a label, or "out_of_scope". Lent like all texts of an analysis: until it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_intent(analysis: *const antiphon_analysis) -> antiphon_text {
    // SAFETY: NULL or an analysis that lives.
    unsafe { get(analysis, antiphon_text::EMPTY, |analysis| analysis.intent.lend()) }
}

/// How sure that is, from 0 to 1, calibrated.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_intent_confidence(analysis: *const antiphon_analysis) -> f64 {
    // SAFETY: NULL or an analysis that lives.
    unsafe { get(analysis, 0.0, |analysis| analysis.analysis.intent.confidence) }
}

/// Whether no known intent is likely enough.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_out_of_scope(analysis: *const antiphon_analysis) -> bool {
    // SAFETY: NULL or an analysis that lives.
    unsafe { get(analysis, false, |analysis| analysis.analysis.intent.out_of_scope) }
}

/// "negative", "neutral" or "positive".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_sentiment(analysis: *const antiphon_analysis) -> antiphon_text {
    // SAFETY: NULL or an analysis that lives.
    unsafe { get(analysis, antiphon_text::EMPTY, |analysis| analysis.sentiment.lend()) }
}

/// How likely that is, from 0 to 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_sentiment_confidence(analysis: *const antiphon_analysis) -> f64 {
    // SAFETY: NULL or an analysis that lives.
    unsafe { get(analysis, 0.0, |analysis| analysis.analysis.sentiment.confidence) }
}

/// How many things the message names.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_entity_count(analysis: *const antiphon_analysis) -> usize {
    // SAFETY: NULL or an analysis that lives.
    unsafe { get(analysis, 0, |analysis| analysis.entities.len()) }
}

/// One of them, from 0, in the order of the message. False where there is no such one, or `out->struct_size` is too small.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_entity(
    analysis: *const antiphon_analysis,
    index: usize,
    out: *mut antiphon_entity,
) -> bool {
    let found = |analysis: &antiphon_analysis| -> Option<()> {
        // SAFETY: NULL or an entity of the caller's, which is used after its size.
        let out = unsafe { sized_mut(out, "out") }.ok()?;
        let (entity, (kind, value)) = (analysis.analysis.entities.get(index)?, analysis.entities.get(index)?);
        (out.r#type, out.value) = (kind.lend(), value.lend());
        (out.start, out.end, out.confidence) = (entity.start, entity.end, entity.confidence);
        Some(())
    };
    // SAFETY: NULL or an analysis that lives.
    unsafe { get(analysis, false, |analysis| found(analysis).is_some()) }
}

/// All of it as a JSON object; places of entities are code points there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_json(analysis: *const antiphon_analysis) -> antiphon_text {
    let text = |analysis: &antiphon_analysis| as_json(&analysis.json, &analysis.analysis);
    // SAFETY: NULL or an analysis that lives; the text lives in it.
    unsafe { get(analysis, antiphon_text::EMPTY, text) }
}

/// Frees an analysis that was handed out for good; NULL is fine. One that an event or a reply lends is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analysis_free(analysis: *mut antiphon_analysis) {
    // SAFETY: NULL or an analysis that lives.
    unsafe { free(analysis) };
}

/// The answer. Lent like all texts of a reply: until it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_reply_response(reply: *const antiphon_reply) -> antiphon_text {
    // SAFETY: NULL or a reply that lives.
    unsafe { get(reply, antiphon_text::EMPTY, |reply| reply.response.lend()) }
}

/// Why it ended: "stop", "length", "cancelled" or "deadline".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_reply_finish_reason(reply: *const antiphon_reply) -> antiphon_text {
    // SAFETY: NULL or a reply that lives.
    unsafe { get(reply, antiphon_text::EMPTY, |reply| reply.finish_reason.lend()) }
}

/// How sure the intent is, from 0 to 1; 0 for `antiphon_generate`, which analyses nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_reply_confidence(reply: *const antiphon_reply) -> f64 {
    // SAFETY: NULL or a reply that lives.
    unsafe { get(reply, 0.0, |reply| reply.reply.confidence) }
}

/// What the message means, lent until the reply is freed; NULL for `antiphon_generate`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_reply_analysis(reply: *const antiphon_reply) -> *const antiphon_analysis {
    let analysis = |reply: &antiphon_reply| {
        let analysis =
            || reply.reply.analysis().map(|analysis| Handle::new(antiphon_analysis::new(analysis)));
        reply.analysis.get_or_init(analysis).as_ref().map_or(std::ptr::null(), |analysis| analysis.lend())
    };
    // SAFETY: NULL or a reply that lives.
    unsafe { get(reply, std::ptr::null(), analysis) }
}

/// All of it as a JSON object, in the shape that hosts of the chat platform serve.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_reply_json(reply: *const antiphon_reply) -> antiphon_text {
    let text = |reply: &antiphon_reply| as_json(&reply.json, &reply.reply);
    // SAFETY: NULL or a reply that lives; the text lives in it.
    unsafe { get(reply, antiphon_text::EMPTY, text) }
}

/// Frees a reply that was handed out for good; NULL is fine. One that an event lends is not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_reply_free(reply: *mut antiphon_reply) {
    // SAFETY: NULL or a reply that lives.
    unsafe { free(reply) };
}

impl antiphon_analysis {
    pub(crate) fn new(analysis: Analysis) -> Self {
        let entity = |entity: &antiphon::Entity| (entity.kind.as_str().into(), entity.value.as_str().into());
        Self {
            intent: analysis.intent.label.as_str().into(),
            sentiment: analysis.sentiment.label.as_str().into(),
            entities: analysis.entities.iter().map(entity).collect(),
            json: OnceLock::new(),
            analysis,
        }
    }
}

impl antiphon_reply {
    pub(crate) fn new(reply: Reply) -> Self {
        let finish_reason = match reply.finish_reason() {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
            FinishReason::Deadline => "deadline",
        };
        Self {
            response: reply.response.as_str().into(),
            finish_reason: finish_reason.into(),
            analysis: OnceLock::new(),
            json: OnceLock::new(),
            reply,
        }
    }
}

fn as_json(kept: &OnceLock<Text>, value: &impl serde::Serialize) -> antiphon_text {
    kept.get_or_init(|| json(value).unwrap_or_default().as_str().into()).lend()
}

/// # Safety
/// The handle is NULL or one that lives.
unsafe fn get<T: 'static, R: Copy>(handle: *const T, nothing: R, read: impl FnOnce(&T) -> R) -> R {
    // SAFETY: the caller's promise.
    quietly(nothing, || unsafe { lent(handle, "handle") }.map_or(nothing, read))
}
