//! The tokens that a post-processor puts around one sequence: `[CLS] … [SEP]`, `<s> … </s>`, or none.
//!
//! We read the template and put the numbers there ourselves; the dependency's post-processor never runs.

use super::model::checked_id;
use super::node::Node;
use crate::error::{Result, quote};

/// What stands before and after a sequence.
#[derive(Clone, Debug, Default)]
pub(super) struct Frame {
    pub(super) before: Vec<u32>,
    pub(super) after: Vec<u32>,
}

impl Frame {
    /// Reads `post_processor`.
    pub(super) fn read(file: &Node<'_>, rows: usize) -> Result<Self> {
        let mut frame = Self::default();
        if let Some(node) = file.get("post_processor") {
            frame.add(&node, rows, 0)?;
        }
        Ok(frame)
    }

    /// How many tokens it adds.
    pub(super) fn len(&self) -> usize {
        self.before.len() + self.after.len()
    }

    fn add(&mut self, node: &Node<'_>, rows: usize, depth: usize) -> Result<()> {
        match node.kind()? {
            "ByteLevel" => Ok(()), // trims offsets, which we do for every tokenizer
            "Sequence" if depth < MAX_DEPTH => node
                .need("processors")?
                .items(MAX_DEPTH)?
                .iter()
                .try_for_each(|part| self.add(part, rows, depth + 1)),
            "BertProcessing" | "RobertaProcessing" => {
                self.before.insert(0, pair_id(&node.need("cls")?, rows)?);
                self.after.push(pair_id(&node.need("sep")?, rows)?);
                Ok(())
            }
            "TemplateProcessing" => self.add_template(node, rows),
            other => Err(node.unsupported(format_args!("is a post-processor {}", quote(other)))),
        }
    }

    fn add_template(&mut self, node: &Node<'_>, rows: usize) -> Result<()> {
        let known = node.get("special_tokens");
        let mut sequences = 0;
        let mut before = Vec::new();
        for piece in node.need("single")?.items(MAX_PIECES)? {
            if let Some(special) = piece.get("SpecialToken") {
                let id = special.need("id")?;
                let name = id.text()?;
                let token = known.as_ref().and_then(|known| known.get(name));
                let token = token
                    .ok_or_else(|| id.invalid(format_args!("is {}, not in `special_tokens`", quote(name))))?;
                for id in token.need("ids")?.items(MAX_PIECES)? {
                    let id = number(&id, rows)?;
                    if sequences == 0 { before.push(id) } else { self.after.push(id) }
                }
            } else if piece.get("Sequence").is_some() {
                sequences += 1;
            } else {
                return Err(piece.invalid("is neither a Sequence nor a SpecialToken"));
            }
        }
        if sequences != 1 {
            return Err(node.invalid(format_args!("has {sequences} sequences in `single`, expected 1")));
        }
        self.before.splice(0..0, before);
        Ok(())
    }
}

/// The number in `["[CLS]", 101]`.
fn pair_id(node: &Node<'_>, rows: usize) -> Result<u32> {
    match node.items(2)?.as_slice() {
        [_, id] => number(id, rows),
        _ => Err(node.invalid("is not a token and its number")),
    }
}

fn number(node: &Node<'_>, rows: usize) -> Result<u32> {
    let id = checked_id(node.value(), rows);
    id.ok_or_else(|| {
        node.invalid(format_args!(
            "is {}, expected a number below the {rows} embedding rows",
            quote(&node.value().to_string())
        ))
    })
}

const MAX_DEPTH: usize = 8;
const MAX_PIECES: usize = 64;
