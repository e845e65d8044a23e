//! Random choices for tests, from a seed, shared by the library's own tests and those of the program.
#![allow(unreachable_pub)] // One crate includes it as a private module, the other by its path.

/// A random number generator with a seed.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(fastrand::Rng::with_seed(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number below `limit`; 0 if `limit` is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit.max(1))
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// The number of random cases per reader: `AGNEWS_FUZZ_CASES`, 20,000 by default.
pub fn cases() -> u64 {
    setting("AGNEWS_FUZZ_CASES", 20_000)
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
