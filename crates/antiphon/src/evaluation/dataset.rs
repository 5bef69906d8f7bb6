//! Labelled files: JSON Lines, one record a line, and what the tasks read in them.

use serde_json::{Map, Value};

use super::Task;
use crate::analyst::Tag;
use crate::error::{Error, ErrorKind, Result};
use crate::request::{Message, Role};

/// The records of a labelled file.
///
/// ```
/// use antiphon::evaluation::Dataset;
///
/// let lines = "{\"text\": \"hello\", \"label\": \"greeting\"}\n\n{\"text\": \"bye\", \"label\": \"goodbye\"}\n";
/// assert_eq!(Dataset::from_jsonl(lines)?.len(), 2);
/// let error = Dataset::from_jsonl("{\"text\": \"hello\"}\n[1]\n").unwrap_err();
/// assert_eq!(error.to_string(), "line 2: expected a JSON object");
/// # Ok::<(), antiphon::Error>(())
/// ```
#[derive(Debug)]
pub struct Dataset {
    records: Vec<Record>,
}

/// One line.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) line: usize,
    fields: Map<String, Value>,
}

/// A text with a label.
pub(super) struct Labelled {
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) label: String,
}

/// A text with the entities in it.
pub(super) struct Marked {
    pub(super) line: usize,
    pub(super) text: String,
    pub(super) spans: Vec<Span>,
}

/// A dialogue up to its last answer.
pub(super) struct Dialogue {
    pub(super) line: usize,
    pub(super) history: Vec<Message>,
    pub(super) message: String,
    /// What was answered to the message.
    pub(super) answer: String,
    /// Dialogues of one category are alike; empty where the file says none.
    pub(super) category: String,
}

/// Where an entity is, in code points, and of what type it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: String,
}

impl Dataset {
    /// Reads JSON Lines; empty lines are skipped.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] names the first line that is no JSON object; a file without lines is
    /// [`ErrorKind::InvalidText`].
    pub fn from_jsonl(lines: &str) -> Result<Self> {
        let numbered = (1..).zip(lines.lines()).filter(|(_, line)| !line.trim().is_empty());
        let records = numbered
            .map(|(line, json)| match serde_json::from_str(json) {
                Ok(fields) => Ok(Record { line, fields }),
                Err(_) => Err(refused(line, "expected a JSON object")),
            })
            .collect::<Result<Vec<_>>>()?;
        if records.is_empty() {
            return Err(Error::new(ErrorKind::InvalidText, "no lines, expected labelled records"));
        }
        Ok(Self { records })
    }

    /// A part that is the same each time: every `every`th record from record `offset` on, at most `limit`. With 2, the
    /// offsets 0 and 1 give the two halves of a file: one to calibrate on, one to measure on.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] when nothing is left.
    pub fn part(mut self, every: usize, offset: usize, limit: usize) -> Result<Self> {
        let count = self.records.len();
        self.records = self.records.into_iter().skip(offset).step_by(every.max(1)).take(limit).collect();
        if self.records.is_empty() {
            let what = format!(
                "every {every} from offset {offset}, at most {limit}, of {count} records leaves none"
            );
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        Ok(self)
    }

    /// Number of records.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }
}

impl Record {
    /// The record as an example of a classification, where it is one. Its label stands under the task's own name, else
    /// under `label`, which belongs to the first of the `tasks` that has no name of its own in the record.
    pub(super) fn labelled(&self, task: Task, tasks: &[Task]) -> Result<Option<Labelled>> {
        let named = |task: Task| self.fields.contains_key(task.name());
        let mut classifications = tasks.iter().copied().filter(|task| task.is_classification());
        let key = if named(task) {
            task.name()
        } else if classifications.clone().find(|&task| !named(task)) == Some(task)
            && (self.fields.contains_key("label") || !classifications.any(named))
        {
            "label"
        } else {
            return Ok(None);
        };
        let (text, label) = (self.string("text")?.to_owned(), self.string(key)?.to_owned());
        Ok(Some(Labelled { line: self.line, text, label }))
    }

    /// The record as a text with entities: `tokens` and BIO `tags`, or `text` and `entities`,
    /// of which there are none where the key is missing.
    pub(super) fn marked(&self, without_handles: bool) -> Result<Marked> {
        if self.fields.contains_key("tokens") {
            let (mut tokens, mut tags) = (self.strings("tokens")?, self.strings("tags")?);
            if tokens.len() != tags.len() {
                let what =
                    format!("{} `tags`, expected one for each of {} `tokens`", tags.len(), tokens.len());
                return Err(self.refused(&what));
            }
            if without_handles {
                leave_handles_out(&mut tokens, &mut tags);
            }
            let spans = spans(&tokens, &tags).map_err(|tag| {
                self.refused(&format!("`tags` has at place {tag} something else, expected O, B-… or I-…"))
            })?;
            return Ok(Marked { line: self.line, text: tokens.join(" "), spans });
        }
        let text = self.string("text")?.to_owned();
        let length = text.chars().count();
        let entities = match self.fields.get("entities") {
            Some(Value::Array(entities)) => entities.as_slice(),
            Some(_) => return Err(self.refused("expected `entities`, a list")),
            None => &[],
        };
        let span = |entity: &Value| {
            let offset = |key: &str| usize::try_from(entity.get(key)?.as_u64()?).ok();
            let (kind, start, end) = (entity.get("type")?.as_str()?, offset("start")?, offset("end")?);
            (start < end && end <= length).then(|| Span { start, end, kind: kind.to_owned() })
        };
        let spans: Option<Vec<Span>> = entities.iter().map(span).collect();
        let spans = spans.ok_or_else(|| {
            self.refused(
                "expected `entities` of {\"type\", \"start\", \"end\"} with code points inside `text`",
            )
        })?;
        Ok(Marked { line: self.line, text, spans })
    }

    /// The record as a dialogue: `messages` up to the last answer, and their `category`.
    pub(super) fn dialogue(&self) -> Result<Dialogue> {
        let message = |message: &Value| {
            let role = match message.get("role")?.as_str()? {
                "system" => Role::System,
                "user" => Role::User,
                "assistant" => Role::Assistant,
                _ => return None,
            };
            Some(Message::new(role, message.get("content")?.as_str()?))
        };
        let messages = self.fields.get("messages").and_then(Value::as_array);
        let messages = messages.and_then(|messages| messages.iter().map(message).collect::<Option<Vec<_>>>());
        let messages = messages.unwrap_or_default();
        let answer = messages.iter().rposition(|message| message.role == Role::Assistant).unwrap_or(0);
        let turn = messages[..answer].last().filter(|turn| turn.role == Role::User).ok_or_else(|| {
            self.refused("expected `messages` of {\"role\", \"content\"}, with an answer to a user's message")
        })?;
        Ok(Dialogue {
            line: self.line,
            message: turn.content.clone(),
            answer: messages[answer].content.clone(),
            history: messages[..answer - 1].to_vec(),
            category: self.fields.get("category").and_then(Value::as_str).unwrap_or_default().to_owned(),
        })
    }

    /// A string of the record.
    pub(super) fn string(&self, key: &str) -> Result<&str> {
        let string = self.fields.get(key).and_then(Value::as_str);
        string.ok_or_else(|| self.refused(&format!("expected `{key}`, a string")))
    }

    /// A list of strings of the record.
    fn strings(&self, key: &str) -> Result<Vec<&str>> {
        let list = self.fields.get(key).and_then(Value::as_array);
        let strings = list.and_then(|list| list.iter().map(Value::as_str).collect());
        strings.ok_or_else(|| self.refused(&format!("expected `{key}`, a list of strings")))
    }

    /// Why the record is of no use. The message names its line and says nothing of what stands there.
    pub(super) fn refused(&self, why: &str) -> Error {
        refused(self.line, why)
    }
}

/// Reads BIO tags into spans of the tokens joined by blanks. An `I-` that continues nothing begins a span, as in the CoNLL
/// scorer. The error is the place of a tag that is none.
fn spans(tokens: &[&str], tags: &[&str]) -> Result<Vec<Span>, usize> {
    let mut spans: Vec<Span> = Vec::new();
    let (mut at, mut open) = (0, false);
    for (place, (token, tag)) in tokens.iter().zip(tags).enumerate() {
        let (start, end) = (at, at + token.chars().count());
        at = end + 1;
        match Tag::parse(tag).ok_or(place)? {
            Tag::Outside => open = false,
            Tag::Inside(kind) if open && spans.last().is_some_and(|span| span.kind == kind) => {
                spans.last_mut().expect("a span is open").end = end;
            }
            Tag::Begin(kind) | Tag::Inside(kind) => {
                spans.push(Span { start, end, kind: kind.to_owned() });
                open = true;
            }
        }
    }
    Ok(spans)
}

/// Drops `@` with the token after it, and tokens that begin with `@`.
fn leave_handles_out(tokens: &mut Vec<&str>, tags: &mut Vec<&str>) {
    let mut name = false;
    let keep: Vec<bool> = tokens
        .iter()
        .map(|token| {
            let keep = !name && !token.starts_with('@');
            name = !name && *token == "@";
            keep
        })
        .collect();
    let (mut kept, mut kept_too) = (keep.iter(), keep.iter());
    tokens.retain(|_| *kept.next().expect("one for each token"));
    tags.retain(|_| *kept_too.next().expect("one for each token"));
}

fn refused(line: usize, why: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("line {line}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Task; 2] = [Task::Intent, Task::Sentiment];

    fn record(json: &str) -> Record {
        Dataset::from_jsonl(json).unwrap().records.remove(0)
    }

    fn label(json: &str, task: Task, tasks: &[Task]) -> Option<String> {
        record(json).labelled(task, tasks).unwrap().map(|example| example.label)
    }

    fn outline(json: &str) -> (String, Vec<(usize, usize, String)>) {
        let marked = record(json).marked(false).unwrap();
        (marked.text, marked.spans.into_iter().map(|span| (span.start, span.end, span.kind)).collect())
    }

    #[test]
    fn a_label_belongs_to_the_task_that_is_asked() {
        let plain = r#"{"text": "t", "label": "x", "flags": "B"}"#;
        assert_eq!(label(plain, Task::Intent, &BOTH[..1]).as_deref(), Some("x"));
        assert_eq!(label(plain, Task::Sentiment, &BOTH[1..]).as_deref(), Some("x"));
        assert_eq!(label(plain, Task::Intent, &BOTH).as_deref(), Some("x"));
        assert_eq!(label(plain, Task::Sentiment, &BOTH), None);
    }

    #[test]
    fn a_tasks_own_name_comes_before_label() {
        let named = r#"{"text": "t", "label": "x", "sentiment": "y"}"#;
        assert_eq!(label(named, Task::Intent, &BOTH).as_deref(), Some("x"));
        assert_eq!(label(named, Task::Sentiment, &BOTH).as_deref(), Some("y"));
        let other = r#"{"text": "t", "intent": "x", "label": "y"}"#;
        assert_eq!(label(other, Task::Intent, &BOTH).as_deref(), Some("x"));
        assert_eq!(label(other, Task::Sentiment, &BOTH).as_deref(), Some("y"));
        assert_eq!(label(r#"{"text": "t", "sentiment": "y"}"#, Task::Intent, &BOTH), None);
    }

    #[test]
    fn a_record_that_is_of_no_use_is_refused_by_its_line() {
        for (json, why) in [
            (r#"{"text": "canary"}"#, "line 1: expected `label`, a string"),
            (r#"{"label": "canary"}"#, "line 1: expected `text`, a string"),
            (r#"{"text": "canary", "label": 7}"#, "line 1: expected `label`, a string"),
        ] {
            let error = record(json).labelled(Task::Intent, &BOTH).err().unwrap();
            assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::InvalidArgument, why));
        }
        for (json, why) in [
            (r#"{"words": ["canary"]}"#, "expected `text`, a string"),
            (r#"{"text": "canary", "entities": {}}"#, "expected `entities`, a list"),
            (r#"{"tokens": ["canary"]}"#, "expected `tags`, a list of strings"),
            (r#"{"tokens": ["canary"], "tags": []}"#, "0 `tags`, expected one for each of 1 `tokens`"),
            (r#"{"tokens": ["a", "b"], "tags": ["O", "canary"]}"#, "`tags` has at place 1"),
            (
                r#"{"text": "canary", "entities": [{"type": "x", "start": 0, "end": 7}]}"#,
                "code points inside",
            ),
            (
                r#"{"text": "canary", "entities": [{"type": "x", "start": 3, "end": 3}]}"#,
                "code points inside",
            ),
            (r#"{"text": "canary", "entities": [{"start": 3, "end": 4}]}"#, "code points inside"),
            (
                r#"{"text": "canary", "entities": [{"type": "x", "start": -1, "end": 4}]}"#,
                "code points inside",
            ),
        ] {
            let error = record(json).marked(false).err().unwrap().to_string();
            assert!(error.starts_with("line 1: ") && error.contains(why), "{error}");
            assert!(!error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn tokens_and_tags_become_spans_of_code_points() {
        let json = r#"{"tokens": ["Zoë", "Müller", "lebt", "in", "Genf", "."],
            "tags": ["B-PER", "I-PER", "O", "O", "I-LOC", "O"]}"#
            .replace('\n', " ");
        let (text, spans) = outline(&json);
        assert_eq!(text, "Zoë Müller lebt in Genf .");
        assert_eq!(spans, [(0, 10, "PER".into()), (19, 23, "LOC".into())]);
        let touching = r#"{"tokens": ["a", "b", "c", "d"], "tags": ["B-X", "B-X", "I-Y", "I-Y"]}"#;
        assert_eq!(outline(touching).1, [(0, 1, "X".into()), (2, 3, "X".into()), (4, 7, "Y".into())]);
    }

    #[test]
    fn handles_can_be_left_out() {
        let json = r#"{"tokens": ["RT", "@", "Anna", "and", "@Bob", "met", "Zoë", "@"],
            "tags": ["O", "B-P", "I-P", "O", "B-P", "O", "B-P", "O"]}"#
            .replace('\n', " ");
        let marked = record(&json).marked(true).unwrap();
        assert_eq!(marked.text, "RT and met Zoë");
        assert_eq!(marked.spans, [Span { start: 11, end: 14, kind: "P".into() }]);
    }

    #[test]
    fn entities_are_given_by_code_points() {
        let json = r#"{"text": "Grüße an Zoë", "entities": [{"type": "person", "start": 9, "end": 12, "value": "Zoë"}]}"#;
        assert_eq!(outline(json).1, [(9, 12, "person".into())]);
    }

    #[test]
    fn a_dialogue_is_read_up_to_its_last_answer() {
        let turn =
            |role: &str, content: &str| format!(r#"{{"role": "{role}", "content": "{content}", "x": 1}}"#);
        let of = |turns: &[String]| {
            record(&format!(r#"{{"messages": [{}], "category": "C"}}"#, turns.join(", "))).dialogue()
        };
        let (user, answer) = (turn("user", "q"), turn("assistant", "a"));
        let dialogue =
            of(&[turn("user", "1"), turn("assistant", "2"), user.clone(), answer.clone(), turn("user", "3")]);
        let dialogue = dialogue.unwrap();
        assert_eq!(
            (dialogue.message.as_str(), dialogue.answer.as_str(), dialogue.category.as_str()),
            ("q", "a", "C")
        );
        assert_eq!(dialogue.history, [Message::user("1"), Message::assistant("2")]);
        let strange = [user, turn("canary", "x"), answer];
        for bad in [&[][..], &strange[..1], &strange[2..], &strange] {
            let error = of(bad).err().unwrap().to_string();
            assert!(error.starts_with("line 1: expected `messages`") && !error.contains("canary"), "{error}");
        }
    }

    #[test]
    fn parts_of_a_file_are_the_same_each_time() {
        let lines: String = (0..10).map(|i| format!("{{\"text\": \"{i}\"}}\n")).collect();
        let part = |every, offset, limit| {
            let part = Dataset::from_jsonl(&lines).unwrap().part(every, offset, limit).unwrap();
            part.records().iter().map(|record| record.string("text").unwrap().to_owned()).collect::<String>()
        };
        assert_eq!(part(2, 0, 100), "02468");
        assert_eq!(part(2, 1, 100), "13579");
        assert_eq!(part(3, 1, 2), "14");
        let none = Dataset::from_jsonl(&lines).unwrap().part(1, 10, 1).err().unwrap();
        assert_eq!(none.to_string(), "every 1 from offset 10, at most 1, of 10 records leaves none");
    }

    #[test]
    fn an_empty_file_is_refused() {
        for lines in ["", "\n \n"] {
            assert_eq!(Dataset::from_jsonl(lines).err().unwrap().kind(), ErrorKind::InvalidText);
        }
    }
}
