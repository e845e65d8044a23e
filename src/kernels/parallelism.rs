//! Whether a kernel splits its work among threads, and the threads that stand by while a text is computed.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Which threads do the work of a call. Batches that run concurrently take one thread each; a single text takes all.
#[derive(Debug, Clone, Copy)]
pub enum Parallelism<'a> {
    /// The calling thread alone.
    Single,
    /// The threads of the calling rayon pool, woken for each call.
    Pool,
    /// The threads of a team.
    Team(&'a Team),
}

impl Parallelism<'_> {
    /// The maximum number of threads.
    pub(super) fn threads(self) -> usize {
        match self {
            Parallelism::Single => 1,
            Parallelism::Pool => rayon::current_num_threads(),
            Parallelism::Team(team) => team.shares.len(),
        }
    }

    /// Runs `task` for each number below `count`, in no particular order.
    pub(super) fn for_each(self, count: usize, task: impl Fn(usize) + Send + Sync) {
        match self {
            Parallelism::Pool if count > 1 => Team::with(|team| team.for_each(count, task)),
            Parallelism::Team(team) if count > 1 && team.shares.len() > 1 => team.for_each(count, &task),
            _ => (0..count).for_each(task),
        }
    }
}

/// A helper without a task gives up its processor after this many looks for one, in case another thread of the team
/// needs it, and leaves after [`PATIENCE`].
const LOOKS: usize = 1 << 12;
/// Many times as long as the work of one thread between two calls of [`Team::for_each`].
const PATIENCE: Duration = Duration::from_millis(5);

/// The calling thread and helpers from its rayon pool, for as long as a function runs. The helpers wait for tasks
/// without sleeping: a pass through a model has about a hundred short parts, and waking a thread takes as long as many
/// of them.
///
/// The calling thread never waits for a helper that has not started: it can do every task itself. So a pool whose threads
/// are busy with other work only makes it slower.
pub struct Team {
    /// The tasks that each thread has not begun; a thread that has finished its own takes another's.
    shares: Vec<Share>,
    /// Tasks finished since the current work was given out.
    finished: AtomicUsize,
    work: UnsafeCell<Option<Work>>,
    is_over: AtomicBool,
    owner: ThreadId,
}

impl std::fmt::Debug for Team {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} threads", self.shares.len())
    }
}

/// What [`Team::for_each`] was given.
type Work = *const (dyn Fn(usize) + Sync);

// SAFETY: `work` is written by the owner only while no task is left to begin or to finish, and read by a thread only
// between beginning and finishing a task. What it points to is `Sync`.
unsafe impl Sync for Team {}
// SAFETY: as above.
unsafe impl Send for Team {}

/// The first and the end of a range of tasks, 32 bits each, on a cache line of its own.
#[repr(align(128))]
#[derive(Default)]
struct Share(AtomicU64);

impl Share {
    fn give(&self, first: usize, end: usize) {
        // Releases the work to whoever takes one of the tasks.
        self.0.store((first as u64) << 32 | end as u64, Ordering::Release);
    }

    /// Takes the first task, or the last, so neighbouring tasks stay with one thread.
    fn take(&self, is_own: bool) -> Option<usize> {
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |share| {
            let (first, end) = (share >> 32, share & u64::from(u32::MAX));
            (first < end).then(|| if is_own { share + (1 << 32) } else { share - 1 })
        });
        let share = taken.ok()?;
        Some(if is_own { share >> 32 } else { (share & u64::from(u32::MAX)) - 1 } as usize)
    }
}

impl Team {
    /// Runs `function` with a team of the calling thread and the other threads of its pool.
    pub fn with<R>(function: impl FnOnce(Parallelism) -> R) -> R {
        let threads = rayon::current_num_threads();
        let team = Team {
            shares: (0..threads).map(|_| Share::default()).collect(),
            finished: AtomicUsize::new(0),
            work: UnsafeCell::new(None),
            is_over: AtomicBool::new(false),
            owner: std::thread::current().id(),
        };
        rayon::in_place_scope(|scope| {
            for member in 1..threads {
                let team = &team;
                scope.spawn(move |_| team.help(member));
            }
            let _over = Over(&team);
            function(Parallelism::Team(&team))
        })
    }

    /// Runs `task` for each number below `count`. A task that panics makes this panic, after all others have ended.
    fn for_each(&self, count: usize, task: &(dyn Fn(usize) + Sync)) {
        let threads = self.shares.len();
        self.finished.store(0, Ordering::Relaxed);
        // SAFETY: all tasks of the work before have finished. The lifetime is extended only until `Rest` is dropped,
        // which waits for all tasks.
        unsafe { *self.work.get() = Some(std::mem::transmute::<&(dyn Fn(usize) + Sync), Work>(task)) };
        let rest = Rest { team: self, count };
        for (member, share) in self.shares.iter().enumerate() {
            share.give(count * member / threads, count * (member + 1) / threads);
        }
        while self.do_one(0) {}
        drop(rest);
    }

    /// Does a task, if one is left to begin.
    fn do_one(&self, member: usize) -> bool {
        let threads = self.shares.len();
        let others = (1..threads).map(|i| &self.shares[(member + i) % threads]);
        let Some(task) = self.shares[member].take(true).or_else(|| others.into_iter().find_map(|it| it.take(false)))
        else {
            return false;
        };
        let _finished = Finished(self);
        // SAFETY: this thread has begun a task and not finished it, so the work stays as it is and alive.
        let work = unsafe { (*self.work.get()).expect("tasks belong to some work") };
        // SAFETY: as above.
        unsafe { (*work)(task) };
        true
    }

    /// Does tasks until the team's function returns, or there have been none for a long time.
    fn help(&self, member: usize) {
        if std::thread::current().id() == self.owner {
            // The function itself waits for the pool, and this thread took a helper's part meanwhile.
            return;
        }
        let (mut looks, mut idle_since) = (0, None);
        while !self.is_over.load(Ordering::Relaxed) {
            if self.do_one(member) {
                (looks, idle_since) = (0, None);
                continue;
            }
            looks += 1;
            if looks % LOOKS != 0 {
                std::hint::spin_loop();
                continue;
            }
            if idle_since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Lets the helpers go, even if the team's function panics.
struct Over<'a>(&'a Team);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// A task that has begun; it counts as finished even if it panics.
struct Finished<'a>(&'a Team);

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        self.0.finished.fetch_add(1, Ordering::Release);
    }
}

/// The tasks that are not finished. Dropping it withdraws those that have not begun, of which there are some only if a
/// task of this thread panicked, and waits for the others.
struct Rest<'a> {
    team: &'a Team,
    count: usize,
}

impl Drop for Rest<'_> {
    fn drop(&mut self) {
        let withdrawn = self.team.shares.iter().map(|share| std::iter::from_fn(|| share.take(false)).count());
        let begun = self.count - withdrawn.sum::<usize>();
        let mut looks = 0;
        while self.team.finished.load(Ordering::Acquire) < begun {
            looks += 1;
            match looks % LOOKS {
                0 => std::thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{catch_unwind, AssertUnwindSafe};

    fn pool() -> rayon::ThreadPool {
        rayon::ThreadPoolBuilder::new().num_threads(4).build().unwrap()
    }

    #[test]
    fn every_task_runs_once_in_any_number_of_rounds() {
        pool().install(|| {
            Team::with(|team| {
                for count in (0..50).chain([1000]).cycle().take(2000) {
                    let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
                    team.for_each(count, |task| {
                        runs[task].fetch_add(1, Ordering::Relaxed);
                    });
                    assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "{count} tasks");
                }
            });
        });
    }

    #[test]
    fn teams_at_the_same_time_do_not_wait_for_each_other() {
        let sum = AtomicUsize::new(0);
        pool().scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|_| {
                    Parallelism::Pool.for_each(20, |task| {
                        // The pool's threads are all in some team.
                        Parallelism::Pool.for_each(task, |_| {
                            sum.fetch_add(1, Ordering::Relaxed);
                        });
                    });
                });
            }
        });
        assert_eq!(sum.into_inner(), 8 * (0..20).sum::<usize>());
    }

    #[test]
    fn a_panic_in_a_task_reaches_the_caller_and_no_task_is_left_behind() {
        let pool = pool();
        for bad in [0, 7, 19] {
            let ended = AtomicUsize::new(0);
            let result = catch_unwind(AssertUnwindSafe(|| {
                pool.install(|| {
                    Parallelism::Pool.for_each(20, |task| {
                        ended.fetch_add(1, Ordering::Relaxed);
                        assert_ne!(task, bad);
                    });
                })
            }));
            assert!(result.is_err() && ended.load(Ordering::Relaxed) <= 20);
        }
        // The pool is as good as new.
        pool.install(|| Parallelism::Pool.for_each(9, |_| {}));
    }
}
