//! Holds statuses back until every node serves what they speak of.
//!
//! Each change of what is owed is a step with the position a node must have reached to serve it.
//! Positions only grow, so the steps are confirmed in order, and what may be written is what was
//! owed at the last confirmed step: a Gateway whose count of routes never stands still is written
//! all the same, and each object once for any number of steps that are confirmed together.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_model::names::ObjectRef;
use gateway_translate::Status;
use gateway_translate::status::{ConditionType, Conditions, ListenerStatus, Reason};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use super::fleet::Fleet;
use crate::source::Position;

/// Steps that wait at most; beyond that the newest one takes the place of the one before.
const MOST_STEPS: usize = 256;

/// What is owed by status, before it is finished.
pub type ByObject = OrdMap<ObjectRef, Arc<Status>>;

/// A state of what is owed.
#[derive(Clone, Debug, Default)]
pub struct Owing {
    /// Every status.
    pub statuses: ByObject,
    /// What keeps its last good form.
    pub rejected: Arc<BTreeMap<ObjectRef, String>>,
}

#[derive(Debug)]
struct Waiting {
    owing: Owing,
    needed: Position,
    since: Instant,
}

/// What may be written, and what waits for nodes.
#[derive(Debug, Default)]
pub struct Gate {
    newest: Owing,
    confirmed: Owing,
    has_opened: bool,
    has_proposed: bool,
    waiting: VecDeque<Waiting>,
    /// Gateways and ListenerSets that were let through although nodes lag: what they need, and who
    /// lags.
    pending: BTreeMap<ObjectRef, (Position, String)>,
}

impl Gate {
    /// Something else is owed now; a node that has reached `needed` serves it.
    pub fn push(&mut self, owing: Owing, needed: Position, now: Instant) {
        let is_first = !self.has_opened && self.waiting.is_empty();
        let before = std::mem::replace(&mut self.newest, owing.clone());
        let is_same = before.statuses.ptr_eq(&owing.statuses) && before.rejected == owing.rejected;
        if is_same && !is_first {
            return;
        }
        self.propose(&before.statuses, &owing.statuses);
        let mut since = now;
        if self.waiting.len() >= MOST_STEPS
            && let Some(replaced) = self.waiting.pop_back()
        {
            since = replaced.since;
        }
        self.waiting.push_back(Waiting {
            owing,
            needed,
            since,
        });
    }

    /// An address that is chosen for a Gateway is served when the Gateway shows it, so there is
    /// nothing for nodes to confirm before.
    fn propose(&mut self, before: &ByObject, now: &ByObject) {
        for item in before.diff(now) {
            let (DiffItem::Add(object, status)
            | DiffItem::Update {
                new: (object, status),
                ..
            }) = item
            else {
                continue;
            };
            if is_proposal(status) {
                let waiting = self.waiting.iter_mut().map(|w| &mut w.owing.statuses);
                for statuses in waiting.chain([&mut self.confirmed.statuses]) {
                    statuses.insert(object.clone(), Arc::clone(status));
                }
                self.has_proposed = self.has_opened;
            }
        }
    }

    /// Lets through what every node has confirmed, and what has waited too long. Says whether that
    /// was anything. `stands` says of an object whether what is owed to it stands already.
    pub fn open(
        &mut self,
        fleet: &Fleet,
        now: Instant,
        stands: &mut dyn FnMut(&ObjectRef, &Owing) -> bool,
    ) -> bool {
        if !fleet.is_followed() {
            return false;
        }
        let now = fleet.clock(now);
        let before = self.pending.len();
        self.pending
            .retain(|_, (needed, _)| !fleet.has_reached(needed, now));
        let mut opened = self.pending.len() != before;
        opened |= std::mem::take(&mut self.has_proposed);
        while let Some(first) = self.waiting.front() {
            let lagging = fleet.lagging(&first.needed, now);
            let ends = fleet.patience_ends(first.since, now);
            let is_overdue = ends.is_some_and(|ends| now >= ends);
            if lagging.is_some() && !is_overdue {
                break;
            }
            let Some(first) = self.waiting.pop_front() else {
                break;
            };
            if let Some(nodes) = lagging {
                self.hold_pending(&first, &nodes, stands);
            }
            self.confirmed = first.owing;
            opened = true;
            self.has_opened = true;
        }
        opened
    }

    /// Whatever of a step a lagging node may not serve yet must not be called programmed. A Gateway
    /// that was programmed before, and of which only the routes changed, still is; and what stands
    /// was confirmed to the writer who wrote it.
    fn hold_pending(
        &mut self,
        step: &Waiting,
        nodes: &str,
        stands: &mut dyn FnMut(&ObjectRef, &Owing) -> bool,
    ) {
        for item in self.confirmed.statuses.diff(&step.owing.statuses) {
            let (object, status) = match item {
                DiffItem::Add(object, status) => (object, status),
                DiffItem::Update {
                    old: (object, old),
                    new: (_, status),
                } if !is_same_in_data_plane(old, status) => (object, status),
                DiffItem::Update { .. } | DiffItem::Remove(..) => continue,
            };
            if promises(status) && !stands(object, &step.owing) {
                let nodes = format!("waiting for {nodes} to apply it");
                self.pending
                    .insert(object.clone(), (step.needed.clone(), nodes));
            }
        }
    }

    /// Whether anything was ever let through; before that it is not known what is owed.
    pub fn has_opened(&self) -> bool {
        self.has_opened
    }

    /// What may be written.
    pub fn confirmed(&self) -> &Owing {
        &self.confirmed
    }

    /// What is written although nodes lag, and why it is not called programmed.
    pub fn pending(&self) -> BTreeMap<ObjectRef, String> {
        let pending = self.pending.iter();
        pending
            .map(|(object, (_, nodes))| (object.clone(), nodes.clone()))
            .collect()
    }

    /// When something will have waited too long.
    pub fn overdue_at(&self, fleet: &Fleet, now: Instant) -> Option<Instant> {
        let first = self.waiting.front()?;
        fleet.patience_ends(first.since, now)
    }

    /// For how long the oldest step has waited.
    pub fn lag(&self, now: Instant) -> Duration {
        let first = self.waiting.front();
        first.map_or(Duration::ZERO, |first| {
            now.saturating_duration_since(first.since)
        })
    }
}

/// Whether a Gateway is told of an address that it does not have yet.
fn is_proposal(status: &Status) -> bool {
    match status {
        Status::Gateway(status) => {
            let programmed = status.conditions.get(ConditionType::Programmed);
            !status.addresses.is_empty()
                && programmed.is_some_and(|c| c.reason == Reason::AddressNotAssigned)
        }
        _ => false,
    }
}

/// Whether a status says something that is for the data plane to say.
fn promises(status: &Status) -> bool {
    served(status).is_some_and(|(conditions, listeners)| {
        let listeners = listeners.iter().map(|l| &l.conditions);
        let mut all = listeners.chain([conditions]);
        all.any(|conditions| conditions.waits_for_data_plane())
    })
}

/// Whether two statuses of one object promise the same of the same generation.
fn is_same_in_data_plane(old: &Status, new: &Status) -> bool {
    let (Some((old, olds)), Some((new, news))) = (served(old), served(new)) else {
        return false;
    };
    let is_same = |(old, new): (&ListenerStatus, &ListenerStatus)| {
        old.name == new.name && old.conditions == new.conditions
    };
    old == new && olds.len() == news.len() && olds.iter().zip(news).all(is_same)
}

/// The conditions of what the data plane serves.
fn served(status: &Status) -> Option<(&Conditions, &[ListenerStatus])> {
    match status {
        Status::Gateway(status) => Some((&status.conditions, &status.listeners)),
        Status::ListenerSet(status) => Some((&status.conditions, &status.listeners)),
        Status::GatewayClass(_) | Status::Route(_) | Status::Policy(_) => None,
    }
}

#[cfg(test)]
mod tests;
