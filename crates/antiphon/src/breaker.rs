//! A circuit breaker: a backend that keeps failing is left alone for a while, then tried again by one request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::BreakerConfig;

/// Whether a backend is asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// It is.
    Closed,
    /// One request tries whether it works again.
    HalfOpen,
    /// It is not: it failed too often in a row.
    Open,
}

impl BreakerState {
    /// As JSON says it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::HalfOpen => "half_open",
            Self::Open => "open",
        }
    }
}

/// Counts the failures of one backend. Nygard, *Release It!*, 2007, chapter "Stability patterns".
pub(crate) struct Breaker {
    config: BreakerConfig,
    inner: Mutex<Inner>,
}

struct Inner {
    failures: u32,
    /// Since when it has been open.
    opened: Option<Instant>,
    /// When somebody began to try an open one.
    trial: Option<Instant>,
}

impl Breaker {
    pub(crate) fn new(config: BreakerConfig) -> Self {
        Self { config, inner: Mutex::new(Inner { failures: 0, opened: None, trial: None }) }
    }

    /// Whether to ask the backend now. While it is half open, one caller hears yes; if nothing is heard from that one within
    /// the time that the breaker stays open, the next.
    pub(crate) fn admits(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        match inner.opened {
            None => true,
            Some(_) if self.state_of(&inner, now) == BreakerState::HalfOpen => {
                let is_tried = inner.trial.is_some_and(|since| now < since + self.reset_after());
                if !is_tried {
                    inner.trial = Some(now);
                }
                !is_tried
            }
            Some(_) => false,
        }
    }

    /// The backend answered. True: that closed the breaker.
    pub(crate) fn succeed(&self) -> bool {
        let mut inner = self.lock();
        inner.failures = 0;
        inner.trial = None;
        inner.opened.take().is_some()
    }

    /// The backend failed. True: that opened the breaker.
    pub(crate) fn fail(&self, now: Instant) -> bool {
        let mut inner = self.lock();
        inner.failures = inner.failures.saturating_add(1);
        if inner.failures < self.config.failure_threshold {
            return false;
        }
        inner.trial = None;
        inner.opened.replace(now).is_none()
    }

    pub(crate) fn state(&self, now: Instant) -> BreakerState {
        self.state_of(&self.lock(), now)
    }

    fn state_of(&self, inner: &Inner, now: Instant) -> BreakerState {
        match inner.opened {
            None => BreakerState::Closed,
            Some(since) if now < since + self.reset_after() => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    fn reset_after(&self) -> Duration {
        Duration::from_millis(self.config.reset_after_ms)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker() -> (Breaker, Instant) {
        (Breaker::new(BreakerConfig { failure_threshold: 3, reset_after_ms: 1000 }), Instant::now())
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_between_them_does_not() {
        let (breaker, now) = breaker();
        assert!(!breaker.fail(now) && !breaker.fail(now));
        assert!(!breaker.succeed());
        assert!(!breaker.fail(now) && !breaker.fail(now));
        assert!(breaker.admits(now));
        assert!(breaker.fail(now), "the third in a row");
        assert!(!breaker.admits(now));
        assert_eq!(breaker.state(now), BreakerState::Open);
        assert!(!breaker.fail(now), "it is open already");
    }

    #[test]
    fn after_a_while_one_caller_tries_and_its_luck_decides() {
        let (breaker, now) = breaker();
        (0..3).for_each(|_| _ = breaker.fail(now));
        let later = now + Duration::from_millis(1000);
        assert_eq!(breaker.state(later), BreakerState::HalfOpen);
        assert!(breaker.admits(later));
        assert!(!breaker.admits(later), "one is enough");
        breaker.fail(later);
        assert!(!breaker.admits(later));
        let again = later + Duration::from_millis(1000);
        assert!(breaker.admits(again));
        assert!(breaker.succeed());
        assert_eq!(breaker.state(again), BreakerState::Closed);
        assert!(breaker.admits(again) && breaker.admits(again));
    }

    #[test]
    fn a_trial_that_is_never_heard_of_again_is_followed_by_another() {
        let (breaker, now) = breaker();
        (0..3).for_each(|_| _ = breaker.fail(now));
        let later = now + Duration::from_millis(1000);
        assert!(breaker.admits(later));
        assert!(breaker.admits(later + Duration::from_millis(1000)));
    }

    #[test]
    fn closing_it_by_hand_is_a_success() {
        let (breaker, now) = breaker();
        (0..3).for_each(|_| _ = breaker.fail(now));
        assert!(breaker.succeed());
        assert!(breaker.admits(now));
    }
}
