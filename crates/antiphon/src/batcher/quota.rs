//! Requests allowed per tenant and user in a sliding window.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::QuotaConfig;
use crate::error::{Error, ErrorKind, Result};

/// Counts the requests of each tenant and user.
pub(crate) struct Quota {
    requests: usize,
    window: Duration,
    /// Moments of the requests in the window, oldest first.
    seen: Mutex<HashMap<Caller, VecDeque<Instant>>>,
}

/// A tenant and a user.
type Caller = (Box<str>, Box<str>);

impl Quota {
    pub(crate) fn new(config: QuotaConfig) -> Self {
        let window = Duration::from_millis(config.window_ms);
        Self { requests: config.requests, window, seen: Mutex::new(HashMap::new()) }
    }

    /// Counts a request, or refuses it with the time to wait.
    pub(crate) fn charge(&self, tenant: &str, user: Option<&str>) -> Result<()> {
        let now = Instant::now();
        let expired = |moment: &Instant| now.duration_since(*moment) >= self.window;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MANY_USERS {
            seen.retain(|_, moments| moments.back().is_some_and(|moment| !expired(moment)));
        }
        let moments = seen.entry((tenant.into(), user.unwrap_or_default().into())).or_default();
        while moments.front().is_some_and(expired) {
            moments.pop_front();
        }
        if moments.len() >= self.requests {
            let wait = self.window - now.duration_since(moments[0]);
            let what =
                format!("{} requests in {} ms, expected no more", self.requests, self.window.as_millis());
            return Err(Error::with_retry_after(ErrorKind::QuotaExceeded, what, wait));
        }
        moments.push_back(now);
        Ok(())
    }
}

/// Above it, users that have been silent for a window are forgotten.
const MANY_USERS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_limited_and_others_are_not() {
        let quota = Quota::new(QuotaConfig { requests: 2, window_ms: 60_000 });
        quota.charge("a", Some("u")).unwrap();
        quota.charge("a", Some("u")).unwrap();
        let error = quota.charge("a", Some("u")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::QuotaExceeded);
        assert!(error.retry_after().unwrap() <= Duration::from_secs(60));
        quota.charge("a", Some("v")).unwrap();
        quota.charge("a", None).unwrap();
        quota.charge("b", Some("u")).unwrap();
    }

    #[test]
    fn the_window_slides() {
        let quota = Quota::new(QuotaConfig { requests: 1, window_ms: 1 });
        quota.charge("a", None).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        quota.charge("a", None).unwrap();
    }
}
