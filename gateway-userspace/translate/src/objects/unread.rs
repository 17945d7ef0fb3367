//! Fields that are written and that nobody reads: misspelled ones, and those of a part of the API that is not
//! supported. The API server prunes or refuses unknown fields; a directory of manifests has nobody who does.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

use gateway_model::names::ObjectKind;
use serde_json::{Map, Value};

use super::Problem;
use crate::nearest::nearest;

/// Which fields of which mapping were asked for while an object was read.
#[derive(Default)]
pub(super) struct Asked(RefCell<HashMap<String, BTreeSet<String>>>);

impl Asked {
    pub(super) fn note(&self, path: &str, field: &str) {
        let mut asked = self.0.borrow_mut();
        let fields = match asked.get_mut(path) {
            Some(fields) => fields,
            None => asked.entry(path.to_owned()).or_default(),
        };
        if !fields.contains(field) {
            fields.insert(field.to_owned());
        }
    }
}

/// Fields that say something to people or to the API server, and nothing to a gateway.
const SILENT: [&str; 5] = [
    "apiVersion",
    "kind",
    "metadata",
    "status",
    "spec.description",
];

/// What nobody has asked for, where the other fields of the same mapping have been asked for. Of kinds that are not
/// the Gateway API's most fields are others' business.
pub(super) fn unread(kind: ObjectKind, value: &Value, asked: &Asked) -> Vec<Problem> {
    let mut found = Vec::new();
    if is_ours_alone(kind) {
        walk(value, "", &asked.0.borrow(), &mut found);
    }
    found.extend(annotations(value));
    found
}

fn is_ours_alone(kind: ObjectKind) -> bool {
    kind.api_version().starts_with("gateway.networking.k8s.io/")
}

fn walk(
    value: &Value,
    path: &str,
    asked: &HashMap<String, BTreeSet<String>>,
    found: &mut Vec<Problem>,
) {
    match value {
        Value::Object(map) => {
            if let Some(known) = asked.get(path) {
                fields(map, path, known, asked, found);
            }
        }
        Value::Array(list) => {
            for (at, item) in list.iter().enumerate() {
                walk(item, &format!("{path}[{at}]"), asked, found);
            }
        }
        _ => {}
    }
}

fn fields(
    map: &Map<String, Value>,
    path: &str,
    known: &BTreeSet<String>,
    asked: &HashMap<String, BTreeSet<String>>,
    found: &mut Vec<Problem>,
) {
    for (name, value) in map.iter().filter(|(_, value)| !value.is_null()) {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        if SILENT.contains(&path.as_str()) {
            continue;
        }
        if known.contains(name) {
            walk(value, &path, asked, found);
            continue;
        }
        let absent = known.iter().filter(|known| !map.contains_key(*known));
        let message = match nearest(name, absent.map(String::as_str)) {
            Some(meant) => format!("has no effect: no such field is read; is `{meant}` meant?"),
            None => "has no effect: no such field is read".to_owned(),
        };
        found.push(Problem { path, message });
    }
}

/// Annotations of ours that do not exist: a source policy that is misspelled lets everybody in.
fn annotations(value: &Value) -> Vec<Problem> {
    const KNOWN: [&str; 3] = [
        "sluice.dev/allow-cidrs",
        "sluice.dev/deny-cidrs",
        "sluice.dev/endpoints",
    ];
    // What Sluice itself writes, and a dump of a cluster has.
    const WRITTEN: [&str; 3] = [
        "sluice.dev/applied",
        "sluice.dev/nodes",
        "sluice.dev/put-on",
    ];
    let map = value
        .pointer("/metadata/annotations")
        .and_then(Value::as_object);
    let names = map.into_iter().flat_map(Map::keys);
    let is_unknown = |name: &&String| {
        let name = name.as_str();
        name.starts_with("sluice.dev/") && !KNOWN.contains(&name) && !WRITTEN.contains(&name)
    };
    names
        .filter(is_unknown)
        .map(|name| Problem {
            path: format!("metadata.annotations.{name}"),
            message: match nearest(name, KNOWN.into_iter()) {
                Some(meant) => {
                    format!("has no effect: there is no such annotation; is `{meant}` meant?")
                }
                None => "has no effect: there is no such annotation".to_owned(),
            },
        })
        .collect()
}
