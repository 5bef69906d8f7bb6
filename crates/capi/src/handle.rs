//! The pointers that a host holds.
//!
//! Debug builds keep a list of those that are out there, and find one that was freed, never existed, is of another type or is
//! used by two calls at once without a look at the memory behind it. Every build remembers the few that a bug left behind.

use std::any::{TypeId, type_name};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use antiphon::{Error, ErrorKind};

use crate::probe::CHECKED;

/// An object that C knows by its address. Dropping it ends that.
pub(crate) struct Handle<T: 'static>(NonNull<T>);

impl<T> Handle<T> {
    pub(crate) fn new(value: T) -> Self {
        let object = NonNull::from(Box::leak(Box::new(value)));
        if CHECKED {
            let entry = Entry {
                kind: TypeId::of::<T>(),
                name: name_of::<T>(),
                owner: Owner::Library,
                is_busy: false,
            };
            given_out().insert(address(object.as_ptr()), entry);
        }
        Self(object)
    }

    /// Gives it to the host, who frees it.
    pub(crate) fn into_raw(self) -> *mut T {
        if CHECKED && let Some(entry) = given_out().get_mut(&address(self.0.as_ptr())) {
            entry.owner = Owner::Host;
        }
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }

    /// Takes it back from the host.
    ///
    /// # Safety
    /// It came from `into_raw`, and nobody uses it any more.
    pub(crate) unsafe fn from_raw(handle: *mut T, name: &str) -> Result<Self, Error> {
        if CHECKED {
            let mut given_out = given_out();
            let entry = find::<T>(&mut given_out, handle, name)?;
            if entry.owner == Owner::Library {
                return Err(refused(name, "is lent", "one that the caller owns"));
            }
            entry.owner = Owner::Library;
        }
        NonNull::new(handle).map(Self).ok_or_else(|| null(name))
    }

    /// The object, which C does not know any more.
    pub(crate) fn into_box(self) -> Box<T> {
        let object = std::mem::ManuallyDrop::new(self).0.as_ptr();
        forget(address(object));
        // SAFETY: it came from a box, and `self` was its only owner.
        unsafe { Box::from_raw(object) }
    }

    /// Where it is, for C to use while this lives.
    pub(crate) fn lend(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Handle<T> {
    fn drop(&mut self) {
        forget(address(self.0.as_ptr()));
        // SAFETY: it came from a box, and this is its only owner.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Looks at a handle that a call is going to use together with others.
pub(crate) fn check<T: 'static>(handle: *const T, name: &str) -> Result<(), Error> {
    check_whole(handle, name)?;
    if CHECKED {
        find::<T>(&mut given_out(), handle, name)?;
    }
    Ok(())
}

/// Looks at a handle that a call is going to use alone, and keeps others away until the call ends.
pub(crate) fn hold<T: 'static>(handle: *mut T, name: &str) -> Result<(), Error> {
    check_whole(handle, name)?;
    if CHECKED {
        find::<T>(&mut given_out(), handle, name)?.is_busy = true;
    }
    HELD.set(address(handle));
    Ok(())
}

/// A call begins; gives what `leave` wants to know.
pub(crate) fn enter() -> usize {
    HELD.replace(0)
}

/// A call ends: by a panic, its handle answers to nothing any more but to being freed.
pub(crate) fn leave(outer: usize, panicked: bool) {
    let held = HELD.replace(outer);
    if held == 0 {
        return;
    }
    if CHECKED && let Some(entry) = given_out().get_mut(&held) {
        entry.is_busy = false;
    }
    if panicked {
        left_behind().push(held);
        LEFT_BEHIND.store(true, Ordering::Relaxed);
    }
}

pub(crate) fn null(name: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} is NULL, expected a pointer"))
}

fn forget(address: usize) {
    if CHECKED && let Some(entry) = given_out().get_mut(&address) {
        entry.owner = Owner::Nobody;
    }
    if LEFT_BEHIND.load(Ordering::Relaxed) {
        left_behind().retain(|left| *left != address);
    }
}

struct Entry {
    kind: TypeId,
    name: &'static str,
    owner: Owner,
    /// A call uses it alone.
    is_busy: bool,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Owner {
    Host,
    /// It is lent: part of another object, or of a call.
    Library,
    /// It was freed, and its address is not yet that of another.
    Nobody,
}

/// The entry of a handle that may be used now.
fn find<'a, T: 'static>(
    given_out: &'a mut BTreeMap<usize, Entry>,
    handle: *const T,
    name: &str,
) -> Result<&'a mut Entry, Error> {
    let entry = given_out
        .get_mut(&address(handle))
        .ok_or_else(|| refused(name, "points to nothing of this library", "a handle that it gave out"))?;
    if entry.kind != TypeId::of::<T>() {
        return Err(refused(name, &format!("is an {}", entry.name), &format!("an {}", name_of::<T>())));
    }
    if entry.owner == Owner::Nobody {
        return Err(refused(name, "was freed", "a handle that lives"));
    }
    if entry.is_busy {
        return Err(refused(name, "is in use by another call", "one call at a time"));
    }
    Ok(entry)
}

/// After a panic nobody knows what state an object is in.
fn check_whole<T>(handle: *const T, name: &str) -> Result<(), Error> {
    if LEFT_BEHIND.load(Ordering::Relaxed) && left_behind().contains(&address(handle)) {
        let what = format!("{name} was left behind by a bug of this library, expected it to be freed");
        return Err(Error::new(ErrorKind::Internal, what));
    }
    Ok(())
}

fn refused(name: &str, is: &str, expected: &str) -> Error {
    Error::new(ErrorKind::InvalidArgument, format!("{name} {is}, expected {expected}"))
}

fn name_of<T>() -> &'static str {
    type_name::<T>().rsplit("::").next().unwrap_or("handle")
}

fn address<T>(handle: *const T) -> usize {
    handle.addr()
}

/// What debug builds know of the handles that are out there.
fn given_out() -> MutexGuard<'static, BTreeMap<usize, Entry>> {
    static GIVEN_OUT: Mutex<BTreeMap<usize, Entry>> = Mutex::new(BTreeMap::new());
    GIVEN_OUT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn left_behind() -> MutexGuard<'static, Vec<usize>> {
    static HANDLES: Mutex<Vec<usize>> = Mutex::new(Vec::new());
    HANDLES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether any handle was ever left behind.
static LEFT_BEHIND: AtomicBool = AtomicBool::new(false);

thread_local! {
    /// The handle that this thread's innermost call uses alone.
    static HELD: Cell<usize> = const { Cell::new(0) };
}
