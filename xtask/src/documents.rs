//! What the documents at the root say, held against the tree: links, paths, quoted code, and the README's first command.

use std::path::Path;
use std::process::Command;
use std::{fs, io};

use crate::command;

/// Every relative link and every path in backticks leads to something, and every block under `<!-- from PATH -->` stands
/// in that file, as it is.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut faults = Vec::new();
    for (name, text) in documents(root).map_err(|e| format!("documents at the root: {e}"))? {
        for path in links(&text).chain(paths(&text)).filter(|path| !root.join(path).exists()) {
            faults.push(format!("{name}: names `{path}`, which is not there"));
        }
        for quote in quotes(&text) {
            let source = fs::read_to_string(root.join(quote.path)).unwrap_or_default();
            if quote.lines.is_empty() || !contains(&source, &quote.lines) {
                faults.push(format!("{name}: the block from `{}` does not stand there so", quote.path));
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n")) }
}

/// Runs the first command that the README shows and compares what it prints with what the README says it prints.
pub(crate) fn first_command(root: &Path) -> Result<(), String> {
    let readme = fs::read_to_string(root.join("README.md")).map_err(|e| format!("README.md: {e}"))?;
    let (line, expected) =
        first_session(&readme).ok_or("README.md: no `$ command` with its output in a console block")?;
    let printed = command::stdout(Command::new("sh").current_dir(root).args(["-c", line]))?;
    let printed: Vec<&str> = printed.lines().collect();
    if printed == expected {
        return Ok(());
    }
    Err(format!(
        "README.md: `{line}` prints\n{}\nthe README says\n{}",
        printed.join("\n"),
        expected.join("\n")
    ))
}

fn documents(root: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "md") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path)?));
        }
    }
    Ok(found)
}

/// Targets of inline links that name files of the tree, without their fragments.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .map(|target| target.split_once('#').map_or(target, |(path, _)| path))
}

/// Code spans that are a path into one of the folders of the tree.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    let is_path = |span: &&str| {
        FOLDERS.iter().any(|folder| span.starts_with(folder)) && !span.contains(char::is_whitespace)
    };
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2)).filter(is_path)
}

struct Quote<'a> {
    path: &'a str,
    lines: Vec<&'a str>,
}

fn quotes(text: &str) -> Vec<Quote<'_>> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(path) = line.strip_prefix("<!-- from ").and_then(|l| l.strip_suffix(" -->")) else {
            continue;
        };
        let fenced = lines.next().is_some_and(|fence| fence.starts_with("```"));
        let lines = if fenced { lines.by_ref().take_while(|l| *l != "```").collect() } else { Vec::new() };
        found.push(Quote { path, lines });
    }
    found
}

/// Whether the lines stand in the source one after another, indented by any one amount.
fn contains(source: &str, lines: &[&str]) -> bool {
    let source: Vec<&str> = source.lines().collect();
    source.windows(lines.len()).any(|window| dedent(window) == dedent(lines))
}

fn dedent<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let common = lines.iter().filter(|l| !l.trim().is_empty()).map(|l| indent(l)).min().unwrap_or(0);
    lines.iter().map(|l| l.get(common..).unwrap_or_default()).collect()
}

/// The first `$ command` of a console block and the lines under it, up to the end of the block or the next command.
fn first_session(text: &str) -> Option<(&str, Vec<&str>)> {
    let mut lines = text.lines().skip_while(|line| *line != "```console").skip(1);
    let command = lines.next()?.strip_prefix("$ ")?;
    Some((command, lines.take_while(|line| *line != "```" && !line.starts_with("$ ")).collect()))
}

/// Folders that documents name files in.
const FOLDERS: [&str; 4] = ["benches/", "crates/", "models/", "xtask/"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_code_spans_that_begin_with_a_folder_of_the_tree() {
        let text = "`crates/a.rs`, `models` and `xtask/src` beside crates/b.rs\n`cargo run` and `crates/c d`";
        assert_eq!(paths(text).collect::<Vec<_>>(), ["crates/a.rs", "xtask/src"]);
    }

    #[test]
    fn links_to_files_are_found_without_their_fragments() {
        let text = "[a](A.md), [b](https://example.org/b), [c](docs/C.md#part)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["A.md", "docs/C.md"]);
    }

    #[test]
    fn a_block_is_found_at_any_indentation_and_not_with_a_changed_line() {
        let source = "fn main() {\n    let a = 1;\n\n    let b = 2;\n}\n";
        assert!(contains(source, &["let a = 1;", "", "let b = 2;"]));
        assert!(!contains(source, &["let a = 1;", "let b = 2;"]));
        assert!(!contains(source, &["let a = 2;"]));
    }

    #[test]
    fn a_quote_is_the_block_right_under_its_source() {
        let found = quotes("<!-- from a.rs -->\n```rust\nlet a = 1;\n```\n<!-- from b.rs -->\ntext\n");
        assert_eq!((found[0].path, &found[0].lines[..]), ("a.rs", &["let a = 1;"][..]));
        assert!(found[1].lines.is_empty());
    }

    #[test]
    fn the_first_session_ends_with_its_block_or_the_next_command() {
        let text = "text\n```console\n$ one\n1\n2\n$ two\n```\n";
        assert_eq!(first_session(text), Some(("one", vec!["1", "2"])));
        assert_eq!(first_session("```console\n$ one\n1\n```\nafter"), Some(("one", vec!["1"])));
        assert_eq!(first_session("no block"), None);
    }
}
