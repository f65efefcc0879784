//! A memory allocator that overwrites memory when it is freed.
//!
//! Secrets pass through libraries that do not overwrite their copies: big integers, parsers, HTTP headers. With this allocator
//! none of those copies outlives its use. Locking the pages is up to the owner of a secret ([`super::Secret`]).
//!
//! This file has unsafe code (tests/structure allows it here), because the trait of allocators is unsafe.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

/// Largest size of memory that is overwritten, in bytes. Secrets and the buffers that they pass through are smaller. Decoded
/// blocks and stored bytes, which are larger, are not overwritten for the sake of speed.
const MAX_WIPED: usize = 64 << 10;

/// The allocator of the system, with memory overwritten when it is freed, up to 64 KiB each. To be used as
/// `#[global_allocator]`.
#[derive(Debug)]
pub struct WipingAllocator;

// SAFETY: all memory is that of `System`, with the same layouts. It is written only between its allocation and its release, and
// never beyond its size.
unsafe impl GlobalAlloc for WipingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller meets the same conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller meets the same conditions.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: `memory` was allocated with `layout` and is freed only afterwards.
        unsafe {
            wipe(memory, layout.size());
            System.dealloc(memory, layout);
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if layout.size() > MAX_WIPED {
            // SAFETY: the caller meets the same conditions.
            return unsafe { System.realloc(memory, layout, new_size) };
        }
        // The system's function may move the content and leave a copy.
        // SAFETY: `new_size` is not zero and does not overflow with this alignment, as the caller guarantees. Both pieces of
        // memory have at least the number of bytes that are copied, and they do not overlap.
        unsafe {
            let new = System.alloc(Layout::from_size_align_unchecked(new_size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(memory, new, layout.size().min(new_size));
                self.dealloc(memory, layout);
            }
            new
        }
    }
}

/// Overwrites `size` bytes of `memory`, unless they are more than [`MAX_WIPED`].
///
/// # Safety
/// They can be written.
unsafe fn wipe(memory: *mut u8, size: usize) {
    if size > MAX_WIPED {
        return;
    }
    // SAFETY: the caller guarantees it. The bytes are not read by another thread, because their owner frees them.
    unsafe {
        ptr::write_bytes(memory, 0, size);
        // The compiler could leave out a write to memory that is freed next.
        zeroize::optimization_barrier(&*memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of a freed piece of memory have the allocator's own data, the others remain.
    const OWN: usize = 64;

    /// The bytes at `memory` as another process would see them.
    fn bytes_at(memory: *const u8, size: usize) -> Vec<u8> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; size];
        let file = std::fs::File::open("/proc/self/mem").unwrap();
        file.read_exact_at(&mut bytes, memory as u64).unwrap();
        bytes
    }

    #[test]
    fn freed_and_moved_memory_is_overwritten() {
        for size in [200, 1000, 20_000, MAX_WIPED] {
            let layout = Layout::from_size_align(size, 8).unwrap();
            // SAFETY: as the trait demands.
            let (first, second) = unsafe {
                let first = WipingAllocator.alloc(layout);
                ptr::write_bytes(first, 0x5a, size);
                // Memory after it prevents the allocator from growing in place, and from returning pages to the system.
                let next = WipingAllocator.alloc(layout);
                let second = WipingAllocator.realloc(first, layout, size + 4096);
                assert!(bytes_at(second, size).iter().all(|&byte| byte == 0x5a), "{size}");
                let grown = Layout::from_size_align(size + 4096, 8).unwrap();
                let end = WipingAllocator.alloc(layout);
                WipingAllocator.dealloc(second, grown);
                WipingAllocator.dealloc(next, layout);
                WipingAllocator.dealloc(end, layout);
                (first, second)
            };
            for memory in [first, second].into_iter().take(if size + 4096 > MAX_WIPED { 1 } else { 2 }) {
                let left = bytes_at(memory, size);
                assert!(left[OWN..].iter().all(|&byte| byte != 0x5a), "{size}: a copy is left");
            }
        }
    }
}
