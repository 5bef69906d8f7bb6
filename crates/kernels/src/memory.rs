//! Zeroed memory on cache-line boundaries, and what is freed.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Gives memory that was freed, but that the C library keeps for later, back to the system; does nothing where it is not glibc.
///
/// Worth it after something that happens once and frees a lot in small pieces, such as reading model files.
pub fn return_freed() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// An owned block of bytes, 64-byte aligned, zero at first. Pages nobody touches cost nothing.
pub(crate) struct Aligned {
    at: NonNull<u8>,
    len: usize,
}

// SAFETY: plain owned bytes, like a Box<[u8]>.
unsafe impl Send for Aligned {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// None where the system has not so much memory.
    pub(crate) fn zeroed(len: usize) -> Option<Aligned> {
        if len == 0 {
            return Some(Aligned { at: NonNull::dangling(), len });
        }
        let layout = Layout::from_size_align(len, LINE).ok()?;
        // SAFETY: the layout has a size above zero.
        let at = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(Aligned { at, len })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.at.as_ptr()
    }

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.at.as_ptr()
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are owned and were initialised by zeroes.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr(), self.len) }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(self.at.as_ptr(), Layout::from_size_align_unchecked(self.len, LINE)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_zero_aligned_and_writable() {
        for len in [0, 1, 63, 64, 65, 4096] {
            let mut memory = Aligned::zeroed(len).expect("a few bytes");
            assert_eq!(memory.bytes(), vec![0; len]);
            assert!(len == 0 || memory.as_ptr().addr().is_multiple_of(LINE));
            memory.bytes_mut().fill(7);
            assert_eq!(memory.bytes(), vec![7; len]);
        }
    }

    #[test]
    fn too_much_memory_is_none() {
        assert!(Aligned::zeroed(usize::MAX).is_none());
        assert!(Aligned::zeroed(isize::MAX as usize - 64).is_none());
    }
}
