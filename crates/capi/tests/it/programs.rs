//! C programs against the library as a host links it: the examples, every export with NULL, and the list of symbols.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

#[test]
fn the_examples_run_with_the_shared_and_the_static_library() {
    for linking in [Linking::Shared, Linking::Static] {
        let ask = run("ask", &example("ask"), linking);
        assert_eq!(ask.lines().filter(|line| line.starts_with("> ")).count(), 3, "{ask}");
        assert!(ask.contains("[help_request, "), "{ask}");
        let stream = run("stream", &example("stream"), linking);
        assert_eq!(stream.lines().count(), 8);
        assert!(stream.lines().all(|line| !line.contains(" 0 pieces")), "{stream}");
        let cache = run("own_cache", &example("own_cache"), linking);
        let (first, second) = cache.trim_end().split_once('\n').expect("two answers");
        let (first, second) = (first.strip_prefix("miss: "), second.strip_prefix("shared: "));
        assert!(first.is_some() && first == second, "{cache}");
    }
}

#[test]
fn handles_may_be_freed_in_any_order_and_streams_cancelled_at_any_time() {
    let source = include_str!("../programs/lifetimes.c");
    assert_eq!(run("lifetimes", source, Linking::Shared), "all held\n");
}

#[test]
fn every_export_takes_null_everywhere() {
    let mut calls = String::new();
    let (mut fallible, mut count) = (0, 0);
    for Declaration { returns, name, parameters } in declarations() {
        let values: Vec<&str> =
            parameters.iter().map(|kind| if is_pointer(kind) { "NULL" } else { "0" }).collect();
        let call = format!("{name}({})", values.join(", "));
        count += 1;
        if returns == "int32_t" && parameters.last().is_some_and(|last| last.contains("antiphon_error **")) {
            fallible += 1;
            // Twice: without and with a place for the error.
            let with = format!("{name}({})", [&values[..values.len() - 1], &["&error"]].concat().join(", "));
            writeln!(calls, "  if ({call} > 0) return {count};").unwrap();
            writeln!(calls, "  code = {with}; check(code, error); antiphon_error_free(error); error = NULL;")
                .unwrap();
        } else {
            writeln!(calls, "  (void){call};").unwrap();
        }
    }
    assert!(fallible > 25 && count > 60, "{fallible} of {count}");
    let program = format!(
        "#include <antiphon.h>\n#include <stdlib.h>\n#include <string.h>\n\
         static void check(int32_t code, const antiphon_error *error) {{\n\
         \x20 if (code == 0 && error == NULL) return;\n\
         \x20 if (code != -101 || antiphon_error_code(error) != code) exit(2);\n\
         \x20 if (strstr(antiphon_error_message(error).ptr, \"is NULL\") == NULL) exit(3);\n\
         }}\n\
         int main(void) {{\n  int32_t code;\n  antiphon_error *error = NULL;\n{calls}  return 0;\n}}\n"
    );
    run("nulls", &program, Linking::Shared);
}

#[test]
fn the_library_exports_what_the_header_declares_and_nothing_else() {
    let listed =
        Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library("so")).output();
    let listed = String::from_utf8(listed.expect("nm runs").stdout).unwrap();
    let mut exported: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut declared: Vec<String> = declarations().into_iter().map(|declaration| declaration.name).collect();
    exported.sort_unstable();
    declared.sort_unstable();
    assert_eq!(exported, declared);
}

#[derive(Clone, Copy)]
enum Linking {
    Shared,
    Static,
}

/// Compiles a program, runs it, and gives what it wrote.
fn run(name: &str, source: &str, linking: Linking) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join(format!("{name}.c")), folder.path().join(name));
    std::fs::write(&file, source).unwrap();
    let mut compile = Command::new("cc");
    compile.args(["-std=gnu11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I"]);
    compile.arg(root().join("include")).arg(&file).arg("-o").arg(&program);
    match linking {
        Linking::Shared => compile.arg("-L").arg(libraries()).arg("-lantiphon"),
        Linking::Static => compile.arg(library("a")),
    };
    succeed(compile.args(["-lpthread", "-ldl", "-lm"]).output().expect("a C compiler"), name);
    let output = Command::new(&program).env("LD_LIBRARY_PATH", libraries()).output().unwrap();
    succeed(output, name)
}

fn succeed(output: Output, name: &str) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {}, {errors}", output.status);
    assert_eq!(errors, "", "{name} wrote to its standard error");
    String::from_utf8(output.stdout).unwrap()
}

/// A function of the header.
struct Declaration {
    returns: String,
    name: String,
    parameters: Vec<String>,
}

fn declarations() -> Vec<Declaration> {
    let header = std::fs::read_to_string(root().join("include/antiphon.h")).unwrap();
    // The comment at the top shows a program.
    let (_, header) = header.split_once("\n */").expect("a comment at the top");
    let plain: Vec<&str> = header.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let plain = plain.join(" ");
    let statements = plain.split(';').filter(|part| part.trim_end().ends_with(')') && !part.contains("(*"));
    statements
        .filter_map(|statement| {
            let (head, parameters) = statement.rsplit_once('(')?;
            let at = head.rfind("antiphon_")?;
            let name = head[at..].trim().to_owned();
            let returns = head[..at].rsplit(['}', '{', '"', '/']).next()?.trim().to_owned();
            let parameters =
                parameters.trim_end().trim_end_matches(')').split(',').map(|one| one.trim().to_owned());
            Some(Declaration { returns, name, parameters: parameters.filter(|one| one != "void").collect() })
        })
        .collect()
}

fn is_pointer(parameter: &str) -> bool {
    parameter.contains('*') || parameter.starts_with("antiphon_") && parameter.contains("_fn ")
}

fn example(name: &str) -> String {
    std::fs::read_to_string(root().join(format!("bindings/c/examples/{name}.c"))).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn library(ending: &str) -> PathBuf {
    libraries().join(format!("libantiphon.{ending}"))
}

/// The folder of the libraries. Tests of a package without a Rust library do not have it built.
fn libraries() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").to_owned();
        let target = folder.parent().expect("target");
        let build = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--quiet", "-p", "antiphon-capi", "--target-dir"])
            .arg(target)
            .current_dir(root())
            .status();
        assert!(build.expect("cargo runs").success());
        target.join("release")
    });
    &FOLDER
}
