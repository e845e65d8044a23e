//! Per-thread buffers for the kernels' intermediate blocks and states, kept between calls: once they have grown to fit the largest
//! batch, nothing is allocated.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

/// A cache line. Buffers consist of whole ones, so no register of a packed block straddles two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A buffer of floats aligned to a cache line.
#[derive(Default)]
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    /// Reserves at least `floats` floats, all initialized but with leftover values, and returns the start.
    pub(super) fn reserve(&mut self, floats: usize) -> *mut f32 {
        let lines = floats.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        self.0.as_mut_ptr().cast()
    }

    /// The first `floats` floats, with leftover values.
    pub(super) fn floats(&mut self, floats: usize) -> &mut [f32] {
        let start = self.reserve(floats);
        // SAFETY: the lines hold at least that many floats, all initialized, and stay borrowed.
        unsafe { core::slice::from_raw_parts_mut(start, floats) }
    }
}

/// A linear layer's left factor.
#[derive(Default)]
pub(super) struct Left {
    /// Its packed rows.
    pub(super) lanes: Buffer,
    /// Their grids, if the precision uses grids.
    pub(super) grids: Buffer,
}

/// A thread's buffers by content, so a task and the call that it belongs to can run on one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// A linear layer's left factor.
    pub(super) left: Left,
    /// The one that its results become.
    pub(super) next: Left,
    /// Blocks of attention's left factor.
    pub(super) rows: Buffer,
    /// Blocks of some panels of a right factor.
    pub(super) panels: Buffer,
    /// A layer's states, in the order in which it computes them.
    pub(super) normed: Buffer,
    pub(super) query: Buffer,
    pub(super) key: Buffer,
    pub(super) value: Buffer,
    pub(super) context: Buffer,
    pub(super) attended: Buffer,
    pub(super) intermediate: Buffer,
    pub(super) gated: Buffer,
    /// Sums of a product that are not final yet.
    pub(super) sums: Buffer,
    /// Attention scores, which become a left factor as weights.
    pub(super) scores: Buffer,
    /// Attention values, the right factor to them.
    pub(super) values: Buffer,
    /// Attention keys and queries, rotated.
    pub(super) rotated: Buffer,
    /// Vectors of attention's distances, a right factor.
    pub(super) vectors: Buffer,
    /// Products with these vectors.
    pub(super) terms: Buffer,
    /// The same products for keys, one row per query.
    pub(super) key_terms: Buffer,
}

thread_local! {
    static OF_CALLS: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    static OF_TASKS: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// This thread's buffers, on loan until dropped. They are not passed to a closure because a kernel's body inside a
/// closure would not be compiled for its instruction set.
pub(super) struct Loan {
    /// `None` only while they are given back.
    scratch: Option<Box<Scratch>>,
    owner: &'static LocalKey<Cell<Option<Box<Scratch>>>>,
}

impl Loan {
    /// For a call, which may start tasks. A second call that starts on this thread before the first has finished (a
    /// waiting thread of a pool takes other work) gets fresh buffers.
    pub(super) fn for_call() -> Loan {
        Loan { scratch: Some(OF_CALLS.take().unwrap_or_default()), owner: &OF_CALLS }
    }

    /// For a task, which starts no other.
    pub(super) fn for_task() -> Loan {
        Loan { scratch: Some(OF_TASKS.take().unwrap_or_default()), owner: &OF_TASKS }
    }
}

impl Deref for Loan {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        self.scratch.as_ref().expect("the buffers are on loan")
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Scratch {
        self.scratch.as_mut().expect("the buffers are on loan")
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // The thread-local slot may be gone if the thread is exiting; the buffers are then dropped.
        let scratch = self.scratch.take();
        let _ = self.owner.try_with(|place| place.set(scratch));
    }
}
