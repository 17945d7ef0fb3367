//! Choosing an endpoint: pure functions over state that one worker owns.

/// Where one worker stands in choosing among one upstream's endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Turn {
    next: u32,
    /// Never zero.
    scrambled: u32,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            next: 0,
            scrambled: 0x9E37_79B9,
        }
    }
}

impl Turn {
    /// Round robin: the next of `n` positions that is usable; nothing if none is.
    #[must_use]
    pub fn next_of(&mut self, n: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let start = self.next as usize;
        self.next = self.next.wrapping_add(1);
        (0..n)
            .map(|step| start.wrapping_add(step) % n)
            .find(|&at| usable(at))
    }

    /// Of two positions, the next in turn and one drawn at random, the one with the smaller load:
    /// as even as round robin while all are alike, and a slow endpoint gets less.
    #[must_use]
    pub fn less_loaded_of(
        &mut self,
        n: usize,
        load: impl Fn(usize) -> u32,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let first = self.next_of(n, &usable)?;
        if n == 1 {
            return Some(first);
        }
        let second = ((u64::from(self.scramble()) * n as u64) >> 32) as usize;
        Some(if usable(second) && load(second) < load(first) {
            second
        } else {
            first
        })
    }

    /// Marsaglia's xorshift32.
    fn scramble(&mut self) -> u32 {
        let mut x = self.scrambled;
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.scrambled = x;
        x
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn round_robin_takes_turns_and_steps_over_what_is_unusable() {
        let mut turn = Turn::default();
        let mut next = |usable: fn(usize) -> bool| turn.next_of(3, usable);
        let all = [
            next(|_| true),
            next(|_| true),
            next(|_| true),
            next(|_| true),
        ];
        assert_eq!(all, [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(next(|at| at != 1), Some(2));
        assert_eq!(next(|_| false), None);
        assert_eq!(turn.next_of(0, |_| true), None);
    }

    #[test]
    fn endpoints_that_are_alike_share_evenly() {
        let mut turn = Turn::default();
        let mut hits = [0; 4];
        for _ in 0..4_000 {
            let at = turn.less_loaded_of(4, |_| 0, |_| true).expect("one");
            hits[at] += 1;
        }
        assert_eq!(hits, [1_000; 4]);
    }

    #[test]
    fn a_busy_endpoint_gets_less() {
        let in_flight = RefCell::new([0u32; 4]);
        let mut turn = Turn::default();
        for _ in 0..1_000 {
            let load = |at: usize| in_flight.borrow()[at];
            let at = turn.less_loaded_of(4, load, |_| true).expect("one");
            // The first one never finishes anything.
            if at == 0 {
                in_flight.borrow_mut()[0] += 1;
            }
        }
        assert!(in_flight.borrow()[0] < 100, "{in_flight:?}");
    }

    #[test]
    fn an_unusable_endpoint_is_never_chosen() {
        let mut turn = Turn::default();
        for _ in 0..100 {
            let at = turn.less_loaded_of(2, |at| u32::from(at == 0), |at| at == 0);
            assert_eq!(at, Some(0));
        }
        assert_eq!(turn.less_loaded_of(1, |_| 7, |_| true), Some(0));
    }
}
