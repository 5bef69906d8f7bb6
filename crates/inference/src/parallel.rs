//! Work that is shared out among threads while a model is opened.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{Builder, scope};

use antiphon_kernels::with_signals_blocked;

use crate::error::Result;

/// Runs the first on a thread of its own meanwhile, where there may be two and the system starts one.
pub fn both<A: Send, B>(threads: usize, first: impl Fn() -> A + Sync, second: impl FnOnce() -> B) -> (A, B) {
    scope(|scope| {
        let start = || Builder::new().name("antiphon-open".into()).spawn_scoped(scope, &first);
        match (threads > 1).then(|| with_signals_blocked(start)) {
            Some(Ok(thread)) => {
                let second = second();
                (thread.join().unwrap_or_else(|panic| resume_unwind(panic)), second)
            }
            Some(Err(_)) | None => (first(), second()),
        }
    })
}

/// `make(0)`, `make(1)` and so on, in that order, each on whichever of so many threads is free; fewer where the system starts no
/// more. After an error nothing more is begun.
pub(crate) fn in_parallel<T: Send>(
    count: usize,
    threads: usize,
    make: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut made = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            if index >= count {
                return Ok(made);
            }
            match make(index) {
                Ok(part) => made.push((index, part)),
                Err(error) => {
                    next.store(count, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    };
    let mut made = scope(|scope| -> Result<Vec<(usize, T)>> {
        let start = || Builder::new().name("antiphon-open".into()).spawn_scoped(scope, work);
        let others: Vec<_> =
            (1..threads.min(count)).map_while(|_| with_signals_blocked(start).ok()).collect();
        let mut made = work()?;
        for other in others {
            made.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic))?);
        }
        Ok(made)
    })?;
    made.sort_unstable_by_key(|(index, _)| *index);
    Ok(made.into_iter().map(|(_, part)| part).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::{Barrier, Mutex};

    use super::*;
    use crate::error::{Error, ErrorKind};

    #[test]
    fn parts_come_in_their_order_from_several_threads() {
        let (together, threads) = (Barrier::new(3), Mutex::new(HashSet::new()));
        let parts = in_parallel(100, 3, |index| {
            if index < 3 {
                together.wait(); // three are at work at once
            }
            threads.lock().unwrap().insert(std::thread::current().id());
            Ok(index)
        });
        assert_eq!(parts.unwrap(), (0..100).collect::<Vec<_>>());
        assert_eq!(threads.lock().unwrap().len(), 3);
    }

    #[test]
    fn one_thread_is_the_callers() {
        let caller = std::thread::current().id();
        let parts = in_parallel(3, 1, |_| Ok(std::thread::current().id())).unwrap();
        assert_eq!(parts, [caller; 3]);
        assert!(in_parallel(0, 4, |_| Ok(())).unwrap().is_empty());
    }

    #[test]
    fn an_error_ends_it() {
        let begun = AtomicUsize::new(0);
        let parts: Result<Vec<()>> = in_parallel(1000, 2, |index| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err(Error::new(ErrorKind::Invalid, format!("part {index}")))
        });
        assert!(parts.is_err());
        assert!(begun.load(Ordering::Relaxed) <= 2);
    }
}
