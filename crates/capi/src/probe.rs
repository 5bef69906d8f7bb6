//! What the library may be asked to do besides its work. Here: nothing. The tests build the same sources with another file in
//! the place of this one, `tests/checked/probe.rs`, which looks at every handle and panics on demand.

/// Whether handles are compared with those that were given out.
pub(crate) const CHECKED: bool = cfg!(debug_assertions);

/// A moment at which a bug could show.
#[inline(always)]
pub(crate) fn moment() {}
