//! Zeroed memory on cache-line boundaries, in large pages where it is large, and what is freed.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::mem::MaybeUninit;
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
    /// What the allocator gave; none where there are no bytes.
    whole: Option<(NonNull<u8>, Layout)>,
}

// SAFETY: plain owned bytes, like a Box<[u8]>.
unsafe impl Send for Aligned {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Aligned {}

impl Aligned {
    /// None where the system has not so much memory.
    pub(crate) fn zeroed(len: usize) -> Option<Aligned> {
        if len == 0 {
            return Some(Aligned::empty());
        }
        // An allocator that is asked for more than its usual alignment writes the zeroes itself. Asked for less it takes
        // fresh pages as they are; so the alignment is ours to make, with a line to spare.
        let layout = Layout::from_size_align(len.checked_add(LINE)?, 1).ok()?;
        // SAFETY: the layout has a size above zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        let skipped = start.addr().get().wrapping_neg() % LINE;
        // SAFETY: fewer than LINE bytes are skipped, and there are LINE more than are needed.
        let at = unsafe { start.add(skipped) };
        // SAFETY: `len` bytes from there on are owned and nobody else knows of them.
        ask_for_huge_pages(unsafe { std::slice::from_raw_parts_mut(at.as_ptr().cast(), len) });
        Some(Aligned { at, len, whole: Some((start, layout)) })
    }

    pub(crate) fn empty() -> Aligned {
        Aligned { at: NonNull::dangling(), len: 0, whole: None }
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
        if let Some((start, layout)) = self.whole {
            // SAFETY: allocated in `zeroed` with this very layout.
            unsafe { dealloc(start.as_ptr(), layout) }
        }
    }
}

/// Asks the system to back memory that is large, and not written yet, with large pages; it may refuse. A large page takes one fault
/// instead of 512, and one entry of the page table when weights and key/value blocks are read in strides.
pub fn ask_for_huge_pages(memory: &mut [MaybeUninit<u8>]) {
    #[cfg(target_os = "linux")]
    if memory.len() >= 2 * HUGE_PAGE {
        let skipped = memory.as_ptr().addr().wrapping_neg() % HUGE_PAGE;
        let whole = (memory.len() - skipped) / HUGE_PAGE * HUGE_PAGE;
        // SAFETY: whole large pages inside the memory; advice changes no contents.
        unsafe {
            libc::madvise(memory.as_mut_ptr().add(skipped).cast(), whole, libc::MADV_HUGEPAGE);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = memory;
}

/// Bytes of a large page on x86-64 and most of ARM.
#[cfg(target_os = "linux")]
const HUGE_PAGE: usize = 2 << 20;

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
