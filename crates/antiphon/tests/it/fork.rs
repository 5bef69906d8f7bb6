//! After a fork the child gets a typed error, not a hang.

#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "fork has no safe face")]

use antiphon::{EngineConfig, ErrorKind, Request};

use crate::open;

#[test]
fn faults_58_a_child_process_gets_forked_and_the_parent_goes_on() {
    let engine = open(EngineConfig::default());
    let stream = engine.stream(Request::new("Hello").max_tokens(8)).unwrap();
    // SAFETY: the child allocates (glibc makes its allocator usable after fork), calls the engine, and leaves by _exit:
    // it takes no lock that another thread of the parent could hold, as every entry looks at the process id first.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let calls = [
            engine.analyze_blocking("x").err(),
            engine.process_blocking(Request::new("x")).err(),
            engine.drain(std::time::Duration::ZERO).err(),
            engine.close().err(),
            stream.into_iter().next().and_then(Result::err),
        ];
        let forked =
            calls.iter().all(|error| error.as_ref().is_some_and(|error| error.kind() == ErrorKind::Forked));
        engine.cache().clear(None);
        let quiet = engine.cache().stats().entries == 0 && engine.metrics_text().is_empty();
        let forked = forked && quiet && engine.diagnose().checks.len() == 1 && !engine.health().ready;
        drop(engine);
        // SAFETY: ends the child without the parent's exit handlers.
        unsafe { libc::_exit(if forked { 0 } else { 1 }) };
    }
    let mut status = 0;
    // SAFETY: waits for our own child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "status {status}");
    assert!(stream.into_iter().all(|event| event.is_ok()));
    engine.analyze_blocking("Hello").unwrap();
}
