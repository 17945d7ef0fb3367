//! What the status writer counts.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Counters and gauges of statuses in a cluster, for `/metrics`.
#[derive(Debug, Default)]
pub struct Stats {
    leads: AtomicBool,
    counts: [AtomicU64; Count::ALL.len()],
    now: Mutex<Gauges>,
}

/// What can happen; each is a series of `sluice_status_writes_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A status was written.
    Written,
    /// It stood already.
    Skipped,
    /// The object was changed meanwhile; it was read again.
    Conflict,
    /// The object was gone.
    Gone,
    /// The API server refused or could not be reached.
    Failed,
    /// An Event was sent.
    Event,
    /// An Event was left out, for there were too many.
    EventDropped,
    /// A Service was created, changed or deleted.
    Service,
    /// This node's report was written.
    Report,
}

impl Count {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 9] = [
        Self::Written,
        Self::Skipped,
        Self::Conflict,
        Self::Gone,
        Self::Failed,
        Self::Event,
        Self::EventDropped,
        Self::Service,
        Self::Report,
    ];
}

/// What is true at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Objects whose status is to be written.
    pub queued: usize,
    /// For how long the oldest change has waited for nodes.
    pub lag: Duration,
    /// Nodes that report.
    pub live_nodes: usize,
    /// Nodes whose Lease is stale.
    pub stale_nodes: usize,
}

impl Stats {
    /// It happened.
    pub fn count(&self, what: Count) {
        self.counts[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often it happened.
    pub fn total(&self, what: Count) -> u64 {
        self.counts[what as usize].load(Ordering::Relaxed)
    }

    /// Whether this process is the writer now.
    pub fn led(&self, leads: bool) {
        self.leads.store(leads, Ordering::Relaxed);
    }

    /// Whether it is.
    pub fn leads(&self) -> bool {
        self.leads.load(Ordering::Relaxed)
    }

    /// This is how it stands.
    pub fn set(&self, gauges: Gauges) {
        if let Ok(mut now) = self.now.lock() {
            *now = gauges;
        }
    }

    /// How it stands.
    pub fn gauges(&self) -> Gauges {
        self.now.lock().map(|now| *now).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_its_own_place() {
        let stats = Stats::default();
        for (at, what) in Count::ALL.into_iter().enumerate() {
            assert_eq!(what as usize, at);
            stats.count(what);
            assert_eq!(stats.total(what), 1);
        }
    }
}
