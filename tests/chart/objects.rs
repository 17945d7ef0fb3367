//! Objects of Kubernetes as manifests write them, and how two sets of them differ.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Objects by kind and name.
pub type Objects = BTreeMap<(String, String), Value>;

/// Reads a stream of YAML documents.
pub fn parse(text: &str) -> Result<Objects> {
    let mut objects = Objects::new();
    for document in text.split("\n---") {
        let value = yaml(document)?;
        if value.is_null() {
            continue;
        }
        let field = |pointer: &str| -> Result<String> {
            let found = value.pointer(pointer).and_then(Value::as_str);
            Ok(found.with_context(|| document.to_owned())?.to_owned())
        };
        let key = (field("/kind")?, field("/metadata/name")?);
        ensure!(
            objects.insert(key.clone(), value).is_none(),
            "{key:?} stands twice"
        );
    }
    Ok(objects)
}

/// One YAML document.
pub fn yaml(text: &str) -> Result<Value> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).with_context(|| text.to_owned())
}

/// The only object of a kind.
pub fn only<'a>(objects: &'a Objects, kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|((k, _), _)| k == kind);
    let (_, object) = found.next().with_context(|| format!("no {kind}"))?;
    ensure!(found.next().is_none(), "more than one {kind}");
    Ok(object)
}

/// Every place where two sets of objects differ: what stands in one alone, and what is another value there.
pub fn differences(one: &Objects, other: &Objects) -> Vec<String> {
    let mut found = Vec::new();
    let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    for key in keys {
        let place = format!("{} {}", key.0, key.1);
        compare(&place, one.get(key), other.get(key), &mut found);
    }
    found
}

fn compare(place: &str, one: Option<&Value>, other: Option<&Value>, found: &mut Vec<String>) {
    match (one, other) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let keys: BTreeSet<_> = one.keys().chain(other.keys()).collect();
            for key in keys {
                let place = format!("{place}.{key}");
                compare(&place, one.get(key), other.get(key), found);
            }
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => {
            for n in 0..one.len().max(other.len()) {
                compare(&format!("{place}[{n}]"), one.get(n), other.get(n), found);
            }
        }
        (one, other) if one == other => {}
        (one, other) => {
            let shown = |value: Option<&Value>| {
                value.map_or_else(|| "nothing".to_owned(), Value::to_string)
            };
            found.push(format!("{place}: {} and {}", shown(one), shown(other)));
        }
    }
}
