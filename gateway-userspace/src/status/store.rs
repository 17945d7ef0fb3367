//! The statuses that this process knows, as `kubectl get -o yaml` would show them.
//!
//! In files nobody else keeps a condition's `lastTransitionTime`, so it is kept here: a few numbers
//! per object, for a rendered status takes a hundred times as much and is seldom read.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::names::ObjectRef;
use imbl::OrdMap;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::ours::digest_of_text;
use super::owed::Owed;

/// Every status with its times. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Statuses {
    owed: Owed,
    times: OrdMap<ObjectRef, Arc<[Time]>>,
}

/// When a condition came to be what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Time {
    /// Which condition of which part of the status, and its `status`, as digests.
    condition: u64,
    status: u64,
    /// Seconds since the Unix epoch.
    at: i64,
}

impl Statuses {
    /// Takes what is owed now; the conditions that changed by it changed now.
    pub fn update(&mut self, owed: Owed, now: Timestamp) {
        let changed: BTreeSet<ObjectRef> = owed.changed_since(&self.owed);
        for object in changed {
            let Some(mut status) = owed.value(&object) else {
                self.times.remove(&object);
                continue;
            };
            let old = self.times.get(&object).map(|times| &times[..]);
            let times = stamp(&mut status, old.unwrap_or_default(), now.as_second());
            if old != Some(&times[..]) {
                self.times.insert(object, times.into());
            }
        }
        self.owed = owed;
    }

    /// What is owed, without times.
    pub fn owed(&self) -> &Owed {
        &self.owed
    }

    /// Whether an object has a status.
    pub fn contains(&self, object: &ObjectRef) -> bool {
        self.owed.contains(object)
    }

    /// Every status, rendered one by one.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectRef, Value)> {
        self.owed.objects().filter_map(|object| {
            let mut status = self.owed.value(object)?;
            let times = self.times.get(object).map(|times| &times[..]);
            stamp(&mut status, times.unwrap_or_default(), 0);
            Some((object, status))
        })
    }
}

/// An object with its status as `kubectl get -o yaml` prints it, the spec left out.
pub fn manifest(object: &ObjectRef, status: &Value) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(object.name));
    if !object.namespace.is_empty() {
        metadata.insert("namespace".to_owned(), json!(object.namespace));
    }
    json!({
        "apiVersion": object.kind.api_version(),
        "kind": object.kind.as_str(),
        "metadata": metadata,
        "status": status,
    })
}

/// Writes `lastTransitionTime` into every condition: the old one while `status` is the same.
fn stamp(status: &mut Value, old: &[Time], now: i64) -> Vec<Time> {
    let mut times = Vec::new();
    if let Value::Object(fields) = status {
        for (name, field) in fields {
            match field {
                Value::Array(conditions) if name == "conditions" => {
                    stamp_conditions(conditions, "", old, now, &mut times);
                }
                Value::Array(parts) => {
                    for part in parts {
                        let place = place(part);
                        if let Some(Value::Array(conditions)) = part.get_mut("conditions") {
                            stamp_conditions(conditions, &place, old, now, &mut times);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    times
}

/// What makes an element of a list the same one as before: a listener's name, or whose entry it is.
fn place(part: &Value) -> String {
    let key = ["name", "parentRef", "ancestorRef"];
    let key = key.iter().find_map(|key| part.get(*key));
    key.map(ToString::to_string).unwrap_or_default()
}

fn stamp_conditions(
    conditions: &mut [Value],
    place: &str,
    old: &[Time],
    now: i64,
    times: &mut Vec<Time>,
) {
    for condition in conditions {
        let text = |key: &str| condition[key].as_str().unwrap_or_default();
        let mut time = Time {
            condition: digest_of_text(&format!("{place} {}", text("type"))),
            status: digest_of_text(text("status")),
            at: now,
        };
        let same = |old: &&Time| old.condition == time.condition && old.status == time.status;
        if let Some(old) = old.iter().find(same) {
            time.at = old.at;
        }
        times.push(time);
        condition["lastTransitionTime"] = json!(rfc3339(time.at));
    }
}

/// A time as Kubernetes writes it.
fn rfc3339(seconds: i64) -> String {
    let time = Timestamp::from_second(seconds).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
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

    const FIRST: &str = "1970-01-01T00:00:01Z";
    const SECOND: &str = "1970-01-01T00:00:02Z";

    #[test]
    fn a_condition_keeps_its_time_while_its_status_is_the_same() {
        let mut first = json!({
            "conditions": [condition("Accepted", "True")],
            "listeners": [
                {"name": "a", "conditions": [condition("Programmed", "False")]},
                {"name": "b", "conditions": [condition("Programmed", "True")]},
            ],
        });
        let times = stamp(&mut first, &[], 1);
        let mut second = json!({
            "conditions": [condition("Accepted", "True")],
            "listeners": [
                {"name": "b", "conditions": [condition("Programmed", "True")]},
                {"name": "a", "conditions": [condition("Programmed", "True")]},
            ],
        });
        stamp(&mut second, &times, 2);
        assert_eq!(time_of(&second, "/conditions/0/lastTransitionTime"), FIRST);
        assert_eq!(
            time_of(&second, "/listeners/0/conditions/0/lastTransitionTime"),
            FIRST
        );
        assert_eq!(
            time_of(&second, "/listeners/1/conditions/0/lastTransitionTime"),
            SECOND
        );
    }

    #[test]
    fn a_route_has_one_entry_for_each_parent() {
        let parent = |name: &str, status: &str| json!({"parentRef": {"name": name}, "conditions": [condition("Accepted", status)]});
        let mut first = json!({"parents": [parent("x", "True"), parent("y", "True")]});
        let times = stamp(&mut first, &[], 1);
        let mut second = json!({"parents": [parent("y", "True"), parent("x", "False")]});
        stamp(&mut second, &times, 2);
        assert_eq!(
            time_of(&second, "/parents/0/conditions/0/lastTransitionTime"),
            FIRST
        );
        assert_eq!(
            time_of(&second, "/parents/1/conditions/0/lastTransitionTime"),
            SECOND
        );
    }
}
