//! Which object is written next: the one that has waited longest, none before its time, few at once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use gateway_model::names::ObjectRef;

/// Writes under way at once.
const MOST_AT_ONCE: usize = 16;
/// The first and the longest pause of an object after a failure.
const FAILURE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// The first and the longest pause between two writes of one object that follow each other.
const REPEAT: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// An object that was left in peace for so long starts anew.
const QUIET: Duration = Duration::from_secs(3);

/// Objects that wait to be written.
#[derive(Debug, Default)]
pub struct Queue {
    order: BTreeMap<(Instant, u64), ObjectRef>,
    places: HashMap<ObjectRef, (Instant, u64)>,
    running: HashSet<ObjectRef>,
    histories: HashMap<ObjectRef, History>,
    next: u64,
}

/// What happened to an object not long ago.
#[derive(Clone, Copy, Debug)]
struct History {
    failures: u32,
    writes: u32,
    at: Instant,
}

impl Queue {
    /// An object is to be written. It keeps its place if it waits already.
    pub fn add(&mut self, object: &ObjectRef, now: Instant) {
        if self.running.contains(object) || self.places.contains_key(object) {
            return;
        }
        let due = self.due(object, now);
        let place = (due, self.next);
        self.next += 1;
        self.order.insert(place, object.clone());
        self.places.insert(object.clone(), place);
    }

    /// An object need not be written any more.
    pub fn remove(&mut self, object: &ObjectRef) {
        if let Some(place) = self.places.remove(object) {
            self.order.remove(&place);
        }
    }

    /// The next object to write now; it is under way from here on.
    pub fn take(&mut self, now: Instant) -> Option<ObjectRef> {
        if self.running.len() >= MOST_AT_ONCE {
            return None;
        }
        let entry = self.order.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        let object = entry.remove();
        self.places.remove(&object);
        self.running.insert(object.clone());
        Some(object)
    }

    /// When there will be one; none if that does not depend on the time.
    pub fn due_next(&self) -> Option<Instant> {
        let (first, _) = self.order.first_key_value()?;
        (self.running.len() < MOST_AT_ONCE).then_some(first.0)
    }

    /// A write has ended, well or not.
    pub fn done(&mut self, object: &ObjectRef, is_good: bool, now: Instant) {
        self.running.remove(object);
        let before = self.histories.get(object).copied();
        let before = before.filter(|history| !history.is_over(now));
        let (failures, writes) = before.map_or((0, 0), |h| (h.failures, h.writes));
        let history = History {
            failures: if is_good {
                0
            } else {
                failures.saturating_add(1)
            },
            writes: writes.saturating_add(u32::from(is_good)),
            at: now,
        };
        self.histories.insert(object.clone(), history);
        if self.histories.len() > 64 && self.next.is_multiple_of(64) {
            self.histories.retain(|_, history| !history.is_over(now));
        }
    }

    /// A write has ended without anything to remember.
    pub fn idle(&mut self, object: &ObjectRef) {
        self.running.remove(object);
    }

    /// How many wait or are under way.
    pub fn len(&self) -> usize {
        self.order.len() + self.running.len()
    }

    fn due(&self, object: &ObjectRef, now: Instant) -> Instant {
        match self.histories.get(object) {
            Some(history) if !history.is_over(now) => now.max(history.at + history.pause()),
            _ => now,
        }
    }
}

impl History {
    fn pause(&self) -> Duration {
        let doubled = |(first, longest): (Duration, Duration), times: u32| {
            let factor = 1_u32 << times.saturating_sub(1).min(16);
            (first * factor).min(longest)
        };
        match self.failures {
            0 => doubled(REPEAT, self.writes),
            failures => doubled(FAILURE, failures),
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        now > self.at + self.pause() + QUIET
    }
}

#[cfg(test)]
mod tests {
    use gateway_model::names::ObjectKind;

    use super::*;

    fn route(n: usize) -> ObjectRef {
        ObjectRef::new(ObjectKind::HttpRoute, "shop", &n.to_string())
    }

    #[test]
    fn the_oldest_is_first_and_few_are_under_way() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for n in 0..40 {
            queue.add(&route(n), now);
            queue.add(&route(0), now + Duration::from_secs(1));
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.take(now)).collect();
        assert_eq!(taken, (0..MOST_AT_ONCE).map(route).collect::<Vec<_>>());
        assert_eq!(queue.due_next(), None);
        queue.done(&route(0), true, now);
        assert_eq!(queue.take(now), Some(route(MOST_AT_ONCE)));
        assert_eq!(queue.len(), 39);
    }

    #[test]
    fn what_fails_waits_longer_and_longer_and_others_do_not() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..14 {
            queue.add(&route(1), now);
            let due = queue.due_next().expect("waits");
            pauses.push(due - now);
            now = due;
            assert_eq!(queue.take(now), Some(route(1)));
            queue.done(&route(1), false, now);
        }
        assert_eq!(pauses[..3], [0, 100, 200].map(Duration::from_millis));
        assert_eq!(pauses[13], FAILURE.1);
        queue.add(&route(2), now);
        assert_eq!(queue.take(now), Some(route(2)));
    }

    #[test]
    fn an_object_that_never_stands_still_is_written_once_a_second() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        let mut now = start;
        let mut writes = 0;
        while now < start + Duration::from_secs(10) {
            queue.add(&route(1), now);
            now = queue.due_next().expect("waits").max(now);
            queue.take(now).expect("is due");
            queue.done(&route(1), true, now);
            writes += 1;
        }
        assert!(writes < 20, "{writes}");
        now += REPEAT.1 + QUIET + Duration::from_millis(1);
        queue.add(&route(1), now);
        assert_eq!(queue.due_next(), Some(now));
    }

    #[test]
    fn what_is_under_way_is_not_started_twice_and_what_is_settled_not_at_all() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(&route(1), now);
        queue.add(&route(2), now);
        queue.take(now);
        queue.add(&route(1), now);
        queue.remove(&route(2));
        assert_eq!(queue.take(now), None);
        queue.idle(&route(1));
        queue.add(&route(1), now);
        assert_eq!(queue.take(now), Some(route(1)));
    }
}
