//! What a writer knows during one term.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use gateway_heap::Garbage;
use gateway_model::failure::Failure;
use gateway_model::names::{ListenerKey, ObjectRef};
use gateway_translate::Applied;
use imbl::ordmap::DiffItem;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::super::api::leases;
use super::super::fleet::{EXCUSED, Fleet};
use super::super::follow::{Seen, follow};
use super::super::gate::{Gate, Owing};
use super::super::job::{Desk, Done, Ending, Job};
use super::super::keeper::Keeper;
use super::super::node::{Identity, LABEL, Pace};
use super::super::notice::{Notice, notices};
use super::super::observed::{Observations, Observed, Uid};
use super::super::ours::{Digest, Division, NOTHING, digest};
use super::super::owed::Owed;
use super::super::queue::Queue;
use super::super::stats::Gauges;
use crate::telemetry::chain;
use crate::world::World;

/// A term of office.
pub struct Term {
    desk: Desk,
    node: String,
    world: Arc<World>,
    observed: Observations,
    fleet: Fleet,
    seen: mpsc::Receiver<Seen>,
    gate: Gate,
    owed: Owed,
    has_owed: bool,
    queue: Queue,
    written: HashMap<ObjectRef, Written>,
    /// What was told of objects that cannot be understood.
    findings: HashMap<ObjectRef, String>,
    /// Writes under way; dropped with the term.
    jobs: JoinSet<Done>,
    garbage: Garbage,
    _helpers: JoinSet<()>,
}

/// What was written, until the watch has seen it; for good if the API server kept something else
/// than it was sent.
#[derive(Clone, Copy, Debug)]
struct Written {
    owed: Digest,
    observed: Observed,
}

impl Term {
    /// Starts a term.
    pub fn new(
        desk: Desk,
        identity: &Identity,
        world: Arc<World>,
        known: watch::Receiver<Option<Arc<World>>>,
    ) -> Self {
        let (sender, seen) = mpsc::channel(64);
        let selector = format!(
            "labelSelector={}%3D{}",
            LABEL.0.replace('/', "%2F"),
            LABEL.1
        );
        let mut helpers = JoinSet::new();
        helpers.spawn(follow(
            desk.api.clone(),
            leases(&identity.namespace),
            selector,
            sender,
        ));
        helpers.spawn(Keeper::new(desk.clone(), known).run());
        let mut term = Self {
            desk,
            node: identity.node.clone(),
            observed: Observations::default(),
            fleet: Fleet::new(identity.lease()),
            seen,
            gate: Gate::default(),
            owed: Owed::default(),
            has_owed: false,
            queue: Queue::default(),
            written: HashMap::new(),
            findings: HashMap::new(),
            jobs: JoinSet::new(),
            garbage: Garbage::default(),
            _helpers: helpers,
            world: Arc::clone(&world),
        };
        term.look(world, Instant::now());
        term
    }

    /// The world is another one.
    pub fn look(&mut self, world: Arc<World>, now: Instant) {
        let is_told = Arc::ptr_eq(&self.world.source, &world.source);
        self.world = world;
        let back = match self.world.source.unreadable {
            Some(_) => Some(now),
            None => self.world.readable_since,
        };
        self.fleet.excuse(back.map(|back| back + EXCUSED));
        let owing = Owing {
            statuses: self.world.statuses.owed().unfinished().clone(),
            rejected: Arc::new(self.world.rejected.clone()),
        };
        self.gate.push(owing, self.world.needed.clone(), now);
        let before = std::mem::replace(&mut self.observed, self.world.observed.clone());
        let observed = self.observed.clone();
        for item in before.diff(&observed) {
            let (DiffItem::Add(object, _)
            | DiffItem::Update {
                new: (object, _), ..
            }
            | DiffItem::Remove(object, _)) = item;
            self.consider(object, now);
        }
        if !is_told || self.findings.is_empty() {
            self.tell_findings();
        }
    }

    /// Waits for a node or for the end of a write.
    pub async fn hear(&mut self) {
        tokio::select! {
            Some(seen) = self.seen.recv() => {
                let now = Instant::now();
                match seen {
                    Seen::All(leases) => self.fleet.replace(leases, now),
                    Seen::Is(lease) => self.fleet.see(lease, now),
                    Seen::Gone(name) => self.fleet.gone(&name),
                    Seen::Lost => return self.fleet.lost(now),
                    Seen::Still => {}
                }
                self.fleet.heard(now);
            }
            Some(ended) = self.jobs.join_next(), if !self.jobs.is_empty() => match ended {
                Ok(done) => self.end(done, Instant::now()),
                Err(error) => tracing::error!(%error, "a status write broke off"),
            },
            else => std::future::pending().await,
        }
    }

    /// Does what can be done now.
    pub fn proceed(&mut self, now: Instant) {
        let failures = self.failures(now);
        let (observed, controller) = (&self.observed, &self.desk.controller);
        let applied = |owing: &Owing| Applied {
            revision: self.world.revision(),
            failures: failures.clone(),
            rejected: (*owing.rejected).clone(),
            ..Applied::default()
        };
        let mut stands = |object: &ObjectRef, owing: &Owing| {
            let owed = Owed::new(owing.statuses.clone(), Arc::new(applied(owing)));
            let wanted = owed.value(object);
            let wanted = wanted.map(|owed| digest(object.kind, &owed, controller));
            wanted.is_some() && wanted == observed.get(object).map(|observed| observed.ours)
        };
        let opened = self.gate.open(&self.fleet, now, &mut stands);
        if opened || (self.gate.has_opened() && failures != self.owed.applied().failures) {
            self.owe(failures, now);
        }
        while let Some(object) = self.queue.take(now) {
            match self.job(&object) {
                Some(job) => {
                    self.jobs.spawn(self.desk.clone().write(job));
                }
                None => self.queue.idle(&object),
            }
        }
        self.garbage.give_back(now);
        let (live_nodes, stale_nodes) = self.fleet.counts(now);
        self.desk.stats.set(Gauges {
            queued: self.queue.len(),
            lag: self.gate.lag(now),
            live_nodes,
            stale_nodes,
        });
    }

    fn failures(&self, now: Instant) -> BTreeMap<ListenerKey, Failure> {
        self.fleet.failures(&self.world.failures, &self.node, now)
    }

    fn owe(&mut self, failures: BTreeMap<ListenerKey, Failure>, now: Instant) {
        let confirmed = self.gate.confirmed();
        let applied = Applied {
            revision: self.world.revision(),
            failures,
            rejected: (*confirmed.rejected).clone(),
            pending: self.gate.pending(),
        };
        let owed = Owed::new(confirmed.statuses.clone(), Arc::new(applied));
        let mut changed = owed.changed_since(&self.owed);
        if !std::mem::replace(&mut self.has_owed, true) {
            // What is owed to nobody any more may still stand.
            changed.extend(self.observed.keys().cloned());
        }
        self.owed = owed;
        for object in changed {
            self.consider(&object, now);
        }
    }

    /// Puts an object into the queue if something else stands than is owed.
    fn consider(&mut self, object: &ObjectRef, now: Instant) {
        match self.job(object) {
            Some(_) => self.queue.add(object, now),
            None => self.queue.remove(object),
        }
    }

    /// What is to be written of an object; none if nothing is.
    fn job(&mut self, object: &ObjectRef) -> Option<Job> {
        let Some(observed) = self.observed.get(object).copied() else {
            self.written.remove(object);
            return None;
        };
        let stands = self.stands(object, observed);
        let owed = match self.owed.value(object) {
            Some(owed) => owed,
            None if self.is_abandoned(object) && stands.ours != NOTHING => Value::Null,
            None => return None,
        };
        let wanted = digest(object.kind, &owed, &self.desk.controller);
        let is_kept =
            |written: &Written| written.owed == wanted && written.observed.ours == stands.ours;
        if wanted == stands.ours || self.written.get(object).is_some_and(is_kept) {
            return None;
        }
        Some(Job {
            object: object.clone(),
            observed: stands,
            owed,
        })
    }

    /// The newest of what the watch saw and what was answered to a write.
    fn stands(&mut self, object: &ObjectRef, observed: Observed) -> Observed {
        let Some(written) = self.written.get(object).copied() else {
            return observed;
        };
        if written.observed.uid == observed.uid
            && written.observed.resource_version > observed.resource_version
        {
            return written.observed;
        }
        let is_lasting =
            written.observed.uid == observed.uid && written.owed != written.observed.ours;
        if !is_lasting {
            self.written.remove(object);
        }
        observed
    }

    /// Whether an object has no parent of ours any more, so that our entries must go. The other
    /// kinds are left as they are: somebody else may have them now.
    fn is_abandoned(&self, object: &ObjectRef) -> bool {
        self.has_owed
            && matches!(Division::of(object.kind), Some(Division::Entries(..)))
            && !self.world.statuses.contains(object)
    }

    fn end(&mut self, done: Done, now: Instant) {
        self.garbage.grow(1, now);
        let Done {
            object,
            owed,
            ending,
        } = done;
        let object = &object;
        match ending {
            Ending::Written {
                observed,
                before,
                after,
                left_out,
            } => {
                self.queue.done(object, true, now);
                self.tell(object, observed.uid, (&before, &after), &left_out);
                self.written
                    .insert(object.clone(), Written { owed, observed });
            }
            Ending::Stood { observed } => {
                self.queue.idle(object);
                self.written
                    .insert(object.clone(), Written { owed, observed });
            }
            Ending::Gone => self.queue.done(object, true, now),
            Ending::Deposed => self.queue.idle(object),
            Ending::Failed(error) => {
                tracing::warn!(%object, error = chain(&error), "status cannot be written");
                self.queue.done(object, false, now);
            }
        }
        self.consider(object, now);
    }

    fn tell(
        &self,
        object: &ObjectRef,
        uid: Uid,
        (before, after): (&Value, &Value),
        left_out: &[String],
    ) {
        let controller = &self.desk.controller;
        for notice in notices(object, uid, (before, after), controller) {
            self.desk.events.tell(notice);
        }
        if !left_out.is_empty() {
            let missing = left_out.join(", ");
            tracing::warn!(%object, missing, "others leave no room in the status");
            let note = format!("entries of other controllers leave no room for {missing}");
            let notice = Notice::warning(object.clone(), Some(uid), "StatusFull", &note);
            self.desk.events.tell(notice);
        }
    }

    /// Tells once of every object that cannot be understood.
    fn tell_findings(&mut self) {
        let findings = self.world.source.findings.iter();
        let now: HashMap<ObjectRef, String> = findings
            .filter_map(|finding| Some((finding.object.clone()?, finding.message.clone())))
            .collect();
        for (object, message) in &now {
            if self.findings.get(object) != Some(message) {
                let uid = self.observed.get(object).map(|observed| observed.uid);
                let notice = Notice::warning(object.clone(), uid, "NotUnderstood", message);
                self.desk.events.tell(notice);
            }
        }
        self.findings = now;
    }

    /// How often nodes may speak.
    pub fn pace(&self, now: Instant) -> Pace {
        self.fleet.pace(now)
    }

    /// When something is due that nobody will tell of.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        let all = [
            self.queue.due_next(),
            self.gate.overdue_at(&self.fleet, now),
            self.fleet.stale_next(now),
            self.garbage.due(),
        ];
        all.into_iter().flatten().min()
    }
}
