//! The engine: opening, asking, looking after, closing.

use std::ffi::c_char;
use std::time::Duration;

use antiphon::plugin::Plugins;
use antiphon::{Engine, EngineConfig, Error, ErrorKind, SummaryOptions};

use crate::answer::{antiphon_analysis, antiphon_reply};
use crate::error::antiphon_error;
use crate::guard::{boxed, free, guard, lent, null, place, quietly, taken};
use crate::handle::Handle;
use crate::plugins::antiphon_plugins;
use crate::request::antiphon_request;
use crate::text::{antiphon_string, antiphon_text, json, read};

/// An engine with its models. Any number of threads may use it at once.
pub struct antiphon_engine {
    pub(crate) engine: Engine,
    /// The process that opened it.
    pid: u32,
}

/// Opens an engine. The configuration is a JSON object; NULL and 0 are the defaults, with the models inside of the library.
/// `plugins` may be NULL; they are taken, even if this fails. Freed with antiphon_engine_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_open(
    config_json: *const c_char,
    len: usize,
    plugins: *mut antiphon_plugins,
    out: *mut *mut antiphon_engine,
    error: *mut *mut antiphon_error,
) -> i32 {
    // SAFETY: the header says that they are taken, whatever comes of the call.
    let plugins = unsafe { taken(plugins, "plugins") };
    guard(error, move || {
        // SAFETY: the header asks for a place and for `len` readable bytes.
        let (out, config) = unsafe { (place(out, "out")?, read("config_json", config_json, len)?) };
        let config =
            if config.is_empty() { EngineConfig::default() } else { EngineConfig::from_json(config)? };
        let plugins = plugins?.map_or_else(Plugins::new, |plugins| plugins.into_plugins());
        let engine = Engine::open_with(config, plugins)?;
        *out = boxed(antiphon_engine { engine, pid: std::process::id() });
        Ok(0)
    })
}

/// Takes no new requests and waits until those under way have ended, at most so long; then closes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_drain(
    engine: *const antiphon_engine,
    timeout_ms: u64,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: NULL or an engine that lives.
        unsafe { lent(engine, "engine") }?.engine.drain(Duration::from_millis(timeout_ms)).map(|()| 0)
    })
}

/// Ends everything: new calls and running work end with -107. Calling it again does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_close(
    engine: *const antiphon_engine,
    error: *mut *mut antiphon_error,
) -> i32 {
    // SAFETY: NULL or an engine that lives.
    guard(error, || unsafe { lent(engine, "engine") }?.engine.close().map(|()| 0))
}

/// Closes the engine and frees this handle; NULL is fine. Streams and conversations may be freed later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_free(engine: *mut antiphon_engine) {
    // SAFETY: NULL or an engine that lives.
    unsafe { free(engine) };
}

/// What a text means. Freed with antiphon_analysis_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analyze(
    engine: *const antiphon_engine,
    text: *const c_char,
    len: usize,
    out: *mut *mut antiphon_analysis,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, a place, and `len` readable bytes.
        let (out, engine, text) =
            unsafe { (place(out, "out")?, lent(engine, "engine")?, read("text", text, len)?) };
        *out = boxed(antiphon_analysis::new(engine.engine.analyze_blocking(text)?));
        Ok(0)
    })
}

/// What `count` texts mean, in as few passes as they fit in, into `count` places. One bad text fails the call, which names its
/// index; all places are NULL then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_analyze_batch(
    engine: *const antiphon_engine,
    texts: *const antiphon_text,
    count: usize,
    out: *mut *mut antiphon_analysis,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: NULL or an engine that lives.
        let engine = unsafe { lent(engine, "engine") }?;
        if count == 0 {
            return Ok(0);
        }
        if texts.is_null() || out.is_null() {
            return Err(null(if texts.is_null() { "texts" } else { "out" }));
        }
        if count > MOST_TEXTS {
            let what = format!("count is {count}, expected at most {MOST_TEXTS}");
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        // SAFETY: the header asks for `count` texts and places.
        let (texts, places) =
            unsafe { (std::slice::from_raw_parts(texts, count), std::slice::from_raw_parts_mut(out, count)) };
        places.fill(std::ptr::null_mut());
        let text = |(index, text): (usize, &antiphon_text)| {
            // SAFETY: the header asks for readable texts.
            unsafe { read(&format!("text {index}"), text.ptr, text.len) }
        };
        let texts = texts.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?;
        let analyses = engine.engine.analyze_batch_blocking(&texts)?.into_iter().map(antiphon_analysis::new);
        // All of them, before the first is the caller's.
        let handles: Vec<_> = analyses.map(Handle::new).collect();
        for (place, handle) in places.iter_mut().zip(handles) {
            *place = handle.into_raw();
        }
        Ok(0)
    })
}

/// Understands and answers a message. Freed with antiphon_reply_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_process(
    engine: *const antiphon_engine,
    request: *const antiphon_request,
    out: *mut *mut antiphon_reply,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, a request, and a place.
        let (out, engine, request) =
            unsafe { (place(out, "out")?, lent(engine, "engine")?, lent(request, "request")?) };
        *out = boxed(antiphon_reply::new(engine.engine.process_blocking(request.to_process())?));
        Ok(0)
    })
}

/// Continues the turns of a request, without analysis. Freed with antiphon_reply_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_generate(
    engine: *const antiphon_engine,
    request: *const antiphon_request,
    out: *mut *mut antiphon_reply,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, a request, and a place.
        let (out, engine, request) =
            unsafe { (place(out, "out")?, lent(engine, "engine")?, lent(request, "request")?) };
        *out = boxed(antiphon_reply::new(engine.engine.generate_blocking(request.to_generate())?));
        Ok(0)
    })
}

/// A summary of a text or a dialogue of any length. The options are a JSON object; NULL and 0 are the defaults. Freed with
/// antiphon_string_free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_summarize(
    engine: *const antiphon_engine,
    text: *const c_char,
    len: usize,
    options_json: *const c_char,
    options_len: usize,
    out: *mut *mut antiphon_string,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, a place, and readable bytes.
        let (out, engine, text, options) = unsafe {
            (
                place(out, "out")?,
                lent(engine, "engine")?,
                read("text", text, len)?,
                read("options_json", options_json, options_len)?,
            )
        };
        let options =
            if options.is_empty() { SummaryOptions::default() } else { SummaryOptions::from_json(options)? };
        *out = boxed(antiphon_string::new(&engine.engine.summarize_blocking(text, options)?));
        Ok(0)
    })
}

/// The vector of a text: unit length, near in meaning is near in angle. `*dimension` says how many numbers it has, also where
/// `capacity` is 0 and only that is asked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_embed(
    engine: *const antiphon_engine,
    text: *const c_char,
    len: usize,
    out: *mut f32,
    capacity: usize,
    dimension: *mut usize,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, readable bytes, and a place.
        let (engine, text, dimension) =
            unsafe { (lent(engine, "engine")?, read("text", text, len)?, dimension.as_mut()) };
        let dimension = dimension.ok_or_else(|| null("dimension"))?;
        *dimension = 0;
        let vectors = engine.engine.embed_blocking(&[text])?;
        let vector = vectors.first().map_or(&[][..], Vec::as_slice);
        *dimension = vector.len();
        if capacity == 0 {
            return Ok(0);
        }
        if out.is_null() {
            return Err(null("out"));
        }
        if capacity < vector.len() {
            let what = format!("capacity is {capacity}, expected at least {}", vector.len());
            return Err(Error::new(ErrorKind::InvalidArgument, what));
        }
        // SAFETY: the header asks for `capacity` numbers, which are enough.
        unsafe { std::ptr::copy_nonoverlapping(vector.as_ptr(), out, vector.len()) };
        Ok(0)
    })
}

/// Whether the engine takes requests.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_ready(engine: *const antiphon_engine) -> bool {
    // SAFETY: NULL or an engine that lives.
    quietly(false, || unsafe { lent(engine, "engine") }.is_ok_and(|engine| engine.engine.ready()))
}

/// How the engine is, as a JSON object. Freed with antiphon_string_free, like all that follow.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_health(
    engine: *const antiphon_engine,
    out: *mut *mut antiphon_string,
    error: *mut *mut antiphon_error,
) -> i32 {
    // SAFETY: an engine and places, as the header asks.
    unsafe { describe(engine, out, error, |engine| json(&engine.health())) }
}

/// Tests every part and says what to do about what failed, as a JSON object. Each responder writes a few tokens.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_diagnose(
    engine: *const antiphon_engine,
    out: *mut *mut antiphon_string,
    error: *mut *mut antiphon_error,
) -> i32 {
    // SAFETY: an engine and places, as the header asks.
    unsafe { describe(engine, out, error, |engine| json(&engine.diagnose())) }
}

/// The models that are loaded, as a JSON list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_models(
    engine: *const antiphon_engine,
    out: *mut *mut antiphon_string,
    error: *mut *mut antiphon_error,
) -> i32 {
    // SAFETY: an engine and places, as the header asks.
    unsafe { describe(engine, out, error, |engine| json(&engine.models())) }
}

/// What the engine counted and what it holds, as the text that Prometheus reads.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_engine_metrics(
    engine: *const antiphon_engine,
    out: *mut *mut antiphon_string,
    error: *mut *mut antiphon_error,
) -> i32 {
    // SAFETY: an engine and places, as the header asks.
    unsafe { describe(engine, out, error, |engine| Ok(engine.metrics_text())) }
}

/// What the response cache holds and how it has served, as a JSON object.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_cache_stats(
    engine: *const antiphon_engine,
    out: *mut *mut antiphon_string,
    error: *mut *mut antiphon_error,
) -> i32 {
    // SAFETY: an engine and places, as the header asks.
    unsafe { describe(engine, out, error, |engine| json(&engine.cache().stats())) }
}

/// Forgets the answers of a tenant; of all where `tenant` is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_cache_clear(
    engine: *const antiphon_engine,
    tenant: *const c_char,
    len: usize,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine, and `len` readable bytes or NULL.
        let (engine, named) = unsafe { (lent(engine, "engine")?, read("tenant", tenant, len)?) };
        engine.here()?.cache().clear(Some(named).filter(|_| !tenant.is_null()));
        Ok(0)
    })
}

/// Sets the bound on the bytes of the response cache; 0 switches it off.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_cache_resize(
    engine: *const antiphon_engine,
    max_bytes: u64,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: NULL or an engine that lives.
        unsafe { lent(engine, "engine") }?.here()?.cache().resize(max_bytes);
        Ok(0)
    })
}

/// Answers a request ahead of its time, so that an equal one is a hit: at low priority, and not at all when the answer is there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_cache_warm(
    engine: *const antiphon_engine,
    request: *const antiphon_request,
    error: *mut *mut antiphon_error,
) -> i32 {
    guard(error, || {
        // SAFETY: the header asks for an engine and a request.
        let (engine, request) = unsafe { (lent(engine, "engine")?, lent(request, "request")?) };
        engine.engine.cache().warm_blocking(request.to_process()).map(|()| 0)
    })
}

impl antiphon_engine {
    /// The engine, for what takes locks but asks for nothing: a child process may have inherited them locked.
    fn here(&self) -> Result<&Engine, Error> {
        if self.pid == std::process::id() {
            return Ok(&self.engine);
        }
        let what = "the engine was opened in another process, expected one opened after fork";
        Err(Error::new(ErrorKind::Forked, what))
    }
}

impl Drop for antiphon_engine {
    fn drop(&mut self) {
        // In a child process it was never ours to close.
        _ = self.engine.close();
    }
}

/// # Safety
/// `engine` is NULL or one that lives; `out` and `error` are NULL or places.
unsafe fn describe(
    engine: *const antiphon_engine,
    out: *mut *mut antiphon_string,
    error: *mut *mut antiphon_error,
    text: impl FnOnce(&Engine) -> Result<String, Error>,
) -> i32 {
    guard(error, || {
        // SAFETY: the caller's promise.
        let (out, engine) = unsafe { (place(out, "out")?, lent(engine, "engine")?) };
        *out = boxed(antiphon_string::new(&text(engine.here()?)?));
        Ok(0)
    })
}

/// More places than any machine has memory for analyses.
const MOST_TEXTS: usize = 1 << 24;
