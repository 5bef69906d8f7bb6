//! What the labels of a file mean to a head.

use std::collections::{BTreeMap, BTreeSet};

use super::dataset::Labelled;
use super::{Dataset, EvaluationOptions, Task};
use crate::analyst::{Classifier, OUT_OF_SCOPE};
use crate::error::{Error, ErrorKind, Result};

/// Translates the labels of a file: the caller's map first, then the two names of out of scope, then the head's aliases.
pub(super) struct Labels<'a> {
    map: &'a BTreeMap<String, String>,
    head: &'a Classifier,
}

impl<'a> Labels<'a> {
    pub(super) fn new(head: &'a Classifier, options: &'a EvaluationOptions) -> Self {
        Self { map: &options.map, head }
    }

    /// The head's name of a label; none: the record is dropped.
    pub(super) fn translate(&self, label: &str) -> Option<String> {
        let label = self.map.get(label).map_or(label, String::as_str);
        match label {
            "" => None,
            "oos" => Some(OUT_OF_SCOPE.to_owned()),
            _ => Some(self.head.resolve(label).unwrap_or(label).to_owned()),
        }
    }

    /// Labels that the head can never give.
    pub(super) fn unknown<'b>(&self, labels: impl Iterator<Item = &'b str>) -> Vec<String> {
        let unknown = labels.filter(|&label| label != OUT_OF_SCOPE && self.head.resolve(label).is_none());
        unknown.map(str::to_owned).collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The records that are examples of a classification, their labels in the head's names.
pub(super) fn examples(
    data: &Dataset,
    task: Task,
    labels: &Labels<'_>,
    options: &EvaluationOptions,
) -> Result<Vec<Labelled>> {
    let tasks = if options.tasks.contains(&task) { options.tasks.as_slice() } else { &[task] };
    let mut examples = Vec::with_capacity(data.len());
    for record in data.records() {
        if let Some(mut example) = record.labelled(task, tasks)?
            && let Some(label) = labels.translate(&example.label)
        {
            example.label = label;
            examples.push(example);
        }
    }
    if examples.is_empty() {
        let what = format!("no record has a label for `{}`, expected one", task.name());
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    Ok(examples)
}
