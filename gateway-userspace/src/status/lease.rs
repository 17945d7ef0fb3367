//! A Kubernetes Lease as this crate reads and writes it.
//!
//! The times in a Lease are those of other machines and are only for people to read. Whether a
//! Lease is alive is judged by when it was last *seen to change*, by this process's own clock, as
//! every Kubernetes leader election does it.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// A time as `MicroTime` of Kubernetes.
pub fn micro_time(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// No Lease is believed for longer, whatever it says.
const LONGEST_S: u64 = 3600;

/// What a Lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
    /// `spec.holderIdentity`; empty if nobody holds it.
    pub holder: String,
    /// `spec.leaseDurationSeconds`.
    pub duration: Duration,
    /// `spec.leaseTransitions`.
    pub transitions: i64,
    /// `spec.acquireTime`.
    pub acquired: Option<String>,
    /// `metadata.annotations`.
    pub annotations: Map<String, Value>,
}

impl Lease {
    /// Reads a raw Lease.
    pub fn read(lease: &Value) -> Self {
        let text = |pointer: &str| lease.pointer(pointer).and_then(Value::as_str);
        let number = |pointer: &str| lease.pointer(pointer).and_then(Value::as_i64);
        let seconds = number("/spec/leaseDurationSeconds").unwrap_or(0);
        let annotations = lease.pointer("/metadata/annotations");
        Self {
            name: text("/metadata/name").unwrap_or_default().to_owned(),
            resource_version: text("/metadata/resourceVersion")
                .unwrap_or_default()
                .to_owned(),
            holder: text("/spec/holderIdentity").unwrap_or_default().to_owned(),
            duration: Duration::from_secs(u64::try_from(seconds).unwrap_or(0).min(LONGEST_S)),
            transitions: number("/spec/leaseTransitions").unwrap_or(0),
            acquired: text("/spec/acquireTime").map(str::to_owned),
            annotations: annotations
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
        }
    }

    /// An annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).and_then(Value::as_str)
    }
}

/// A Lease and when it was last seen to change.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// As it was seen last.
    pub lease: Lease,
    /// When that differed from what was seen before.
    pub at: Instant,
}

impl Sighting {
    /// Whether its holder has let it grow old.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.stale_at() <= now
    }

    /// When it will be.
    pub fn stale_at(&self) -> Instant {
        self.at + self.lease.duration
    }
}

/// A candidate for the Lease that makes one Sluice the status writer. It decides and remembers; who
/// asks it does the requests.
#[derive(Debug)]
pub struct Election {
    identity: String,
    terms: Terms,
    seen: Option<Sighting>,
    renewed: Option<Instant>,
}

/// How long a Lease is held and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long others wait after the last sign of life.
    pub duration: Duration,
}

impl Terms {
    /// After so long without success the holder stops by itself, well before others may take over.
    pub fn deadline(self) -> Duration {
        self.duration * 2 / 3
    }

    /// Between two renewals.
    pub fn period(self) -> Duration {
        self.duration / 5
    }
}

/// What a candidate should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing before that moment, unless the Lease is seen to change.
    Wait(Instant),
    /// Create the Lease.
    Create,
    /// Replace the Lease: it is ours, nobody's or stale.
    Replace,
}

impl Election {
    /// A candidate of that name.
    pub fn new(identity: String, terms: Terms) -> Self {
        Self {
            identity,
            terms,
            seen: None,
            renewed: None,
        }
    }

    /// The Lease was seen; none if it does not exist. Only what changed counts as a sign of life.
    pub fn see(&mut self, lease: Option<Lease>, now: Instant) {
        match lease {
            Some(lease) => {
                if self.seen.as_ref().is_none_or(|seen| seen.lease != lease) {
                    self.seen = Some(Sighting { lease, at: now });
                }
                if !self.is_ours() {
                    self.renewed = None;
                }
            }
            None => {
                self.seen = None;
                self.renewed = None;
            }
        }
    }

    /// Our own write was answered with this.
    pub fn written(&mut self, lease: Lease, asked: Instant) {
        self.seen = Some(Sighting { lease, at: asked });
        self.renewed = Some(asked);
    }

    /// What to do now.
    pub fn step(&self, now: Instant) -> Step {
        let Some(seen) = &self.seen else {
            return Step::Create;
        };
        if !self.is_ours() {
            return match seen.lease.holder.is_empty() || seen.is_stale(now) {
                true => Step::Replace,
                false => Step::Wait(seen.stale_at()),
            };
        }
        match self.renewed.map(|renewed| renewed + self.terms.period()) {
            Some(due) if due > now => Step::Wait(due),
            _ => Step::Replace,
        }
    }

    fn is_ours(&self) -> bool {
        self.seen
            .as_ref()
            .is_some_and(|seen| seen.lease.holder == self.identity)
    }

    /// Until when this one may write; none if it may not.
    pub fn held_until(&self, now: Instant) -> Option<Instant> {
        let until = self.renewed? + self.terms.deadline();
        (self.is_ours() && until > now).then_some(until)
    }

    /// As it was last seen.
    pub fn seen(&self) -> Option<&Lease> {
        self.seen.as_ref().map(|seen| &seen.lease)
    }

    /// The `spec` to write.
    pub fn spec(&self, now: Timestamp) -> Value {
        let time = micro_time(now);
        let seen = self.seen();
        let (transitions, acquired) = match seen {
            Some(seen) if self.is_ours() => (seen.transitions, seen.acquired.clone()),
            Some(seen) => (seen.transitions.saturating_add(1), None),
            None => (0, None),
        };
        json!({
            "holderIdentity": self.identity,
            "leaseDurationSeconds": self.terms.duration.as_secs().max(1),
            "acquireTime": acquired.unwrap_or_else(|| time.clone()),
            "renewTime": time,
            "leaseTransitions": transitions,
        })
    }

    /// The `spec` that gives it up; none if it is not ours.
    pub fn release(&self, now: Timestamp) -> Option<Value> {
        let seen = self.seen().filter(|_| self.is_ours())?;
        Some(json!({
            "holderIdentity": "",
            "leaseDurationSeconds": 1,
            "renewTime": micro_time(now),
            "leaseTransitions": seen.transitions,
        }))
    }
}

#[cfg(test)]
mod tests;
