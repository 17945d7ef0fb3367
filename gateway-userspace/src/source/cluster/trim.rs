//! What of a raw object matters here. All else goes before anything is kept or compared, so that
//! what others write into an object all the time (statuses, leases in annotations, heartbeats of
//! nodes) is seen to change nothing.

use gateway_model::names::{ObjectKind, ObjectRef};
use serde_json::{Map, Value};

/// Keys of a Secret that may hold a certificate, a key or an authority.
const SECRET_KEYS: [&str; 5] = ["ca.crt", "cert", "key", "tls.crt", "tls.key"];
/// Keys of a ConfigMap that may hold an authority.
const CONFIG_MAP_KEYS: [&str; 1] = ["ca.crt"];
/// Annotations that repeat the object or change without meaning.
const NOISE: [&str; 2] = [
    "control-plane.alpha.kubernetes.io/leader",
    "kubectl.kubernetes.io/last-applied-configuration",
];

/// The name that a raw object has.
pub fn name_of(kind: ObjectKind, object: &Value) -> Option<ObjectRef> {
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    let namespace = metadata.get("namespace").and_then(Value::as_str);
    Some(ObjectRef::new(kind, namespace.unwrap_or_default(), name))
}

/// Takes away what does not matter of a raw object of that kind, and names its kind, which the
/// items of a list do not.
pub fn trim(kind: ObjectKind, api_version: &str, object: &mut Value) {
    let Value::Object(fields) = object else {
        return;
    };
    fields.insert("apiVersion".to_owned(), api_version.into());
    fields.insert("kind".to_owned(), kind.as_str().into());
    if let Some(Value::Object(metadata)) = fields.get_mut("metadata") {
        trim_metadata(kind, metadata);
    }
    let status = fields.remove("status").and_then(|s| trim_status(kind, s));
    fields.extend(status.map(|status| ("status".to_owned(), status)));
    match kind {
        ObjectKind::Secret => keep_data(fields, &SECRET_KEYS),
        ObjectKind::ConfigMap => keep_data(fields, &CONFIG_MAP_KEYS),
        ObjectKind::Node | ObjectKind::Namespace => drop(fields.remove("spec")),
        _ => {}
    }
}

fn trim_metadata(kind: ObjectKind, metadata: &mut Map<String, Value>) {
    for field in [
        "managedFields",
        "resourceVersion",
        "selfLink",
        "ownerReferences",
        "finalizers",
        "generateName",
    ] {
        metadata.remove(field);
    }
    if !has_annotations(kind) {
        metadata.remove("annotations");
    } else if let Some(Value::Object(annotations)) = metadata.get_mut("annotations") {
        annotations.retain(|name, _| !NOISE.contains(&name.as_str()));
    }
}

/// Whether somebody may write annotations for us into it.
fn has_annotations(kind: ObjectKind) -> bool {
    !matches!(
        kind,
        ObjectKind::ConfigMap
            | ObjectKind::EndpointSlice
            | ObjectKind::Namespace
            | ObjectKind::Node
            | ObjectKind::Secret
    )
}

/// The part of a status that says where something can be reached.
fn trim_status(kind: ObjectKind, status: Value) -> Option<Value> {
    let field = match kind {
        ObjectKind::Gateway | ObjectKind::Node => "addresses",
        ObjectKind::Service => "loadBalancer",
        _ => return None,
    };
    let Value::Object(mut fields) = status else {
        return None;
    };
    let kept = fields.remove(field)?;
    Some(Value::Object(Map::from_iter([(field.to_owned(), kept)])))
}

fn keep_data(fields: &mut Map<String, Value>, keys: &[&str]) {
    fields.remove("binaryData");
    if let Some(Value::Object(data)) = fields.get_mut("data") {
        data.retain(|key, _| keys.contains(&key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn trimmed(kind: ObjectKind, object: Value) -> Value {
        let mut object = object;
        trim(kind, "v1", &mut object);
        object
    }

    #[test]
    fn a_heartbeat_of_a_node_changes_nothing() {
        let node = |version: &str, time: &str| {
            json!({
                "metadata": {"name": "n", "resourceVersion": version, "annotations": {"x": time}},
                "spec": {"podCIDR": "10.0.0.0/24"},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                    "conditions": [{"type": "Ready", "lastHeartbeatTime": time}],
                },
            })
        };
        let first = trimmed(ObjectKind::Node, node("1", "a"));
        assert_eq!(first, trimmed(ObjectKind::Node, node("2", "b")));
        assert_eq!(first["status"]["addresses"][0]["address"], "10.0.0.1");
    }

    #[test]
    fn a_lease_in_a_config_map_changes_nothing() {
        let map = |holder: &str| {
            json!({
                "metadata": {"name": "lock", "namespace": "a", "annotations": {
                    "control-plane.alpha.kubernetes.io/leader": holder,
                }},
                "data": {"ca.crt": "x", "config.yaml": holder},
                "binaryData": {"y": holder},
            })
        };
        let first = trimmed(ObjectKind::ConfigMap, map("one"));
        assert_eq!(first, trimmed(ObjectKind::ConfigMap, map("two")));
        assert_eq!(first["data"], json!({"ca.crt": "x"}));
    }

    #[test]
    fn a_status_written_by_anybody_changes_nothing_but_addresses() {
        let gateway = trimmed(
            ObjectKind::Gateway,
            json!({
                "metadata": {"name": "g", "generation": 3, "managedFields": [{}],
                    "annotations": {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"}},
                "spec": {},
                "status": {"addresses": [{"value": "192.0.2.1"}], "conditions": [{}]},
            }),
        );
        assert_eq!(
            gateway,
            json!({
                "apiVersion": "v1", "kind": "Gateway",
                "metadata": {"name": "g", "generation": 3, "annotations": {"a": "b"}},
                "spec": {},
                "status": {"addresses": [{"value": "192.0.2.1"}]},
            })
        );
        let route = json!({"metadata": {"name": "r"}, "spec": {}, "status": {"parents": []}});
        assert_eq!(trimmed(ObjectKind::HttpRoute, route).get("status"), None);
    }

    #[test]
    fn of_a_secret_only_what_may_be_a_certificate_is_kept() {
        let secret = json!({"metadata": {"name": "s"}, "data": {"tls.crt": "a", "password": "b"}});
        let kept = trimmed(ObjectKind::Secret, secret);
        assert_eq!(kept["data"], json!({"tls.crt": "a"}));
    }

    #[test]
    fn what_is_no_object_is_left_alone() {
        for odd in [json!(null), json!(7), json!({"metadata": []})] {
            trimmed(ObjectKind::Service, odd);
        }
    }
}
