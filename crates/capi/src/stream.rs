//! Answers as they come.

use std::ffi::c_void;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use antiphon::{Canceller, Error, Event, ReplyStream};
use futures_core::Stream;

use crate::answer::antiphon_reply;
use crate::engine::antiphon_engine;
use crate::error::{ANTIPHON_CONTINUE, ANTIPHON_DONE, ANTIPHON_OK, ANTIPHON_PENDING, antiphon_error};
use crate::event::{Lending, antiphon_event};
use crate::guard::{boxed, free, guard, lent, lent_mut, null, place, quietly, sized_mut};
use crate::plugins::antiphon_drop_fn;
use crate::request::antiphon_request;

/// An answer as it comes. One thread at a time; another one cancels it through its canceller.
pub struct antiphon_stream {
    stream: ReplyStream,
    /// What the last event points to.
    lending: Lending,
    waker: Option<Arc<HostWaker>>,
}

/// Cancels a stream, from any thread at any time. It may live longer than the stream.
pub struct antiphon_canceller(Canceller);

/// Gets an event: ANTIPHON_CONTINUE or ANTIPHON_STOP.
pub type antiphon_event_fn =
    Option<unsafe extern "C" fn(event: *const antiphon_event, user_data: *mut c_void) -> i32>;

/// Says that a stream can be read. It must not block, nor call this library.
pub type antiphon_wake_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// Understands and answers a message, as it comes. Returns at once. Freed with antiphon_stream_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_stream_open(
    engine: *const antiphon_engine,
    request: *const antiphon_request,
    out: *mut *mut antiphon_stream,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, a request, and a place.
        let (out, engine, request) =
            unsafe { (place(out, "out")?, lent(engine, "engine")?, lent(request, "request")?) };
        *out = boxed(antiphon_stream::new(engine.engine.stream(request.to_process())?));
        Ok(0)
    })
}

/// Waits for the next event: -1 without limit, 0 not at all. ANTIPHON_OK with an event, ANTIPHON_PENDING when none came in time,
/// ANTIPHON_DONE after the last one; a failure is the last event, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_stream_next(
    stream: *mut antiphon_stream,
    timeout_ms: i64,
    event: *mut antiphon_event,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for a stream that nobody else uses, and an event, which is used after its size.
        let (stream, event) = unsafe { (lent_mut(stream, "stream")?, sized_mut(event, "event")?) };
        let timeout = u64::try_from(timeout_ms).map_or(Duration::MAX, Duration::from_millis);
        stream.lending = Lending::Nothing;
        let status = match stream.next(timeout) {
            Poll::Pending => ANTIPHON_PENDING,
            Poll::Ready(None) => ANTIPHON_DONE,
            Poll::Ready(Some(next)) => {
                stream.lending = next?.into();
                ANTIPHON_OK
            }
        };
        *event = antiphon_event { struct_size: event.struct_size, ..stream.lending.describe() };
        Ok(status)
    })
}

/// Has `wake` called when the stream can be read, for event loops: once from here, and then once for each time that
/// antiphon_stream_next returned ANTIPHON_PENDING, on a thread of the engine. `drop` is called when the stream is freed or gets another waker; neither is called after that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_stream_set_waker(
    stream: *mut antiphon_stream,
    wake: antiphon_wake_fn,
    user_data: *mut c_void,
    drop: antiphon_drop_fn,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        let wake = wake.ok_or_else(|| null("wake"))?;
        // SAFETY: the header asks for a stream that nobody else uses.
        let stream = unsafe { lent_mut(stream, "stream") }?;
        stream.silence();
        let host = Host { wake, user_data, drop };
        let waker = Arc::new(HostWaker(Mutex::new(Some(host))));
        // There may be something already. To look would be to read, and a cancel is to come before what was not read.
        waker.wake_by_ref();
        stream.waker = Some(waker);
        Ok(0)
    })
}

/// A handle that cancels the stream; NULL for NULL. Freed with antiphon_canceller_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_stream_canceller(
    stream: *const antiphon_stream,
) -> *mut antiphon_canceller {
    quietly(std::ptr::null_mut(), || {
        // SAFETY: NULL or a stream that lives.
        unsafe { lent(stream, "stream") }
            .map_or(std::ptr::null_mut(), |stream| boxed(antiphon_canceller(stream.stream.canceller())))
    })
}

/// Ends the stream with the error -303: when this returns, the next read is that error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_canceller_cancel(canceller: *const antiphon_canceller) {
    quietly((), || {
        // SAFETY: NULL or a canceller that lives.
        if let Ok(canceller) = unsafe { lent(canceller, "canceller") } {
            canceller.0.cancel();
        }
    });
}

/// Frees a canceller; NULL is fine. It cancels nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_canceller_free(canceller: *mut antiphon_canceller) {
    // SAFETY: NULL or a canceller that lives.
    unsafe { free(canceller) };
}

/// Frees a stream, and cancels what still runs; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_stream_free(stream: *mut antiphon_stream) {
    // SAFETY: NULL, or a stream that nobody else uses.
    unsafe { free(stream) };
}

/// Understands and answers a message, calling `fn` with every event on this thread. If it returns ANTIPHON_STOP the work ends,
/// it is not called again, and the reply has what there was, its finish reason being "cancelled". `out` may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_stream_each(
    engine: *const antiphon_engine,
    request: *const antiphon_request,
    r#fn: antiphon_event_fn,
    user_data: *mut c_void,
    out: *mut *mut antiphon_reply,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: `out` is NULL or a place, as the header asks.
        let out = if out.is_null() { None } else { Some(unsafe { place(out, "out") }?) };
        // SAFETY: the header asks for an engine and a request.
        let (engine, request) = unsafe { (lent(engine, "engine")?, lent(request, "request")?) };
        let each = r#fn.ok_or_else(|| null("fn"))?;
        // The callback may free the engine.
        let engine = engine.engine.clone();
        let reply = engine.on_event(request.to_process(), |event| {
            let lending = Lending::from(event);
            let event = lending.describe();
            // SAFETY: the host's function, with what the header says.
            match unsafe { each(&raw const event, user_data) } {
                ANTIPHON_CONTINUE => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        })?;
        if let Some(out) = out {
            *out = boxed(antiphon_reply::new(reply));
        }
        Ok(0)
    })
}

impl antiphon_stream {
    pub(crate) fn new(stream: ReplyStream) -> Self {
        Self { stream, lending: Lending::Nothing, waker: None }
    }

    fn next(&mut self, timeout: Duration) -> Poll<Option<Result<Event, Error>>> {
        let Some(waker) = self.waker.as_ref().map(|waker| Waker::from(Arc::clone(waker))) else {
            return self.stream.next_blocking(timeout);
        };
        if !timeout.is_zero()
            && let Poll::Ready(item) = self.stream.next_blocking(timeout)
        {
            return Poll::Ready(item);
        }
        Pin::new(&mut self.stream).poll_next(&mut Context::from_waker(&waker))
    }

    /// Lets go of the waker: when this returns it is not being called, and it is never called again.
    fn silence(&mut self) {
        if let Some(waker) = self.waker.take() {
            drop(waker.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl Drop for antiphon_stream {
    fn drop(&mut self) {
        self.silence();
    }
}

/// The host's function, until the stream lets go of it. The engine may keep the waker for longer.
struct HostWaker(Mutex<Option<Host>>);

struct Host {
    wake: unsafe extern "C" fn(*mut c_void),
    user_data: *mut c_void,
    drop: antiphon_drop_fn,
}

// SAFETY: the header says that the waker is called from other threads.
unsafe impl Send for Host {}

impl Wake for HostWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Held while the host is called, so that `silence` waits for it.
        if let Some(host) = &*self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            // SAFETY: the host's function, with its own pointer.
            unsafe { (host.wake)(host.user_data) };
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the host's function, with its own pointer, once.
            unsafe { drop(self.user_data) };
        }
    }
}
