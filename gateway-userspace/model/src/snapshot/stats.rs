//! A rule's counters: one slot per worker, written by that worker alone, read by summing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the duration histogram, in microseconds; one more bucket takes the rest.
pub const DURATION_BOUNDS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

const BUCKETS: usize = DURATION_BOUNDS_US.len() + 1;

/// Which worker is counting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkerIndex {
    /// From 0.
    pub index: u16,
    /// How many workers there are; the same for all of them.
    pub count: u16,
}

/// A rule's counters. Nothing is allocated before the first request; a worker's slot is allocated
/// by its own first one.
#[derive(Debug, Default)]
pub struct RuleStats {
    slots: OnceLock<Box<[OnceLock<Box<StatsSlot>>]>>,
}

/// One worker's counters of one rule, on cache lines of their own. One writer: plain loads and stores.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct StatsSlot {
    by_class: [AtomicU64; 6],
    durations: [AtomicU64; BUCKETS],
    duration_sum_us: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    drawn: AtomicU32,
}

/// What is counted of one finished request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The status sent to the client; 0 if there was none.
    pub status: u16,
    /// From the request's head to the end of the response.
    pub duration: Duration,
    /// Body bytes from the client.
    pub bytes_received: u64,
    /// Body bytes to the client.
    pub bytes_sent: u64,
}

/// The sum over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// Requests by status class: `[0]` without status, `[1]` 1xx to `[5]` 5xx.
    pub by_class: [u64; 6],
    /// Requests by duration; bounds are [`DURATION_BOUNDS_US`], not cumulative.
    pub durations: [u64; BUCKETS],
    /// Microseconds.
    pub duration_sum_us: u64,
    /// Body bytes from clients.
    pub bytes_received: u64,
    /// Body bytes to clients.
    pub bytes_sent: u64,
}

impl RuleTotals {
    /// All requests.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.by_class.iter().sum()
    }
}

impl RuleStats {
    /// The worker's own slot. Only that worker may write to it: two writers lose counts.
    #[must_use]
    pub fn slot(&self, worker: WorkerIndex) -> &StatsSlot {
        let slots = self
            .slots
            .get_or_init(|| (0..worker.count.max(1)).map(|_| OnceLock::new()).collect());
        let index = usize::from(worker.index) % slots.len();
        slots[index].get_or_init(|| {
            let slot = StatsSlot::default();
            // Workers start at different points of the sequence, or few requests would all draw alike.
            slot.drawn.store(u32::from(worker.index) * 0x9E37, Relaxed);
            Box::new(slot)
        })
    }

    /// Counts one finished request.
    pub fn record(&self, worker: WorkerIndex, outcome: &Outcome) {
        self.slot(worker).record(outcome);
    }

    /// Sums all workers.
    #[must_use]
    pub fn totals(&self) -> RuleTotals {
        let mut totals = RuleTotals::default();
        let slots = self.slots.get().into_iter().flatten();
        for slot in slots.filter_map(OnceLock::get) {
            slot.add_to(&mut totals);
        }
        totals
    }

    /// Requests so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.totals().requests()
    }
}

impl StatsSlot {
    /// Counts one finished request.
    pub fn record(&self, outcome: &Outcome) {
        let class = match outcome.status {
            status @ 100..=599 => usize::from(status / 100),
            _ => 0,
        };
        let us = u64::try_from(outcome.duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS_US.partition_point(|&bound| bound < us);
        add(&self.by_class[class], 1);
        add(&self.durations[bucket], 1);
        add(&self.duration_sum_us, us);
        add(&self.bytes_received, outcome.bytes_received);
        add(&self.bytes_sent, outcome.bytes_sent);
    }

    /// The next point of an even sequence over all of `u32`, for [`super::Forward::pick`]: after n
    /// draws each backend's share is off by a few requests, not by the square root of n.
    #[must_use]
    pub fn draw(&self) -> u32 {
        let drawn = self.drawn.load(Relaxed).wrapping_add(1);
        self.drawn.store(drawn, Relaxed);
        drawn.wrapping_mul(0x9E37_79B9)
    }

    fn add_to(&self, totals: &mut RuleTotals) {
        for (sum, class) in totals.by_class.iter_mut().zip(&self.by_class) {
            *sum += class.load(Relaxed);
        }
        for (sum, bucket) in totals.durations.iter_mut().zip(&self.durations) {
            *sum += bucket.load(Relaxed);
        }
        totals.duration_sum_us += self.duration_sum_us.load(Relaxed);
        totals.bytes_received += self.bytes_received.load(Relaxed);
        totals.bytes_sent += self.bytes_sent.load(Relaxed);
    }
}

fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_sum_the_workers() {
        let stats = RuleStats::default();
        assert_eq!(stats.totals(), RuleTotals::default());
        for index in 0..3 {
            let worker = WorkerIndex { index, count: 3 };
            stats.record(
                worker,
                &Outcome {
                    status: 204,
                    duration: Duration::from_micros(1_000),
                    bytes_received: 1,
                    bytes_sent: 2,
                },
            );
        }
        stats.record(WorkerIndex { index: 1, count: 3 }, &Outcome::default());
        let totals = stats.totals();
        assert_eq!(totals.requests(), 4);
        assert_eq!(totals.by_class, [1, 0, 3, 0, 0, 0]);
        assert_eq!((totals.durations[0], totals.durations[1]), (1, 3));
        assert_eq!(totals.duration_sum_us, 3_000);
        assert_eq!((totals.bytes_received, totals.bytes_sent), (3, 6));
    }

    #[test]
    fn draws_are_even() {
        let stats = RuleStats::default();
        let slot = stats.slot(WorkerIndex { index: 0, count: 1 });
        let low = (0..1_000).filter(|_| slot.draw() < u32::MAX / 10).count();
        assert!((98..=102).contains(&low), "{low}");
    }
}
