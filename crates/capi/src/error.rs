//! What went wrong.

use std::ffi::{CString, c_char};
use std::sync::LazyLock;

use antiphon::{Error, ErrorKind};

use crate::guard::{boxed, free, lent, quietly};
use crate::text::{Text, antiphon_text, json};

/// Why a call failed. Owned by the caller; it holds no text of a user.
pub struct antiphon_error {
    error: Error,
    message: Text,
    hint: Text,
    json: Text,
}

/// The version of this interface. Within one version names and fields are only added.
pub const ANTIPHON_ABI_VERSION: u32 = 1;

/// The call did what it says.
pub const ANTIPHON_OK: i32 = 0;
/// A stream has ended.
pub const ANTIPHON_DONE: i32 = 1;
/// Nothing came within the time.
pub const ANTIPHON_PENDING: i32 = 2;

/// What a callback returns to go on,
pub const ANTIPHON_CONTINUE: i32 = 0;
/// and to stop.
pub const ANTIPHON_STOP: i32 = 1;

/// The version of the library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn antiphon_version() -> *const c_char {
    const VERSION: &std::ffi::CStr =
        match std::ffi::CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

/// The version of the interface that the library has: a host compares it with ANTIPHON_ABI_VERSION.
#[unsafe(no_mangle)]
pub extern "C" fn antiphon_abi_version() -> u32 {
    ANTIPHON_ABI_VERSION
}

/// The number of the failure, which every call returned, too; 0 for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_error_code(error: *const antiphon_error) -> i32 {
    // SAFETY: NULL or an error that lives.
    quietly(0, || unsafe { lent(error, "error") }.map_or(0, |error| error.error.kind().code()))
}

/// What happened: the thing, its value and what was expected. Lent until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_error_message(error: *const antiphon_error) -> antiphon_text {
    // SAFETY: NULL or an error that lives.
    unsafe { text_of(error, |error| &error.message) }
}

/// What to do about it. Lent until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_error_hint(error: *const antiphon_error) -> antiphon_text {
    // SAFETY: NULL or an error that lives.
    unsafe { text_of(error, |error| &error.hint) }
}

/// All of it as a JSON object. Lent until the error is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_error_json(error: *const antiphon_error) -> antiphon_text {
    // SAFETY: NULL or an error that lives.
    unsafe { text_of(error, |error| &error.json) }
}

/// Whether the same call can succeed later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_error_retryable(error: *const antiphon_error) -> bool {
    // SAFETY: NULL or an error that lives.
    quietly(false, || unsafe { lent(error, "error") }.is_ok_and(|error| error.error.is_retryable()))
}

/// After how many milliseconds to try again; -1 where that is not known.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_error_retry_after_ms(error: *const antiphon_error) -> i64 {
    quietly(-1, || {
        // SAFETY: NULL or an error that lives.
        let after = unsafe { lent(error, "error") }.ok().and_then(|error| error.error.retry_after());
        after.map_or(-1, |after| i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
    })
}

/// Frees an error; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_error_free(error: *mut antiphon_error) {
    // SAFETY: NULL or an error that lives.
    unsafe { free(error) };
}

/// The name of an error's number, such as "invalid_text" for -102: for ever, no need to free it. "unknown" for others.
#[unsafe(no_mangle)]
pub extern "C" fn antiphon_error_kind_name(code: i32) -> *const c_char {
    static NAMES: LazyLock<Vec<(i32, CString)>> = LazyLock::new(|| {
        ErrorKind::ALL
            .iter()
            .map(|kind| (kind.code(), CString::new(kind.name()).unwrap_or_default()))
            .collect()
    });
    quietly(c"unknown".as_ptr(), || {
        NAMES
            .iter()
            .find(|(number, _)| *number == code)
            .map_or(c"unknown".as_ptr(), |(_, name)| name.as_ptr())
    })
}

impl antiphon_error {
    pub(crate) fn boxed(error: &Error) -> *mut Self {
        boxed(Self {
            error: error.clone(),
            message: error.to_string().as_str().into(),
            hint: error.hint().into(),
            json: json(error).unwrap_or_default().as_str().into(),
        })
    }
}

/// # Safety
/// NULL or an error that lives.
unsafe fn text_of(error: *const antiphon_error, text: fn(&antiphon_error) -> &Text) -> antiphon_text {
    quietly(antiphon_text::EMPTY, || {
        // SAFETY: the caller's promise.
        unsafe { lent(error, "error") }.map_or(antiphon_text::EMPTY, |error| text(error).lend())
    })
}
