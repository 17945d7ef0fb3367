//! What counts as the same status.

use serde_json::json;

use super::*;

const US: &str = "sluice.dev/gateway-controller";

fn condition(kind: &str, status: &str, time: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": 2, "lastTransitionTime": time})
}

fn parent(controller: &str, name: &str, conditions: &[Value]) -> Value {
    json!({"parentRef": {"name": name}, "controllerName": controller, "conditions": conditions})
}

fn route(parents: &[Value]) -> Digest {
    digest(ObjectKind::HttpRoute, &json!({"parents": parents}), US)
}

#[test]
fn times_and_the_order_of_maps_do_not_count() {
    let (accepted, resolved) = (
        condition("Accepted", "True", "t1"),
        condition("ResolvedRefs", "True", "t1"),
    );
    let (x, y) = (
        parent(US, "x", &[accepted.clone(), resolved.clone()]),
        parent(US, "y", &[]),
    );
    let later = [
        condition("ResolvedRefs", "True", "t2"),
        condition("Accepted", "True", "t3"),
    ];
    assert_eq!(
        route(&[x.clone(), y.clone()]),
        route(&[y, parent(US, "x", &later)])
    );
    let other = parent(US, "x", &[condition("Accepted", "False", "t1"), resolved]);
    assert_ne!(route(&[x]), route(&[other]));
}

#[test]
fn entries_of_others_do_not_count() {
    let ours = parent(US, "x", &[condition("Accepted", "True", "t1")]);
    let theirs = parent("example.org/other", "x", &[]);
    assert_eq!(route(&[theirs.clone(), ours.clone()]), route(&[ours]));
    assert_eq!(route(&[theirs]), NOTHING);
}

#[test]
fn conditions_of_other_types_do_not_count() {
    let gateway = |foreign: &[Value]| {
        let mut own = vec![condition("Accepted", "True", "t1")];
        own.extend_from_slice(foreign);
        let status = json!({"conditions": own, "listeners": [{"name": "a", "attachedRoutes": 0, "conditions": own}]});
        digest(ObjectKind::Gateway, &status, US)
    };
    let foreign = condition("example.org/Stale", "True", "t1");
    assert_eq!(gateway(&[]), gateway(&[foreign]));
    assert_ne!(
        gateway(&[]),
        gateway(&[condition("Programmed", "True", "t1")])
    );
}

#[test]
fn empty_and_absent_are_the_same_but_zero_is_not() {
    let gateway = |status: Value| digest(ObjectKind::Gateway, &status, US);
    assert_eq!(
        gateway(json!({"addresses": [], "listeners": []})),
        gateway(json!({}))
    );
    assert_eq!(gateway(json!({})), NOTHING);
    assert_ne!(
        gateway(json!({"listeners": [{"name": "a", "attachedRoutes": 0}]})),
        gateway(json!({"listeners": [{"name": "a"}]}))
    );
}

#[test]
fn the_order_of_addresses_counts() {
    let gateway =
        |addresses: Value| digest(ObjectKind::Gateway, &json!({"addresses": addresses}), US);
    assert_ne!(
        gateway(json!([{"value": "192.0.2.1"}, {"value": "192.0.2.2"}])),
        gateway(json!([{"value": "192.0.2.2"}, {"value": "192.0.2.1"}]))
    );
}

#[test]
fn another_observed_generation_is_another_status() {
    let at = |generation: i64| {
        let mut condition = condition("Accepted", "True", "t1");
        condition["observedGeneration"] = json!(generation);
        route(&[parent(US, "x", &[condition])])
    };
    assert_ne!(at(1), at(2));
}
