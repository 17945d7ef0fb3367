//! What others wrote stays, byte for byte.

use super::*;
use crate::status::ours::digest;

const US: &str = "sluice.dev/gateway-controller";
const NOW: &str = "2026-11-21T12:00:00Z";
const THEN: &str = "2026-01-01T00:00:00Z";

fn owed(kind: &str, status: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "R", "message": "m", "observedGeneration": 2})
}

fn stands(kind: &str, status: &str) -> Value {
    let mut condition = owed(kind, status);
    condition["observedGeneration"] = json!(1);
    condition["lastTransitionTime"] = json!(THEN);
    condition
}

fn stale() -> Value {
    json!({
        "lastTransitionTime": "2020-02-02T02:02:02Z", "type": "conformance.gateway.networking.k8s.io/StaleCondition",
        "status": "True", "reason": "Stale", "message": "", "observedGeneration": 1,
    })
}

fn entry(controller: &str, parent: &str, conditions: &[Value]) -> Value {
    json!({
        "parentRef": {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": parent},
        "controllerName": controller,
        "conditions": conditions,
    })
}

fn route(current: &Value, owed: &Value) -> Merged {
    merge(ObjectKind::HttpRoute, current, owed, US, NOW)
}

fn gateway(current: &Value, owed: &Value) -> Merged {
    merge(ObjectKind::Gateway, current, owed, US, NOW)
}

#[test]
fn entries_of_others_stay_what_and_where_they_are() {
    let theirs = entry(
        "gateway.networking.k8s.io/stale-controller",
        "web",
        &[stale()],
    );
    let current = json!({"parents": [
        entry(US, "web", &[stands("Accepted", "True")]),
        theirs,
        entry(US, "gone", &[stands("Accepted", "True")]),
    ]});
    let new = json!({"parents": [
        entry(US, "new", &[owed("Accepted", "True")]),
        entry(US, "web", &[owed("Accepted", "True"), owed("ResolvedRefs", "False")]),
    ]});
    let merged = route(&current, &new).status;
    let parents = merged["parents"].as_array().expect("parents");
    let names: Vec<_> = parents.iter().map(|p| &p["parentRef"]["name"]).collect();
    assert_eq!(names, ["web", "web", "new"]);
    assert_eq!(parents[1].to_string(), theirs.to_string());
    assert_eq!(parents[0]["conditions"][0]["lastTransitionTime"], THEN);
    assert_eq!(parents[0]["conditions"][0]["observedGeneration"], 2);
    assert_eq!(parents[0]["conditions"][1]["lastTransitionTime"], NOW);
    assert_eq!(parents[2]["conditions"][0]["lastTransitionTime"], NOW);
}

#[test]
fn what_is_merged_is_what_is_owed() {
    let theirs = entry("example.org/other", "web", &[stale()]);
    let new = json!({"parents": [entry(US, "web", &[owed("Accepted", "True")])]});
    let merged = route(&json!({"parents": [theirs]}), &new).status;
    let kind = ObjectKind::HttpRoute;
    assert_eq!(digest(kind, &merged, US), digest(kind, &new, US));
    assert_eq!(route(&merged, &new).status, merged);
}

#[test]
fn no_parent_of_ours_leaves_the_others() {
    let theirs = entry("example.org/other", "web", &[stale()]);
    let current = json!({"parents": [entry(US, "web", &[stands("Accepted", "True")]), theirs]});
    assert_eq!(
        route(&current, &Value::Null).status,
        json!({"parents": [theirs]})
    );
    let ours = json!({"parents": [entry(US, "web", &[stands("Accepted", "True")])]});
    assert_eq!(route(&ours, &Value::Null).status, json!({"parents": []}));
}

#[test]
fn a_full_list_takes_no_further_entry() {
    let others: Vec<_> = (0..31)
        .map(|n| entry("example.org/other", &format!("p{n}"), &[]))
        .collect();
    let new = json!({"parents": [entry(US, "a", &[]), entry(US, "b", &[])]});
    let merged = route(&json!({"parents": others}), &new);
    let parents = merged.status["parents"].as_array().expect("parents");
    assert_eq!(parents.len(), 32);
    assert_eq!(parents[31]["parentRef"]["name"], "a");
    assert_eq!(merged.left_out, ["the entry for b"]);
}

#[test]
fn a_policy_has_sixteen_ancestors_at_most() {
    let ancestor = |controller: &str, name: &str| json!({"ancestorRef": {"name": name}, "controllerName": controller, "conditions": []});
    let others: Vec<_> = (0..16)
        .map(|n| ancestor("example.org/other", &n.to_string()))
        .collect();
    let current = json!({"ancestors": others});
    let new = json!({"ancestors": [ancestor(US, "web")]});
    let merged = merge(ObjectKind::BackendTlsPolicy, &current, &new, US, NOW);
    assert_eq!(merged.status, current);
}

#[test]
fn conditions_of_other_types_stay_at_gateways_and_listeners() {
    let current = json!({
        "addresses": [{"type": "IPAddress", "value": "192.0.2.9"}],
        "conditions": [stale(), stands("Accepted", "True"), stands("SupportedVersion", "True")],
        "listeners": [
            {"name": "gone", "attachedRoutes": 1, "supportedKinds": [], "conditions": [stale()]},
            {"name": "http", "attachedRoutes": 1, "supportedKinds": [], "conditions": [stands("Programmed", "True"), stale()]},
        ],
        "somebodyElses": {"field": 1},
    });
    let new = json!({
        "conditions": [owed("Accepted", "False"), owed("Programmed", "True")],
        "listeners": [{"name": "http", "attachedRoutes": 0, "supportedKinds": [], "conditions": [owed("Programmed", "True")]}],
    });
    let merged = gateway(&current, &new).status;
    assert_eq!(merged.get("addresses"), None);
    assert_eq!(merged["somebodyElses"], current["somebodyElses"]);
    let own = merged["conditions"].as_array().expect("conditions");
    assert_eq!(own.len(), 3);
    assert_eq!(own[0].to_string(), stale().to_string());
    assert_eq!(
        (&own[1]["status"], &own[1]["lastTransitionTime"]),
        (&json!("False"), &json!(NOW))
    );
    assert_eq!(own[2]["type"], "Programmed");
    let listeners = merged["listeners"].as_array().expect("listeners");
    assert_eq!(listeners.len(), 1);
    assert_eq!(listeners[0]["attachedRoutes"], 0);
    let of_listener = &listeners[0]["conditions"];
    assert_eq!(of_listener[0]["lastTransitionTime"], THEN);
    assert_eq!(of_listener[1].to_string(), stale().to_string());
}

#[test]
fn eight_conditions_are_the_most_and_the_important_ones_stay() {
    let foreign = |n: usize| json!({"type": format!("example.org/{n}"), "status": "True"});
    let others: Vec<_> = (0..6).map(foreign).collect();
    let new = json!({"conditions": [
        owed("Accepted", "True"), owed("Conflicted", "False"), owed("OverlappingTLSConfig", "True"), owed("Programmed", "True"),
    ]});
    let merged = gateway(&json!({"conditions": others}), &new);
    let own = merged.status["conditions"].as_array().expect("conditions");
    assert_eq!(own[..6], others);
    assert_eq!(
        (&own[6]["type"], &own[7]["type"]),
        (&json!("Accepted"), &json!("Programmed"))
    );
    assert_eq!(own.len(), 8);
    assert_eq!(
        merged.left_out,
        ["condition OverlappingTLSConfig", "condition Conflicted"]
    );
    let full: Vec<_> = (0..8).map(foreign).collect();
    let merged = gateway(&json!({"conditions": full}), &new);
    assert_eq!(merged.status["conditions"], Value::Array(full));
}

#[test]
fn a_status_that_is_no_map_is_replaced() {
    for current in [Value::Null, json!([]), json!("x")] {
        let new = json!({"conditions": [owed("Accepted", "True")]});
        let merged = gateway(&current, &new).status;
        assert_eq!(merged["conditions"][0]["lastTransitionTime"], NOW);
    }
}
