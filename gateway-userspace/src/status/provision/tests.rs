//! What is kept for a Gateway, and what is changed of what stands.

use std::sync::Arc;

use gateway_model::l4_plan::Transport;
use gateway_model::names::ObjectKind;
use gateway_translate::ProvisionedPort;

use super::*;

fn gateway() -> ObjectRef {
    ObjectRef::new(ObjectKind::Gateway, "shop", "web")
}

fn texts(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<Arc<str>, Arc<str>> {
    let pairs = pairs.iter();
    pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn service(kind: ProvisionKind, labels: &[(&str, &str)], ports: &[u16]) -> ProvisionedService {
    ProvisionedService {
        name: "web-sluice".into(),
        owner: Some("gateway-uid".into()),
        labels: texts(labels),
        annotations: texts(&[("a", "1")]),
        kind,
        ports: ports
            .iter()
            .map(|port| ProvisionedPort {
                transport: Transport::Tcp,
                port: *port,
            })
            .collect(),
        endpoints: ["192.0.2.1", "2001:db8::1", "192.0.2.2"]
            .map(|ip| ip.parse().expect("an address"))
            .to_vec(),
    }
}

/// As an API server would give it back.
fn stands(mut object: Value) -> Value {
    object["metadata"]["resourceVersion"] = json!("7");
    object["metadata"]["uid"] = json!("u");
    object["metadata"]["labels"]["example.org/others"] = json!("stays");
    if let Some(ports) = object["spec"]["ports"].as_array_mut() {
        for port in ports {
            port["nodePort"] = json!(30_000);
        }
    }
    object
}

#[test]
fn a_service_has_slices_of_both_ip_versions() {
    let kept = objects(
        &gateway(),
        &service(ProvisionKind::LoadBalancer, &[("l", "1")], &[80, 443]),
    );
    assert_eq!(kept.len(), 3);
    assert!(kept.iter().all(is_kept));
    assert_eq!(kept[0]["spec"]["type"], "LoadBalancer");
    assert_eq!(kept[0]["spec"].get("selector"), None);
    assert_eq!(kept[0]["spec"]["ports"][1]["name"], "tcp-443");
    assert_eq!(kept[0]["metadata"]["ownerReferences"][0]["kind"], "Gateway");
    assert_eq!(kept[1]["addressType"], "IPv4");
    assert_eq!(kept[1]["endpoints"].as_array().map(Vec::len), Some(2));
    assert_eq!(kept[2]["metadata"]["name"], "web-sluice-ipv6");
    assert_eq!(kept[2]["endpoints"][0]["addresses"][0], "2001:db8::1");
    assert_eq!(
        kept[2]["metadata"]["labels"]["kubernetes.io/service-name"],
        "web-sluice"
    );
}

#[test]
fn what_stands_as_it_should_is_not_written() {
    for wanted in objects(
        &gateway(),
        &service(ProvisionKind::LoadBalancer, &[("l", "1")], &[80]),
    ) {
        assert_eq!(change(&stands(wanted.clone()), &wanted), Change::None);
    }
}

#[test]
fn labels_come_and_go_and_those_of_others_stay() {
    let before = objects(
        &gateway(),
        &service(ProvisionKind::Headless, &[("old", "1"), ("l", "1")], &[80]),
    );
    let wanted = objects(
        &gateway(),
        &service(ProvisionKind::Headless, &[("new", "2"), ("l", "1")], &[80]),
    );
    let Change::Patch(patch) = change(&stands(before[0].clone()), &wanted[0]) else {
        panic!("a patch");
    };
    assert_eq!(
        patch["metadata"]["labels"],
        json!({"new": "2", "old": null})
    );
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    assert_eq!(patch.get("spec"), None);
}

#[test]
fn ports_are_replaced_as_a_whole() {
    let before = objects(
        &gateway(),
        &service(ProvisionKind::LoadBalancer, &[], &[80, 81]),
    );
    let wanted = objects(
        &gateway(),
        &service(ProvisionKind::LoadBalancer, &[], &[80]),
    );
    for (before, wanted) in before.into_iter().zip(&wanted) {
        let Change::Patch(patch) = change(&stands(before), wanted) else {
            panic!("a patch");
        };
        let ports = patch.pointer("/spec/ports").or(patch.get("ports"));
        assert_eq!(ports.and_then(Value::as_array).map(Vec::len), Some(1));
    }
}

#[test]
fn a_headless_service_cannot_become_another_one() {
    let before = objects(&gateway(), &service(ProvisionKind::Headless, &[], &[80]));
    let wanted = objects(
        &gateway(),
        &service(ProvisionKind::LoadBalancer, &[], &[80]),
    );
    assert_eq!(
        change(&stands(before[0].clone()), &wanted[0]),
        Change::Replace
    );
}

#[test]
fn a_foreign_object_is_not_kept() {
    assert!(!is_kept(&json!({"metadata": {"labels": {"app": "x"}}})));
    assert!(!is_kept(&json!({"metadata": {}})));
}
