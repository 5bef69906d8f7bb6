//! Chat templates: from messages to the tokens of a prompt, so that no message becomes anything but text.
//!
//! A conversation is rendered twice: once plainly, and once with each message's content between marks that nobody can
//! guess and that hold for this render alone. If both agree once the marks are taken out, the marks say which stretches
//! of the prompt are a user's, and those are encoded without added tokens. If they do not, the template does something
//! to the content that we cannot follow, and it is refused.

mod sandbox;
mod source;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::ops::Range;

use minijinja::{Environment, ErrorKind as RenderErrorKind, Value, context};

use self::sandbox::Capped;
use crate::error::{Error, ErrorKind, Result};
use crate::format::Package;
use crate::tokenizer::{MAX_TEXT_BYTES, Memo, Part, Tokenizer};

/// A model's chat template, ready to render.
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    bos: String,
    eos: String,
    supports_system: bool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said; a user's text, whoever says it.
    pub content: String,
}

/// Who says something.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// Whoever set the conversation up.
    System,
    /// Whoever asks.
    User,
    /// The model.
    Assistant,
}

impl ChatTemplate {
    /// Reads the package's template and tries it on a short conversation.
    ///
    /// # Errors
    /// `NotFound` without a template, `Invalid` for one that cannot be parsed or ignores the message, `Unsupported` for
    /// one that needs what the sandbox does not give.
    pub fn from_package(package: &Package, tokenizer: &Tokenizer) -> Result<Self> {
        let missing =
            || Error::new(ErrorKind::NotFound, format!("model `{}` has no chat template", package.name));
        let source = package.chat_template.as_deref().ok_or_else(missing)?;
        let special = tokenizer.special();
        let text = |id: Option<&u32>| id.and_then(|id| tokenizer.token(*id)).unwrap_or_default();
        Self::new(source, &text(special.bos.as_ref()), &text(special.eos.first()))
    }

    /// Takes a template's source and the texts of the tokens that begin and end a sequence.
    ///
    /// # Errors
    /// As [`Self::from_package`].
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self> {
        let source = source::prepared(source)?;
        let environment = sandbox::environment(source.clone())?;
        let (bos, eos) = (bos.to_owned(), eos.to_owned());
        let mut template = Self { environment, source, bos, eos, supports_system: true };
        let turn = |role, content: &str| Message { role, content: content.to_owned() };
        let short = [turn(Role::User, "Is this on?")];
        template.marked(&short)?;
        let long = [turn(Role::User, "One?"), turn(Role::Assistant, "Two."), turn(Role::User, "Three?")];
        template.marked(&long)?;
        let system = [turn(Role::System, "Answer in one word."), turn(Role::User, "Is this on?")];
        template.supports_system = template.marked(&system).is_ok();
        Ok(template)
    }

    /// Whether a conversation may begin with a system message.
    pub fn supports_system(&self) -> bool {
        self.supports_system
    }

    /// The prompt of `messages`, ready for the answer.
    ///
    /// # Errors
    /// `InvalidArgument` for no messages, too many, or an order the template refuses; `InputTooLong` for too much text;
    /// `Unsupported` if the template drops a message or changes it in a way that cannot be followed.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>> {
        let (text, users) = self.marked(messages)?;
        tokenizer.encode_parts(&parts(&text, &users))
    }

    /// The same tokens, those of turns that `memo` has of this owner from there.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_again(
        &self,
        tokenizer: &Tokenizer,
        memo: &Memo,
        owner: &str,
        messages: &[Message],
    ) -> Result<Vec<u32>> {
        let (text, users) = self.marked(messages)?;
        tokenizer.encode_parts_again(memo, owner, &parts(&text, &users))
    }

    /// The prompt of `messages` as text, the way the model sees it.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn render(&self, messages: &[Message]) -> Result<String> {
        self.marked(messages).map(|(text, _)| text)
    }

    /// The prompt and the stretches of it that are message content, in order.
    fn marked(&self, messages: &[Message]) -> Result<(String, Vec<Range<usize>>)> {
        check(messages)?;
        let plain = self.run(messages, messages.iter().map(|message| message.content.clone()))?;
        let marks = Marks::new();
        for extent in [Extent::Whole, Extent::Trimmed, Extent::AfterThinking, Extent::Answer] {
            let contents =
                messages.iter().zip(0..).map(|(message, index)| marks.wrap(message, index, extent));
            // a template may refuse the marked content; the plain one it has taken
            let Ok(wrapped) = self.run(messages, contents) else { continue };
            if let Some((text, users)) = marks.unwrap(&wrapped, messages)
                && text == plain
            {
                return Ok((text, users));
            }
        }
        let what = "the chat template drops a message or changes it in a way that cannot be followed";
        Err(Error::new(ErrorKind::Unsupported, what))
    }

    fn run(&self, messages: &[Message], contents: impl Iterator<Item = String>) -> Result<String> {
        let turns = messages.iter().zip(contents);
        let turns: Vec<Value> = turns
            .map(|(message, content)| context! { role => message.role.name(), content => content })
            .collect();
        let context = context! {
            messages => turns,
            add_generation_prompt => true,
            bos_token => self.bos.as_str(),
            eos_token => self.eos.as_str(),
            tools => (),
            documents => (),
        };
        let text: usize = messages.iter().map(|message| message.content.len()).sum();
        let mut output = Capped::new(MAX_OUTPUT_BYTES + 2 * text);
        let rendered = sandbox::render(&self.environment, messages.len(), context, &mut output);
        rendered.map_err(|error| self.refusal(&error))?;
        output.into_text()
    }

    /// What a failed render means. A template's own words are repeated only where they stand in its source: what it
    /// puts together may hold a user's text.
    fn refusal(&self, error: &minijinja::Error) -> Error {
        let detail = error.detail().unwrap_or_default();
        let own = !detail.is_empty() && self.source.contains(detail);
        match error.kind() {
            RenderErrorKind::UnknownFunction | RenderErrorKind::UnknownMethod
                if detail.contains("strftime_now") =>
            {
                let what = "the chat template calls `strftime_now`: the prompt would change with the clock";
                Error::new(ErrorKind::Unsupported, what)
            }
            kind @ (RenderErrorKind::UnknownFunction
            | RenderErrorKind::UnknownMethod
            | RenderErrorKind::UnknownFilter
            | RenderErrorKind::UnknownTest
            | RenderErrorKind::TemplateNotFound) => {
                let line = error.line().unwrap_or_default();
                Error::new(ErrorKind::Unsupported, format!("the chat template, line {line}: {kind}"))
            }
            RenderErrorKind::OutOfFuel => {
                Error::new(ErrorKind::Unsupported, "the chat template does not come to an end")
            }
            _ if detail == sandbox::TOO_LARGE => {
                Error::new(ErrorKind::Unsupported, format!("the chat template {detail}"))
            }
            _ if own => {
                let detail: String = detail.chars().take(MAX_DETAIL_CHARS).collect();
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("the chat template refuses the messages: {detail}"),
                )
            }
            _ => Error::new(ErrorKind::InvalidArgument, "the chat template refuses the messages"),
        }
    }
}

impl std::fmt::Debug for ChatTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.source.len();
        f.debug_struct("ChatTemplate")
            .field("bytes", &bytes)
            .field("supports_system", &self.supports_system)
            .finish()
    }
}

impl Role {
    /// The name that templates know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// Which part of a content stands between the marks.
#[derive(Clone, Copy)]
enum Extent {
    /// All of it.
    Whole,
    /// Without the white space around it, which templates trim.
    Trimmed,
    /// As before, and of the model's own turns only what follows its thinking, the rest left out: templates that drop
    /// the thinking then render the same.
    AfterThinking,
    /// As before, without the white space in front of the answer.
    Answer,
}

/// The marks of one render. They are letters and digits: nothing that a template trims or escapes.
struct Marks {
    secret: String,
}

impl Marks {
    fn new() -> Self {
        // keyed by the operating system's randomness, as a map's hasher is: an attacker cannot guess 128 bits of it
        let state = RandomState::new();
        let half = |half: u8| {
            let mut hasher = state.build_hasher();
            hasher.write_u8(half);
            hasher.finish()
        };
        Self { secret: format!("m{:016x}{:016x}", half(0), half(1)) }
    }

    fn wrap(&self, message: &Message, index: usize, extent: Extent) -> String {
        let content = message.content.as_str();
        let content = match (extent, message.role, content.rsplit_once("</think>")) {
            (Extent::AfterThinking, Role::Assistant, Some((_, answer))) => answer,
            (Extent::Answer, Role::Assistant, Some((_, answer))) => answer.trim_start(),
            _ => content,
        };
        let core = if matches!(extent, Extent::Whole) { content } else { content.trim() };
        if core.is_empty() {
            return content.to_owned();
        }
        let secret = &self.secret;
        let (before, after) = content.split_once(core).expect("the core is a part of the content");
        format!("{before}{secret}o{index}z{core}{secret}c{index}z{after}")
    }

    /// The text without marks and the stretches they enclosed; nothing if marks are torn, or a message of a user or the
    /// system is missing.
    fn unwrap(&self, wrapped: &str, messages: &[Message]) -> Option<(String, Vec<Range<usize>>)> {
        let mut pieces = wrapped.split(self.secret.as_str());
        let mut text = pieces.next()?.to_owned();
        let mut users = Vec::new();
        let mut seen = vec![false; messages.len()];
        let mut open = None;
        for piece in pieces {
            let (mark, rest) = piece.split_once('z')?;
            let index: usize = mark.get(1..)?.parse().ok()?;
            match (mark.as_bytes()[0], open) {
                (b'o', None) => open = Some((index, text.len())),
                (b'c', Some((opened, start))) if opened == index => {
                    users.push(start..text.len());
                    *seen.get_mut(index)? = true;
                    open = None;
                }
                _ => return None,
            }
            text.push_str(rest);
        }
        let needed =
            |message: &Message| message.role != Role::Assistant && !message.content.trim().is_empty();
        let complete =
            open.is_none() && messages.iter().zip(seen).all(|(message, seen)| seen || !needed(message));
        complete.then_some((text, users))
    }
}

/// A prompt in which these stretches are message content.
fn parts<'a>(text: &'a str, users: &[Range<usize>]) -> Vec<Part<'a>> {
    let mut parts = Vec::with_capacity(2 * users.len() + 1);
    let mut at = 0;
    for user in users {
        parts.push(Part::Template(&text[at..user.start]));
        parts.push(Part::User(&text[user.clone()]));
        at = user.end;
    }
    parts.push(Part::Template(&text[at..]));
    parts
}

fn check(messages: &[Message]) -> Result<()> {
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        let what = format!("messages: {} of them, expected 1 to {MAX_MESSAGES}", messages.len());
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    let bytes: usize = messages.iter().map(|message| message.content.len()).sum();
    if bytes > MAX_TEXT_BYTES {
        let what = format!("messages: {bytes} bytes together, at most {MAX_TEXT_BYTES} are allowed");
        return Err(Error::new(ErrorKind::InputTooLong, what));
    }
    Ok(())
}

/// How many messages a conversation may have.
pub const MAX_MESSAGES: usize = 1000;
/// What a render may write beyond twice the messages.
const MAX_OUTPUT_BYTES: usize = 1 << 20;
const MAX_DETAIL_CHARS: usize = 200;
