//! Memory for packed weights, on huge pages if the system has them. A pass reads all weights once; with pages of 4 KiB it
//! looks up one for every 64 cache lines, which is a tenth of the time of a single text (BERT-base, 53 tokens).

use std::alloc::{alloc, dealloc, handle_alloc_error, Layout};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// A huge page of x86-64, and of aarch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;
/// The weights of many layers share a chunk: most are smaller than a huge page. What is not used of it takes no memory.
const CHUNK: usize = 32 << 20;
/// A cache line.
const LINE: usize = 64;

/// Memory from which [`Floats`] are taken in order. It is freed when the last of them is dropped.
struct Chunk {
    start: NonNull<u8>,
    bytes: usize,
    used: AtomicUsize,
}

// SAFETY: the memory belongs to nothing else, and each part of it to one `Floats`.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

/// What is taken from next, as long as some of it is in use.
static CURRENT: Mutex<Weak<Chunk>> = Mutex::new(Weak::new());

impl Chunk {
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, HUGE_PAGE).expect("the size of weights in memory fits an address")
    }

    fn new(bytes: usize) -> Chunk {
        let layout = Chunk::layout(bytes);
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        advise_huge_pages(start, bytes);
        Chunk { start, bytes, used: AtomicUsize::new(0) }
    }

    /// Where the next `bytes` start, if there is room.
    fn take(&self, bytes: usize) -> Option<NonNull<u8>> {
        let used = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            Some(used + bytes).filter(|&used| used <= self.bytes)
        });
        // SAFETY: the place lies inside the chunk.
        used.ok().map(|used| unsafe { self.start.add(used) })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { dealloc(self.start.as_ptr(), Chunk::layout(self.bytes)) }
    }
}

/// Asks Linux, whose default is to give huge pages only where a program asks for them. It may decline.
#[cfg(target_os = "linux")]
fn advise_huge_pages(start: NonNull<u8>, bytes: usize) {
    // SAFETY: the range is allocated, and the advice does not change what it holds.
    unsafe { libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise_huge_pages(_start: NonNull<u8>, _bytes: usize) {}

/// Floats that start at a cache line, all zero at first.
pub(super) struct Floats {
    start: NonNull<f32>,
    _chunk: Arc<Chunk>,
}

// SAFETY: the floats belong to this value alone.
unsafe impl Send for Floats {}
// SAFETY: as above.
unsafe impl Sync for Floats {}

impl Floats {
    pub(super) fn zeros(floats: usize) -> Floats {
        let bytes = (floats * size_of::<f32>()).next_multiple_of(LINE);
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = current.upgrade().and_then(|chunk| Some((chunk.take(bytes)?, chunk)));
        let (start, chunk) = shared.unwrap_or_else(|| {
            let chunk = Arc::new(Chunk::new(bytes.max(CHUNK)));
            *current = Arc::downgrade(&chunk);
            (chunk.take(bytes).expect("the chunk is large enough"), chunk)
        });
        drop(current);
        // SAFETY: this part of the chunk belongs to nothing else yet.
        unsafe { start.write_bytes(0, bytes) };
        Floats { start: start.cast(), _chunk: chunk }
    }

    pub(super) fn as_ptr(&self) -> *const f32 {
        self.start.as_ptr()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut f32 {
        self.start.as_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_do_not_overlap_and_outlive_each_other() {
        let sizes = [1, 17, 1 << 20, 3, CHUNK / 4 + 1, 40];
        let mut all: Vec<(usize, Floats)> = sizes.map(|size| (size, Floats::zeros(size))).into();
        for (i, (size, floats)) in all.iter_mut().enumerate() {
            assert_eq!(floats.as_ptr() as usize % LINE, 0);
            // SAFETY: there are that many floats.
            let floats = unsafe { core::slice::from_raw_parts_mut(floats.as_mut_ptr(), *size) };
            assert!(floats.iter().all(|&float| float == 0.0), "{size}");
            floats.fill(i as f32 + 1.0);
        }
        for first in 0..all.len() {
            for (i, (size, floats)) in all.iter().enumerate().skip(first) {
                // SAFETY: as above.
                let floats = unsafe { core::slice::from_raw_parts(floats.as_ptr(), *size) };
                assert!(floats.iter().all(|&float| float == i as f32 + 1.0), "{size}");
            }
            all[first].1 = Floats::zeros(1);
        }
    }
}
