//! Zeroed memory on cache-line boundaries, in large pages where it is large, and what is freed.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    origin: Origin,
}

/// What a block is given back to.
enum Origin {
    /// There are no bytes.
    Nothing,
    /// What the allocator gave.
    Allocator(NonNull<u8>, Layout),
    /// A part of this memory, which nobody else has.
    Room { _keeps: Arc<RoomMemory> },
}

/// Memory for many blocks that are made together and live about as long: the weights of a model. One by one they would be too
/// small for large pages, and fresh memory in small pages takes several times as long as reading the weights does.
///
/// Bytes that are never taken are never touched, so a room may be generous; it is given back with the last of its blocks.
pub struct Room(Option<Arc<RoomMemory>>);

struct RoomMemory {
    memory: Aligned,
    used: AtomicUsize,
}

impl Room {
    /// Room for so many bytes, if the system has them; else blocks are allocated one by one.
    pub fn new(bytes: usize) -> Room {
        let memory = Aligned::zeroed(bytes).filter(|_| bytes > 0);
        Room(memory.map(|memory| Arc::new(RoomMemory { memory, used: AtomicUsize::new(0) })))
    }

    /// The next block; allocated by itself where there is no room left for it.
    pub(crate) fn zeroed(&self, len: usize) -> Option<Aligned> {
        self.take(len).or_else(|| Aligned::zeroed(len))
    }

    fn take(&self, len: usize) -> Option<Aligned> {
        let room = self.0.as_ref()?;
        let whole = len.checked_next_multiple_of(LINE)?;
        let after = |used: usize| used.checked_add(whole).filter(|end| *end <= room.memory.len);
        let used = room.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, after).ok()?;
        // SAFETY: within the memory, which begins at a line; zero, as no range is taken twice.
        let at = unsafe { room.memory.at.add(used) };
        Some(Aligned { at, len, origin: Origin::Room { _keeps: Arc::clone(room) } })
    }
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
        Some(Aligned { at, len, origin: Origin::Allocator(start, layout) })
    }

    pub(crate) fn empty() -> Aligned {
        Aligned { at: NonNull::dangling(), len: 0, origin: Origin::Nothing }
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
        if let Origin::Allocator(start, layout) = self.origin {
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
    fn blocks_of_a_room_are_apart_and_outlive_it() {
        let room = Room::new(1000);
        let mut blocks: Vec<Aligned> = (0..20).map(|i| room.zeroed(i * 10).expect("a few bytes")).collect();
        drop(room);
        for (i, block) in blocks.iter_mut().enumerate() {
            assert!(block.bytes() == vec![0; i * 10]);
            assert!(block.as_ptr().addr().is_multiple_of(LINE) || block.len() == 0);
            block.bytes_mut().fill(i as u8);
        }
        assert!(blocks.iter().enumerate().all(|(i, block)| block.bytes() == vec![i as u8; i * 10]));
        let from_room = |block: &&Aligned| matches!(block.origin, Origin::Room { .. });
        assert!((5..15).contains(&blocks.iter().filter(from_room).count()));
    }

    #[test]
    fn too_much_memory_is_none() {
        assert!(Room::new(usize::MAX).zeroed(64).is_some_and(|block| block.len() == 64));
        assert!(Aligned::zeroed(usize::MAX).is_none());
        assert!(Aligned::zeroed(isize::MAX as usize - 64).is_none());
    }
}
