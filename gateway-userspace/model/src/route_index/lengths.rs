//! Which key lengths a table holds, and how early a match of some length can be.

/// The rank of a match, the first part of [`crate::ir::MatchOrder`].
pub(crate) type Rank = [u32; 5];

/// The lengths of a table's keys. Tells which probes can be left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lengths {
    /// Lengths below 256 that are in use.
    short: [u64; 4],
    /// By length, shortest first.
    all: Vec<Length>,
}

#[derive(Clone, Debug)]
struct Length {
    len: u32,
    users: u32,
    /// Not later than any match of this length; what was removed may have left it too early.
    own: Rank,
    /// The earliest `own` of this length and all shorter ones.
    floor: Rank,
}

impl Lengths {
    /// Counts one more match whose key has this length.
    pub fn add(&mut self, len: usize, rank: Rank) {
        let key = len as u32;
        match self.all.binary_search_by_key(&key, |l| l.len) {
            Ok(at) => {
                let found = &mut self.all[at];
                found.users += 1;
                if rank >= found.own {
                    return;
                }
                found.own = rank;
            }
            Err(at) => {
                let new = Length {
                    len: key,
                    users: 1,
                    own: rank,
                    floor: rank,
                };
                self.all.insert(at, new);
            }
        }
        self.renew();
    }

    /// Counts one match less.
    pub fn remove(&mut self, len: usize) {
        let Ok(at) = self.all.binary_search_by_key(&(len as u32), |l| l.len) else {
            return;
        };
        self.all[at].users -= 1;
        if self.all[at].users == 0 {
            self.all.remove(at);
            self.renew();
        }
    }

    /// Whether a key of this length is there.
    #[inline]
    pub fn contains(&self, len: usize) -> bool {
        match self.short.get(len / 64) {
            Some(bits) => bits >> (len % 64) & 1 == 1,
            None => self
                .all
                .binary_search_by_key(&(len as u32), |l| l.len)
                .is_ok(),
        }
    }

    /// The greatest length in use.
    #[inline]
    pub fn longest(&self) -> Option<usize> {
        self.all.last().map(|l| l.len as usize)
    }

    /// Whether a match with a key shorter than this may come before one of that rank.
    #[inline]
    pub fn may_precede(&self, len: usize, rank: &Rank) -> bool {
        self.all
            .iter()
            .rev()
            .find(|l| (l.len as usize) < len)
            .is_some_and(|l| l.floor <= *rank)
    }

    fn renew(&mut self) {
        self.short = [0; 4];
        let mut floor = [u32::MAX; 5];
        for length in &mut self.all {
            floor = floor.min(length.own);
            length.floor = floor;
            let len = length.len as usize;
            if let Some(bits) = self.short.get_mut(len / 64) {
                *bits |= 1 << (len % 64);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_covers_all_shorter_lengths() {
        let mut lengths = Lengths::default();
        lengths.add(4, [3; 5]);
        lengths.add(9, [5; 5]);
        lengths.add(300, [1; 5]);
        assert!(!lengths.may_precede(4, &[9; 5]));
        assert!(lengths.may_precede(5, &[3; 5]) && !lengths.may_precede(5, &[2; 5]));
        assert!(lengths.may_precede(300, &[4; 5]) && !lengths.may_precede(300, &[2; 5]));
        assert!(lengths.may_precede(1000, &[1; 5]));
        assert!(lengths.contains(9) && lengths.contains(300));
        assert!(!lengths.contains(5) && !lengths.contains(301));
        lengths.remove(4);
        assert!(!lengths.contains(4));
        assert!(!lengths.may_precede(10, &[4; 5]));
        assert_eq!(lengths.longest(), Some(300));
    }
}
