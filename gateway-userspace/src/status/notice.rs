//! What a change of a status is worth telling: the Events that `kubectl describe` shows.

use gateway_model::names::ObjectRef;
use serde_json::Value;

use super::observed::Uid;
use super::ours::{Division, is_by, is_our_type};
use crate::text::shortened;

/// events.k8s.io/v1 `Event.note`: 1 KiB at most.
const NOTE_BYTES: usize = 1024;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// Of which object.
    pub object: ObjectRef,
    /// Which of those that had its name.
    pub uid: Option<Uid>,
    /// Whether something is wrong.
    pub is_warning: bool,
    /// One word.
    pub reason: String,
    /// In words.
    pub note: String,
}

impl Notice {
    /// Something is wrong.
    pub fn warning(object: ObjectRef, uid: Option<Uid>, reason: &str, note: &str) -> Self {
        Self {
            object,
            uid,
            is_warning: true,
            reason: reason.to_owned(),
            note: shortened(note, NOTE_BYTES),
        }
    }
}

/// What to tell of a status that was `before` and is `after`: what went wrong, what is right again,
/// and once that an object is accepted or programmed at all.
pub fn notices(
    object: &ObjectRef,
    uid: Uid,
    (before, after): (&Value, &Value),
    controller: &str,
) -> Vec<Notice> {
    let before = conditions(object, before, controller);
    let awaits_address = is_proposed(after);
    let mut notices: Vec<(Place, &str, Notice)> = Vec::new();
    for (place, condition) in conditions(object, after, controller) {
        let text = |key: &str| condition[key].as_str().unwrap_or_default();
        let kind = text("type");
        let old = before
            .iter()
            .find(|(other, old)| *other == place && old["type"] == kind);
        let old = old.map(|(_, old)| old["status"].as_str().unwrap_or_default());
        let old = old.filter(|status| *status != "Unknown");
        let is_bad = is_bad(kind, text("status"));
        if kind == "Programmed" && awaits_address && old.is_none() {
            continue;
        }
        let is_worth = match old {
            Some(old) => old != text("status"),
            None => is_bad || (is_headline(object, kind) && place.is_none_or_parent()),
        };
        if is_worth {
            let note = format!("{}{kind}: {}", place.prefix(), text("message"));
            let notice = Notice {
                object: object.clone(),
                uid: Some(uid),
                is_warning: is_bad,
                reason: text("reason").to_owned(),
                note: shortened(&note, NOTE_BYTES),
            };
            // What holds for the whole is not told of every part.
            let is_told = |(whole, of, told): &(Place, &str, Notice)| {
                *whole == Place::Whole && *of == kind && told.is_warning == is_bad
            };
            if !notices.iter().any(is_told) {
                notices.push((place, kind, notice));
            }
        }
    }
    notices.into_iter().map(|(_, _, notice)| notice).collect()
}

/// Whether a Gateway was just given an address, which is served as soon as it is seen here.
fn is_proposed(status: &Value) -> bool {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let has_address = status["addresses"]
        .as_array()
        .is_some_and(|a| !a.is_empty());
    has_address && conditions.any(|c| c["reason"] == "AddressNotAssigned")
}

/// The condition that says that all is well.
fn is_headline(object: &ObjectRef, kind: &str) -> bool {
    use gateway_model::names::ObjectKind::{Gateway, ListenerSet};
    match object.kind {
        Gateway | ListenerSet => kind == "Programmed",
        _ => kind == "Accepted",
    }
}

fn is_bad(kind: &str, status: &str) -> bool {
    match kind {
        "Conflicted"
        | "InsecureFrontendValidationMode"
        | "OverlappingTLSConfig"
        | "PartiallyInvalid" => status == "True",
        _ => status == "False",
    }
}

/// Which part of an object a condition speaks of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Whole,
    Listener(String),
    Parent(String),
}

impl Place {
    fn prefix(&self) -> String {
        match self {
            Self::Whole => String::new(),
            Self::Listener(name) => format!("listener {name}, "),
            Self::Parent(name) => format!("{name}, "),
        }
    }

    fn is_none_or_parent(&self) -> bool {
        !matches!(self, Self::Listener(_))
    }
}

fn conditions<'a>(
    object: &ObjectRef,
    status: &'a Value,
    controller: &str,
) -> Vec<(Place, &'a Value)> {
    fn items<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        value
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }
    match Division::of(object.kind) {
        None => Vec::new(),
        Some(Division::Fields(_)) => {
            let own = items(status, "conditions").map(|c| (Place::Whole, c));
            let listeners = items(status, "listeners").flat_map(|listener| {
                let name = listener["name"].as_str().unwrap_or_default().to_owned();
                items(listener, "conditions").map(move |c| (Place::Listener(name.clone()), c))
            });
            let all = own.chain(listeners);
            all.filter(|(_, c)| is_our_type(c)).collect()
        }
        Some(Division::Entries(list, _)) => items(status, list)
            .filter(|entry| is_by(entry, controller))
            .flat_map(|entry| {
                let reference = entry.get("parentRef").or_else(|| entry.get("ancestorRef"));
                let place = Place::Parent(reference.map(name_of).unwrap_or_default());
                items(entry, "conditions").map(move |c| (place.clone(), c))
            })
            .collect(),
    }
}

fn name_of(reference: &Value) -> String {
    let text = |key: &str| reference[key].as_str();
    let mut name = text("kind").unwrap_or("Gateway").to_owned() + " ";
    if let Some(namespace) = text("namespace") {
        name = name + namespace + "/";
    }
    name += text("name").unwrap_or_default();
    if let Some(section) = text("sectionName") {
        name = name + "#" + section;
    }
    name
}

#[cfg(test)]
mod tests {
    use gateway_model::names::ObjectKind;
    use serde_json::json;

    use super::*;

    const US: &str = "sluice.dev/gateway-controller";

    fn condition(kind: &str, status: &str) -> Value {
        json!({"type": kind, "status": status, "reason": format!("R{status}"), "message": "why"})
    }

    fn route(conditions: &[Value]) -> Value {
        json!({"parents": [
            {"parentRef": {"kind": "Gateway", "name": "web", "sectionName": "http"}, "controllerName": US, "conditions": conditions},
            {"parentRef": {"name": "web"}, "controllerName": "example.org/other", "conditions": [condition("Accepted", "False")]},
        ]})
    }

    fn told(kind: ObjectKind, before: &Value, after: &Value) -> Vec<(bool, String)> {
        let object = ObjectRef::new(kind, "shop", "x");
        notices(&object, Uid::parse("u"), (before, after), US)
            .into_iter()
            .map(|n| (n.is_warning, n.note))
            .collect()
    }

    #[test]
    fn a_new_route_is_told_of_once() {
        let good = route(&[
            condition("Accepted", "True"),
            condition("ResolvedRefs", "True"),
        ]);
        assert_eq!(
            told(ObjectKind::HttpRoute, &Value::Null, &good),
            [(false, "Gateway web#http, Accepted: why".to_owned())]
        );
        assert!(told(ObjectKind::HttpRoute, &good, &good).is_empty());
    }

    #[test]
    fn what_goes_wrong_and_right_again_is_told() {
        let good = route(&[
            condition("Accepted", "True"),
            condition("ResolvedRefs", "True"),
        ]);
        let bad = route(&[
            condition("Accepted", "True"),
            condition("ResolvedRefs", "False"),
            condition("PartiallyInvalid", "True"),
        ]);
        let worse = told(ObjectKind::HttpRoute, &good, &bad);
        assert_eq!(worse.len(), 2);
        assert!(worse.iter().all(|(is_warning, _)| *is_warning));
        let better = told(ObjectKind::HttpRoute, &bad, &good);
        assert_eq!(
            better,
            [(false, "Gateway web#http, ResolvedRefs: why".to_owned())]
        );
    }

    #[test]
    fn a_gateway_is_told_of_when_it_is_programmed() {
        let default = json!({"conditions": [condition("Programmed", "Unknown")]});
        let listener = json!({"name": "a", "conditions": [condition("Programmed", "True"), condition("Conflicted", "False")]});
        let good = json!({
            "conditions": [condition("Accepted", "True"), condition("Programmed", "True"), condition("example.org/X", "False")],
            "listeners": [listener],
        });
        assert_eq!(
            told(ObjectKind::Gateway, &default, &good),
            [(false, "Programmed: why".to_owned())]
        );
        let mut bad = good.clone();
        bad["listeners"][0]["conditions"] = json!([condition("Conflicted", "True")]);
        assert_eq!(
            told(ObjectKind::Gateway, &good, &bad),
            [(true, "listener a, Conflicted: why".to_owned())]
        );
    }
}
