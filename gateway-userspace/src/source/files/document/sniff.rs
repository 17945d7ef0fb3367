//! What a document is about that does not parse.

use gateway_model::names::{ObjectKind, ObjectRef};
use serde_json::Value;

/// What object a document that does not parse is about, as far as its lines still show it.
pub fn sniff(text: &str) -> Option<ObjectRef> {
    let (mut kind, mut namespace, mut name) = (None, None, None);
    let mut depth = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let Some((key, value)) = line.trim().split_once(':') else {
            continue;
        };
        let value = value.trim().trim_matches(['"', '\'']);
        match (indent, depth) {
            (0, _) => {
                depth = (key == "metadata").then_some(0);
                if key == "kind" {
                    kind = Some(value);
                }
            }
            (_, Some(0)) => depth = Some(indent),
            _ => {}
        }
        match key {
            "name" if indent > 0 && depth == Some(indent) => name = Some(value),
            "namespace" if indent > 0 && depth == Some(indent) => namespace = Some(value),
            _ => {}
        }
    }
    named(kind?, namespace, name?)
}

fn named(kind: &str, namespace: Option<&str>, name: &str) -> Option<ObjectRef> {
    let kind: ObjectKind = serde_json::from_value(Value::String(kind.to_owned())).ok()?;
    let namespace = if kind.is_namespaced() {
        namespace.unwrap_or("default")
    } else {
        ""
    };
    (!name.is_empty()).then(|| ObjectRef::new(kind, namespace, name))
}
