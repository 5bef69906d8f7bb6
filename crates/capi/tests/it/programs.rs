//! C programs against the library as a host links it: the examples, every export with NULL, and the list of symbols.

use std::fmt::Write as _;
use std::process::Command;

use crate::declarations::declarations;
use crate::host::{Linking, Program, example, library};

#[test]
fn the_examples_run_with_the_shared_and_the_static_library() {
    for linking in [Linking::Shared, Linking::Static] {
        let run = |name: &str| Program::of_source(name, &example(name), linking, &[]).run(&[]);
        check_examples(run);
    }
}

/// Runs the three examples and looks at what they write.
pub(crate) fn check_examples(run: impl Fn(&str) -> String) {
    let ask = run("ask");
    assert_eq!(ask.lines().filter(|line| line.starts_with("> ")).count(), 3, "{ask}");
    assert!(ask.contains("[help_request, "), "{ask}");
    let stream = run("stream");
    assert_eq!(stream.lines().count(), 8);
    assert!(stream.lines().all(|line| !line.contains(" 0 pieces")), "{stream}");
    // A tier that does not answer within 20 ms is not waited for, and a busy machine may be that slow.
    let is_shared = |cache: &str| {
        let (first, second) = cache.trim_end().split_once('\n').expect("two answers");
        let (first, second) = (first.strip_prefix("miss: "), second.strip_prefix("shared: "));
        first.is_some() && first == second
    };
    assert!((0..10).any(|_| is_shared(&run("own_cache"))));
}

#[test]
fn stages_of_a_host_change_requests_and_answers_or_refuse_them() {
    for linking in [Linking::Shared, Linking::Checked] {
        Program::compile("stages", linking, &["-fsanitize=address"]).run(&[]);
    }
}

#[test]
fn faults_46_every_export_takes_null_everywhere() {
    let mut calls = String::new();
    let (mut fallible, mut count) = (0, 0);
    for declaration in declarations() {
        let null = |parameter: &crate::declarations::Parameter| {
            if parameter.is_pointer() { "NULL".to_owned() } else { "0".to_owned() }
        };
        let mut values: Vec<String> = declaration.parameters.iter().map(null).collect();
        let call = declaration.call(&values);
        count += 1;
        if declaration.is_fallible() {
            fallible += 1;
            // Twice: without and with a place for the error.
            *values.last_mut().expect("the error") = "&error".to_owned();
            let with = declaration.call(&values);
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
    Program::of_source("nulls", &program, Linking::Shared, &[]).run(&[]);
}

#[test]
fn faults_60_the_library_exports_what_the_header_declares_and_nothing_else() {
    let listed =
        Command::new("nm").args(["-D", "--defined-only", "--format=posix"]).arg(library("so")).output();
    let listed = String::from_utf8(listed.expect("nm runs").stdout).unwrap();
    let mut exported: Vec<&str> = listed.lines().filter_map(|line| line.split(' ').next()).collect();
    let mut declared: Vec<String> = declarations().into_iter().map(|declaration| declaration.name).collect();
    exported.sort_unstable();
    declared.sort_unstable();
    assert_eq!(exported, declared);
}
