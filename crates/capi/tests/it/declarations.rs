//! The functions of the header, so that no test has a list of its own that a new export is missing from.

use std::collections::BTreeSet;

use crate::host::root;

/// A function of the header.
pub(crate) struct Declaration {
    pub(crate) returns: String,
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
}

/// `const struct antiphon_engine *engine`: everything but the last word, and the last word.
pub(crate) struct Parameter {
    pub(crate) kind: String,
    pub(crate) name: String,
}

impl Declaration {
    /// Whether it returns a status and gives an error.
    pub(crate) fn is_fallible(&self) -> bool {
        self.parameters.last().is_some_and(|last| last.kind == "struct antiphon_error **")
    }

    /// The call with these values.
    pub(crate) fn call(&self, values: &[String]) -> String {
        format!("{}({})", self.name, values.join(", "))
    }
}

impl Parameter {
    pub(crate) fn is_pointer(&self) -> bool {
        self.kind.contains('*') || self.kind.ends_with("_fn")
    }

    /// The type of the handle that it takes, such as `engine`.
    pub(crate) fn handle(&self) -> Option<&str> {
        let kind = self.kind.strip_prefix("const ").unwrap_or(&self.kind);
        let kind = kind.strip_prefix("struct antiphon_")?.strip_suffix(" *")?;
        handles().contains(kind).then_some(kind)
    }
}

/// All functions, in the header's order.
pub(crate) fn declarations() -> Vec<Declaration> {
    let header = header();
    let is_code = |line: &&str| !line.trim_start().starts_with("//") && !line.starts_with('#');
    let plain: Vec<&str> = header.lines().filter(is_code).collect();
    let plain = plain.join(" ");
    let statements = plain.split(';').filter(|part| part.trim_end().ends_with(')') && !part.contains("(*"));
    statements
        .filter_map(|statement| {
            let (head, parameters) = statement.rsplit_once('(')?;
            let at = head.rfind("antiphon_")?;
            let returns = head[..at].rsplit(['}', '{', '"', '/']).next()?.trim().to_owned();
            let parameters = parameters.trim_end().trim_end_matches(')').split(',').map(str::trim);
            let parameter = |one: &str| {
                let at = one.rfind([' ', '*']).expect("a type and a name") + 1;
                Parameter { kind: one[..at].trim_end().to_owned(), name: one[at..].to_owned() }
            };
            Some(Declaration {
                returns,
                name: head[at..].trim().to_owned(),
                parameters: parameters.filter(|one| *one != "void").map(parameter).collect(),
            })
        })
        .collect()
}

/// The opaque types, without `antiphon_`.
pub(crate) fn handles() -> BTreeSet<String> {
    header()
        .lines()
        .filter_map(|line| of_typedef(line)?.strip_suffix(';')?.split(' ').next().map(str::to_owned))
        .collect()
}

/// The types whose fields are in the header, without `antiphon_`.
pub(crate) fn structs() -> BTreeSet<String> {
    header().lines().filter_map(|line| Some(of_typedef(line)?.strip_suffix(" {")?.to_owned())).collect()
}

fn of_typedef(line: &str) -> Option<&str> {
    line.strip_prefix("typedef struct antiphon_")
}

/// The header, without the comment at its top, which shows a program.
fn header() -> String {
    let header = std::fs::read_to_string(root().join("include/antiphon.h")).unwrap();
    header.split_once("\n */").expect("a comment at the top").1.to_owned()
}
