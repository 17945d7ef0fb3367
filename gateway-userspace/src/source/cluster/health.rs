//! How well each kind is followed, as counters that may be read at any time.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gateway_model::names::ObjectKind;

use super::api::KINDS;

/// Figures about every kind.
#[derive(Debug)]
pub struct Health {
    started: Instant,
    kinds: [KindHealth; KINDS.len()],
}

/// Figures about one kind.
#[derive(Debug, Default)]
pub struct KindHealth {
    is_watched: AtomicBool,
    is_served: AtomicBool,
    heard_ms: AtomicU64,
    /// Lists begun.
    pub lists: AtomicU64,
    /// Failures of lists and watches.
    pub errors: AtomicU64,
    /// Objects that could not be decoded.
    pub decode_failures: AtomicU64,
    /// Changes seen, those that meant nothing included.
    pub changes: AtomicU64,
    /// Objects in force.
    pub objects: AtomicUsize,
}

/// One moment of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Whether a watch is open and its list was complete.
    pub is_watched: bool,
    /// How long nothing was heard of it, bookmarks included.
    pub silence: Duration,
    /// How old what is known of it may be: 0 while it is watched or not served.
    pub stale: Duration,
}

impl Health {
    /// Nothing was heard yet.
    pub fn new() -> Self {
        let kind = || KindHealth {
            is_served: AtomicBool::new(true),
            ..KindHealth::default()
        };
        Self {
            started: Instant::now(),
            kinds: std::array::from_fn(|_| kind()),
        }
    }

    /// The figures of a kind.
    pub fn of(&self, kind: ObjectKind) -> &KindHealth {
        let at = KINDS.iter().position(|k| *k == kind).unwrap_or_default();
        &self.kinds[at]
    }

    /// Something was heard of a kind.
    pub fn heard(&self, kind: ObjectKind) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.of(kind).heard_ms.store(ms, Ordering::Relaxed);
    }

    /// Whether a kind is watched now, and whether there is such a kind.
    pub fn set(&self, kind: ObjectKind, is_watched: bool, is_served: bool) {
        let of = self.of(kind);
        of.is_watched.store(is_watched, Ordering::Relaxed);
        of.is_served.store(is_served, Ordering::Relaxed);
    }

    /// How a kind is doing.
    pub fn moment(&self, kind: ObjectKind) -> Moment {
        let of = self.of(kind);
        let heard = Duration::from_millis(of.heard_ms.load(Ordering::Relaxed));
        let silence = self.started.elapsed().saturating_sub(heard);
        let is_watched = of.is_watched.load(Ordering::Relaxed);
        let is_current = is_watched || !of.is_served.load(Ordering::Relaxed);
        Moment {
            is_watched,
            silence,
            stale: if is_current { Duration::ZERO } else { silence },
        }
    }

    /// The kinds that are served, as far as is known, and not watched.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = KINDS.into_iter().filter(|kind| {
            let of = self.of(*kind);
            of.is_served.load(Ordering::Relaxed) && !of.is_watched.load(Ordering::Relaxed)
        });
        missing.map(ObjectKind::as_str).collect()
    }

    /// How old what is served may be: the stalest kind's word.
    pub fn stale(&self) -> Duration {
        let stale = KINDS.into_iter().map(|kind| self.moment(kind).stale);
        stale.max().unwrap_or_default()
    }
}

/// Counts one.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
