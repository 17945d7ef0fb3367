//! Growing pauses with a random part, so that the nodes of a cluster do not all come at once.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(8);

/// How long to wait before the next try.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// It worked.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed again: the pause before the next try, of which half is random.
    pub fn pause(&mut self) -> Duration {
        let longest = FIRST
            .saturating_mul(1 << self.failures.min(10))
            .min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        let half = longest / 2;
        half + Duration::from_micros(random_below(
            u64::try_from(half.as_micros()).unwrap_or(u64::MAX),
        ))
    }
}

/// A random number below a limit, or 0 if that is 0.
pub fn random_below(limit: u64) -> u64 {
    // Each `RandomState` has keys of its own.
    RandomState::new().hash_one(limit) % limit.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_start_again() {
        let mut backoff = Backoff::default();
        let first = backoff.pause();
        assert!(first >= FIRST / 2 && first <= FIRST, "{first:?}");
        for _ in 0..100 {
            backoff.pause();
        }
        let long = backoff.pause();
        assert!(long >= LONGEST / 2 && long <= LONGEST, "{long:?}");
        backoff.reset();
        assert!(backoff.pause() <= FIRST);
    }
}
