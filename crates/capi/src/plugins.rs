//! What a host puts into an engine: C functions behind the core's traits.

use std::ffi::{c_char, c_void};
use std::ops::ControlFlow;
use std::sync::Arc;

use antiphon::plugin::Plugins;

use crate::answer::antiphon_reply;
use crate::callbacks::{CGenerator, CObserver, CStage, CTier, Data, Writer};
use crate::error::{ANTIPHON_CONTINUE, ANTIPHON_STOP, antiphon_error};
use crate::guard::{boxed, free, guard, lent_mut, null, quietly, sized};
use crate::request::antiphon_request;
use crate::text::{antiphon_text, read_bytes, read_c};

/// What a host puts into an engine. antiphon_engine_open takes it.
pub struct antiphon_plugins(Plugins);

/// Where a plugin writes its bytes; lent during its call, for its thread alone.
pub struct antiphon_sink(pub(crate) *mut Writer<'static>);

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

/// Someone who looks at every request before it is answered, and at every answer before it is told: moderation, redaction,
/// enrichment. Requests meet stages in the order in which they were added, answers in the opposite one. Either function may be
/// NULL. One that fails ends the request with "plugin_failed" (-208), and nothing of the answer is told.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct antiphon_stage {
    pub struct_size: u32,
    pub user_data: *mut c_void,
    /// Looks at a request and may set its keys, "message" among them: 0, or negative to refuse it. Of a request to
    /// antiphon_generate the message is the last turn. Called on the thread that asks, before its call returns.
    pub before: Option<unsafe extern "C" fn(user_data: *mut c_void, request: *mut antiphon_request) -> i32>,
    /// Looks at an answer and writes another in its place, in UTF-8, or nothing: 0, or negative where it must not be told.
    /// A stage that has this function holds answers back until it has seen them whole. Called from threads of the engine, as
    /// many at once as run; it may block, but not ask for an answer.
    pub after: Option<
        unsafe extern "C" fn(
            user_data: *mut c_void,
            reply: *const antiphon_reply,
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

/// Adds someone who looks at requests and answers; else as antiphon_plugins_set_shared_tier.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_plugins_add_stage(
    plugins: *mut antiphon_plugins,
    stage: *const antiphon_stage,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: NULL or a struct of the caller's, which is read after its size.
        let stage = *unsafe { sized(stage, "stage") }?;
        let data = Data { pointer: stage.user_data, drop: stage.drop };
        // SAFETY: NULL, or plugins that nobody else uses.
        let plugins = unsafe { lent_mut(plugins, "plugins") }?;
        let (before, after) = (stage.before, stage.after);
        plugins.change(|plugins| plugins.add_stage(Arc::new(CStage { data, before, after })));
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
    pub(crate) fn into_plugins(self) -> Plugins {
        self.0
    }

    fn change(&mut self, with: impl FnOnce(Plugins) -> Plugins) {
        self.0 = with(std::mem::take(&mut self.0));
    }
}
