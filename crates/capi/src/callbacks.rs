//! C functions behind the core's traits.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::time::Duration;

use antiphon::plugin::{Generator, Level, Observer, PluginError, SharedTier, Stage};
use antiphon::{Generate, Reply, Request};

use crate::answer::antiphon_reply;
use crate::handle::Handle;
use crate::plugins::{antiphon_drop_fn, antiphon_observer, antiphon_sink};
use crate::request::antiphon_request;
use crate::text::Text;

/// The host's own pointer, which it gets back in every call.
pub(crate) struct Data {
    pub(crate) pointer: *mut c_void,
    pub(crate) drop: antiphon_drop_fn,
}

// SAFETY: the header says that plugins are called from any thread.
unsafe impl Send for Data {}
// SAFETY: and from several at once.
unsafe impl Sync for Data {}

impl Drop for Data {
    fn drop(&mut self) {
        if let Some(drop) = self.drop {
            // SAFETY: the host's function, with its own pointer, once.
            unsafe { drop(self.pointer) };
        }
    }
}

pub(crate) type Writer<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;

/// Lends a sink for one call.
fn with_sink<R>(write: &mut Writer<'_>, call: impl FnOnce(*mut antiphon_sink) -> R) -> R {
    let write: *mut Writer<'_> = write;
    // SAFETY: only the lifetime is another: the sink does not outlive this call.
    let write = unsafe { std::mem::transmute::<*mut Writer<'_>, *mut Writer<'static>>(write) };
    call(Handle::new(antiphon_sink(write)).lend())
}

pub(crate) struct CTier {
    pub(crate) data: Data,
    pub(crate) get: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *mut antiphon_sink) -> i32,
    pub(crate) put: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize, u64) -> i32,
    pub(crate) remove: unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> i32,
}

impl SharedTier for CTier {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, PluginError> {
        let mut value = Vec::new();
        let mut write = |bytes: &[u8]| {
            value.extend_from_slice(bytes);
            ControlFlow::Continue(())
        };
        // SAFETY: the host's function, with what the header says.
        let status = with_sink(&mut write, |sink| unsafe {
            (self.get)(self.data.pointer, key.as_ptr().cast(), key.len(), sink)
        });
        match status {
            0 => Ok(Some(value)),
            1 => Ok(None),
            _ => Err(failed("get", status)),
        }
    }

    fn put(&self, key: &[u8], value: &[u8], ttl: Duration) -> Result<(), PluginError> {
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let (k, v) = (key.as_ptr().cast(), value.as_ptr().cast());
        // SAFETY: the host's function, with what the header says.
        fine("put", unsafe { (self.put)(self.data.pointer, k, key.len(), v, value.len(), ttl) })
    }

    fn remove(&self, key: &[u8]) -> Result<(), PluginError> {
        // SAFETY: the host's function, with what the header says.
        fine("remove", unsafe { (self.remove)(self.data.pointer, key.as_ptr().cast(), key.len()) })
    }
}

pub(crate) struct CGenerator {
    pub(crate) data: Data,
    pub(crate) name: String,
    pub(crate) generate:
        unsafe extern "C" fn(*mut c_void, *const antiphon_request, *mut antiphon_sink) -> i32,
}

impl Generator for CGenerator {
    fn name(&self) -> &str {
        &self.name
    }

    fn generate(
        &self,
        request: &Generate,
        write: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), PluginError> {
        let asked = Handle::new(antiphon_request::of_generate(request));
        // Pieces may be cut inside of a character: the rest of it comes with the next one.
        let (mut pending, mut broken, mut stopped) = (Vec::new(), false, false);
        let mut write = |bytes: &[u8]| {
            pending.extend_from_slice(bytes);
            let whole = match std::str::from_utf8(&pending) {
                Ok(text) => text.len(),
                Err(error) if error.error_len().is_none() => error.valid_up_to(),
                Err(_) => {
                    broken = true;
                    return ControlFlow::Break(());
                }
            };
            let rest = pending.split_off(whole);
            let text = std::mem::replace(&mut pending, rest);
            match std::str::from_utf8(&text) {
                Ok(text) => {
                    let flow = write(text);
                    stopped = flow.is_break();
                    flow
                }
                Err(_) => ControlFlow::Break(()),
            }
        };
        // SAFETY: the host's function, with what the header says.
        let status =
            with_sink(&mut write, |sink| unsafe { (self.generate)(self.data.pointer, asked.lend(), sink) });
        if broken || !pending.is_empty() && !stopped {
            return Err(PluginError::new("generate wrote bytes that are not UTF-8"));
        }
        fine("generate", status)
    }
}

/// A stage of the host; each function may be missing.
pub(crate) struct CStage {
    pub(crate) data: Data,
    pub(crate) before: Option<unsafe extern "C" fn(*mut c_void, *mut antiphon_request) -> i32>,
    pub(crate) after:
        Option<unsafe extern "C" fn(*mut c_void, *const antiphon_reply, *mut antiphon_sink) -> i32>,
}

impl Stage for CStage {
    fn before(&self, request: &mut Request) -> Result<(), PluginError> {
        let Some(before) = self.before else { return Ok(()) };
        let seen = Handle::new(antiphon_request::of(std::mem::replace(request, Request::new(""))));
        // SAFETY: the host's function, with what the header says.
        let status = unsafe { before(self.data.pointer, seen.lend()) };
        *request = seen.into_box().to_process();
        fine("before", status)
    }

    fn holds_back(&self) -> bool {
        self.after.is_some()
    }

    fn after(&self, reply: &Reply) -> Result<Option<String>, PluginError> {
        let Some(after) = self.after else { return Ok(None) };
        let (seen, mut text) = (Handle::new(antiphon_reply::new(reply.clone())), Vec::new());
        let mut write = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            // One byte too many for the core, which says so.
            if text.len() <= MOST_BYTES { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        // SAFETY: the host's function, with what the header says.
        let status = with_sink(&mut write, |sink| unsafe { after(self.data.pointer, seen.lend(), sink) });
        fine("after", status)?;
        let text =
            String::from_utf8(text).map_err(|_| PluginError::new("after wrote bytes that are not UTF-8"))?;
        Ok(Some(text).filter(|text| !text.is_empty()))
    }
}

pub(crate) struct CObserver {
    pub(crate) data: Data,
    pub(crate) observer: antiphon_observer,
}

// SAFETY: functions, and the pointer that `Data` speaks of.
unsafe impl Send for CObserver {}
// SAFETY: as above.
unsafe impl Sync for CObserver {}

impl Observer for CObserver {
    fn log(&self, level: Level, target: &str, message: &str) {
        if let Some(log) = self.observer.log {
            let (target, message) = (Text::from(target), Text::from(message));
            // SAFETY: the host's function, with what the header says.
            unsafe { log(self.data.pointer, level as i32, target.lend(), message.lend()) };
        }
    }

    fn event(&self, name: &str, fields: &serde_json::Value) {
        if let Some(event) = self.observer.event {
            let (name, fields) = (Text::from(name), Text::from(fields.to_string().as_str()));
            // SAFETY: the host's function, with what the header says.
            unsafe { event(self.data.pointer, name.lend(), fields.lend()) };
        }
    }
}

fn fine(call: &str, status: i32) -> Result<(), PluginError> {
    if status < 0 { Err(failed(call, status)) } else { Ok(()) }
}

fn failed(call: &str, status: i32) -> PluginError {
    PluginError::new(format!("{call} returned {status}"))
}

/// More than an answer can be.
const MOST_BYTES: usize = 1 << 20;
