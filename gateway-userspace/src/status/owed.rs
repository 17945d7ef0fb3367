//! What every object's status should say: a translation's statuses, finished with what became of
//! the revision. Nothing is rendered before somebody asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::names::ObjectRef;
use gateway_translate::{Applied, Status};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use serde_json::Value;

/// The statuses that are owed. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Owed {
    statuses: OrdMap<ObjectRef, Arc<Status>>,
    applied: Arc<Applied>,
}

impl Owed {
    /// A translation's statuses, and what became of it.
    pub fn new(statuses: OrdMap<ObjectRef, Arc<Status>>, applied: Arc<Applied>) -> Self {
        Self { statuses, applied }
    }

    /// Every status before it is finished.
    pub fn unfinished(&self) -> &OrdMap<ObjectRef, Arc<Status>> {
        &self.statuses
    }

    /// Whose status is owed.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.statuses.keys()
    }

    /// The status of an object, without the times of its conditions; none if none is owed.
    pub fn value(&self, object: &ObjectRef) -> Option<Value> {
        let finished = self.statuses.get(object)?.finish(object, &self.applied);
        serde_json::to_value(finished).ok()
    }

    /// Whether an object has one.
    pub fn contains(&self, object: &ObjectRef) -> bool {
        self.statuses.contains_key(object)
    }

    /// What became of the revision.
    pub fn applied(&self) -> &Applied {
        &self.applied
    }

    /// The objects whose status may differ from what it was before, those without one now
    /// included. The cost follows what changed.
    pub fn changed_since(&self, before: &Self) -> BTreeSet<ObjectRef> {
        let mut changed = BTreeSet::new();
        if self.applied != before.applied {
            changed.extend(troubled(&self.applied));
            changed.extend(troubled(&before.applied));
        }
        for item in before.statuses.diff(&self.statuses) {
            let (DiffItem::Add(object, _)
            | DiffItem::Update {
                new: (object, _), ..
            }
            | DiffItem::Remove(object, _)) = item;
            changed.insert(object.clone());
        }
        changed
    }
}

/// The objects whose status depends on what became of the revision.
fn troubled(applied: &Applied) -> BTreeSet<ObjectRef> {
    let failed = applied.failures.keys();
    let failed = failed.map(|listener| listener.gateway.clone());
    let others = applied.rejected.keys().chain(applied.pending.keys());
    failed.chain(others.cloned()).collect()
}
