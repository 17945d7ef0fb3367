//! Choosing an endpoint: pure functions over state that one worker owns.

use std::net::SocketAddr;

/// How an endpoint is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// One after the other.
    RoundRobin,
    /// The one with fewer requests in flight of two drawn ones: evens out slow endpoints, and a
    /// new one is not flooded.
    #[default]
    LeastOfTwo,
}

/// One worker's view of an upstream's endpoints: the addresses and its own requests in flight.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointLoad {
    /// Sorted by address.
    endpoints: Vec<(SocketAddr, u32)>,
    /// Requests in flight at endpoints that are no longer chosen.
    leaving: Vec<(SocketAddr, u32)>,
    cursor: u32,
}

impl EndpointLoad {
    /// Chooses from these addresses from now on; those that stay keep their requests in flight.
    pub fn replace(&mut self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let mut before = std::mem::take(&mut self.endpoints);
        before.append(&mut self.leaving);
        before.sort_unstable();
        let mut addresses: Vec<_> = addresses.into_iter().collect();
        addresses.sort_unstable();
        addresses.dedup();
        self.endpoints = addresses
            .into_iter()
            .map(|address| (address, taken(&mut before, address)))
            .collect();
        before.retain(|&(_, in_flight)| in_flight > 0);
        self.leaving = before;
    }

    /// How many endpoints there are to choose from.
    #[must_use]
    pub fn len(&self) -> usize {
        self.endpoints.len()
    }

    /// Whether there is none to choose from.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }

    /// Chooses an endpoint and counts a request in flight there. `point` is even over all of
    /// `u32`. Nothing if there is no endpoint.
    pub fn choose(&mut self, policy: Policy, point: u32) -> Option<SocketAddr> {
        let at = match policy {
            Policy::RoundRobin => round_robin(&mut self.cursor, self.endpoints.len())?,
            Policy::LeastOfTwo => {
                let (a, b) = two_of(self.endpoints.len(), point)?;
                if self.endpoints[b].1 < self.endpoints[a].1 {
                    b
                } else {
                    a
                }
            }
        };
        let (address, in_flight) = self.endpoints.get_mut(at)?;
        *in_flight += 1;
        Some(*address)
    }

    /// A request at this address has come to its end.
    pub fn finished(&mut self, address: SocketAddr) {
        if let Ok(at) = self.endpoints.binary_search_by_key(&address, |e| e.0) {
            self.endpoints[at].1 = self.endpoints[at].1.saturating_sub(1);
        } else if let Some(at) = self.leaving.iter().position(|e| e.0 == address) {
            self.leaving[at].1 -= 1;
            if self.leaving[at].1 == 0 {
                self.leaving.swap_remove(at);
            }
        }
    }

    /// This worker's requests in flight at an address.
    #[must_use]
    pub fn in_flight(&self, address: SocketAddr) -> u32 {
        let all = self.endpoints.iter().chain(&self.leaving);
        all.filter(|e| e.0 == address).map(|e| e.1).sum()
    }
}

/// The next of `n` positions; nothing if there is none.
#[must_use]
pub fn round_robin(cursor: &mut u32, n: usize) -> Option<usize> {
    let at = (*cursor as usize).checked_rem(n)?;
    *cursor = u32::try_from(at).ok()?.wrapping_add(1);
    Some(at)
}

/// Two different positions of `n`, drawn by a point that is even over all of `u32`; the same one
/// twice if there is only one, nothing if there is none.
#[must_use]
pub fn two_of(n: usize, point: u32) -> Option<(usize, usize)> {
    let scaled = |point: u32, n: usize| ((u64::from(point) * n as u64) >> 32) as usize;
    match n {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let first = scaled(point, n);
            // Another draw from the same point: the finalizer of MurmurHash3.
            let mixed = (point ^ (point >> 16)).wrapping_mul(0x85EB_CA6B);
            let mixed = (mixed ^ (mixed >> 13)).wrapping_mul(0xC2B2_AE35);
            let second = scaled(mixed ^ (mixed >> 16), n - 1);
            Some((first, second + usize::from(second >= first)))
        }
    }
}

fn taken(before: &mut [(SocketAddr, u32)], address: SocketAddr) -> u32 {
    before
        .binary_search_by_key(&address, |e| e.0)
        .map_or(0, |at| std::mem::take(&mut before[at].1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    fn load(n: u8) -> EndpointLoad {
        let mut load = EndpointLoad::default();
        load.replace((1..=n).map(address));
        load
    }

    fn even(i: u32) -> u32 {
        i.wrapping_mul(0x9E37_79B9)
    }

    #[test]
    fn round_robin_takes_turns() {
        let mut load = load(3);
        let chosen: Vec<_> = (0..4)
            .filter_map(|_| load.choose(Policy::RoundRobin, 0))
            .collect();
        assert_eq!(chosen, [1, 2, 3, 1].map(address));
    }

    #[test]
    fn a_busy_endpoint_gets_less() {
        let mut load = load(4);
        for i in 0..1_000 {
            let chosen = load.choose(Policy::LeastOfTwo, even(i)).expect("one");
            // The first endpoint never finishes anything.
            if chosen != address(1) {
                load.finished(chosen);
            }
        }
        assert!(load.in_flight(address(1)) < 10, "{load:?}");
    }

    #[test]
    fn two_draws_are_even_and_differ() {
        let mut hits = [[0; 5]; 2];
        for i in 0..10_000 {
            let (a, b) = two_of(5, even(i)).expect("two");
            assert_ne!(a, b);
            hits[0][a] += 1;
            hits[1][b] += 1;
        }
        assert!(
            hits.iter().flatten().all(|&n| (1_800..2_200).contains(&n)),
            "{hits:?}"
        );
        assert_eq!(two_of(1, 7), Some((0, 0)));
        assert_eq!(two_of(0, 7), None);
    }

    #[test]
    fn requests_in_flight_outlive_a_change_of_addresses() {
        let mut load = load(2);
        let first = load.choose(Policy::RoundRobin, 0).expect("one");
        load.replace([address(2), address(3), address(3)]);
        assert_eq!(load.len(), 2);
        assert_eq!(load.in_flight(first), 1);
        load.replace([first]);
        assert_eq!(load.in_flight(first), 1);
        load.finished(first);
        load.finished(first);
        assert_eq!(load.in_flight(first), 0);
        load.replace([]);
        assert_eq!(load.choose(Policy::LeastOfTwo, 0), None);
        assert_eq!(load.choose(Policy::RoundRobin, 0), None);
    }
}
