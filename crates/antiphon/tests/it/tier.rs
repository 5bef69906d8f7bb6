//! The tier that engines share: any store of bytes that the host brings.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use antiphon::plugin::{Observer, PluginError, Plugins, SharedTier};
use antiphon::{BreakerState, CacheOutcome, Engine, EngineConfig, ErrorKind, Reply, Request};
use serde_json::Value;

/// A store in this process, with a fault that can be set.
#[derive(Default)]
struct Shelf {
    values: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    fault: Mutex<Fault>,
    gets: AtomicUsize,
}

#[derive(Clone, Copy, Default)]
enum Fault {
    #[default]
    None,
    Error,
    Panic,
    Blocks,
}

impl Shelf {
    fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }

    fn suffer(&self) -> Result<(), PluginError> {
        let fault = *self.fault.lock().unwrap();
        match fault {
            Fault::None => Ok(()),
            Fault::Error => Err(PluginError::new("out of order")),
            Fault::Panic => panic!("the plugin's own bug"),
            Fault::Blocks => loop {
                std::thread::park();
            },
        }
    }
}

impl SharedTier for Shelf {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PluginError> {
        self.gets.fetch_add(1, Ordering::Relaxed);
        self.suffer()?;
        Ok(self.values.lock().unwrap().get(key).cloned())
    }

    fn put(&self, key: &[u8], value: &[u8], _ttl: Duration) -> Result<(), PluginError> {
        self.suffer()?;
        self.values.lock().unwrap().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn remove(&self, key: &[u8]) -> Result<(), PluginError> {
        self.suffer()?;
        self.values.lock().unwrap().remove(key);
        Ok(())
    }
}

/// Remembers what became of breakers.
#[derive(Default)]
pub(crate) struct Breakers(Mutex<Vec<String>>);

impl Breakers {
    pub(crate) fn states(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for Breakers {
    fn event(&self, name: &str, fields: &Value) {
        if name == "breaker" {
            self.0.lock().unwrap().push(fields["state"].as_str().unwrap().to_owned());
        }
    }
}

fn open(shelf: &Arc<Shelf>, breakers: &Arc<Breakers>) -> Engine {
    let (tier, observer) = (Arc::clone(shelf), Arc::clone(breakers));
    let plugins = Plugins::new().shared_tier(tier).add_observer(observer);
    Engine::open_with(EngineConfig::default(), plugins).unwrap()
}

pub(crate) fn ask(engine: &Engine, message: &str) -> Reply {
    engine.process_blocking(Request::new(message).max_tokens(12)).unwrap()
}

pub(crate) fn outcome(reply: &Reply) -> CacheOutcome {
    reply.metadata.response_generation.cache
}

#[test]
fn an_answer_of_one_engine_serves_another_with_all_that_belongs_to_it() {
    let (shelf, breakers) = Default::default();
    let message = "Größe falsch: wo ist meine order 4711?";
    let first = open(&shelf, &breakers);
    let computed = ask(&first, message);
    assert_eq!(outcome(&computed), CacheOutcome::Miss);
    crate::support::eventually("the answer is stored", || shelf.values.lock().unwrap().len() == 1);

    // Where the machine is busy the tier may be too late: then another engine asks.
    let (second, events) = loop {
        let second = open(&shelf, &breakers);
        let stream = second.stream(Request::new(message).max_tokens(12)).unwrap();
        let events: Vec<_> = stream.into_iter().map(Result::unwrap).collect();
        if second.cache().stats().shared_hits > 0 {
            break (second, events);
        }
    };
    let Some(antiphon::Event::Done(shared)) = events.last() else { panic!("{events:?}") };
    assert_eq!(outcome(shared), CacheOutcome::Shared);
    assert_eq!((&shared.response, &shared.entities), (&computed.response, &computed.entities));
    assert_eq!(shared.analysis(), computed.analysis());
    assert!(
        matches!(&events[0], antiphon::Event::Analysis(analysis) if Some(analysis) == computed.analysis().as_ref())
    );
    assert_eq!(outcome(&ask(&second, message)), CacheOutcome::Hit, "it is kept here, too");
    let stats = second.cache().stats();
    assert_eq!((stats.misses, stats.shared_hits, stats.hits), (1, 1, 1));
    assert!(second.metrics_text().contains("antiphon_cache_shared_hits_total 1"));
}

#[test]
fn tenants_share_nothing_through_the_tier() {
    let (shelf, breakers) = Default::default();
    let first = open(&shelf, &breakers);
    for tenant in 0..10 {
        let request = || Request::new("Where is my parcel?").tenant(format!("t{tenant}")).max_tokens(4);
        assert_eq!(outcome(&first.process_blocking(request()).unwrap()), CacheOutcome::Miss);
        crate::support::eventually("it is stored", || shelf.values.lock().unwrap().len() == tenant + 1);
        crate::support::eventually("another engine finds it", || {
            let reply = open(&shelf, &breakers).process_blocking(request()).unwrap();
            outcome(&reply) == CacheOutcome::Shared
        });
    }
}

#[test]
fn faults_48_a_tier_that_fails_or_panics_costs_no_request_and_is_left_alone_after_five_failures() {
    for fault in [Fault::Error, Fault::Panic] {
        let (shelf, breakers): (Arc<Shelf>, Arc<Breakers>) = Default::default();
        let engine = open(&shelf, &breakers);
        shelf.set(fault);
        for number in 0..20 {
            assert_eq!(outcome(&ask(&engine, &format!("Where is order {number}?"))), CacheOutcome::Miss);
        }
        assert_eq!(breakers.states(), ["open"], "one line for each change of state");
        assert!(shelf.gets.load(Ordering::Relaxed) < 20);
        let health = engine.health();
        assert!(health.ready && health.diagnostics[0].contains("shared_tier"), "{health:?}");
        let closed = r#"antiphon_breaker_state{backend="shared_tier"} 0"#;
        assert!(!engine.metrics_text().contains(closed));

        shelf.set(Fault::None);
        engine.reset_breaker("shared_tier").unwrap();
        ask(&engine, "Where is order 99?");
        crate::support::eventually("it is used again", || shelf.values.lock().unwrap().len() == 1);
        assert_eq!(breakers.states(), ["open", "closed"]);
    }
}

#[test]
fn faults_50_a_tier_that_never_returns_costs_no_request() {
    let (shelf, breakers): (Arc<Shelf>, Arc<Breakers>) = Default::default();
    let engine = open(&shelf, &breakers);
    shelf.set(Fault::Blocks);
    let mut number = 0;
    crate::support::eventually("it is given up", || {
        number += 1;
        assert_eq!(outcome(&ask(&engine, &format!("Where is order {number}?"))), CacheOutcome::Miss);
        !breakers.states().is_empty()
    });
    engine.close().unwrap();
}

#[test]
fn a_breaker_that_is_not_there_is_named_by_those_that_are() {
    let (shelf, breakers) = Default::default();
    let error = open(&shelf, &breakers).reset_breaker("redis").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.to_string().contains("shared_tier"), "{error}");
    assert_eq!(serde_json::to_value(BreakerState::HalfOpen).unwrap(), "half_open");
}
