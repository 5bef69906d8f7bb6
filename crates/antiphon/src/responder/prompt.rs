//! What the responder is told: system text from the analysis, the history as far as it fits, the message.

use std::fmt::Write;

use antiphon_inference::template;

use super::Responder;
use crate::error::{Error, ErrorKind, Result};
use crate::options::{Overflow, RequestOptions};
use crate::reply::Analysis;
use crate::request::{Generate, Message, Request, Role};

impl Responder {
    /// The prompt of a message, with its analysis.
    pub(crate) fn prompt(&self, request: &Request, analysis: &Analysis) -> Result<Vec<u32>> {
        self.fit(&request.tenant_id, turns(request, analysis), &request.options)
    }

    /// The prompt of chat turns, or of a text as it stands.
    pub(crate) fn continuation(&self, request: &Generate) -> Result<Vec<u32>> {
        let Some(prompt) = &request.prompt else {
            return self.fit(&request.tenant_id, request.messages.clone(), &request.options);
        };
        let mut tokens: Vec<u32> = self.tokenizer.bos().into_iter().collect();
        tokens.extend(self.tokenizer.encode_text(prompt)?);
        if tokens.len() >= self.context_tokens {
            return Err(self.full(tokens.len()));
        }
        Ok(tokens)
    }

    /// Renders the turns; leaves the oldest out while there is no room, never the system text and never the last turn.
    fn fit(&self, tenant: &str, mut messages: Vec<Message>, options: &RequestOptions) -> Result<Vec<u32>> {
        let template = self.template.as_ref().ok_or_else(|| {
            let what = format!("model `{}` has no chat template, expected one (or a raw prompt)", self.name);
            Error::new(ErrorKind::UnsupportedModel, what)
        })?;
        if !template.supports_system() {
            fold_system(&mut messages);
        }
        // An answer should have room, but a long `max_tokens` should not push the whole history out.
        let room = options.max_tokens.min(self.context_tokens / 4).max(1);
        let fits = |tokens: &Vec<u32>| tokens.len() + room <= self.context_tokens;
        let turns = turns_to_leave_out(&messages);
        let encoded = |left_out: usize| {
            let kept =
                messages.iter().zip(&turns).filter(|(_, turn)| turn.is_none_or(|turn| turn >= left_out));
            let kept: Vec<template::Message> = kept.map(|(message, _)| to_template(message)).collect();
            template.encode_again(&self.tokenizer, &self.memo, tenant, &kept)
        };
        let truncates = options.overflow == Overflow::TruncateOldest;
        let mut tokens = encoded(0)?;
        if truncates && !fits(&tokens) {
            // Without a turn a prompt is shorter, so halving finds how many have to go; encoding a long history takes time.
            let (mut least, mut most) = (1, turns.iter().flatten().max().map_or(0, |last| last + 1));
            while least <= most {
                let left_out = least.midpoint(most);
                let candidate = encoded(left_out)?;
                if fits(&candidate) {
                    (most, tokens) = (left_out - 1, candidate);
                } else {
                    least = left_out + 1;
                    tokens = if fits(&tokens) { tokens } else { candidate };
                }
            }
        }
        // With nothing left to leave out, an answer has what room there is.
        let is_enough = fits(&tokens) || truncates && tokens.len() < self.context_tokens;
        if is_enough { Ok(tokens) } else { Err(self.full(tokens.len())) }
    }

    fn full(&self, tokens: usize) -> Error {
        let what = format!(
            "the prompt has {tokens} tokens, expected fewer than {} with room for an answer (model `{}`)",
            self.context_tokens, self.name
        );
        Error::new(ErrorKind::ContextFull, what)
    }
}

/// System text from the analysis, the history, the message.
pub(crate) fn turns(request: &Request, analysis: &Analysis) -> Vec<Message> {
    let mut messages = Vec::with_capacity(request.history.len() + 2);
    messages.push(Message::system(system_text(analysis, request.previous_intent())));
    messages.extend(request.history.iter().cloned());
    messages.push(Message::user(request.message.clone()));
    messages
}

/// What the analysis found, in the words the bundled responder was trained with; other instruct models read it as plain
/// English.
fn system_text(analysis: &Analysis, previous_intent: Option<&str>) -> String {
    let mut text = format!(
        "You are a helpful assistant.\nintent: {}\nsentiment: {}",
        analysis.intent.label, analysis.sentiment.label
    );
    for (index, entity) in analysis.entities.iter().enumerate() {
        let separator = if index == 0 { "\nentities: " } else { "; " };
        write!(text, "{separator}{}={}", entity.kind, entity.value).expect("a String takes all");
    }
    if let Some(intent) = previous_intent {
        write!(text, "\nprevious_intent: {intent}").expect("a String takes all");
    }
    text
}

/// For each message the number of the turn with which it is left out, the oldest being 0; none for the system's text and for the
/// last message, which stay. A history begins with the user, so an answer goes with its question.
fn turns_to_leave_out(messages: &[Message]) -> Vec<Option<usize>> {
    let (mut turns, mut before) = (0, None);
    let turn_of = |(index, message): (usize, &Message)| {
        let turn = match message.role {
            _ if index + 1 == messages.len() => None,
            Role::System => None,
            Role::Assistant if before.is_some() => before,
            Role::Assistant | Role::User => {
                turns += 1;
                Some(turns - 1)
            }
        };
        before = turn;
        turn
    };
    messages.iter().enumerate().map(turn_of).collect()
}

/// For templates that know no system role: its text goes in front of the next turn of the user.
fn fold_system(messages: &mut Vec<Message>) {
    while let Some(index) = messages.iter().position(|message| message.role == Role::System) {
        let system = messages.remove(index);
        match messages[index..].iter_mut().find(|message| message.role == Role::User) {
            Some(turn) => turn.content = format!("{}\n\n{}", system.content, turn.content),
            None => messages.push(Message::user(system.content)),
        }
    }
}

fn to_template(message: &Message) -> template::Message {
    let role = match message.role {
        Role::System => template::Role::System,
        Role::User => template::Role::User,
        Role::Assistant => template::Role::Assistant,
    };
    template::Message { role, content: message.content.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::reply::{Entity, Intent, Sentiment};

    #[test]
    fn without_a_system_role_its_text_goes_to_the_user() {
        let mut messages =
            vec![Message::system("Be brief."), Message::assistant("Hi"), Message::user("Why?")];
        fold_system(&mut messages);
        assert_eq!(messages, [Message::assistant("Hi"), Message::user("Be brief.\n\nWhy?")]);
        let mut messages = vec![Message::system("Be brief.")];
        fold_system(&mut messages);
        assert_eq!(messages, [Message::user("Be brief.")]);
    }

    #[test]
    fn turns_are_left_out_from_the_oldest_on_and_answers_with_their_questions() {
        let roles = |text: &str| -> Vec<Message> {
            let message = |role| match role {
                's' => Message::system("s"),
                'a' => Message::assistant("a"),
                _ => Message::user("u"),
            };
            text.chars().map(message).collect()
        };
        let turns = |text: &str| -> String {
            let turn = |turn: Option<usize>| turn.map_or('-', |turn| char::from(b'0' + turn as u8));
            turns_to_leave_out(&roles(text)).into_iter().map(turn).collect()
        };
        assert_eq!(turns("suauau"), "-0011-");
        assert_eq!(turns("u"), "-");
        assert_eq!(turns("suu"), "-0-");
        assert_eq!(turns("aauaasau"), "00111-2-");
        assert_eq!(turns("uaa"), "00-");
    }

    #[test]
    fn the_system_text_says_what_was_found() {
        let entity = |value: &str| Entity {
            kind: "order_id".into(),
            value: value.into(),
            confidence: 1.0,
            start: 0,
            end: 0,
            chars: 0..0,
        };
        let analysis = Analysis {
            intent: Intent {
                label: "track_order".into(),
                confidence: 1.0,
                out_of_scope: false,
                ranking: vec![],
            },
            sentiment: Sentiment { label: "neutral".into(), confidence: 1.0, scores: BTreeMap::new() },
            entities: vec![entity("4711"), entity("4712")],
            tokens: 5,
            truncated: false,
        };
        assert_eq!(
            system_text(&analysis, Some("greeting")),
            "You are a helpful assistant.\nintent: track_order\nsentiment: neutral\n\
             entities: order_id=4711; order_id=4712\nprevious_intent: greeting"
        );
    }
}
