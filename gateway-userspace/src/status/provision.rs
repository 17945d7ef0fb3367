//! The Services that Sluice keeps for Gateways, as objects of the API: how they should be, and what
//! to change where they are not. Only objects with our label are ever changed or deleted.

use std::collections::BTreeSet;
use std::net::IpAddr;

use gateway_model::names::ObjectRef;
use gateway_translate::{ProvisionKind, ProvisionedService};
use serde_json::{Map, Value, json};

/// The label of everything that is kept.
pub const KEPT: (&str, &str) = ("app.kubernetes.io/managed-by", "sluice.dev");
/// Whose EndpointSlices these are, for the controllers of Kubernetes to leave them alone.
const SLICE_OWNER: &str = "endpointslice.kubernetes.io/managed-by";
/// The annotation that says which labels and annotations were put on, for they must go again when
/// the Gateway does not ask for them any more, and what others put on must stay.
const PUT_ON: &str = "sluice.dev/put-on";
/// Kubernetes: the most endpoints of one EndpointSlice.
const MOST_ENDPOINTS: usize = 1000;

/// What is kept for one Gateway: a Service, and EndpointSlices for each IP version.
pub fn objects(gateway: &ObjectRef, service: &ProvisionedService) -> Vec<Value> {
    let ipv4 = service.endpoints.iter().filter(|ip| ip.is_ipv4());
    let ipv6 = service.endpoints.iter().filter(|ip| ip.is_ipv6());
    let families = [("IPv4", ipv4.collect()), ("IPv6", ipv6.collect())];
    let slices = families
        .into_iter()
        .filter(|(_, addresses): &(_, Vec<&IpAddr>)| !addresses.is_empty())
        .map(|(family, addresses)| slice(gateway, service, family, &addresses));
    std::iter::once(service_object(gateway, service))
        .chain(slices)
        .collect()
}

fn service_object(gateway: &ObjectRef, service: &ProvisionedService) -> Value {
    let ports = service.ports.iter().map(|port| {
        json!({
            "name": port.name(),
            "port": port.port,
            "targetPort": port.port,
            "protocol": protocol(&port.name()),
        })
    });
    let mut spec = json!({
        "ports": ports.collect::<Vec<_>>(),
        "ipFamilyPolicy": "PreferDualStack",
    });
    match service.kind {
        ProvisionKind::LoadBalancer => spec["type"] = json!("LoadBalancer"),
        ProvisionKind::Headless => {
            spec["type"] = json!("ClusterIP");
            spec["clusterIP"] = json!("None");
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(gateway, service, &service.name, &[]),
        "spec": spec,
    })
}

fn slice(
    gateway: &ObjectRef,
    service: &ProvisionedService,
    family: &str,
    addresses: &[&IpAddr],
) -> Value {
    let ports = service.ports.iter().map(
        |port| json!({"name": port.name(), "port": port.port, "protocol": protocol(&port.name())}),
    );
    let endpoints = addresses
        .iter()
        .take(MOST_ENDPOINTS)
        .map(|address| json!({"addresses": [address.to_string()], "conditions": {"ready": true}}));
    let name = format!("{}-{}", service.name, family.to_ascii_lowercase());
    let labels = [
        ("kubernetes.io/service-name", &*service.name),
        (SLICE_OWNER, KEPT.1),
    ];
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": metadata(gateway, service, &name, &labels),
        "addressType": family,
        "endpoints": endpoints.collect::<Vec<_>>(),
        "ports": ports.collect::<Vec<_>>(),
    })
}

fn protocol(port_name: &str) -> &'static str {
    if port_name.starts_with("udp") {
        "UDP"
    } else {
        "TCP"
    }
}

fn metadata(
    gateway: &ObjectRef,
    service: &ProvisionedService,
    name: &str,
    own: &[(&str, &str)],
) -> Value {
    let mut labels: Map<String, Value> = service
        .labels
        .iter()
        .map(|(key, value)| (key.to_string(), json!(value)))
        .collect();
    let own = own.iter().chain([&KEPT]);
    labels.extend(own.map(|(key, value)| ((*key).to_owned(), json!(value))));
    let mut annotations: Map<String, Value> = service
        .annotations
        .iter()
        .map(|(key, value)| (key.to_string(), json!(value)))
        .collect();
    let put_on = json!({
        "labels": labels.keys().collect::<Vec<_>>(),
        "annotations": annotations.keys().collect::<Vec<_>>(),
    });
    annotations.insert(PUT_ON.to_owned(), json!(put_on.to_string()));
    let mut metadata = json!({
        "name": name,
        "namespace": gateway.namespace,
        "labels": labels,
        "annotations": annotations,
    });
    if let Some(uid) = &service.owner {
        metadata["ownerReferences"] = json!([{
            "apiVersion": gateway.kind.api_version(),
            "kind": gateway.kind.as_str(),
            "name": gateway.name,
            "uid": uid,
        }]);
    }
    metadata
}

/// Whether an object is one that is kept.
pub fn is_kept(object: &Value) -> bool {
    object["metadata"]["labels"][KEPT.0] == KEPT.1
}

/// What is to be done to an object that stands.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// A merge patch.
    Patch(Value),
    /// What it is cannot be changed: it must go first.
    Replace,
}

/// What makes `current`, which is kept, what is `wanted`.
pub fn change(current: &Value, wanted: &Value) -> Change {
    let is_headless = |object: &Value| object["spec"]["clusterIP"] == "None";
    if is_headless(current) != is_headless(wanted)
        || current["addressType"] != wanted["addressType"]
    {
        return Change::Replace;
    }
    let mut patch = Map::new();
    let metadata = metadata_patch(&current["metadata"], &wanted["metadata"]);
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    for field in ["endpoints", "ports"] {
        if !holds(&current[field], &wanted[field]) {
            patch.insert(field.to_owned(), wanted[field].clone());
        }
    }
    let mut spec = Map::new();
    for field in ["type", "ports"] {
        if !holds(&current["spec"][field], &wanted["spec"][field]) {
            spec.insert(field.to_owned(), wanted["spec"][field].clone());
        }
    }
    if !spec.is_empty() {
        patch.insert("spec".to_owned(), Value::Object(spec));
    }
    if patch.is_empty() {
        return Change::None;
    }
    let metadata = patch.entry("metadata").or_insert_with(|| json!({}));
    metadata["resourceVersion"] = current["metadata"]["resourceVersion"].clone();
    Change::Patch(Value::Object(patch))
}

fn metadata_patch(current: &Value, wanted: &Value) -> Map<String, Value> {
    let mut patch = Map::new();
    let put_on = current["annotations"][PUT_ON].as_str().unwrap_or("{}");
    let put_on: Value = serde_json::from_str(put_on).unwrap_or_default();
    for field in ["labels", "annotations"] {
        let (current, wanted) = (&current[field], &wanted[field]);
        let mut changes = Map::new();
        for (key, value) in wanted.as_object().into_iter().flatten() {
            if current.get(key) != Some(value) {
                changes.insert(key.clone(), value.clone());
            }
        }
        let before: BTreeSet<&str> = put_on[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        for key in before {
            if wanted.get(key).is_none() && current.get(key).is_some() {
                changes.insert(key.to_owned(), Value::Null);
            }
        }
        if !changes.is_empty() {
            patch.insert(field.to_owned(), Value::Object(changes));
        }
    }
    if !holds(&current["ownerReferences"], &wanted["ownerReferences"]) {
        patch.insert(
            "ownerReferences".to_owned(),
            wanted["ownerReferences"].clone(),
        );
    }
    patch
}

/// Whether `current` says all that `wanted` says; it may say more, for the API server fills in
/// defaults, but a list has no further elements.
fn holds(current: &Value, wanted: &Value) -> bool {
    match (current, wanted) {
        (_, Value::Null) => true,
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (Value::Array(current), Value::Array(wanted)) => {
            current.len() == wanted.len() && current.iter().zip(wanted).all(|(c, w)| holds(c, w))
        }
        (Value::Object(current), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| holds(current.get(key).unwrap_or(&Value::Null), wanted)),
        (current, wanted) => current == wanted,
    }
}

#[cfg(test)]
mod tests;
