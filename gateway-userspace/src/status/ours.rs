//! What of a status is ours to say. The rest belongs to others and is never touched.
//!
//! A route's and a policy's status is a list of entries, each with its writer's controller name; the
//! status of a Gateway, a ListenerSet and a GatewayClass is ours but for conditions of types that
//! Sluice does not write. What is ours is compared by a [`Digest`] of its meaning: the order of what
//! Kubernetes treats as a map does not count, nor does `lastTransitionTime`, nor the difference
//! between an empty list and none.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::LazyLock;

use gateway_model::names::ObjectKind;
use gateway_translate::status::ConditionType;
use serde_json::{Map, Value};

/// What a status says in our part, as a number that only this process can read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(u64);

/// How the status of a kind is divided between controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    /// The fields are ours; in `conditions`, and in those of `listeners`, only our types are.
    Fields(&'static [&'static str]),
    /// A list of entries with a `controllerName`, and how many Kubernetes takes.
    Entries(&'static str, usize),
}

impl Division {
    /// How the status of that kind is divided; none for a kind whose status Sluice does not write.
    pub fn of(kind: ObjectKind) -> Option<Self> {
        Some(match kind {
            ObjectKind::GatewayClass => Self::Fields(&["conditions", "supportedFeatures"]),
            ObjectKind::Gateway => Self::Fields(&[
                "addresses",
                "attachedListenerSets",
                "conditions",
                "listeners",
            ]),
            ObjectKind::ListenerSet => Self::Fields(&["conditions", "listeners"]),
            ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
            | ObjectKind::TlsRoute
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute => Self::Entries("parents", 32),
            ObjectKind::BackendTlsPolicy => Self::Entries("ancestors", 16),
            ObjectKind::ReferenceGrant
            | ObjectKind::Service
            | ObjectKind::EndpointSlice
            | ObjectKind::Secret
            | ObjectKind::ConfigMap
            | ObjectKind::Namespace
            | ObjectKind::Node => return None,
        })
    }
}

/// Whether a condition of a Gateway, a listener or a class is of a type that Sluice writes.
pub fn is_our_type(condition: &Value) -> bool {
    let kind = condition.get("type").and_then(Value::as_str);
    kind.is_some_and(|kind| ConditionType::parse(kind).is_some())
}

/// Whether an entry of a list was written by that controller.
pub fn is_by(entry: &Value, controller: &str) -> bool {
    entry.get("controllerName").and_then(Value::as_str) == Some(controller)
}

/// Whether two values differ in nothing but what does not count.
pub fn same_meaning(a: &Value, b: &Value) -> bool {
    value(a) == value(b)
}

/// What a status says in our part; a kind without one, or a status that says nothing, has the
/// digest of nothing.
pub fn digest(kind: ObjectKind, status: &Value, controller: &str) -> Digest {
    let Value::Object(status) = status else {
        return NOTHING;
    };
    match Division::of(kind) {
        None => NOTHING,
        Some(Division::Fields(names)) => fields(status, names),
        Some(Division::Entries(list, _)) => {
            let entries = status.get(list).and_then(Value::as_array);
            let ours = entries.into_iter().flatten();
            let ours = ours.filter(|entry| is_by(entry, controller));
            Digest(bag(ours.map(value)))
        }
    }
}

/// The digest of a status in which nothing is ours.
pub const NOTHING: Digest = Digest(0);

fn fields(status: &Map<String, Value>, names: &[&str]) -> Digest {
    let ours = names.iter().filter_map(|name| {
        let field = status.get(*name)?;
        let digest = match *name {
            "conditions" => our_conditions(field),
            "listeners" => bag(items(field).map(listener)),
            "supportedFeatures" => bag(items(field).map(value)),
            _ => value(field),
        };
        (digest != 0).then(|| one(&(name, digest)))
    });
    Digest(bag(ours))
}

fn listener(listener: &Value) -> u64 {
    let Value::Object(map) = listener else {
        return value(listener);
    };
    bag(map.iter().filter_map(|(key, field)| {
        let digest = match key.as_str() {
            "conditions" => our_conditions(field),
            _ => value(field),
        };
        (digest != 0).then(|| one(&(key, digest)))
    }))
}

fn our_conditions(conditions: &Value) -> u64 {
    bag(items(conditions).filter(|c| is_our_type(c)).map(value))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// Nothing, and what holds nothing, is 0.
fn value(of: &Value) -> u64 {
    match of {
        Value::Null => 0,
        Value::Bool(flag) => one(flag),
        Value::Number(number) => one(number),
        Value::String(text) => one(text),
        Value::Array(list) if list.is_empty() => 0,
        Value::Array(list) => one(&list.iter().map(value).collect::<Vec<_>>()),
        Value::Object(map) => bag(map.iter().filter_map(|(key, field)| {
            let digest = match key.as_str() {
                "lastTransitionTime" => 0,
                "conditions" => bag(items(field).map(value)),
                _ => value(field),
            };
            (digest != 0).then(|| one(&(key, digest)))
        })),
    }
}

/// A collection whose order does not count; 0 if it is empty.
fn bag(parts: impl Iterator<Item = u64>) -> u64 {
    let mut parts: Vec<u64> = parts.collect();
    if parts.is_empty() {
        return 0;
    }
    parts.sort_unstable();
    one(&parts)
}

/// Keyed, so that nobody can make two statuses with one digest.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);

fn one(part: &impl Hash) -> u64 {
    KEY.hash_one(part).max(1)
}

/// A digest of something else than a status.
pub fn digest_of_text(text: &str) -> u64 {
    one(&text)
}

#[cfg(test)]
mod tests;
