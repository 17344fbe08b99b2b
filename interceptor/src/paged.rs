//! The allocator: the system's, with pages of their own for buffers of 8 KiB.
//!
//! hyper holds four such buffers for each exchange that is open, and writes a few hundred bytes into
//! most. The system's allocator makes them of memory that was used before, so that all of it stays
//! resident. Here nothing else uses their pages, and what is never written takes no memory: some
//! 16 KiB of each open stream. The trade-off: a buffer takes a lock, and a system call where none is
//! kept; what is written into one stays resident as long as that is kept, 1 MiB at most. Where the system
//! makes huge pages of whatever it finds (`transparent_hugepage` is `always`), it may fill them in time.

use std::alloc::{GlobalAlloc, Layout, System};
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// What hyper makes its buffers of, in bytes: two pages.
const BUFFER_BYTES: NonZeroUsize = NonZeroUsize::new(8 << 10).unwrap();

/// Buffers that are kept for the next use.
const KEPT_MAX: usize = 128;

static KEPT: Mutex<Kept> = Mutex::new(Kept {
    buffers: [ptr::null_mut(); KEPT_MAX],
    number: 0,
});

/// Buffers that nobody uses: the first `number` of them.
struct Kept {
    buffers: [*mut u8; KEPT_MAX],
    number: usize,
}

#[expect(unsafe_code, reason = "pointers to memory that no thread uses")]
// SAFETY: a buffer that is kept belongs to whoever holds the lock.
unsafe impl Send for Kept {}

impl Kept {
    fn lock() -> MutexGuard<'static, Self> {
        KEPT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&mut self) -> Option<*mut u8> {
        self.number = self.number.checked_sub(1)?;
        self.buffers.get(self.number).copied()
    }

    /// Whether there was room for it.
    fn keep(&mut self, buffer: *mut u8) -> bool {
        let Some(place) = self.buffers.get_mut(self.number) else {
            return false;
        };
        *place = buffer;
        self.number = self.number.saturating_add(1);
        true
    }
}

/// The allocator of the program.
#[derive(Clone, Copy, Debug)]
pub struct Paged;

/// Whether it is a buffer of bytes. Other arrays of that size are written throughout, mostly.
fn is_buffer(layout: Layout) -> bool {
    layout.size() == BUFFER_BYTES.get() && layout.align() == 1
}

#[expect(unsafe_code, reason = "an anonymous mapping")]
fn map() -> *mut u8 {
    let may = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let mapped = unsafe { mmap_anonymous(None, BUFFER_BYTES, may, MapFlags::MAP_PRIVATE) };
    mapped.map_or(ptr::null_mut(), |mapped| mapped.cast().as_ptr())
}

#[expect(unsafe_code, reason = "it is an allocator")]
// SAFETY: memory of one kind of layout is mapped here, page by page, and given to one holder at a time;
// that of every other kind is the system's. A layout tells which, when it is freed as when it is made.
unsafe impl GlobalAlloc for Paged {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_buffer(layout) {
            let kept = Kept::lock().take();
            return kept.unwrap_or_else(map);
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_buffer(layout) {
            // A new mapping is zero; one that was kept is not.
            return map();
        }
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !is_buffer(layout) {
            // SAFETY: as the caller promises; the system allocated what is no buffer.
            return unsafe { System.dealloc(memory, layout) };
        }
        if !Kept::lock().keep(memory)
            && let Some(mapped) = NonNull::new(memory)
        {
            // SAFETY: a buffer is a mapping of that length, which nobody uses any more. Where the
            // kernel refuses, since it would have to split too many, the mapping is lost.
            let _lost = unsafe { munmap(mapped.cast(), BUFFER_BYTES.get()) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises a size that makes a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if !is_buffer(layout) && !is_buffer(wanted) {
            // SAFETY: as the caller promises; the system allocated what is no buffer.
            return unsafe { System.realloc(memory, layout, size) };
        }
        // SAFETY: the caller promises a size that is not zero.
        let moved = unsafe { self.alloc(wanted) };
        if !moved.is_null() {
            // SAFETY: both are as long as the shorter one, and apart.
            unsafe { ptr::copy_nonoverlapping(memory, moved, size.min(layout.size())) };
            // SAFETY: it was allocated with that layout, and is not used any more.
            unsafe { self.dealloc(memory, layout) };
        }
        moved
    }
}

#[cfg(test)]
#[expect(unsafe_code, reason = "it is an allocator")]
mod tests {
    use super::*;

    /// Memory of the allocator, as a vector has it.
    struct Memory(*mut u8, Layout);

    impl Memory {
        fn new(size: usize, make: impl FnOnce(Layout) -> *mut u8) -> Self {
            let layout = Layout::from_size_align(size, 1).unwrap();
            let memory = make(layout);
            assert!(!memory.is_null());
            Self(memory, layout)
        }

        fn of(size: usize) -> Self {
            // SAFETY: the size is not zero.
            Self::new(size, |layout| unsafe { Paged.alloc(layout) })
        }

        fn zeroed(size: usize) -> Self {
            // SAFETY: the size is not zero.
            Self::new(size, |layout| unsafe { Paged.alloc_zeroed(layout) })
        }

        fn grow_or_shrink(&mut self, size: usize) {
            // SAFETY: it has that layout, and the size is not zero.
            self.0 = unsafe { Paged.realloc(self.0, self.1, size) };
            self.1 = Layout::from_size_align(size, 1).unwrap();
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: it is so long, and nobody else's.
            unsafe { std::slice::from_raw_parts_mut(self.0, self.1.size()) }
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            // SAFETY: it has that layout, and is not used any more.
            unsafe { Paged.dealloc(self.0, self.1) };
        }
    }

    #[test]
    fn what_is_written_survives_every_change_of_size() {
        let mut memory = Memory::of(100);
        memory.bytes().fill(7);
        for size in [8191, 8192, 8193, 8192, 100_000, 8192, 100] {
            memory.grow_or_shrink(size);
            assert_eq!(memory.bytes()[..100], [7; 100], "{size} bytes");
            memory.bytes().fill(7);
        }
    }

    #[test]
    fn no_two_hold_the_same_buffer_and_a_zeroed_one_is_zero() {
        let size = BUFFER_BYTES.get();
        let mut held: Vec<_> = (0..2 * KEPT_MAX).map(|_| Memory::of(size)).collect();
        for (number, memory) in held.iter_mut().enumerate() {
            memory.bytes().fill(1);
            memory.bytes()[..8].copy_from_slice(&number.to_le_bytes());
        }
        for (number, memory) in held.iter_mut().enumerate() {
            assert_eq!(memory.bytes()[..8], number.to_le_bytes());
            assert!(memory.bytes()[8..].iter().all(|byte| *byte == 1));
        }
        drop(held);
        assert!(Kept::lock().number <= KEPT_MAX);
        assert!(Memory::zeroed(size).bytes().iter().all(|byte| *byte == 0));
    }
}
