//! What several modules of these tests need.

#[cfg(feature = "redis")]
pub(crate) mod redis;

use std::thread::sleep;
use std::time::{Duration, Instant};

/// Waits, as long as it may take on a busy machine.
pub(crate) fn eventually(what: &str, mut happens: impl FnMut() -> bool) {
    let since = Instant::now();
    while !happens() {
        assert!(since.elapsed() < Duration::from_secs(60), "a minute passed, and not yet: {what}");
        sleep(Duration::from_millis(5));
    }
}
