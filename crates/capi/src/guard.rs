//! Every export goes through here: panics end in an error, and handles are looked at before they are used.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use antiphon::{Error, ErrorKind};

use crate::error::antiphon_error;

/// Runs the body of an export that can fail. Its error goes to `out`, its code back to the caller.
pub(crate) fn guard(out: *mut *mut antiphon_error, body: impl FnOnce() -> Result<i32, Error>) -> i32 {
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(from_panic(&*panic)));
    let error = match outcome {
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
        unsafe { put(out, antiphon_error::boxed(&error)) };
    }
    code
}

/// Runs the body of an export that cannot fail; if it panics all the same, nothing comes back.
pub(crate) fn quietly<T>(nothing: T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(nothing)
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
pub(crate) unsafe fn lent<'a, T>(handle: *const T, name: &str) -> Result<&'a T, Error> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_ref() }.ok_or_else(|| null(name))
}

/// The object behind a handle that nobody else uses now.
///
/// # Safety
/// The handle is NULL or one that lives, and no other thread uses it.
pub(crate) unsafe fn lent_mut<'a, T>(handle: *mut T, name: &str) -> Result<&'a mut T, Error> {
    // SAFETY: the caller's promise.
    unsafe { handle.as_mut() }.ok_or_else(|| null(name))
}

/// A place for a result: it holds NULL until there is one.
///
/// # Safety
/// NULL or a place for a pointer.
pub(crate) unsafe fn place<'a, T>(out: *mut *mut T, name: &str) -> Result<&'a mut *mut T, Error> {
    // SAFETY: the caller's promise.
    let place = unsafe { out.as_mut() }.ok_or_else(|| null(name))?;
    *place = std::ptr::null_mut();
    Ok(place)
}

/// Ends a handle; NULL is none.
///
/// # Safety
/// NULL, or one that came from `Box::into_raw` and was not freed before.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        // SAFETY: the caller's promise.
        quietly((), || drop(unsafe { Box::from_raw(handle) }));
    }
}

pub(crate) fn boxed<T>(value: T) -> *mut T {
    Box::into_raw(Box::new(value))
}

pub(crate) fn null(name: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} is NULL, expected a pointer"))
}

/// A struct that may grow begins with how large the caller believes it to be; nothing else of it is read before that.
///
/// # Safety
/// NULL, or a struct that begins with so many bytes as its first `u32` says.
pub(crate) unsafe fn sized<'a, T>(at: *const T, name: &str) -> Result<&'a T, Error> {
    // SAFETY: the caller's promise.
    unsafe { check_size(at, name) }?;
    // SAFETY: as above, and it is large enough.
    unsafe { lent(at, name) }
}

/// The same, to be filled in.
///
/// # Safety
/// As `sized`, and nobody else uses it.
pub(crate) unsafe fn sized_mut<'a, T>(at: *mut T, name: &str) -> Result<&'a mut T, Error> {
    // SAFETY: the caller's promise.
    unsafe { check_size(at, name) }?;
    // SAFETY: as above, and it is large enough.
    unsafe { lent_mut(at, name) }
}

/// # Safety
/// As `sized`.
unsafe fn check_size<T>(at: *const T, name: &str) -> Result<(), Error> {
    if at.is_null() {
        return Err(null(name));
    }
    // SAFETY: the caller's promise.
    let (given, least) = (unsafe { at.cast::<u32>().read() }, size_of::<T>());
    if given as usize >= least {
        return Ok(());
    }
    let what = format!("{name}.struct_size is {given}, expected sizeof, at least {least}");
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
