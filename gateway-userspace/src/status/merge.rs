//! Puts what is owed into a status that stands, and leaves everything of others as it is.

use gateway_model::names::ObjectKind;
use serde_json::{Map, Value, json};

use super::ours::{Division, is_by, is_our_type, same_meaning};

/// Gateway API v1: `maxItems` of the `conditions` of Gateways, listeners and classes.
const MAX_CONDITIONS: usize = 8;

/// Conditions that go first when others leave no room for all of ours.
const DISPENSABLE: [&str; 5] = [
    "SupportedVersion",
    "PartiallyInvalid",
    "InsecureFrontendValidationMode",
    "OverlappingTLSConfig",
    "Conflicted",
];

/// A status with our part put in.
#[derive(Debug)]
pub struct Merged {
    /// The whole status.
    pub status: Value,
    /// What found no room, because others fill the list.
    pub left_out: Vec<String>,
}

/// Replaces our part of `current`, the status of an object of that kind as it was read, with
/// `owed`, which has no `lastTransitionTime`. A condition keeps its time while its `status` is the
/// same, and gets `now` (RFC 3339) otherwise. Entries and conditions of others stay what and where
/// they are.
pub fn merge(
    kind: ObjectKind,
    current: &Value,
    owed: &Value,
    controller: &str,
    now: &str,
) -> Merged {
    let mut left_out = Vec::new();
    let mut status = current.as_object().cloned().unwrap_or_default();
    match Division::of(kind) {
        None => {}
        Some(Division::Fields(names)) => {
            for name in names {
                put_field(&mut status, name, owed.get(*name), now, &mut left_out);
            }
        }
        Some(Division::Entries(list, limit)) => {
            let entries = Entries {
                controller,
                limit,
                now,
            };
            let merged = entries.merge(items(status.get(list)), items(owed.get(list)));
            let fits = entries.fit(merged, &mut left_out);
            status.insert(list.to_owned(), Value::Array(fits));
        }
    }
    Merged {
        status: Value::Object(status),
        left_out,
    }
}

fn items(list: Option<&Value>) -> &[Value] {
    list.and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn put_field(
    status: &mut Map<String, Value>,
    name: &str,
    owed: Option<&Value>,
    now: &str,
    left_out: &mut Vec<String>,
) {
    let current = status.get(name);
    let new = match name {
        "conditions" => Some(conditions(items(current), items(owed), now, left_out)),
        "listeners" => Some(listeners(items(current), items(owed), now, left_out)),
        _ => owed.cloned(),
    };
    match new {
        Some(Value::Array(list)) if list.is_empty() && current.is_none() => {}
        Some(new) => {
            status.insert(name.to_owned(), new);
        }
        None => {
            status.remove(name);
        }
    }
}

/// Conditions are a map by type: ours are replaced where they stand, gone if they are not owed any
/// more, and new ones are put behind.
fn conditions(current: &[Value], owed: &[Value], now: &str, left_out: &mut Vec<String>) -> Value {
    let mut merged = Vec::with_capacity(current.len().max(owed.len()));
    for condition in current {
        if !is_our_type(condition) {
            merged.push(condition.clone());
        } else if let Some(new) = of_type(owed, condition) {
            merged.push(stamped(new, Some(condition), now));
        }
    }
    let new = owed.iter().filter(|new| of_type(current, new).is_none());
    merged.extend(new.map(|new| stamped(new, None, now)));
    for name in DISPENSABLE {
        if merged.len() > MAX_CONDITIONS {
            shed(&mut merged, left_out, |condition| condition["type"] == name);
        }
    }
    while merged.len() > MAX_CONDITIONS && merged.iter().any(is_our_type) {
        let last = merged.iter().rposition(is_our_type).unwrap_or_default();
        left_out.push(name_of(&merged.remove(last)));
    }
    Value::Array(merged)
}

fn shed(merged: &mut Vec<Value>, left_out: &mut Vec<String>, goes: impl Fn(&Value) -> bool) {
    if let Some(at) = merged.iter().position(goes) {
        left_out.push(name_of(&merged.remove(at)));
    }
}

fn name_of(condition: &Value) -> String {
    let name = condition["type"].as_str().unwrap_or_default();
    format!("condition {name}")
}

fn of_type<'a>(conditions: &'a [Value], like: &Value) -> Option<&'a Value> {
    conditions.iter().find(|c| c["type"] == like["type"])
}

fn stamped(new: &Value, old: Option<&Value>, now: &str) -> Value {
    let mut new = new.clone();
    let old = old.filter(|old| old["status"] == new["status"]);
    let time = old
        .and_then(|old| old.get("lastTransitionTime"))
        .filter(|time| time.is_string());
    new["lastTransitionTime"] = time.cloned().unwrap_or_else(|| json!(now));
    new
}

/// Listeners are a map by name, in the order of what is owed.
fn listeners(current: &[Value], owed: &[Value], now: &str, left_out: &mut Vec<String>) -> Value {
    let merge = |new: &Value| {
        let old = current.iter().find(|old| old["name"] == new["name"]);
        let mut merged = new.clone();
        let before = items(old.and_then(|old| old.get("conditions")));
        merged["conditions"] = conditions(before, items(new.get("conditions")), now, left_out);
        merged
    };
    owed.iter().map(merge).collect()
}

/// A list of entries with a `controllerName` each.
struct Entries<'a> {
    controller: &'a str,
    limit: usize,
    now: &'a str,
}

impl Entries<'_> {
    /// Ours stay where they stood; new ones are put behind.
    fn merge(&self, current: &[Value], owed: &[Value]) -> Vec<Value> {
        let mut waiting: Vec<&Value> = owed.iter().collect();
        let mut merged = Vec::with_capacity(current.len().max(owed.len()));
        for entry in current {
            if !is_by(entry, self.controller) {
                merged.push(entry.clone());
            } else if let Some(at) = waiting.iter().position(|new| same_reference(new, entry)) {
                merged.push(self.stamped(waiting.remove(at), Some(entry)));
            }
        }
        merged.extend(waiting.into_iter().map(|new| self.stamped(new, None)));
        merged
    }

    fn stamped(&self, new: &Value, old: Option<&Value>) -> Value {
        let mut new = new.clone();
        let before = items(old.and_then(|old| old.get("conditions")));
        let stamp = |condition: &Value| stamped(condition, of_type(before, condition), self.now);
        let conditions = items(new.get("conditions")).iter().map(stamp).collect();
        new["conditions"] = Value::Array(conditions);
        new
    }

    /// "If this slice is full, implementations MUST NOT add further entries" (Gateway API v1
    /// `PolicyStatus.ancestors`); the same must be said of `RouteStatus.parents`.
    fn fit(&self, mut entries: Vec<Value>, left_out: &mut Vec<String>) -> Vec<Value> {
        while entries.len() > self.limit {
            let ours = entries.iter().rposition(|e| is_by(e, self.controller));
            let Some(last) = ours else { break };
            let reference = reference(&entries.remove(last)).clone();
            let name = reference["name"].as_str().unwrap_or_default().to_owned();
            left_out.push(format!("the entry for {name}"));
        }
        entries
    }
}

fn same_reference(a: &Value, b: &Value) -> bool {
    same_meaning(reference(a), reference(b))
}

fn reference(entry: &Value) -> &Value {
    let parent = entry.get("parentRef");
    parent.unwrap_or_else(|| &entry["ancestorRef"])
}

#[cfg(test)]
mod tests;
