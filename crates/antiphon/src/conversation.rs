//! A conversation that remembers its turns.

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::json;
use crate::reply::Event;
use crate::request::{Message, Request, check_ids};
use crate::stream::{Bookmark, ReplyStream};

/// Whose conversation it is, and how it begins.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ConversationConfig {
    /// The tenant of every request that names none. Default: `default`.
    pub tenant_id: Option<String>,
    /// The user of every request that names none.
    pub user_id: Option<String>,
    /// The conversation id of every request that names none.
    pub conversation_id: Option<String>,
    /// Turns that went before, oldest first.
    pub history: Vec<Message>,
}

/// A conversation: each answer knows the turns before it.
///
/// ```
/// use antiphon::{ConversationConfig, Engine, EngineConfig, Event, Request};
///
/// let engine = Engine::open(EngineConfig::default())?;
/// let mut conversation = engine.conversation(ConversationConfig::default())?;
/// for text in ["Where is order 4711?", "And 4712?"] {
///     for event in conversation.say(Request::new(text).max_tokens(16))? {
///         if let Event::Chunk { content, .. } = event? {
///             assert!(!content.is_empty());
///         }
///     }
/// }
/// assert_eq!(conversation.history().len(), 4);
/// # Ok::<(), antiphon::Error>(())
/// ```
pub struct Conversation {
    engine: Engine,
    config: ConversationConfig,
    history: Vec<Message>,
    previous_intent: Option<String>,
    /// The turn whose answer is being read, or was.
    turn: Option<Turn>,
}

struct Turn {
    message: String,
    answer: Bookmark,
}

impl ConversationConfig {
    /// Reads the configuration from a JSON object.
    ///
    /// ```
    /// # use antiphon::ConversationConfig;
    /// let config = ConversationConfig::from_json(r#"{"tenant_id": "acme"}"#)?;
    /// assert_eq!(config, ConversationConfig::default().tenant("acme"));
    /// # Ok::<(), antiphon::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names an unknown key or a value of the wrong type.
    pub fn from_json(json: &str) -> Result<Self> {
        json::read(ErrorKind::InvalidArgument, "conversation", json)
    }

    /// Whose conversation it is.
    pub fn tenant(mut self, id: impl Into<String>) -> Self {
        self.tenant_id = Some(id.into());
        self
    }

    /// The user.
    pub fn user(mut self, id: impl Into<String>) -> Self {
        self.user_id = Some(id.into());
        self
    }

    /// The conversation id.
    pub fn conversation(mut self, id: impl Into<String>) -> Self {
        self.conversation_id = Some(id.into());
        self
    }

    /// Turns that went before, oldest first.
    pub fn history(mut self, messages: impl Into<Vec<Message>>) -> Self {
        self.history = messages.into();
        self
    }
}

impl Conversation {
    pub(crate) fn new(engine: Engine, config: ConversationConfig) -> Result<Self> {
        let tenant = config.tenant_id.as_deref().unwrap_or("default");
        check_ids(tenant, &config.user_id, &config.conversation_id)?;
        let history = config.history.clone();
        Ok(Self { engine, config, history, previous_intent: None, turn: None })
    }

    /// Says something and returns the answer as it comes. A request with a history of its own keeps it after the
    /// conversation's. An answer that is cut short enters the history as far as it was read.
    ///
    /// # Errors
    /// As [`Engine::process`], and [`ErrorKind::InvalidArgument`] while an earlier answer is still being read.
    pub fn say(&mut self, mut request: Request) -> Result<ReplyStream> {
        if self.turn.as_ref().is_some_and(|turn| turn.answer.is_open()) {
            let what = "the answer before is still being read, expected its end or its stream dropped";
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        self.settle();
        let message = request.message.clone();
        self.prepare(&mut request);
        let stream = self.engine.stream(request)?;
        self.turn = Some(Turn { message, answer: stream.bookmark() });
        Ok(stream)
    }

    /// Forgets all turns but those it began with.
    pub fn reset(&mut self) {
        self.turn = None;
        self.previous_intent = None;
        self.history.clone_from(&self.config.history);
    }

    /// The turns so far, oldest first; an answer that is being read counts as far as it was read.
    pub fn history(&self) -> Vec<Message> {
        let mut history = self.history.clone();
        history.extend(self.turn.iter().flat_map(Turn::messages));
        history
    }

    /// Moves the last turn into the history.
    fn settle(&mut self) {
        let Some(turn) = self.turn.take() else { return };
        self.history.extend(turn.messages());
        let intent = turn.answer.read().into_iter().find_map(|event| match event {
            Event::Analysis(analysis) => Some(analysis.intent.label),
            _ => None,
        });
        self.previous_intent = intent.or(self.previous_intent.take());
    }

    /// Fills in what the conversation knows. The newest turns are told, as many as a request may have.
    fn prepare(&self, request: &mut Request) {
        if let Some(tenant) = self.config.tenant_id.as_ref().filter(|_| request.tenant_id == "default") {
            request.tenant_id.clone_from(tenant);
        }
        request.user_id = request.user_id.take().or_else(|| self.config.user_id.clone());
        request.conversation_id =
            request.conversation_id.take().or_else(|| self.config.conversation_id.clone());
        if let Some(intent) = &self.previous_intent {
            request.context.entry("previous_intent").or_insert_with(|| intent.as_str().into());
        }
        let most = self.engine.shared().config.max_history_messages.saturating_sub(request.history.len());
        let skipped = self.history.len().saturating_sub(most);
        request.history.splice(0..0, self.history[skipped..].iter().cloned());
    }
}

impl Turn {
    /// What was said, and what was read of the answer; nothing when it failed before its first word.
    fn messages(&self) -> Vec<Message> {
        let text: String = self
            .answer
            .read()
            .into_iter()
            .filter_map(|event| match event {
                Event::Chunk { content, .. } => Some(content),
                _ => None,
            })
            .collect();
        if text.is_empty() {
            return Vec::new();
        }
        vec![Message::user(self.message.as_str()), Message::assistant(text)]
    }
}
