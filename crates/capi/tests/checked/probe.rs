//! What a debug build looks at, and a bug on demand.

use std::cell::Cell;
use std::panic::resume_unwind;

/// Handles are compared with those that were given out.
pub(crate) const CHECKED: bool = true;

/// Panics when its time has come, without a word to the panic hook.
pub(crate) fn moment() {
    let left = LEFT.get();
    LEFT.set(left.saturating_sub(1));
    if left == 1 {
        resume_unwind(Box::new("asked for"));
    }
}

/// This thread panics at the so manieth moment from now on; 0 is never. Gives how many moments were left of the last time.
#[unsafe(no_mangle)]
pub extern "C" fn antiphon_probe_panic_at(moment: u32) -> u32 {
    LEFT.replace(moment)
}

thread_local! {
    static LEFT: Cell<u32> = const { Cell::new(0) };
}
