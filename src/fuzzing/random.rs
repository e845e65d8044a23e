//! Random choices for tests, from a seed: the same in the library's own tests and in those of the program.
#![allow(unreachable_pub)] // One crate includes it as a private module, the other by its path.

/// A source of numbers that a seed determines.
pub struct Random(fastrand::Rng);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(fastrand::Rng::with_seed(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// Below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0.usize(..limit.max(1))
    }

    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }
}

/// The number of random cases for each reader: `AGNEWS_FUZZ_CASES`, 20,000 by default.
pub fn cases() -> u64 {
    setting("AGNEWS_FUZZ_CASES", 20_000)
}

pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}
