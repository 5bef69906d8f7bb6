//! Text in and out.

use std::ffi::c_char;

use antiphon::{Error, ErrorKind};

use crate::guard::{free, lent, null, quietly};

/// Text that is lent: UTF-8, with a NUL behind its end that `len` does not count. Empty text has a `ptr`, too.
/// It lives as long as the handle it came from, or as its function says.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct antiphon_text {
    pub ptr: *const c_char,
    pub len: usize,
}

/// Text that the caller owns: JSON, or what Prometheus reads.
pub struct antiphon_string(Text);

/// The text of an owned string, lent until it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_string_text(string: *const antiphon_string) -> antiphon_text {
    quietly(antiphon_text::EMPTY, || {
        // SAFETY: NULL or a string that lives.
        unsafe { lent(string, "string") }.map_or(antiphon_text::EMPTY, |string| string.0.lend())
    })
}

/// Frees an owned string; NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn antiphon_string_free(string: *mut antiphon_string) {
    // SAFETY: NULL or a string that lives.
    unsafe { free(string) };
}

/// Text as it is lent: with a NUL behind it.
pub(crate) struct Text(Box<[u8]>);

impl Text {
    pub(crate) fn lend(&self) -> antiphon_text {
        antiphon_text { ptr: self.0.as_ptr().cast(), len: self.0.len() - 1 }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self([text.as_bytes(), &[0]].concat().into())
    }
}

impl antiphon_text {
    pub(crate) const EMPTY: Self = Self { ptr: c"".as_ptr(), len: 0 };
}

impl antiphon_string {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.into())
    }
}

/// A text of the caller.
///
/// # Safety
/// `len` bytes are readable at `ptr`; NULL is allowed.
pub(crate) unsafe fn read<'a>(name: &str, ptr: *const c_char, len: usize) -> Result<&'a str, Error> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { read_bytes(name, ptr, len) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        let what = format!("{name} is not UTF-8 from byte {} on", error.valid_up_to());
        Error::new(ErrorKind::InvalidText, what)
    })
}

/// Bytes of the caller; NULL only where there are none.
///
/// # Safety
/// `len` bytes are readable at `ptr`; NULL is allowed.
pub(crate) unsafe fn read_bytes<'a>(name: &str, ptr: *const c_char, len: usize) -> Result<&'a [u8], Error> {
    if ptr.is_null() {
        return if len == 0 { Ok(&[]) } else { Err(null(name)) };
    }
    if len > isize::MAX as usize {
        let what = format!("the length of {name} is {len}, expected one that fits in memory");
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(ptr.cast(), len) })
}

/// Text up to a NUL.
///
/// # Safety
/// NULL, or a text that ends in NUL.
pub(crate) unsafe fn read_c<'a>(name: &str, ptr: *const c_char) -> Result<&'a str, Error> {
    if ptr.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller's promise.
    let text = unsafe { std::ffi::CStr::from_ptr(ptr) };
    text.to_str().map_err(|error| {
        let what = format!("{name} is not UTF-8 from byte {} on", error.valid_up_to());
        Error::new(ErrorKind::InvalidArgument, what)
    })
}

/// A value as JSON text.
pub(crate) fn json(value: &impl serde::Serialize) -> Result<String, Error> {
    serde_json::to_string(value)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("writing JSON failed: {error}")))
}
