//! What a host puts into an engine: C functions behind the core's traits.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use antiphon::Generate;
use antiphon::plugin::{Generator, Level, Observer, PluginError, Plugins, SharedTier};

use crate::error::{ANTIPHON_CONTINUE, ANTIPHON_STOP, antiphon_error};
use crate::guard::{boxed, free, guard, lent_mut, null, quietly, sized};
use crate::request::antiphon_request;
use crate::text::{Text, antiphon_text, read_bytes, read_c};

/// What a host puts into an engine. antiphon_engine_open takes it.
pub struct antiphon_plugins(Plugins);

/// Where a plugin writes its bytes; lent during its call, for its thread alone.
pub struct antiphon_sink(*mut Writer<'static>);

/// Called once, when the library lets go of `user_data`; on any thread. May be NULL.
pub type antiphon_drop_fn = Option<unsafe extern "C" fn(user_data: *mut c_void)>;

/// A cache tier that engines share. Called from threads of the engine, a few at once, never from one that computes. A request
/// waits for `get` at most 20 ms. Set `struct_size` to sizeof; the functions are all needed but `drop`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct antiphon_shared_tier {
    pub struct_size: u32,
    pub user_data: *mut c_void,
    /// Writes the value of a key: 0 found, 1 not there, negative failed.
    pub get: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            key: *const c_char,
            key_len: usize,
            sink: *mut antiphon_sink,
        ) -> i32,
    >,
    /// Keeps a value for about `ttl_ms`, in place of an older one: 0, or negative where it failed.
    pub put: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            key: *const c_char,
            key_len: usize,
            value: *const c_char,
            value_len: usize,
            ttl_ms: u64,
        ) -> i32,
    >,
    /// Forgets a key; one that is not there is no failure: 0, or negative where it failed.
    pub remove:
        Option<unsafe extern "C" fn(user_data: *mut c_void, key: *const c_char, key_len: usize) -> i32>,
    pub drop: antiphon_drop_fn,
}

/// A model of the host's own. Called from threads of the engine, as many at once as run; it may block.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct antiphon_generator {
    pub struct_size: u32,
    pub user_data: *mut c_void,
    /// What the option `model` calls it; copied.
    pub name: *const c_char,
    /// Writes the answer in UTF-8 pieces as they come: 0, or negative where it failed. antiphon_request_json says what is asked,
    /// the last turn being `message`.
    pub generate: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            request: *const antiphon_request,
            sink: *mut antiphon_sink,
        ) -> i32,
    >,
    pub drop: antiphon_drop_fn,
}

/// Someone who is told what happens. Called on the thread on which it happens: it must not block, nor call the engine. Either
/// function may be NULL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct antiphon_observer {
    pub struct_size: u32,
    pub user_data: *mut c_void,
    /// A line for a log; `level` is 1 error, 2 warning, 3 information, 4 debugging.
    pub log: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            level: i32,
            target: antiphon_text,
            message: antiphon_text,
        ),
    >,
    /// Something that happened, with its numbers as a JSON object.
    pub event: Option<unsafe extern "C" fn(user_data: *mut c_void, name: antiphon_text, json: antiphon_text)>,
    pub drop: antiphon_drop_fn,
}

/// Writes bytes: ANTIPHON_CONTINUE, or ANTIPHON_STOP when no more are wanted.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_sink_write(
    sink: *mut antiphon_sink,
    bytes: *const c_char,
    len: usize,
) -> i32 {
    quietly(ANTIPHON_STOP, || {
        // SAFETY: NULL, or a sink that was lent to this call; `len` bytes are readable.
        let (sink, bytes) = unsafe { (lent_mut(sink, "sink"), read_bytes("bytes", bytes, len)) };
        let (Ok(sink), Ok(bytes)) = (sink, bytes) else { return ANTIPHON_STOP };
        // SAFETY: the writer lives as long as the sink is lent.
        match unsafe { (*sink.0)(bytes) } {
            ControlFlow::Continue(()) => ANTIPHON_CONTINUE,
            ControlFlow::Break(()) => ANTIPHON_STOP,
        }
    })
}

/// No plugins yet. Freed with antiphon_plugins_free, unless an engine takes them.
#[unsafe(no_mangle)]
pub extern "C" fn antiphon_plugins_new() -> *mut antiphon_plugins {
    quietly(std::ptr::null_mut(), || boxed(antiphon_plugins(Plugins::new())))
}

/// Frees plugins that no engine took; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_plugins_free(plugins: *mut antiphon_plugins) {
    // SAFETY: NULL or plugins that live.
    unsafe { free(plugins) };
}

/// Sets the cache tier that engines share. The struct is copied; its `drop` is called in the end, even if this call
/// fails for another reason than its size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_plugins_set_shared_tier(
    plugins: *mut antiphon_plugins,
    tier: *const antiphon_shared_tier,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: NULL or a struct of the caller's, which is read after its size.
        let tier = *unsafe { sized(tier, "tier") }?;
        let data = Data { pointer: tier.user_data, drop: tier.drop };
        let (Some(get), Some(put), Some(remove)) = (tier.get, tier.put, tier.remove) else {
            return Err(null("a function of tier"));
        };
        // SAFETY: NULL, or plugins that nobody else uses.
        let plugins = unsafe { lent_mut(plugins, "plugins") }?;
        plugins.change(|plugins| plugins.shared_tier(Arc::new(CTier { data, get, put, remove })));
        Ok(0)
    })
}

/// Adds a model of the host's own; else as antiphon_plugins_set_shared_tier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_plugins_add_generator(
    plugins: *mut antiphon_plugins,
    generator: *const antiphon_generator,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: NULL or a struct of the caller's, which is read after its size.
        let generator = *unsafe { sized(generator, "generator") }?;
        let data = Data { pointer: generator.user_data, drop: generator.drop };
        // SAFETY: NULL, or a text that ends in NUL.
        let name = unsafe { read_c("generator.name", generator.name) }?.to_owned();
        let generate = generator.generate.ok_or_else(|| null("generator.generate"))?;
        // SAFETY: NULL, or plugins that nobody else uses.
        let plugins = unsafe { lent_mut(plugins, "plugins") }?;
        plugins.change(|plugins| plugins.add_generator(Arc::new(CGenerator { data, name, generate })));
        Ok(0)
    })
}

/// Adds someone who is told what happens; else as antiphon_plugins_set_shared_tier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_plugins_add_observer(
    plugins: *mut antiphon_plugins,
    observer: *const antiphon_observer,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: NULL or a struct of the caller's, which is read after its size.
        let observer = *unsafe { sized(observer, "observer") }?;
        let data = Data { pointer: observer.user_data, drop: observer.drop };
        // SAFETY: NULL, or plugins that nobody else uses.
        let plugins = unsafe { lent_mut(plugins, "plugins") }?;
        plugins.change(|plugins| plugins.add_observer(Arc::new(CObserver { data, observer })));
        Ok(0)
    })
}

impl antiphon_plugins {
    /// # Safety
    /// NULL, or plugins that came from `antiphon_plugins_new` and that nobody uses any more.
    pub(crate) unsafe fn take(plugins: *mut Self) -> Plugins {
        if plugins.is_null() {
            return Plugins::new();
        }
        // SAFETY: the caller's promise.
        unsafe { Box::from_raw(plugins) }.0
    }

    fn change(&mut self, with: impl FnOnce(Plugins) -> Plugins) {
        self.0 = with(std::mem::take(&mut self.0));
    }
}

/// The host's own pointer, which it gets back in every call.
struct Data {
    pointer: *mut c_void,
    drop: antiphon_drop_fn,
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

type Writer<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;

/// Lends a sink for one call.
fn with_sink<R>(write: &mut Writer<'_>, call: impl FnOnce(*mut antiphon_sink) -> R) -> R {
    let write: *mut Writer<'_> = write;
    // SAFETY: only the lifetime is another: the sink does not outlive this call.
    let mut sink =
        antiphon_sink(unsafe { std::mem::transmute::<*mut Writer<'_>, *mut Writer<'static>>(write) });
    call(&raw mut sink)
}

struct CTier {
    data: Data,
    get: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *mut antiphon_sink) -> i32,
    put: unsafe extern "C" fn(*mut c_void, *const c_char, usize, *const c_char, usize, u64) -> i32,
    remove: unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> i32,
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

struct CGenerator {
    data: Data,
    name: String,
    generate: unsafe extern "C" fn(*mut c_void, *const antiphon_request, *mut antiphon_sink) -> i32,
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
        let asked = antiphon_request::of_generate(request);
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
                Ok("") => ControlFlow::Continue(()),
                Ok(text) => {
                    let flow = write(text);
                    stopped = flow.is_break();
                    flow
                }
                Err(_) => ControlFlow::Break(()),
            }
        };
        // SAFETY: the host's function, with what the header says.
        let status = with_sink(&mut write, |sink| unsafe {
            (self.generate)(self.data.pointer, &raw const asked, sink)
        });
        if broken || !pending.is_empty() && !stopped {
            return Err(PluginError::new("generate wrote bytes that are not UTF-8"));
        }
        fine("generate", status)
    }
}

struct CObserver {
    data: Data,
    observer: antiphon_observer,
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
