//! The shared tier in a real Redis, and everything that goes wrong between it and an engine (FAULTS.md 98 to 103).

use std::sync::{Arc, Barrier};
use std::time::Duration;

use antiphon::plugin::Plugins;
use antiphon::{CacheOutcome, Engine, EngineConfig, ErrorKind, Request};

use crate::support::eventually;
use crate::support::redis::{Fault, Proxy, Server, free_port};
use crate::tier::{Breakers, ask, outcome};

fn open(url: &str) -> (Engine, Arc<Breakers>) {
    let breakers = Arc::<Breakers>::default();
    let plugins = Plugins::new().add_observer(Arc::clone(&breakers) as _);
    (Engine::open_with(EngineConfig::default().shared_tier(url), plugins).unwrap(), breakers)
}

fn question(number: usize) -> String {
    format!("Where is order {number}?")
}

/// Each request is answered as one without a tier is, whatever the tier does.
fn all_are_answered(engine: &Engine, numbers: std::ops::Range<usize>) {
    for number in numbers {
        let reply = ask(engine, &question(number));
        let alone = ask(crate::engine(), &question(number));
        assert_eq!((reply.response, reply.entities), (alone.response, alone.entities));
    }
}

#[test]
fn two_engines_share_one_server() {
    let server = Server::start();
    let (first, _) = open(&server.url());
    all_are_answered(&first, 0..5);
    server.wait_for_keys(5);
    for number in 0..5 {
        eventually("another engine finds it", || {
            outcome(&ask(&open(&server.url()).0, &question(number))) == CacheOutcome::Shared
        });
    }
    let (second, _) = open(&server.url());
    all_are_answered(&second, 0..5);
    let check = second.diagnose().checks.into_iter().find(|check| check.name == "shared tier").unwrap();
    assert!(check.message.contains("answers"), "{check:?}");
    let ttl: u64 = server.command(&["PTTL", &server.keys()[0]])[1..].parse().unwrap();
    assert!((1..=3_600_000).contains(&ttl));
}

#[test]
fn faults_98_a_server_that_is_down_at_the_start_or_dies_is_done_without_and_found_again() {
    let port = free_port();
    let (engine, breakers) = open(&format!("redis://127.0.0.1:{port}"));
    all_are_answered(&engine, 0..10);
    assert_eq!(breakers.states(), ["open"]);

    let server = Server::start_at(port);
    let mut number = 10;
    let mut ask_until_stored = |server: &Server| {
        eventually("the server is found again", || {
            number += 1;
            all_are_answered(&engine, number..number + 1);
            !server.keys().is_empty()
        });
    };
    ask_until_stored(&server);
    assert_eq!(breakers.states(), ["open", "closed"]);

    drop(server);
    all_are_answered(&engine, 1000..1010);
    assert_eq!(breakers.states(), ["open", "closed", "open"]);
    ask_until_stored(&Server::start_at(port));
}

#[test]
fn faults_98_a_server_that_refuses_is_done_without() {
    for refuse in [
        &["CONFIG", "SET", "requirepass", "secret"][..],
        &["CONFIG", "SET", "maxmemory", "1"],
        &["REPLICAOF", "127.0.0.1", "1"],
    ] {
        let server = Server::start();
        let reply = server.command(refuse);
        assert!(reply.starts_with("+OK"), "{reply}");
        let (engine, breakers) = open(&server.url());
        all_are_answered(&engine, 0..10);
        assert!(breakers.states().len() <= 1, "{:?}", breakers.states());
    }
    for answer in [
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-MOVED 3999 127.0.0.1:6381\r\n",
        "-MISCONF Redis is configured to save RDB snapshots\r\n",
        "+OK\r\n",
        ":1\r\n",
        "$-1\r\n",
        "*1\r\n$1\r\nx\r\n",
        "what is this\r\n",
    ] {
        let server = Server::start();
        let proxy = Proxy::before(server.port);
        proxy.set(Fault::Instead(answer));
        let (engine, breakers) = open(&proxy.url());
        all_are_answered(&engine, 0..10);
        assert!(breakers.states().len() <= 1, "{answer:?}: {:?}", breakers.states());
    }
}

#[test]
fn faults_98_a_key_of_another_type_is_done_without() {
    let server = Server::start();
    let (first, _) = open(&server.url());
    all_are_answered(&first, 0..1);
    server.wait_for_keys(1);
    let key = server.keys().remove(0);
    server.command(&["DEL", &key]);
    server.command(&["LPUSH", &key, "x"]);
    all_are_answered(&open(&server.url()).0, 0..1);
}

#[test]
fn faults_99_replies_that_come_late_or_never_or_by_drops_are_not_waited_for() {
    let server = Server::start();
    for fault in [Fault::Blackhole, Fault::Late(Duration::from_secs(2)), Fault::Drip, Fault::CutAfter(3)] {
        let proxy = Proxy::before(server.port);
        proxy.set(fault.clone());
        let (engine, breakers) = open(&proxy.url());
        all_are_answered(&engine, 0..10);
        assert_eq!(breakers.states(), ["open"], "{fault:?}");
    }
}

#[test]
fn faults_99_a_late_reply_is_never_taken_for_that_of_the_next_call() {
    let server = Server::start();
    let (first, _) = open(&server.url());
    all_are_answered(&first, 0..40);
    server.wait_for_keys(40);
    let proxy = Proxy::before(server.port);
    let (second, _) = open(&proxy.url());
    for number in 0..40 {
        proxy.set(if number % 2 == 0 { Fault::Late(Duration::from_millis(30)) } else { Fault::None });
        all_are_answered(&second, number..number + 1);
        second.reset_breaker("shared_tier").unwrap();
    }
    assert!(second.cache().stats().shared_hits > 0, "some came in time");
}

#[test]
fn faults_100_a_value_that_is_damaged_or_another_keys_is_a_miss_and_goes() {
    let server = Server::start();
    let (first, _) = open(&server.url());
    all_are_answered(&first, 0..6);
    server.wait_for_keys(6);
    let keys = server.keys();
    let spoil: [&[&str]; 6] = [
        &["SET", &keys[0], "rubbish"],
        &["SETRANGE", &keys[1], "40", "XX"],
        &["COPY", &keys[5], &keys[2], "REPLACE"],
        &["SETRANGE", &keys[3], "33554432", "x"],
        &["APPEND", &keys[4], "x"],
        &["SETRANGE", &keys[5], "8", "\u{2}"],
    ];
    for command in spoil {
        let reply = server.command(command);
        assert!(!reply.starts_with('-'), "{command:?}: {reply}");
    }
    let (second, _) = open(&server.url());
    all_are_answered(&second, 0..6);
    let stats = second.cache().stats();
    assert_eq!((stats.shared_hits, stats.misses), (0, 6));
    let third = || {
        let (third, _) = open(&server.url());
        all_are_answered(&third, 0..6);
        third.cache().stats().shared_hits
    };
    eventually("good answers are in their place", || third() == 6);
}

#[test]
fn faults_100_bits_that_change_on_the_way_are_noticed() {
    let server = Server::start();
    let (first, _) = open(&server.url());
    all_are_answered(&first, 0..1);
    server.wait_for_keys(1);
    let proxy = Proxy::before(server.port);
    let (second, _) = open(&proxy.url());
    proxy.set(Fault::CorruptFrom(200));
    all_are_answered(&second, 0..1);
    assert_eq!(second.cache().stats().shared_hits, 0);
}

#[test]
fn faults_102_who_does_not_have_the_key_cannot_answer_in_the_engines_name() {
    let server = Server::start();
    let (forger, _) = open(&server.url());
    all_are_answered(&forger, 0..1);
    server.wait_for_keys(1);
    let sealed = || {
        let config = EngineConfig::default().shared_tier(&server.url());
        Engine::open(config.shared_tier_key("a secret of all our engines")).unwrap()
    };
    let engine = sealed();
    assert_eq!(outcome(&ask(&engine, &question(0))), CacheOutcome::Miss);
    eventually("those with the key share", || outcome(&ask(&sealed(), &question(0))) == CacheOutcome::Shared);
}

#[test]
fn faults_103_after_a_flush_each_engine_computes_a_key_once() {
    let server = Server::start();
    let engines = [open(&server.url()).0, open(&server.url()).0];
    let barrier = Barrier::new(60);
    std::thread::scope(|scope| {
        for number in 0..60 {
            let (engine, barrier) = (&engines[number % 2], &barrier);
            scope.spawn(move || {
                barrier.wait();
                engine.process_blocking(Request::new("Where is my parcel?").max_tokens(24)).unwrap()
            });
        }
    });
    for engine in &engines {
        let stats = engine.cache().stats();
        assert_eq!((stats.misses, stats.joined + stats.hits), (1, 29), "{stats:?}");
    }
}

/// A host drops its engine where it happens to be: in a task of its own runtime, too.
#[test]
fn an_engine_is_asked_closed_and_dropped_inside_a_runtime_of_the_host() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let (engine, _) = open(&server.url());
        engine.process(Request::new("Hello").max_tokens(4)).await.unwrap();
        let check = engine.diagnose().checks.into_iter().find(|check| check.name == "shared tier").unwrap();
        assert!(check.message.contains("answers"), "{check:?}");
        engine.close().unwrap();
        drop(engine);
        drop(open(&server.url()));
    });
}

#[test]
fn an_address_that_is_none_is_refused_without_being_repeated() {
    for url in ["http://user:secret@host", "redis://user:secret@host:notaport", "secret"] {
        let error = Engine::open(EngineConfig::default().shared_tier(url)).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let shown = format!("{error} {error:?} {:?}", EngineConfig::default().shared_tier(url));
        assert!(shown.contains("cache.shared_tier") && !shown.contains("secret"), "{shown}");
    }
}
