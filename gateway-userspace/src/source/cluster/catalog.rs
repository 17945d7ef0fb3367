//! Every object that is known, by kind, and what of it has not been passed on yet.
//!
//! Keeps no object, only a fingerprint of each: enough to see that an event changes nothing, and
//! which objects a new list does not name any more. Pure: time comes in with what is heard.

mod gate;
mod report;

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use gateway_model::names::{ObjectKind, ObjectRef};
use gateway_translate::{Event, decode};
use serde_json::Value;

use super::super::{KindState, Position, Report, Update};
use super::api::KINDS;
use super::definitions::Release;
use super::health::{Health, count};
use super::message::{Message, Raw, Trouble, Word};
use crate::status::observed::Observed;
use gate::Gate;

/// How long the news that nothing of meaning happened may wait.
const QUIET: Duration = Duration::from_secs(1);
/// How long a kind that has objects must be missing before they are taken away. Who deletes a
/// definition deletes its objects first, and that is seen.
const MISSING: Duration = Duration::from_secs(10);

/// What is to be kept on disk: the objects' texts; none for what is gone.
pub type Records = BTreeMap<ObjectRef, Option<Box<[u8]>>>;

/// What is known of a cluster.
#[derive(Debug)]
pub struct Catalog {
    server: String,
    health: Arc<Health>,
    kinds: BTreeMap<ObjectKind, Kind>,
    /// Why an object cannot be read.
    broken: BTreeMap<ObjectRef, String>,
    pending: Pending,
    records: Records,
    position: Position,
    needed: Position,
    release: Release,
    /// Since when every kind is settled.
    settled_since: Option<Instant>,
    reported: Option<Arc<Report>>,
    gate: Gate,
    /// With keys of its own, so that nobody can make two objects look the same.
    fingerprints: RandomState,
}

/// What has not been passed on. Each object once, whatever happened to it meanwhile.
#[derive(Debug, Default)]
struct Pending {
    events: BTreeMap<ObjectRef, Event>,
    observed: BTreeMap<ObjectRef, Option<Observed>>,
    /// When the oldest of it was heard.
    since: Option<Instant>,
    /// When an event that changes nothing moved the position.
    quiet_since: Option<Instant>,
    /// Whether the report may have changed.
    report: bool,
    /// Whether the release has changed.
    release: bool,
}

#[derive(Debug, Default)]
struct Kind {
    state: KindState,
    trouble: Option<Trouble>,
    troubled_since: Option<Instant>,
    was_listed: bool,
    /// Which list is the last one; 0 before the first.
    list: u32,
    known: HashMap<ObjectRef, Known, FixedState>,
    /// How many of them are in force.
    in_force: usize,
}

/// What is kept of an object.
#[derive(Clone, Copy, Debug)]
struct Known {
    fingerprint: u64,
    /// The last list that it was in or that came before it.
    list: u32,
    /// Whether some form of it is in force.
    is_in_force: bool,
}

impl Catalog {
    /// Knows nothing yet.
    pub fn new(server: String, health: Arc<Health>) -> Self {
        Self {
            server,
            health,
            kinds: KINDS.into_iter().map(|k| (k, Kind::default())).collect(),
            broken: BTreeMap::new(),
            pending: Pending::default(),
            records: Records::new(),
            position: Position::default(),
            needed: Position::default(),
            release: Release::Unknown,
            settled_since: None,
            reported: None,
            gate: Gate::Waiting,
            fingerprints: RandomState::new(),
        }
    }

    /// Takes in what was heard.
    pub fn hear(&mut self, message: Message) {
        let Message { kind, heard, word } = message;
        match word {
            Word::Begin => self.kind(kind).list += 1,
            Word::Object(raw) => self.present(kind, *raw, heard),
            Word::Removed(name, version) => {
                self.position.advance(kind, version);
                if self.gone(&name, heard) {
                    self.needed.advance(kind, version);
                }
            }
            Word::Complete(version) => self.complete(kind, version, heard),
            Word::Bookmark(version) => {
                self.position.advance(kind, version);
            }
            Word::State(state, trouble) => self.state(kind, state, trouble, heard),
        }
    }

    /// Takes in which release of Gateway API the API server serves.
    pub fn release(&mut self, release: Release) {
        self.pending.release |= self.release != release;
        self.release = release;
    }

    /// Takes in an object of an earlier life, unless a list of this life has spoken of its kind.
    pub fn remember(&mut self, name: &ObjectRef, text: &[u8], now: Instant) {
        let kind = self.kind(name.kind);
        if kind.was_listed || kind.known.contains_key(name) {
            return;
        }
        let Ok(value) = serde_json::from_slice::<Value>(text) else {
            return;
        };
        let Ok(Some(object)) = decode(value) else {
            return;
        };
        let known = Known {
            fingerprint: self.fingerprints.hash_one(text),
            list: 0,
            is_in_force: true,
        };
        let name = object.reference();
        let kind = self.kind(name.kind);
        kind.known.insert(name.clone(), known);
        kind.in_force += 1;
        self.counted(name.kind);
        self.records.insert(name.clone(), Some(text.into()));
        self.change(name, Event::Apply(object), now);
    }

    /// What is to be kept on disk since the last call.
    pub fn records(&mut self) -> &mut Records {
        &mut self.records
    }

    /// Whether every list of this life is complete, or will not be.
    pub fn is_settled(&mut self, now: Instant) -> bool {
        if !gate::is_settled(&self.kinds, now) {
            self.settled_since = None;
            return false;
        }
        let since = *self.settled_since.get_or_insert(now);
        self.release != Release::Unknown || now.duration_since(since) >= gate::DEFINITIONS
    }

    /// Objects of an earlier life were brought in as far as there are any.
    pub fn remembered(&mut self) {
        let any = self.kinds.values().any(|kind| !kind.known.is_empty());
        self.gate.remembered(any);
        self.pending.report = true;
    }

    /// Whether there is something to pass on now; if not, when to ask again.
    pub fn is_due(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        let settled = self.is_settled(now);
        let any_listed = self.kinds.values().any(|kind| kind.was_listed);
        if !self.gate.is_open(settled, any_listed, now) {
            return Err(Some(now + gate::LOOK));
        }
        let pending = &self.pending;
        let has_news = !pending.events.is_empty() || !pending.observed.is_empty();
        if has_news || pending.release || self.reported.is_none() || self.is_report_new() {
            return Ok(());
        }
        match self.pending.quiet_since.map(|since| since + QUIET) {
            Some(due) if due <= now => Ok(()),
            quiet => Err(quiet),
        }
    }

    /// Everything that has not been passed on.
    pub fn take(&mut self) -> Update {
        let pending = std::mem::take(&mut self.pending);
        let report = match self.reported.take() {
            Some(report) if !pending.report => report,
            _ => Arc::new(self.report()),
        };
        self.reported = Some(Arc::clone(&report));
        self.gate.passed();
        Update {
            events: pending.events.into_values().collect(),
            observed: pending.observed.into_iter().collect(),
            position: self.position.clone(),
            needed: self.needed.clone(),
            crd_version: match &self.release {
                Release::Known(release) => release.clone(),
                Release::Unknown | Release::Hidden => None,
            },
            report,
            seen: pending.since,
        }
    }

    fn kind(&mut self, kind: ObjectKind) -> &mut Kind {
        self.kinds.entry(kind).or_default()
    }

    fn present(&mut self, kind: ObjectKind, mut raw: Raw, heard: Instant) {
        self.position.advance(kind, raw.version);
        let fingerprint = self.fingerprints.hash_one(&*raw.text);
        let of = self.kinds.entry(kind).or_default();
        let list = of.list;
        if let Some((name, _)) = of.known.get_key_value(&raw.name) {
            raw.name = name.clone();
        }
        let mut was_in_force = false;
        if let Some(before) = of.known.get_mut(&raw.name) {
            if before.fingerprint == fingerprint {
                if before.list == 0 {
                    // Of an earlier life, whose versions are not known: other nodes may be behind.
                    self.needed.advance(kind, raw.version);
                }
                before.list = list;
                self.pending.quiet_since.get_or_insert(heard);
                return self.observed(raw.name, raw.observed, heard);
            }
            was_in_force = before.is_in_force;
        }
        self.needed.advance(kind, raw.version);
        let known = |is_in_force| Known {
            fingerprint,
            list,
            is_in_force,
        };
        match decode(raw.value) {
            Ok(Some(object)) => {
                // The name as the object has it, so that it is in memory once.
                let name = object.reference();
                of.known.insert(name.clone(), known(true));
                of.in_force += usize::from(!was_in_force);
                if self.broken.remove(&name).is_some() {
                    self.pending.report = true;
                }
                self.records.insert(name.clone(), Some(raw.text));
                self.observed(name.clone(), raw.observed, heard);
                self.change(name, Event::Apply(object), heard);
            }
            Ok(None) => self.observed(raw.name, raw.observed, heard),
            Err(error) => {
                of.known.insert(raw.name.clone(), known(was_in_force));
                count(&self.health.of(kind).decode_failures);
                self.observed(raw.name.clone(), raw.observed, heard);
                self.broken.insert(raw.name, problems(&error));
                self.pending.since.get_or_insert(heard);
                self.pending.report = true;
            }
        }
        self.counted(kind);
    }

    fn observed(&mut self, name: ObjectRef, observed: Option<Observed>, heard: Instant) {
        if observed.is_some() {
            self.pending.since.get_or_insert(heard);
            self.pending.observed.insert(name, observed);
        }
    }

    /// An object is gone; says whether it was in force.
    fn gone(&mut self, name: &ObjectRef, heard: Instant) -> bool {
        let of = self.kind(name.kind);
        let Some(known) = of.known.remove(name) else {
            return false;
        };
        of.in_force -= usize::from(known.is_in_force);
        if self.broken.remove(name).is_some() {
            self.pending.report = true;
        }
        self.pending.observed.insert(name.clone(), None);
        self.counted(name.kind);
        if known.is_in_force {
            self.records.insert(name.clone(), None);
            self.change(name.clone(), Event::Delete(name.clone()), heard);
        }
        known.is_in_force
    }

    fn change(&mut self, name: ObjectRef, event: Event, heard: Instant) {
        self.pending.since.get_or_insert(heard);
        self.pending.events.insert(name, event);
        // The number of objects is in it.
        self.pending.report = true;
    }

    fn complete(&mut self, kind: ObjectKind, version: u64, heard: Instant) {
        self.position.advance(kind, version);
        let of = self.kind(kind);
        of.was_listed = true;
        let list = of.list;
        let gone = of.known.iter().filter(|(_, known)| known.list != list);
        let gone: Vec<_> = gone.map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.gone(&name, heard);
        }
        self.state(kind, KindState::Watched, None, heard);
    }

    fn state(
        &mut self,
        kind: ObjectKind,
        state: KindState,
        trouble: Option<Trouble>,
        heard: Instant,
    ) {
        let of = self.kind(kind);
        let is_missing = state == KindState::NotServed;
        let since = of.troubled_since.get_or_insert(heard);
        if is_missing && !of.known.is_empty() && heard.duration_since(*since) < MISSING {
            let reason = "the API server does not know this kind any more".to_owned();
            let trouble = Trouble {
                reason,
                is_denied: false,
            };
            return self.enter(kind, KindState::Stale, Some(trouble));
        }
        if matches!(state, KindState::Watched | KindState::NotServed) {
            of.troubled_since = None;
        }
        if is_missing {
            let known: Vec<_> = of.known.keys().cloned().collect();
            for name in known {
                self.gone(&name, heard);
            }
        }
        self.enter(kind, state, trouble);
    }

    fn enter(&mut self, kind: ObjectKind, state: KindState, trouble: Option<Trouble>) {
        let of = self.kind(kind);
        if (of.state, &of.trouble) != (state, &trouble) {
            (of.state, of.trouble) = (state, trouble);
            self.pending.report = true;
        }
    }

    fn counted(&mut self, kind: ObjectKind) {
        let count = self.kind(kind).in_force;
        let objects = &self.health.of(kind).objects;
        objects.store(count, Ordering::Relaxed);
    }
}

fn problems(error: &gateway_translate::DecodeError) -> String {
    let text = error.to_string();
    let named = format!("{}: ", error.object);
    text.strip_prefix(&named)
        .map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests;
