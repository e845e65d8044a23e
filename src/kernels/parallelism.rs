//! Whether a kernel splits its work among threads.

use rayon::prelude::*;

/// Which threads do the work of a call. Batches that run concurrently take one thread each; a single text takes all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parallelism {
    /// The calling thread alone.
    Single,
    /// The threads of the calling rayon pool.
    Pool,
}

impl Parallelism {
    /// The maximum number of threads.
    pub(super) fn threads(self) -> usize {
        match self {
            Parallelism::Single => 1,
            Parallelism::Pool => rayon::current_num_threads(),
        }
    }

    /// Runs `task` for each number below `count`, in no particular order.
    pub(super) fn for_each(self, count: usize, task: impl Fn(usize) + Send + Sync) {
        match self {
            Parallelism::Pool if count > 1 && self.threads() > 1 => {
                (0..count).into_par_iter().with_max_len(1).for_each(task)
            }
            _ => (0..count).for_each(task),
        }
    }
}
