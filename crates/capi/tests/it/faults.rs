//! What a host may do wrong, or do at a bad moment. The numbers are those of the catalogue of faults; 46, 47 and 60 are in
//! `programs` and `exports`, too, because they are about every export.

use crate::host::{Linking, Program, library};

#[test]
fn faults_47_a_handle_that_is_freed_twice_lent_or_taken_is_found_in_a_debug_build() {
    checked("handles", "freed");
}

#[test]
fn faults_48_handles_are_freed_in_any_order_with_live_streams_and_inside_of_callbacks() {
    holds(Program::compile("lifetimes", Linking::Shared, &[]), &[]);
}

#[test]
fn faults_49_a_callback_may_use_the_engine_and_free_it() {
    holds(Program::compile("callbacks", Linking::Shared, &[]), &["inside"]);
}

#[test]
fn faults_50_a_callback_that_blocks_holds_up_nobody_else_and_nothing_is_freed_under_it() {
    holds(Program::compile("callbacks", Linking::Shared, &["-fsanitize=address"]), &["block"]);
}

#[test]
fn faults_51_a_slow_callback_gets_everything_and_memory_stays_flat() {
    holds(Program::compile("callbacks", Linking::Shared, &[]), &["slow"]);
}

#[test]
fn faults_52_the_header_says_that_nothing_may_jump_out_of_a_callback_and_pulling_needs_none() {
    let header = std::fs::read_to_string(crate::host::root().join("include/antiphon.h")).unwrap();
    assert!(header.contains("longjmp"));
    // `stream.c` pulls, and its only callback writes a byte.
    assert!(crate::host::example("stream").contains("antiphon_stream_next"));
}

#[test]
fn faults_53_callbacks_that_spoil_their_thread_change_no_answer() {
    holds(Program::compile("callbacks", Linking::Shared, &[]), &["spoiled"]);
}

#[test]
fn faults_54_two_threads_in_one_stream_are_told_so_in_a_debug_build() {
    checked("handles", "shared");
}

#[test]
fn after_a_bug_a_handle_answers_to_nothing_but_being_freed() {
    checked("handles", "left behind");
}

#[test]
fn faults_55_calls_to_an_engine_that_is_closed_say_so_and_another_goes_on() {
    holds(Program::compile("buffers", Linking::Shared, &["-fsanitize=address"]), &["lives"]);
}

#[test]
fn faults_56_nothing_is_written_behind_a_buffer_or_into_one_that_is_too_small() {
    holds(Program::compile("buffers", Linking::Shared, &["-fsanitize=address"]), &["buffers"]);
}

#[test]
fn faults_57_structs_of_an_older_and_of_a_newer_header_are_what_their_size_says() {
    holds(Program::compile("buffers", Linking::Shared, &["-fsanitize=address"]), &["sizes"]);
}

#[test]
fn faults_58_a_forked_child_is_told_so_and_ends_and_its_parent_goes_on() {
    holds(Program::compile("forks", Linking::Shared, &[]), &[]);
}

#[test]
fn faults_59_signals_reach_the_hosts_threads_alone_and_change_no_answer() {
    holds(Program::compile("signals", Linking::Shared, &[]), &[]);
}

#[test]
fn faults_60_three_copies_live_in_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let copies = ["one.so", "two.so"].map(|name| {
        let path = folder.path().join(name);
        std::fs::copy(library("so"), &path).unwrap();
        path.to_str().unwrap().to_owned()
    });
    for linking in [Linking::Shared, Linking::Static] {
        holds(Program::compile("copies", linking, &[]), &[&copies[0], &copies[1]]);
    }
}

#[test]
fn a_cancel_is_the_next_thing_that_is_read_and_nobody_is_called_after_a_free() {
    holds(Program::compile("cancels", Linking::Shared, &["-O2"]), &["2000"]);
}

#[test]
#[ignore = "long: 100,000 cancels, a minute"]
fn a_hundred_thousand_cancels_from_another_thread_hang_nobody() {
    holds(Program::compile("cancels", Linking::Shared, &["-O2"]), &["100000"]);
}

fn checked(name: &str, case: &str) {
    holds(Program::compile(name, Linking::Checked, &["-fsanitize=address"]), &[case]);
}

fn holds(program: Program, arguments: &[&str]) {
    assert_eq!(program.run(arguments), "all held\n");
}
