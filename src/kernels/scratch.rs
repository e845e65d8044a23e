//! Memory that a thread's kernels write their intermediate blocks to: kept between calls, so that nothing is allocated
//! once it has grown to what the largest batch needs.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

/// A cache line. Buffers consist of whole ones, so that no register of a packed block straddles two.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

/// A buffer of floats that begins at a cache line.
#[derive(Default)]
pub(super) struct Buffer(Vec<Line>);

impl Buffer {
    /// The start of at least `floats` floats, all initialized; what they hold is left from the last use.
    pub(super) fn reserve(&mut self, floats: usize) -> *mut f32 {
        let lines = floats.div_ceil(16);
        if self.0.len() < lines {
            self.0.resize(lines, Line([0.0; 16]));
        }
        self.0.as_mut_ptr().cast()
    }

    /// The start of what was reserved.
    pub(super) fn as_ptr(&self) -> *const f32 {
        self.0.as_ptr().cast()
    }
}

/// The buffers of a thread, by what they hold, so that a task and the call that it is part of can run on one thread.
#[derive(Default)]
pub(super) struct Scratch {
    /// Blocks of a left factor.
    pub(super) rows: Buffer,
    /// The grids of a left factor's rows.
    pub(super) grids: Buffer,
    /// Blocks of some panels of a right factor.
    pub(super) panels: Buffer,
    /// Sums of a product that are not final yet.
    pub(super) sums: Buffer,
    /// Attention scores, which are a left factor once they are weights.
    pub(super) scores: Buffer,
    /// Attention values, the right factor to them.
    pub(super) values: Buffer,
    /// Attention keys and queries, rotated.
    pub(super) rotated: Buffer,
    /// Vectors of attention's distances, a right factor.
    pub(super) vectors: Buffer,
    /// Products with these vectors.
    pub(super) terms: Buffer,
    /// Such products of keys, a query a row.
    pub(super) key_terms: Buffer,
}

thread_local! {
    static OF_CALLS: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
    static OF_TASKS: Cell<Option<Box<Scratch>>> = const { Cell::new(None) };
}

/// This thread's buffers, on loan until dropped. Not a closure's argument: a kernel's body inside a closure would not
/// be compiled for its instruction set.
pub(super) struct Loan {
    scratch: Box<Scratch>,
    owner: &'static LocalKey<Cell<Option<Box<Scratch>>>>,
}

impl Loan {
    /// For a call, which may start tasks meanwhile. A second call that begins on this thread before the first has
    /// ended (a pool's thread that waits takes other work) gets fresh buffers.
    pub(super) fn for_call() -> Loan {
        Loan { scratch: OF_CALLS.take().unwrap_or_default(), owner: &OF_CALLS }
    }

    /// For a task, which starts no other.
    pub(super) fn for_task() -> Loan {
        Loan { scratch: OF_TASKS.take().unwrap_or_default(), owner: &OF_TASKS }
    }
}

impl Deref for Loan {
    type Target = Scratch;

    fn deref(&self) -> &Scratch {
        &self.scratch
    }
}

impl DerefMut for Loan {
    fn deref_mut(&mut self) -> &mut Scratch {
        &mut self.scratch
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // On a thread that is ending the place may be gone, and the buffers with it.
        let _ = self.owner.try_with(|place| place.set(Some(std::mem::take(&mut self.scratch))));
    }
}
