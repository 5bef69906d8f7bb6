//! What a caller gets: the meaning of a message, and the answer.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// What a message means.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Analysis {
    /// What the user wants.
    pub intent: Intent,
    /// How the user feels about it.
    pub sentiment: Sentiment,
    /// The things it names, in order of position.
    pub entities: Vec<Entity>,
    /// Tokens the encoder read, its special tokens included.
    pub tokens: usize,
    /// Whether the message was longer than the encoder can read and its end was left out.
    pub truncated: bool,
}

/// What the user wants.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Intent {
    /// The best label, or `out_of_scope`.
    pub label: String,
    /// Calibrated probability of the label. Out of scope: one minus that of the best in-scope label.
    pub confidence: f64,
    /// Whether no known intent is likely enough.
    pub out_of_scope: bool,
    /// The five best in-scope labels, best first.
    pub ranking: Vec<Ranked>,
}

/// A label and its probability.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Ranked {
    /// The label.
    pub label: String,
    /// Its calibrated probability.
    pub confidence: f64,
}

/// How the user feels about it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Sentiment {
    /// `negative`, `neutral` or `positive`.
    pub label: String,
    /// Probability of the label.
    pub confidence: f64,
    /// Probability of each label.
    pub scores: BTreeMap<String, f64>,
}

/// Something a message names.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(from = "EntityJson", into = "EntityJson")]
#[non_exhaustive]
pub struct Entity {
    /// What it is: `person`, `order_id`, `email`, … (`type` in JSON).
    pub kind: String,
    /// The text.
    pub value: String,
    /// How sure the analyst is.
    pub confidence: f64,
    /// Where it begins, in UTF-8 bytes of the message.
    pub start: usize,
    /// Where it ends, in UTF-8 bytes.
    pub end: usize,
    /// Where it is in code points, as JSON says it.
    pub chars: Range<usize>,
}

/// An entity in JSON: offsets are code points. Without the message bytes cannot be known, so an entity that was read from
/// JSON has code points in its byte offsets too.
#[derive(Deserialize, Serialize)]
struct EntityJson {
    #[serde(rename = "type")]
    kind: String,
    value: String,
    confidence: f64,
    start: usize,
    end: usize,
}

/// An answer, in the shape of the AI service that hosts already serve.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reply {
    /// The answer.
    pub response: String,
    /// The intent's confidence; 0 for `generate`, which analyses nothing.
    pub confidence: f64,
    /// The intent's label; empty for `generate`.
    pub intent: String,
    /// The sentiment's label; empty for `generate`.
    pub sentiment: String,
    /// The things the message names.
    pub entities: Vec<Entity>,
    /// How the reply came about.
    pub metadata: Metadata,
}

/// How a reply came about.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Metadata {
    /// What the encoder read; none for `generate`.
    pub nlp_processing: Option<NlpProcessing>,
    /// The intent in full; none for `generate`.
    pub intent_analysis: Option<Intent>,
    /// The sentiment in full; none for `generate`.
    pub sentiment_analysis: Option<Sentiment>,
    /// The answer's making.
    pub response_generation: Generation,
    /// When the reply was made, RFC 3339 in UTC with milliseconds.
    pub timestamp: String,
}

/// What the encoder read.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct NlpProcessing {
    /// Tokens.
    pub tokens: usize,
    /// Whether the end of the message was left out.
    pub truncated: bool,
}

/// The making of an answer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Generation {
    /// Name of the responder.
    pub model: String,
    /// Why the answer ended.
    pub finish_reason: FinishReason,
    /// Tokens read and written.
    pub usage: Usage,
    /// Where the answer came from.
    pub cache: CacheOutcome,
    /// What stood in for the responder, if something had to.
    pub degraded: Option<Degraded>,
    /// Where the time went.
    pub timings_ms: Timings,
    /// What is needed to get the same answer again.
    pub repro: Repro,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model ended it, or a stop text came.
    Stop,
    /// `max_tokens` or the context was reached.
    Length,
    /// The consumer stopped it.
    Cancelled,
    /// The deadline passed.
    Deadline,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheOutcome {
    /// It was computed for this request.
    Miss,
    /// From the engine's cache.
    Hit,
    /// From an equal request that was under way.
    Joined,
    /// From the tier that engines share.
    Shared,
}

/// What stood in for the responder.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Degraded {
    /// An older cached answer.
    Cache,
    /// A template filled from the analysis.
    Template,
}

/// Tokens read and written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub completion_tokens: usize,
    /// Tokens of the prompt that were not computed again.
    pub cached_tokens: usize,
    /// Prompt and answer.
    pub total_tokens: usize,
}

/// Where the time went, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Timings {
    /// Waiting for admission.
    pub queue: f64,
    /// The encoder's pass.
    pub analysis: f64,
    /// Reading the prompt.
    pub prefill: f64,
    /// From submission to the first token.
    pub first_token: f64,
    /// Writing the answer.
    pub decode: f64,
    /// From submission to the end.
    pub total: f64,
}

/// What is needed to get the same answer again.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Repro {
    /// Version of this library.
    pub engine: String,
    /// Fingerprint of each model that took part.
    pub models: BTreeMap<String, String>,
    /// The seed of a sampled answer.
    pub seed: Option<u64>,
}

/// One step of a stream: one analysis, then chunks, then done.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
#[non_exhaustive]
#[allow(
    clippy::large_enum_variant,
    reason = "events are moved seldom, and a box would show in every host's match"
)]
pub enum Event {
    /// What the message means; before the first token of the answer.
    #[serde(with = "analysis_event")]
    Analysis(Analysis),
    /// A piece of the answer; ends on a code-point boundary.
    #[non_exhaustive]
    Chunk {
        /// The text.
        content: String,
        /// Its number, from 0.
        index: u64,
        /// Log-probabilities of its tokens, if asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        logprobs: Option<Vec<TokenLogprob>>,
    },
    /// The whole reply; the last event.
    #[serde(with = "done_event")]
    Done(Reply),
}

/// How likely a token of the answer was.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TokenLogprob {
    /// The token's id.
    pub id: u32,
    /// Its text, replacement characters where it is part of a code point.
    pub token: String,
    /// Natural logarithm of its probability before temperature and penalties.
    pub logprob: f64,
    /// The likeliest tokens at this place, best first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub top: Vec<TokenLogprob>,
}

impl Reply {
    /// The analysis the reply was made from; none for `generate`.
    pub fn analysis(&self) -> Option<Analysis> {
        let metadata = &self.metadata;
        let nlp = metadata.nlp_processing.as_ref()?;
        Some(Analysis {
            intent: metadata.intent_analysis.clone()?,
            sentiment: metadata.sentiment_analysis.clone()?,
            entities: self.entities.clone(),
            tokens: nlp.tokens,
            truncated: nlp.truncated,
        })
    }

    /// Why the answer ended.
    pub fn finish_reason(&self) -> FinishReason {
        self.metadata.response_generation.finish_reason
    }
}

impl From<EntityJson> for Entity {
    fn from(json: EntityJson) -> Self {
        let EntityJson { kind, value, confidence, start, end } = json;
        Self { kind, value, confidence, start, end, chars: start..end }
    }
}

impl From<Entity> for EntityJson {
    fn from(entity: Entity) -> Self {
        let Entity { kind, value, confidence, chars, .. } = entity;
        Self { kind, value, confidence, start: chars.start, end: chars.end }
    }
}

/// Six decimals: more than calibration can promise, and short in JSON.
pub(crate) fn rounded(probability: f64) -> f64 {
    (probability * 1e6).round() / 1e6
}

macro_rules! wrapped {
    ($module:ident, $field:ident: $type:ty) => {
        mod $module {
            use super::*;

            #[derive(Deserialize)]
            struct Owned {
                $field: $type,
            }

            #[derive(Serialize)]
            struct Lent<'a> {
                $field: &'a $type,
            }

            pub(super) fn serialize<S: serde::Serializer>(
                $field: &$type,
                serializer: S,
            ) -> Result<S::Ok, S::Error> {
                Lent { $field }.serialize(serializer)
            }

            pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<$type, D::Error> {
                Owned::deserialize(deserializer).map(|owned| owned.$field)
            }
        }
    };
}
wrapped!(analysis_event, analysis: Analysis);
wrapped!(done_event, reply: Reply);

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The events of a whole answer to a message that names an order.
    pub(crate) fn answer_about(message: &str, order: &str) -> Vec<Event> {
        let start = message.find(order).unwrap();
        let first = message[..start].chars().count();
        let entities = vec![Entity {
            kind: "order_id".into(),
            value: order.into(),
            confidence: 0.9,
            start,
            end: start + order.len(),
            chars: first..first + order.chars().count(),
        }];
        let intent = Intent {
            label: "track_order".into(),
            confidence: 0.75,
            out_of_scope: false,
            ranking: vec![Ranked { label: "track_order".into(), confidence: 0.75 }],
        };
        let scores = BTreeMap::from([("neutral".into(), 1.0)]);
        let sentiment = Sentiment { label: "neutral".into(), confidence: 1.0, scores };
        let analysis = Analysis { intent, sentiment, entities, tokens: 9, truncated: false };
        let chunk = |content: &str, index| Event::Chunk { content: content.into(), index, logprobs: None };
        let generation = Generation {
            model: "responder".into(),
            finish_reason: FinishReason::Stop,
            usage: Usage { prompt_tokens: 9, completion_tokens: 4, cached_tokens: 0, total_tokens: 13 },
            cache: CacheOutcome::Miss,
            degraded: None,
            timings_ms: Timings::default(),
            repro: Repro { engine: crate::VERSION.into(), models: BTreeMap::new(), seed: None },
        };
        let reply = Reply {
            response: "It is on its way.".into(),
            confidence: 0.75,
            intent: "track_order".into(),
            sentiment: "neutral".into(),
            entities: analysis.entities.clone(),
            metadata: Metadata {
                nlp_processing: Some(NlpProcessing { tokens: 9, truncated: false }),
                intent_analysis: Some(analysis.intent.clone()),
                sentiment_analysis: Some(analysis.sentiment.clone()),
                response_generation: generation,
                timestamp: "2026-01-01T00:00:00.000Z".into(),
            },
        };
        vec![Event::Analysis(analysis), chunk("It is ", 0), chunk("on its way.", 1), Event::Done(reply)]
    }

    #[test]
    fn events_serialize_in_the_documented_shapes() {
        let analysis = Analysis {
            intent: Intent {
                label: "help_request".into(),
                confidence: 0.95,
                out_of_scope: false,
                ranking: vec![],
            },
            sentiment: Sentiment { label: "neutral".into(), confidence: 0.9, scores: BTreeMap::new() },
            entities: vec![Entity {
                kind: "account".into(),
                value: "account".into(),
                confidence: 0.98,
                start: 28,
                end: 35,
                chars: 27..34,
            }],
            tokens: 9,
            truncated: false,
        };
        let json = serde_json::to_value(Event::Analysis(analysis)).unwrap();
        assert_eq!(json["type"], "analysis");
        assert_eq!(json["analysis"]["intent"]["label"], "help_request");
        assert_eq!(
            json["analysis"]["entities"][0],
            serde_json::json!({"type": "account", "value": "account", "confidence": 0.98, "start": 27, "end": 34})
        );
        let chunk = Event::Chunk { content: "I'd be".into(), index: 0, logprobs: None };
        let json = serde_json::to_string(&chunk).unwrap();
        assert_eq!(json, r#"{"type":"chunk","content":"I'd be","index":0}"#);
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), chunk);
    }
}
