//! Every export, as the header lists them, with good arguments; with a bug in its midst; and with handles that are none.
//!
//! The calls are written from the header, so that a new export is in these tests on the day it is declared.

use std::fmt::Write as _;

use crate::declarations::{Declaration, Parameter, declarations, handles, structs};
use crate::host::{Linking, Program};

#[test]
fn a_bug_inside_of_any_export_is_an_error_and_the_next_request_is_fine() {
    assert_eq!(program("panics").run(&["2000"]), "all held\n");
}

#[test]
#[ignore = "long: 10,000 bugs in one process, half a minute"]
fn ten_thousand_bugs_in_one_process_end_none_and_lose_nothing() {
    assert_eq!(program("panics").run(&["10000"]), "all held\n");
}

#[test]
fn faults_46_every_pointer_of_every_export_may_be_null_alone() {
    assert_eq!(program("nulls").run(&[]), "all held\n");
}

#[test]
fn faults_47_every_export_refuses_handles_that_were_freed_or_are_none_in_a_debug_build() {
    assert_eq!(program("strangers").run(&[]), "all held\n");
}

/// Compiles one of `tests/programs` with all calls; AddressSanitizer looks for leaks, too.
fn program(name: &str) -> Program {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("exports.inc"), calls()).unwrap();
    std::fs::write(folder.path().join("nulls.inc"), nulls()).unwrap();
    let include = format!("-I{}", folder.path().display());
    Program::compile(name, Linking::Checked, &["-fsanitize=address", &include])
}

/// A table of all exports in C, each with a function that calls it with what `exports.h` has.
fn calls() -> String {
    let mut written = "#include \"exports.h\"\n".to_owned();
    // Those that need their functions are in exports.h.
    let prelude = include_str!("../programs/exports.h");
    let is_there = |name: &str| name == "text" || prelude.contains(&format!(" plain_{name} ="));
    for name in structs().iter().filter(|name| !is_there(name)) {
        writeln!(written, "static antiphon_{name} plain_{name} = {{.struct_size = sizeof plain_{name}}};")
            .unwrap();
    }
    let mut table = String::new();
    for (index, declaration) in declarations().iter().enumerate() {
        let Declaration { name, parameters, .. } = declaration;
        writeln!(
            written,
            "static int32_t call_{index}(void) {{ int32_t code = 0; {} return code; }}",
            statement(declaration, &values(declaration))
        )
        .unwrap();
        // Where its handles are, in the order of its parameters; sinks are not looked at.
        let places: Vec<String> = parameters
            .iter()
            .filter_map(Parameter::handle)
            .filter(|handle| *handle != "sink")
            .map(|handle| format!("{{\"{handle}\", (void **)&h.{handle}, (void **)&gone.{handle}}}, "))
            .collect();
        writeln!(
            table,
            "  {{\"{name}\", call_{index}, {}, {{{}{{NULL, NULL, NULL}}}}}},",
            declaration.is_fallible(),
            places.concat()
        )
        .unwrap();
    }
    for handle in handles() {
        assert!(prelude.contains(&format!(" *{handle};")), "exports.h has no {handle}");
    }
    written
        + "static const struct export {\n  const char *name;\n  int32_t (*call)(void);\n  bool fallible;\n\
           \x20 struct { const char *name; void **place, **gone; } handles[4];\n} EXPORTS[] = {\n"
        + &table
        + "};\nenum { COUNT = sizeof EXPORTS / sizeof *EXPORTS };\n"
}

/// The call with these values, and what is done with what it gives and takes.
fn statement(declaration: &Declaration, values: &[String]) -> String {
    let Declaration { returns, name, parameters } = declaration;
    let call = declaration.call(values);
    let owned = returns.strip_prefix("struct ").and_then(|returned| returned.strip_suffix(" *"));
    let statement = match (declaration.is_fallible(), owned) {
        (true, _) => format!("code = {call};"),
        (false, Some(handle)) => format!("{handle}_free({call});"),
        (false, None) if returns == "struct antiphon_text" => format!("touch({call});"),
        (false, None) => format!("(void){call};"),
    };
    let is_taken = |handle: &&str| takes(name, handle) && values.contains(&format!("h.{handle}"));
    let taken = parameters.iter().filter_map(Parameter::handle).find(is_taken);
    statement + &taken.map(|handle| format!(" h.{handle} = NULL;")).unwrap_or_default()
}

/// Good values for all parameters.
fn values(declaration: &Declaration) -> Vec<String> {
    let mut values: Vec<String> = Vec::new();
    for parameter in &declaration.parameters {
        values.push(value(parameter, values.last().map_or("", String::as_str)));
    }
    values
}

/// A function in C that makes every call with each pointer in turn being NULL, and has `check` look at what came of it.
fn nulls() -> String {
    let mut written = "static void each_null(void) {\n".to_owned();
    for declaration in declarations() {
        let pointers = declaration.parameters.iter().enumerate().filter(|(_, one)| one.is_pointer());
        for (index, parameter) in pointers {
            let mut values = values(&declaration);
            "NULL".clone_into(&mut values[index]);
            let (name, fallible) = (&parameter.name, declaration.is_fallible());
            let statement = statement(&declaration, &values);
            writeln!(written, "  {{ refresh(); int32_t code = 0; {statement}").unwrap();
            writeln!(written, "    check(\"{}\", \"{name}\", {fallible}, code); }}", declaration.name)
                .unwrap();
        }
    }
    written + "}\n"
}

/// Whether a handle is not the caller's any more after this function.
fn takes(function: &str, handle: &str) -> bool {
    function == format!("antiphon_{handle}_free") || function == "antiphon_engine_open" && handle == "plugins"
}

/// What is given for a parameter. A length is that of the text before it.
fn value(parameter: &Parameter, before: &str) -> String {
    if let Some(handle) = parameter.handle() {
        return format!("h.{handle}");
    }
    let of_kind =
        |kind: &str| kind.trim_start_matches("const ").trim_start_matches("struct antiphon_").to_owned();
    let value = match (parameter.kind.as_str(), parameter.name.as_str()) {
        ("struct antiphon_error **", _) => "&error",
        ("const struct antiphon_text *", _) => "texts",
        ("const char *", "key") => "\"max_tokens\"",
        ("const char *", "value") => "\"7\"",
        ("const char *", "role") => "\"user\"",
        ("const char *", name) if name.contains("json") => "\"{}\"",
        ("const char *", _) => "\"Hello\"",
        ("size_t", "count") => "2",
        ("size_t", "index") => "0",
        ("size_t", "capacity") => "4096",
        ("size_t", _) => return format!("sizeof {before} - 1"),
        ("float *", _) => "vector",
        ("size_t *", _) => "&dimension",
        ("int32_t" | "int64_t", _) => "-1",
        ("uint64_t", _) => "1000",
        ("antiphon_wake_fn", _) => "wake",
        ("antiphon_event_fn", _) => "each",
        ("antiphon_drop_fn" | "void *", _) => "NULL",
        (kind, _) if kind.ends_with(" **") => {
            return format!("out.{}", of_kind(kind.trim_end_matches(" **")));
        }
        (kind, _) if structs().contains(&of_kind(kind.trim_end_matches(" *"))) => {
            return format!("&plain_{}", of_kind(kind.trim_end_matches(" *")));
        }
        (kind, name) => panic!("what to give for `{kind} {name}`? Say so here"),
    };
    value.to_owned()
}
