//! The library under instruments: AddressSanitizer, valgrind, strace.
//!
//! AddressSanitizer is compiled into the host alone, so it does not see a bad load inside of the library; but every allocation of
//! the process is its own, so what is freed twice, used by the host after it was freed, or lost, is found on both sides.
//! Valgrind sees the loads, too.

use crate::host::{Linking, Program, example};

#[test]
fn calls_in_random_order_read_lose_and_free_nothing_that_is_not_theirs() {
    sequences("1", "4000");
}

#[test]
#[ignore = "long: a million sequences, five minutes"]
fn a_million_sequences_of_random_calls_are_without_a_report() {
    sequences("1", "1000000");
}

fn sequences(seed: &str, count: &str) {
    let program = Program::compile("sequences", Linking::Shared, &["-fsanitize=address"]);
    assert_eq!(program.run(&[seed, count]), "all held\n");
}

#[test]
fn valgrind_finds_no_error_and_nothing_lost_in_the_examples() {
    // A token takes a hundred times as long as elsewhere: few of them, and none is late.
    let patient = |name| {
        let source = example(name).replace("_open(NULL, 0, ", "_open(CONFIG, sizeof CONFIG - 1, ");
        let source = source.replace(r#""48", 2"#, r#""2", 1"#);
        let config = r#"-DCONFIG="{\"batcher\": {\"timeout_ms\": 600000}}""#;
        Program::of_source(name, &source, Linking::Shared, &[config])
    };
    for program in ["ask", "stream", "own_cache"].map(patient) {
        under_valgrind(&program);
    }
}

#[test]
fn valgrind_finds_no_error_and_nothing_lost_where_handles_are_freed_in_any_order() {
    under_valgrind(&Program::compile("lifetimes", Linking::Shared, &["-DROUNDS=5"]));
}

/// Valgrind lets one thread run at a time; a fair turn for each keeps those that wait from spinning.
fn under_valgrind(program: &Program) {
    let kinds = "--errors-for-leak-kinds=definite";
    let leaks = ["--leak-check=full", "--show-leak-kinds=definite", kinds];
    let said = program
        .run_under(&[&["valgrind", "--fair-sched=yes", "--error-exitcode=99"], &leaks[..]].concat(), &[]);
    assert!(said.contains("ERROR SUMMARY: 0 errors"), "{said}");
    let nothing_lost = ["definitely lost: 0 bytes", "no leaks are possible"];
    assert!(nothing_lost.iter().any(|line| said.contains(line)), "{said}");
}

#[test]
fn faults_59_the_library_handles_no_signal_writes_to_no_standard_stream_and_opens_no_socket() {
    let program = Program::compile("quiet", Linking::Shared, &[]);
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("calls");
    program.run_under(&["strace", "-f", "-o", log.to_str().unwrap()], &[]);
    let log = std::fs::read_to_string(log).unwrap();
    let (_, log) = log.split_once("/antiphon/begin").expect("the begin");
    let (log, _) = log.split_once("/antiphon/end").expect("the end");
    let calls: Vec<&str> =
        log.lines().skip(1).filter_map(|line| Some(line.split_once(' ')?.1.trim_start())).collect();
    assert!(calls.len() > 20, "{log}");
    let forbidden = [
        "rt_sigaction(",
        "sigaltstack(",
        "socket(",
        "connect(",
        "write(1,",
        "write(2,",
        "writev(1,",
        "writev(2,",
    ];
    for call in calls {
        // What other processes and the rest of this one would notice.
        assert!(!forbidden.iter().any(|begin| call.starts_with(begin)), "{call}");
        assert!(
            !["kill(", "chdir(", "umask(", "execve(", "fork("].iter().any(|begin| call.starts_with(begin)),
            "{call}"
        );
    }
}
