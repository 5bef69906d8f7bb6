//! Every export goes through here: panics end in an error, and handles are looked at before they are used.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use antiphon::{Error, ErrorKind};

use crate::error::antiphon_error;
use crate::handle::{self, Handle};
use crate::probe;

pub(crate) use crate::handle::null;

/// Runs the body of an export that can fail. Its error goes to `out`, its code back to the caller.
pub(crate) fn guard(out: *mut *mut antiphon_error, body: impl FnOnce() -> Result<i32, Error>) -> i32 {
    let error = match call(body).unwrap_or_else(|panic| Err(from_panic(&*panic))) {
        Ok(status) => {
            // SAFETY: the header asks for NULL or a place for a pointer.
            unsafe { put(out, std::ptr::null_mut()) };
            return status;
        }
        Err(error) => error,
    };
    let code = error.kind().code();
    if !out.is_null() {
        // SAFETY: as above.
        unsafe { put(out, quietly(std::ptr::null_mut(), || antiphon_error::boxed(&error))) };
    }
    code
}

/// Runs the body of an export that cannot fail; if it panics all the same, nothing comes back.
pub(crate) fn quietly<T>(nothing: T, body: impl FnOnce() -> T) -> T {
    call(body).unwrap_or(nothing)
}

fn call<T>(body: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    let outer = handle::enter();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        probe::moment();
        body()
    }));
    handle::leave(outer, outcome.is_err());
    outcome
}

fn from_panic(panic: &(dyn Any + Send)) -> Error {
    // What a panic says may hold anything; where it happened is in the panic hook's output, which is the host's.
    let known = panic.downcast_ref::<&'static str>().copied().unwrap_or("no more is known");
    Error::new(ErrorKind::Internal, format!("a bug of this library: {known}"))
}

/// The object behind a handle.
///
/// # Safety
/// The handle is NULL or one that lives.
pub(crate) unsafe fn lent<'a, T: 'static>(handle: *const T, name: &str) -> Result<&'a T, Error> {
    probe::moment();
    if handle.is_null() {
        return Err(null(name));
    }
    handle::check(handle, name)?;
    // SAFETY: not NULL; the rest is the caller's promise.
    Ok(unsafe { &*handle })
}

/// The object behind a handle that nobody else uses until the call ends.
///
/// # Safety
/// The handle is NULL or one that lives, and no other thread uses it.
pub(crate) unsafe fn lent_mut<'a, T: 'static>(handle: *mut T, name: &str) -> Result<&'a mut T, Error> {
    probe::moment();
    if handle.is_null() {
        return Err(null(name));
    }
    handle::hold(handle, name)?;
    // SAFETY: not NULL; the rest is the caller's promise.
    Ok(unsafe { &mut *handle })
}

/// A place for a result: it holds NULL until there is one.
///
/// # Safety
/// NULL or a place for a pointer.
pub(crate) unsafe fn place<'a, T>(out: *mut *mut T, name: &str) -> Result<&'a mut *mut T, Error> {
    probe::moment();
    // SAFETY: the caller's promise.
    let place = unsafe { out.as_mut() }.ok_or_else(|| null(name))?;
    *place = std::ptr::null_mut();
    Ok(place)
}

/// Ends a handle; NULL is none.
///
/// # Safety
/// NULL, or one that came from `boxed` and was not freed before.
pub(crate) unsafe fn free<T: 'static>(handle: *mut T) {
    if handle.is_null() {
        return;
    }
    // SAFETY: the caller's promise.
    if let Ok(owned) = unsafe { Handle::from_raw(handle, "handle") } {
        quietly((), move || drop(owned));
    }
}

/// The object behind a handle that the call takes over; none for NULL.
///
/// # Safety
/// NULL, or one that came from `boxed` and was not freed before.
pub(crate) unsafe fn taken<T: 'static>(handle: *mut T, name: &str) -> Result<Option<Box<T>>, Error> {
    if handle.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller's promise.
    unsafe { Handle::from_raw(handle, name) }.map(|owned| Some(owned.into_box()))
}

/// Gives an object to the host.
pub(crate) fn boxed<T: 'static>(value: T) -> *mut T {
    probe::moment();
    Handle::new(value).into_raw()
}

/// A struct that may grow begins with how large the caller believes it to be; nothing else of it is read before that. What a
/// later version has behind the fields known here has to be zero: asking for nothing.
///
/// # Safety
/// NULL, or a struct that begins with so many bytes as its first `u32` says.
pub(crate) unsafe fn sized<'a, T>(at: *const T, name: &str) -> Result<&'a T, Error> {
    // SAFETY: the caller's promise.
    let behind = unsafe { behind(at, name) }?;
    // SAFETY: so many bytes are there.
    let added = unsafe { std::slice::from_raw_parts(at.add(1).cast::<u8>(), behind) };
    if added.iter().any(|byte| *byte != 0) {
        let what = format!(
            "{name} has a field set that this library does not know, expected zero or a later library"
        );
        return Err(Error::new(ErrorKind::InvalidArgument, what));
    }
    // SAFETY: not NULL, and it is large enough.
    Ok(unsafe { &*at })
}

/// The same, to be filled in. What a later version has behind the fields known here becomes zero.
///
/// # Safety
/// As `sized`, and nobody else uses it.
pub(crate) unsafe fn sized_mut<'a, T>(at: *mut T, name: &str) -> Result<&'a mut T, Error> {
    // SAFETY: the caller's promise.
    let behind = unsafe { behind(at, name) }?;
    // SAFETY: so many bytes are there.
    unsafe { at.add(1).cast::<u8>().write_bytes(0, behind) };
    // SAFETY: not NULL, and it is large enough.
    Ok(unsafe { &mut *at })
}

/// How many bytes the caller has behind what is known here.
///
/// # Safety
/// As `sized`.
unsafe fn behind<T>(at: *const T, name: &str) -> Result<usize, Error> {
    probe::moment();
    if at.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller's promise.
    let (given, known) = (unsafe { at.cast::<u32>().read() }, size_of::<T>());
    if (known..=LARGEST_STRUCT).contains(&(given as usize)) {
        return Ok(given as usize - known);
    }
    let what = format!("{name}.struct_size is {given}, expected sizeof, {known} or a little more");
    Err(Error::new(ErrorKind::InvalidArgument, what))
}

/// # Safety
/// `out` is NULL or a place for a pointer.
unsafe fn put<T>(out: *mut *mut T, value: *mut T) {
    // SAFETY: the caller's promise.
    if let Some(place) = unsafe { out.as_mut() } {
        *place = value;
    }
}

/// No version will have a larger one: what says so was never set.
const LARGEST_STRUCT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_an_error_and_the_next_call_is_fine() {
        for _ in 0..10_000 {
            let mut error = std::ptr::null_mut();
            let code = guard(&raw mut error, || std::panic::resume_unwind(Box::new("test")));
            assert_eq!(code, ErrorKind::Internal.code());
            assert!(!error.is_null());
            // SAFETY: it was just made.
            unsafe { free(error) };
        }
        assert_eq!(guard(std::ptr::null_mut(), || Ok(7)), 7);
        assert_eq!(quietly(3, || std::panic::resume_unwind(Box::new("test"))), 3);
    }
}
