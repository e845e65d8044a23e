//! Whether a kernel's work is shared out among threads.

use rayon::prelude::*;

/// Who does the work of one call. Batches that run beside each other take a thread each; a single text takes all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallelism {
    /// The calling thread alone.
    Single,
    /// The threads of the rayon pool that the call is made in.
    Pool,
}

impl Parallelism {
    /// How many threads may run.
    pub(super) fn threads(self) -> usize {
        match self {
            Parallelism::Single => 1,
            Parallelism::Pool => rayon::current_num_threads(),
        }
    }

    /// Runs `task` for each number below `count`, in no order that may be relied on.
    pub(super) fn for_each(self, count: usize, task: impl Fn(usize) + Send + Sync) {
        match self {
            Parallelism::Pool if count > 1 && self.threads() > 1 => {
                (0..count).into_par_iter().with_max_len(1).for_each(task)
            }
            _ => (0..count).for_each(task),
        }
    }
}
