//! How often a failed try is repeated, and how long to wait in between.

use std::time::Duration;

/// A limited number of tries with doubling waits.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Number of tries, including the first.
    pub tries: u32,
    /// The wait after the first failure.
    pub first_wait: Duration,
    /// Maximum wait, unless the server requests a longer one.
    pub longest_wait: Duration,
}

impl RetryPolicy {
    /// The wait after `failures` failed tries in a row, or `None` if there is no further try. A wait requested by the
    /// server, `asked`, lengthens it, or ends the tries if it is longer than `most`.
    pub(super) fn wait_after(&self, failures: u32, asked: Option<Duration>, most: Duration) -> Option<Duration> {
        let asked = asked.unwrap_or_default();
        if failures >= self.tries || asked > most {
            return None;
        }
        let doubled = self.first_wait.saturating_mul(1 << (failures.saturating_sub(1)).min(20));
        Some(doubled.min(self.longest_wait).max(asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_end() {
        let ms = Duration::from_millis;
        let policy = RetryPolicy { tries: 5, first_wait: ms(100), longest_wait: ms(300) };
        let wait = |failures, asked| policy.wait_after(failures, asked, ms(30_000));
        let waits: Vec<_> = (1..=5).map(|failures| wait(failures, None)).collect();
        assert_eq!(waits, [Some(ms(100)), Some(ms(200)), Some(ms(300)), Some(ms(300)), None]);
        assert_eq!(wait(1, Some(ms(2000))), Some(ms(2000)));
        assert_eq!(wait(1, Some(ms(30_001))), None);
        assert_eq!(policy.wait_after(1, Some(ms(30_001)), ms(40_000)), Some(ms(30_001)));
        assert_eq!(wait(5, Some(ms(1))), None);
    }
}
