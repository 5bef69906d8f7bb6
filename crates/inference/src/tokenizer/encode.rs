//! Text to tokens: template text with the added tokens, user text without, messages in the encoder's frame.

use std::ops::Range;

use tokenizers::{
    AddedVocabulary, Model as _, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer as _, Token,
};

use super::model::{byte_token, token_byte};
use super::parts::{Pipeline, Prefix};
use super::{Inner, MAX_TEXT_BYTES, Memo, SEGMENT_BYTES, Tokenizer, guarded};
use crate::error::{Error, ErrorKind, Result};

/// A message as the encoder sees it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Encoding {
    /// The tokens, the frame's (`[CLS]`, `[SEP]`) included.
    pub ids: Vec<u32>,
    /// The bytes of the message that each token stands for, without white space in front; empty for the frame.
    pub offsets: Vec<Range<usize>>,
    /// Whether a word begins with this token; false for the frame.
    pub word_start: Vec<bool>,
    /// The message was longer than `max_tokens`.
    pub truncated: bool,
}

/// A stretch of a prompt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part<'a> {
    /// The template's own text: control tokens are recognized.
    Template(&'a str),
    /// A user's text: it stays text.
    User(&'a str),
}

impl Tokenizer {
    /// Encodes a user's text: no added token comes out, whatever the text says.
    ///
    /// # Errors
    /// `InputTooLong` beyond [`MAX_TEXT_BYTES`], before anything is encoded.
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_parts(&[Part::User(text)])
    }

    /// Encodes template text: control tokens are recognized.
    ///
    /// # Errors
    /// `InputTooLong` beyond [`MAX_TEXT_BYTES`], before anything is encoded.
    pub fn encode_template(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_parts(&[Part::Template(text)])
    }

    /// Encodes the parts of a prompt one after the other, each by its own rules; tokens never span two parts.
    ///
    /// # Errors
    /// `InputTooLong` if the parts together exceed [`MAX_TEXT_BYTES`], before anything is encoded.
    pub fn encode_parts(&self, parts: &[Part<'_>]) -> Result<Vec<u32>> {
        encode_each(parts, |part, fresh, ids| self.0.part(part, fresh, ids))
    }

    /// The same tokens, those of parts that `memo` has of this owner from there.
    ///
    /// # Errors
    /// As [`Self::encode_parts`].
    pub fn encode_parts_again(&self, memo: &Memo, owner: &str, parts: &[Part<'_>]) -> Result<Vec<u32>> {
        encode_each(parts, |part, fresh, ids| {
            let name = Memo::name(owner, part, fresh);
            if let Some(fresh) = memo.recall(&name, ids) {
                return Ok(fresh);
            }
            let first = ids.len();
            let fresh = self.0.part(part, fresh, ids)?;
            memo.keep(name, &ids[first..], fresh);
            Ok(fresh)
        })
    }

    /// Encodes a message for the encoder: the frame around it, at most `max_tokens` in all.
    ///
    /// # Errors
    /// `InputTooLong` beyond [`MAX_TEXT_BYTES`]; `InvalidArgument` if `max_tokens` does not even hold the frame.
    pub fn encode_message(&self, text: &str, max_tokens: usize) -> Result<Encoding> {
        check_length(text.len())?;
        let inner = &*self.0;
        let frame = &inner.frame;
        if max_tokens <= frame.len() {
            let what =
                format!("max_tokens is {max_tokens}, expected more than the {} of the frame", frame.len());
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        let room = max_tokens - frame.len();
        let mut message = Encoding::default();
        frame.before.iter().for_each(|&id| message.push(id, 0..0, false));
        let first = message.ids.len();
        inner.user(text, true, |_, base, encoded| {
            let encoded = encoded.into_encoding(None, 0, OffsetType::Byte).map_err(broken)?;
            let (mut last_word, mut last_start) = (None, None);
            for ((&id, &(start, end)), &word) in
                encoded.get_ids().iter().zip(encoded.get_offsets()).zip(encoded.get_word_ids())
            {
                if message.ids.len() - first == room {
                    message.truncated = true;
                    return Ok(false);
                }
                let span = trimmed(text, base + start..base + end);
                let after_blank = text[..span.start].chars().next_back().is_none_or(char::is_whitespace);
                // a token that is only the blank in front leaves the start to the next one
                let starts =
                    !span.is_empty() && (word != last_word || after_blank) && last_start != Some(span.start);
                if starts {
                    last_start = Some(span.start);
                }
                if !span.is_empty() {
                    last_word = word;
                }
                message.push(id, span, starts);
            }
            Ok(true)
        })?;
        frame.after.iter().for_each(|&id| message.push(id, text.len()..text.len(), false));
        Ok(message)
    }
}

impl Part<'_> {
    fn text(&self) -> &str {
        match self {
            Self::Template(text) | Self::User(text) => text,
        }
    }
}

impl Encoding {
    fn push(&mut self, id: u32, span: Range<usize>, word_start: bool) {
        self.ids.push(id);
        self.offsets.push(span);
        self.word_start.push(word_start);
    }
}

impl Inner {
    /// Encodes a part; tells whether what follows begins afresh, which is where a model may want a space.
    fn part(&self, part: &Part<'_>, fresh: bool, ids: &mut Vec<u32>) -> Result<bool> {
        match part {
            Part::Template(text) => self.template(text, fresh, ids),
            Part::User(text) => {
                self.user(text, fresh, |_, _, encoded| {
                    ids.extend(encoded.into_encoding(None, 0, OffsetType::None).map_err(broken)?.get_ids());
                    Ok(true)
                })?;
                Ok(false)
            }
        }
    }

    /// Encodes user text segment by segment; `take` gets each with its place, and says whether to go on.
    fn user(
        &self,
        text: &str,
        fresh: bool,
        mut take: impl FnMut(&Self, usize, PreTokenizedString) -> Result<bool>,
    ) -> Result<()> {
        let mut base = 0;
        while base < text.len() {
            let length = segment(&text[base..]);
            let pipeline = if fresh && base == 0 { &self.pipelines.start } else { &self.pipelines.inner };
            let encoded =
                self.run(&self.none, pipeline, &text[base..base + length], |piece| self.plain(piece))?;
            if !take(self, base, encoded)? {
                return Ok(());
            }
            base += length;
        }
        Ok(())
    }

    /// Encodes template text; tells whether it ended with an added token.
    fn template(&self, text: &str, fresh: bool, ids: &mut Vec<u32>) -> Result<bool> {
        let segments = self.pipelines.facts.prefix == Prefix::Segment;
        // text that continues a part gets no space; after an added token the model may want one again
        let cut = match (fresh, segments) {
            (true, _) => 0,
            (false, true) => guarded("encoding", || Ok(self.first_added(text)))?.unwrap_or(text.len()),
            (false, false) => text.len(),
        };
        let mut last = None;
        for (piece, pipeline) in
            [(&text[..cut], &self.pipelines.inner), (&text[cut..], &self.pipelines.start)]
        {
            if piece.is_empty() {
                continue;
            }
            let encoded =
                self.run(&self.added, pipeline, piece, |piece| self.model.tokenize(piece).map_err(broken))?;
            ids.extend(encoded.into_encoding(None, 0, OffsetType::None).map_err(broken)?.get_ids());
            last = ids.last();
        }
        Ok(segments && last.is_some_and(|id| self.added_token(*id).is_some()))
    }

    /// Where the first added token of the text begins.
    fn first_added(&self, text: &str) -> Option<usize> {
        let split = self.added.extract_and_normalize(self.pipelines.inner.normalizer.as_ref(), text);
        let splits = split.get_splits(OffsetReferential::Original, OffsetType::Byte);
        splits.into_iter().find(|(_, _, tokens)| tokens.is_some()).map(|(_, (start, _), _)| start)
    }

    fn run(
        &self,
        added: &AddedVocabulary,
        pipeline: &Pipeline,
        text: &str,
        tokenize: impl Fn(&str) -> Result<Vec<Token>>,
    ) -> Result<PreTokenizedString> {
        guarded("encoding", || {
            let mut pieces = added.extract_and_normalize(pipeline.normalizer.as_ref(), text);
            if let Some(pre_tokenizer) = &pipeline.pre_tokenizer {
                pre_tokenizer.pre_tokenize(&mut pieces).map_err(broken)?;
            }
            pieces.tokenize(|piece| Ok(tokenize(piece.get())?)).map_err(broken)?;
            Ok(pieces)
        })
    }

    /// The tokens of a piece of user text. Where the vocabulary itself holds a control token as an ordinary entry, the
    /// piece that would become it is spelled by smaller tokens.
    fn plain(&self, piece: &str) -> Result<Vec<Token>> {
        let tokens = self.model.tokenize(piece).map_err(broken)?;
        if !tokens.iter().any(|token| self.forbidden(token, piece)) {
            return Ok(tokens);
        }
        let mut spelled = Vec::with_capacity(tokens.len() + 8);
        for token in tokens {
            if self.forbidden(&token, piece) {
                self.spell(piece, token.offsets.0..token.offsets.1, &mut spelled)?;
            } else {
                spelled.push(token);
            }
        }
        Ok(spelled)
    }

    /// Takes characters off the front until the rest has no forbidden token.
    fn spell(&self, piece: &str, span: Range<usize>, spelled: &mut Vec<Token>) -> Result<()> {
        let mut at = span.start;
        while let Some(character) = piece[at..span.end].chars().next() {
            let next = at + character.len_utf8();
            let head = self.model.tokenize(&piece[at..next]).map_err(broken)?;
            if head.iter().any(|token| self.forbidden(token, &piece[at..next])) {
                self.spell_character(&piece[at..next], at, spelled)?;
            } else {
                spelled.extend(moved(head, at));
            }
            let rest = &piece[next..span.end];
            let tail =
                if rest.is_empty() { Vec::new() } else { self.model.tokenize(rest).map_err(broken)? };
            if !tail.iter().any(|token| self.forbidden(token, rest)) {
                spelled.extend(moved(tail, next));
                return Ok(());
            }
            at = next;
        }
        Ok(())
    }

    /// A character that is itself a control token: by its bytes, or as unknown.
    fn spell_character(&self, character: &str, at: usize, spelled: &mut Vec<Token>) -> Result<()> {
        let offsets = (at, at + character.len());
        let bytes = character
            .bytes()
            .map(|byte| self.model.token_to_id(&byte_token(byte)).filter(|_| self.byte_fallback));
        let ids = bytes.collect::<Option<Vec<_>>>().or_else(|| self.unknown.map(|unknown| vec![unknown]));
        let ids = ids.filter(|ids| ids.iter().all(|id| !self.control.contains(id)));
        let ids = ids.ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidText,
                "the text has a character that only a control token could spell",
            )
        })?;
        spelled.extend(ids.into_iter().map(|id| Token::new(id, String::new(), offsets)));
        Ok(())
    }

    /// Whether the token is a control token, or one that is not but was spelled out: a byte's or the unknown one.
    fn forbidden(&self, token: &Token, piece: &str) -> bool {
        let spelled = || piece.get(token.offsets.0..token.offsets.1);
        self.control.contains(&token.id)
            || self.unknown == Some(token.id)
                && spelled() == self.added_token(token.id).map(|added| added.content.as_str())
            || self.byte_fallback
                && token_byte(&token.value).is_some()
                && spelled() == Some(token.value.as_str())
    }
}

/// Has the parts encoded one after the other.
fn encode_each(
    parts: &[Part<'_>],
    mut encode: impl FnMut(&Part<'_>, bool, &mut Vec<u32>) -> Result<bool>,
) -> Result<Vec<u32>> {
    check_length(parts.iter().map(|part| part.text().len()).sum())?;
    // Where a model prepends a space: at the start, or also after each added token.
    let (mut ids, mut fresh) = (Vec::new(), true);
    for part in parts.iter().filter(|part| !part.text().is_empty()) {
        fresh = encode(part, fresh, &mut ids)?;
    }
    Ok(ids)
}

fn moved(tokens: Vec<Token>, by: usize) -> impl Iterator<Item = Token> {
    tokens.into_iter().map(move |mut token| {
        token.offsets = (token.offsets.0 + by, token.offsets.1 + by);
        token
    })
}

/// The length of the first segment of `text`: all of it if short, else up to the last space inside that follows
/// something else, else as much as fits.
fn segment(text: &str) -> usize {
    if text.len() <= SEGMENT_BYTES {
        return text.len();
    }
    let limit = text.floor_char_boundary(SEGMENT_BYTES);
    let bytes = &text.as_bytes()[..limit];
    let space =
        (limit / 2..limit).rev().find(|&at| bytes[at] == b' ' && !bytes[at - 1].is_ascii_whitespace());
    space.unwrap_or(limit)
}

/// The span on code-point boundaries, without white space in front.
fn trimmed(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start);
    let end = text.ceil_char_boundary(span.end).max(start);
    end - text[start..end].trim_start().len()..end
}

fn check_length(bytes: usize) -> Result<()> {
    if bytes > MAX_TEXT_BYTES {
        let what = format!("the text has {bytes} bytes, at most {MAX_TEXT_BYTES} are allowed");
        return Err(Error::new(ErrorKind::InputTooLong, what));
    }
    Ok(())
}

/// The dependency's failures; its messages may hold the text and stay behind.
fn broken(_: tokenizers::Error) -> Error {
    Error::new(ErrorKind::InvalidText, "the tokenizer cannot encode the text")
}
