//! Why a Service has EndpointSlices, and one of its ports no endpoint all the same.

use std::collections::BTreeSet;

use gateway_model::names::UpstreamKey;

use super::transport;
use crate::objects::{EndpointSlice, Objects, ServicePort};
use crate::status::listed;

/// Why the EndpointSlices of a Service lead nowhere from this port of it, in words for its users; to be
/// asked where the upstream has no address. None if there is no slice or no such port.
#[must_use]
pub fn shortage(objects: &Objects, key: &UpstreamKey) -> Option<String> {
    let service = objects.services.get(&key.backend)?;
    let port = service.port(key.port, transport(key.usage))?;
    let slices: Vec<_> = objects.slices_of(&key.backend).collect();
    if slices.is_empty() {
        return None;
    }
    let serving: Vec<_> = slices.iter().filter(|slice| serves(slice, port)).collect();
    if serving.is_empty() {
        return Some(other_ports(&slices, port));
    }
    let endpoints: usize = serving.iter().map(|slice| slice.endpoints.len()).sum();
    Some(match endpoints {
        0 => "its EndpointSlices hold no address".to_owned(),
        _ => format!("its EndpointSlices hold {endpoints}, and none is ready"),
    })
}

fn serves(slice: &EndpointSlice, port: &ServicePort) -> bool {
    let mut ports = slice.ports.iter();
    ports.any(|p| p.name == port.name && p.protocol == port.protocol)
}

/// What the slices have instead of the port: they are joined by its name.
fn other_ports(slices: &[&EndpointSlice], port: &ServicePort) -> String {
    let ports = slices.iter().flat_map(|slice| slice.ports.iter());
    let others: BTreeSet<_> = ports.map(|p| named(&p.name, &p.protocol)).collect();
    let have = match others.is_empty() {
        true => "they have none".to_owned(),
        false => format!("they have {}", listed(others, ", ")),
    };
    let wanted = named(&port.name, &port.protocol);
    format!("its EndpointSlices have no port {wanted}; {have}")
}

fn named(name: &str, protocol: &str) -> String {
    match name {
        "" => format!("without a name ({protocol})"),
        name => format!("{name:?} ({protocol})"),
    }
}

#[cfg(test)]
mod tests {
    use gateway_model::names::{ObjectKind, ObjectRef};
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::{Event, decode};

    /// Of port 80, called `http`, with slices that have these ports and endpoints.
    fn of(slices: &[(Value, Value)]) -> Option<String> {
        let mut objects = Objects::default();
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "cart", "namespace": "shop" },
            "spec": { "ports": [{ "name": "http", "port": 80 }] },
        });
        let slice = |(number, (ports, endpoints)): (usize, &(Value, Value))| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "metadata": { "name": format!("cart-{number}"), "namespace": "shop",
                              "labels": { "kubernetes.io/service-name": "cart" } },
                "ports": ports, "endpoints": endpoints,
            })
        };
        let values = [service]
            .into_iter()
            .chain(slices.iter().enumerate().map(slice));
        for value in values {
            let object = decode(value).expect("valid").expect("of ours");
            objects.apply(Event::Apply(object));
        }
        let service = ObjectRef::new(ObjectKind::Service, "shop", "cart");
        shortage(&objects, &UpstreamKey::http(service, 80))
    }

    #[test]
    fn what_the_slices_lack_is_named() {
        let ready = json!([{ "addresses": ["10.0.0.1"] }]);
        let idle = json!([{ "addresses": ["10.0.0.1"], "conditions": { "ready": false } }]);
        let (http, web) = (json!([{ "name": "http" }]), json!([{ "name": "web" }]));
        let (unnamed, none) = (json!([{ "port": 80 }]), json!([]));
        for (slices, expected) in [
            (
                vec![(web.clone(), ready.clone())],
                "have no port \"http\" (TCP); they have \"web\" (TCP)",
            ),
            (
                vec![(unnamed, ready.clone())],
                "they have without a name (TCP)",
            ),
            (vec![(none.clone(), ready.clone())], "they have none"),
            (
                vec![(http.clone(), none.clone()), (web, ready)],
                "hold no address",
            ),
            (
                vec![(http.clone(), idle.clone()), (http, idle)],
                "hold 2, and none is ready",
            ),
        ] {
            let text = of(&slices).expect(expected);
            assert!(text.contains(expected), "{text} / {expected}");
        }
        assert_eq!(of(&[]), None);
    }
}
