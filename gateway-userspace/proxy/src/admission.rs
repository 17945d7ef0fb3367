//! Whether one more connection may be opened: limits by process, by port and by source address.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;

use crate::limits::ConnectionLimits;

/// Open connections, counted in the ways that have limits. Asked once for each connection.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: ConnectionLimits,
    total: AtomicUsize,
    by_port: Mutex<HashMap<SocketAddr, usize>>,
    by_source: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
}

/// Locks over which source addresses are spread.
const SHARDS: usize = 64;

/// The place of one open connection; given back on drop.
#[derive(Debug)]
pub(crate) struct Permit {
    admission: Arc<Admission>,
    port: SocketAddr,
    source: IpAddr,
}

impl Admission {
    pub(crate) fn new(limits: ConnectionLimits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            total: AtomicUsize::new(0),
            by_port: Mutex::default(),
            by_source: std::array::from_fn(|_| Mutex::default()),
        })
    }

    /// A place for a connection from `source` to `port`, if no limit is reached.
    pub(crate) fn admit(self: &Arc<Self>, port: SocketAddr, source: IpAddr) -> Option<Permit> {
        if self.total.fetch_add(1, Ordering::Relaxed) >= self.limits.total {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if !count_up(&self.by_port, port, self.limits.per_port) {
            self.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        if !count_up(self.shard(source), source, self.limits.per_source) {
            count_down(&self.by_port, &port);
            self.total.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Permit {
            admission: Arc::clone(self),
            port,
            source,
        })
    }

    fn shard(&self, source: IpAddr) -> &Mutex<HashMap<IpAddr, usize>> {
        let hash = FixedState::default().hash_one(source);
        &self.by_source[hash as usize % SHARDS]
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Self {
            admission,
            port,
            source,
        } = self;
        count_down(admission.shard(*source), source);
        count_down(&admission.by_port, port);
        admission.total.fetch_sub(1, Ordering::Relaxed);
    }
}

fn count_up<K: Eq + Hash>(counts: &Mutex<HashMap<K, usize>>, key: K, limit: usize) -> bool {
    let mut counts = lock(counts);
    let open = counts.entry(key).or_default();
    let admitted = *open < limit;
    *open += usize::from(admitted);
    admitted
}

fn count_down<K: Eq + Hash>(counts: &Mutex<HashMap<K, usize>>, key: &K) {
    let mut counts = lock(counts);
    if let Some(open) = counts.get_mut(key) {
        *open -= 1;
        if *open == 0 {
            counts.remove(key);
        }
    }
}

/// The counts stay right whatever panicked while they were locked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_holds_by_itself_and_a_closed_connection_makes_room() {
        let limits = ConnectionLimits {
            total: 3,
            per_port: 2,
            per_source: 1,
            ..crate::Limits::default().connections
        };
        let admission = Admission::new(limits);
        let [port, other]: [SocketAddr; 2] = [80, 81].map(|p| ([10, 0, 0, 1], p).into());
        let source = |last| IpAddr::from([192, 0, 2, last]);

        let first = admission.admit(port, source(1));
        assert!(first.is_some());
        assert!(admission.admit(other, source(1)).is_none(), "one source");
        let _second = admission.admit(port, source(2));
        assert!(admission.admit(port, source(3)).is_none(), "one port");
        let _third = admission.admit(other, source(3));
        assert!(admission.admit(other, source(4)).is_none(), "all");
        drop(first);
        assert!(admission.admit(port, source(1)).is_some());
    }
}
