//! The statuses that objects have, as Kubernetes would keep them.
//!
//! The translator says what each status should be and the appliers what is served; here both
//! become one document per object, and a condition's `lastTransitionTime` stays while its status does.

pub mod observed;
mod ours;

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::names::ObjectRef;
use gateway_translate::{Applied, Status};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What `kubectl get -o yaml` shows under `status:`, by object, as JSON text: a tenth of the memory
/// of a parsed value, and few are ever read.
pub type Statuses = OrdMap<ObjectRef, Arc<str>>;

/// A status as a value.
pub fn parsed(status: &str) -> Value {
    serde_json::from_str(status).unwrap_or(Value::Null)
}

/// Keeps statuses in step with translations and what became of them.
#[derive(Debug, Default)]
pub struct StatusStore {
    owed: OrdMap<ObjectRef, Arc<Status>>,
    applied: Applied,
    written: Statuses,
}

impl StatusStore {
    /// Takes a translation's statuses and what became of its revision. The cost follows what changed.
    pub fn update(
        &mut self,
        owed: &OrdMap<ObjectRef, Arc<Status>>,
        applied: Applied,
        now: Timestamp,
    ) {
        let mut changed = troubled(&self.applied);
        changed.extend(troubled(&applied));
        for item in self.owed.diff(owed) {
            match item {
                DiffItem::Add(object, _)
                | DiffItem::Update {
                    new: (object, _), ..
                } => {
                    changed.insert(object.clone());
                }
                DiffItem::Remove(object, _) => {
                    self.written.remove(object);
                }
            }
        }
        for object in changed {
            if let Some(status) = owed.get(&object) {
                self.write(object, status, &applied, now);
            }
        }
        self.owed = owed.clone();
        self.applied = applied;
    }

    /// Every status.
    pub fn statuses(&self) -> &Statuses {
        &self.written
    }

    fn write(&mut self, object: ObjectRef, status: &Status, applied: &Applied, now: Timestamp) {
        let finished = status.finish(&object, applied);
        let mut new = serde_json::to_value(finished).unwrap_or(Value::Null);
        let old = self.written.get(&object).map(|old| parsed(old));
        let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        stamp(&mut new, old.as_ref(), &now);
        if old.is_none_or(|old| old != new) {
            self.written.insert(object, new.to_string().into());
        }
    }
}

/// An object with its status as `kubectl get -o yaml` prints it, the spec left out.
pub fn manifest(object: &ObjectRef, status: &str) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(object.name));
    if !object.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(object.namespace));
    }
    json!({
        "apiVersion": object.kind.api_version(),
        "kind": object.kind.as_str(),
        "metadata": metadata,
        "status": parsed(status),
    })
}

/// The objects whose status depends on what became of the revision.
fn troubled(applied: &Applied) -> BTreeSet<ObjectRef> {
    let gateways = applied
        .failures
        .keys()
        .map(|listener| listener.gateway.clone());
    gateways.chain(applied.rejected.keys().cloned()).collect()
}

/// Writes `lastTransitionTime` into every condition: the old one while `status` is the same.
fn stamp(new: &mut Value, old: Option<&Value>, now: &str) {
    match new {
        Value::Object(map) => {
            for (key, value) in map {
                let old = old.and_then(|old| old.get(key));
                match value {
                    Value::Array(conditions) if key == "conditions" => {
                        stamp_conditions(conditions, old, now);
                    }
                    value => stamp(value, old, now),
                }
            }
        }
        Value::Array(list) => {
            for one in list {
                let same = |other: &&Value| identity(other) == identity(one);
                let old = old
                    .and_then(Value::as_array)
                    .and_then(|old| old.iter().find(same));
                stamp(one, old, now);
            }
        }
        _ => {}
    }
}

fn stamp_conditions(conditions: &mut [Value], old: Option<&Value>, now: &str) {
    for condition in conditions {
        let before = old.and_then(Value::as_array).into_iter().flatten();
        let mut before =
            before.filter(|o| o["type"] == condition["type"] && o["status"] == condition["status"]);
        let time = before
            .next()
            .map_or_else(|| json!(now), |old| old["lastTransitionTime"].clone());
        condition["lastTransitionTime"] = time;
    }
}

/// What makes an element of a list the same one as before: a listener's name, or a route's parent.
fn identity(value: &Value) -> (Option<&Value>, Option<&Value>) {
    (value.get("name"), value.get("parentRef"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "reason": "R", "message": "m"})
    }

    fn time_of<'a>(value: &'a Value, pointer: &str) -> &'a str {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .expect("a time")
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_is_the_same() {
        let mut first = json!({
            "conditions": [condition("Accepted", "True")],
            "listeners": [
                {"name": "a", "conditions": [condition("Programmed", "False")]},
                {"name": "b", "conditions": [condition("Programmed", "True")]},
            ],
        });
        stamp(&mut first, None, "t1");
        let mut second = json!({
            "conditions": [condition("Accepted", "True")],
            "listeners": [
                {"name": "b", "conditions": [condition("Programmed", "True")]},
                {"name": "a", "conditions": [condition("Programmed", "True")]},
            ],
        });
        stamp(&mut second, Some(&first), "t2");
        assert_eq!(time_of(&second, "/conditions/0/lastTransitionTime"), "t1");
        assert_eq!(
            time_of(&second, "/listeners/0/conditions/0/lastTransitionTime"),
            "t1"
        );
        assert_eq!(
            time_of(&second, "/listeners/1/conditions/0/lastTransitionTime"),
            "t2"
        );
    }

    #[test]
    fn a_route_has_one_entry_for_each_parent() {
        let parent = |name: &str, status: &str| json!({"parentRef": {"name": name}, "conditions": [condition("Accepted", status)]});
        let mut first = json!({"parents": [parent("x", "True"), parent("y", "True")]});
        stamp(&mut first, None, "t1");
        let mut second = json!({"parents": [parent("y", "True"), parent("x", "False")]});
        stamp(&mut second, Some(&first), "t2");
        assert_eq!(
            time_of(&second, "/parents/0/conditions/0/lastTransitionTime"),
            "t1"
        );
        assert_eq!(
            time_of(&second, "/parents/1/conditions/0/lastTransitionTime"),
            "t2"
        );
    }
}
