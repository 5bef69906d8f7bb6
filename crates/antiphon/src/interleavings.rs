//! Models for loom: the parts where threads meet, in the orders of two or three threads that have at most three switches
//! where no thread had to wait.
//!
//! What only one thread does at a time (deadlines by the clock, computing) is played by a call. Locks, condition variables and
//! the length of a log are loom's, and so is the fence between writing and waking; the few flags beside them are read again
//! under a lock, and stay the standard library's, as do wakers, which promise their order themselves.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use loom::thread;

use crate::batcher::{Closing, Place, Queue};
use crate::cache::{Cache, Found, Key};
use crate::config::{BatcherConfig, CacheConfig};
use crate::error::ErrorKind;
use crate::flight::{Departure, Flight, Wanted};
use crate::options::Priority;
use crate::reply::tests::answer_about;
use crate::reply::{Event, Reply};

/// Runs a model in every order, with at most three switches where no thread had to wait.
fn in_every_order(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn events() -> Vec<Event> {
    answer_about("order 4711", "4711")
}

fn reply() -> Reply {
    match events().pop() {
        Some(Event::Done(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

fn flight() -> Arc<Flight> {
    Flight::new(deadline(), Arc::default())
}

/// A thread that writes one event, and then the end.
fn writing(flight: &Arc<Flight>) -> thread::JoinHandle<()> {
    let flight = Arc::clone(flight);
    thread::spawn(move || {
        events().into_iter().take(1).for_each(|event| flight.push(event));
        flight.land(Event::Done(reply()));
    })
}

/// How a view ended when all is over: every one has exactly one end, and nothing comes after it.
#[derive(Debug, Eq, PartialEq)]
enum End {
    Done,
    Error(ErrorKind),
    /// The flight was given up, and whoever looks after it has not ended it.
    Open,
}

fn end_of(flight: &Flight, view: usize) -> End {
    let mut end = None;
    loop {
        match flight.read(view, Wanted::Next, Waker::noop()) {
            Poll::Ready(Some(item)) => {
                assert!(end.is_none(), "something came after the end");
                end = match item {
                    Ok(Event::Done(_)) => Some(End::Done),
                    Ok(_) => None,
                    Err(error) => Some(End::Error(error.kind())),
                };
            }
            Poll::Ready(None) => return end.expect("a view that is closed has had an end"),
            Poll::Pending => return End::Open,
        }
    }
}

/// What the compute thread does when it finds a flight given up.
fn look_after(flight: &Flight) {
    match flight.departure() {
        Departure::None => {}
        Departure::Stopped => flight.land(Event::Done(reply())),
        Departure::Late => flight.fail(crate::flight::late(Duration::ZERO)),
        Departure::Cancelled => flight.fail(crate::Error::cancelled()),
    }
}

#[test]
fn finish_cancel_and_time_out_give_one_end() {
    in_every_order(|| {
        let flight = flight();
        let compute = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || {
                events().into_iter().take(2).for_each(|event| flight.push(event));
                drop(flight.prune(deadline() + Duration::from_secs(1), |_| reply()));
                look_after(&flight);
                flight.land(Event::Done(reply()));
            })
        };
        let caller = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.cancel(0))
        };
        compute.join().unwrap();
        caller.join().unwrap();
        let end = end_of(&flight, 0);
        assert!(
            matches!(end, End::Error(ErrorKind::Cancelled | ErrorKind::DeadlineExceeded) | End::Done),
            "{end:?}"
        );
    });
}

#[test]
fn a_reader_beside_a_cancel_reads_one_end() {
    in_every_order(|| {
        let flight = flight();
        let canceller = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.cancel(0))
        };
        let compute = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || {
                look_after(&flight);
                flight.land(Event::Done(reply()));
            })
        };
        let mut ends = 0;
        let mut read = || match flight.read(0, Wanted::Last, Waker::noop()) {
            Poll::Ready(Some(Ok(Event::Done(_)) | Err(_))) => ends += 1,
            Poll::Ready(Some(Ok(_)) | None) | Poll::Pending => {}
        };
        read();
        read();
        canceller.join().unwrap();
        compute.join().unwrap();
        read();
        read();
        assert_eq!(ends, 1);
    });
}

/// In a model no time-out ever comes: whoever sleeps has to be woken.
#[test]
fn whoever_waits_for_the_end_alone_is_woken_by_it() {
    in_every_order(|| {
        let flight = flight();
        let compute = writing(&flight);
        let last = flight.wait(0, Wanted::Last, None);
        assert!(matches!(last, Poll::Ready(Some(Ok(Event::Done(_))))), "{last:?}");
        compute.join().unwrap();
    });
}

#[test]
fn whoever_waits_is_woken_by_each_event() {
    in_every_order(|| {
        let flight = flight();
        let compute = writing(&flight);
        let mut read = 0;
        while let Poll::Ready(Some(event)) = flight.wait(0, Wanted::Next, None) {
            event.expect("nobody cancels");
            read += 1;
        }
        assert_eq!(read, 2);
        compute.join().unwrap();
    });
}

#[test]
fn join_leave_and_finish_lose_no_subscriber() {
    in_every_order(|| {
        let flight = flight();
        let leaver = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.leave(0))
        };
        let joiner = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.join(deadline()))
        };
        look_after(&flight);
        flight.land(Event::Done(reply()));
        leaver.join().unwrap();
        if let Some(view) = joiner.join().unwrap() {
            // Whoever was let in before the flight was given up keeps it; a finished one is read to its end.
            assert_eq!(end_of(&flight, view), End::Done);
        }
    });
}

#[test]
fn stop_and_cancel_of_two_subscribers_leave_each_with_its_own_end() {
    in_every_order(|| {
        let flight = flight();
        let other = flight.join(deadline()).unwrap();
        let stopper = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.stop(0))
        };
        let canceller = {
            let flight = Arc::clone(&flight);
            thread::spawn(move || flight.cancel(other))
        };
        stopper.join().unwrap();
        canceller.join().unwrap();
        drop(flight.prune(Instant::now(), |_| reply()));
        look_after(&flight);
        assert_eq!(end_of(&flight, 0), End::Done);
        assert_eq!(end_of(&flight, other), End::Error(ErrorKind::Cancelled));
    });
}

#[test]
fn get_insert_and_clear_keep_the_books() {
    in_every_order(|| {
        let config = CacheConfig { max_entries: 1, ..CacheConfig::default() };
        let cache = Arc::new(Cache::new(&config, None, false));
        let key = |number| Key::numbered("a", number);
        cache.insert(key(1), events());
        let getter = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || {
                matches!(cache.find(&Key::numbered("a", 1), &flight(), deadline()), Found::Answer(_))
            })
        };
        let evicter = {
            let cache = Arc::clone(&cache);
            thread::spawn(move || cache.insert(Key::numbered("a", 2), events()))
        };
        cache.clear(Some("a"));
        let found = getter.join().unwrap();
        evicter.join().unwrap();
        let stats = cache.stats();
        assert!(stats.entries <= 1 && (stats.entries > 0) == (stats.bytes > 0));
        assert_eq!((stats.hits, stats.misses), (u64::from(found), u64::from(!found)));
    });
}

#[test]
fn of_equal_requests_at_once_one_flies() {
    in_every_order(|| {
        let cache = Arc::new(Cache::new(&CacheConfig::default(), None, false));
        let flying = Arc::new(AtomicUsize::new(0));
        let ask = |cache: Arc<Cache>, flying: Arc<AtomicUsize>| {
            move || {
                let own = flight();
                match cache.find(&Key::numbered("a", 1), &own, deadline()) {
                    Found::Nothing => {
                        flying.fetch_add(1, Ordering::Relaxed);
                        cache.insert(Key::numbered("a", 1), events());
                        own.land(Event::Done(reply()));
                    }
                    Found::Flight(joined, view) => {
                        let end = end_of(&joined, view);
                        assert!(matches!(end, End::Done | End::Open), "{end:?}");
                    }
                    Found::Answer(answer) => assert_eq!(answer.len(), events().len()),
                }
            }
        };
        let first = thread::spawn(ask(Arc::clone(&cache), Arc::clone(&flying)));
        let second = thread::spawn(ask(Arc::clone(&cache), Arc::clone(&flying)));
        first.join().unwrap();
        second.join().unwrap();
        assert_eq!(flying.load(Ordering::Relaxed), 1);
    });
}

fn place() -> Place {
    Place { tenant: "a".into(), priority: Priority::Normal, tokens: 1, bytes: 1, deadline: deadline() }
}

#[test]
fn a_sleeper_is_woken_by_work_and_by_news() {
    in_every_order(|| {
        let queue = Arc::new(Queue::<(), u32>::new(BatcherConfig::default(), usize::MAX));
        let submitter = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.submit(place(), || 1).unwrap())
        };
        queue.wait(1, None);
        assert_eq!(queue.take(1), [1]);
        submitter.join().unwrap();
        let teller = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.tell())
        };
        queue.wait(0, None);
        teller.join().unwrap();
    });
}

#[test]
fn a_held_request_is_answered_or_let_in_but_not_both() {
    in_every_order(|| {
        let queue = Arc::new(Queue::<(), u32>::new(BatcherConfig::default(), usize::MAX));
        let number = queue.submit_held(place(), deadline(), || 1).unwrap();
        let tier = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || usize::from(queue.take_held(number).is_some()))
        };
        let other = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.let_in(number))
        };
        let answered = tier.join().unwrap();
        other.join().unwrap();
        assert_eq!(answered + queue.take(1).len(), 1);
        assert_eq!(queue.load().waiting, 0);
    });
}

#[test]
fn close_and_submit_lose_no_request() {
    in_every_order(|| {
        let queue = Arc::new(Queue::<(), u32>::new(BatcherConfig::default(), usize::MAX));
        let submitter = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let line = queue.submit(place(), || 1).is_ok();
                let lobby = queue.submit_held(place(), deadline(), || 2).is_ok();
                usize::from(line) + usize::from(lobby)
            })
        };
        let closer = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.close(Closing::Draining))
        };
        // What the compute thread does at its end.
        let taken = queue.take(1).len();
        queue.close(Closing::Now);
        let cleared = queue.clear().len();
        let accepted = submitter.join().unwrap();
        closer.join().unwrap();
        assert_eq!(accepted, taken + cleared);
        assert_eq!(queue.clear().len(), 0);
    });
}
