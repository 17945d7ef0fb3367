//! That an API server takes every status, however much is wrong.

use gateway_model::names::ObjectKind;
use serde_json::{Value, json};

use super::text::{MAX_MESSAGE_BYTES, listed};
use super::*;
use crate::objects::{Event, decode};
use crate::{Settings, Translator};

/// The status that these objects owe to one of that kind, as it is written.
fn status(kind: ObjectKind, objects: impl IntoIterator<Item = Value>, applied: &Applied) -> Value {
    let mut translator = Translator::new(Settings::default());
    let decoded = objects.into_iter().map(|o| decode(o).expect("valid"));
    translator.apply(decoded.flatten().map(Event::Apply));
    let translation = translator.translate();
    let mut statuses = translation.statuses.iter();
    let (object, status) = statuses
        .find(|(object, _)| object.kind == kind)
        .expect("one");
    serde_json::to_value(status.finish(object, applied)).expect("a status")
}

fn longest_message(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            let own = map
                .get("message")
                .and_then(Value::as_str)
                .map_or(0, str::len);
            map.values().map(longest_message).fold(own, usize::max)
        }
        Value::Array(items) => items.iter().map(longest_message).max().unwrap_or(0),
        _ => 0,
    }
}

fn gateway(listeners: &[Value]) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": { "name": "g".repeat(253), "namespace": "n".repeat(63) },
        "spec": { "gatewayClassName": "sluice", "listeners": listeners },
    })
}

/// etcd takes 1.5 MiB, the rest of the object included.
const MAX_STATUS_BYTES: usize = 1 << 20;

#[test]
fn an_api_server_takes_the_status_of_a_gateway_that_is_wrong_everywhere() {
    let reference = |at: usize| json!({ "name": format!("{at:0>253}"), "namespace": "elsewhere" });
    let listener = |at: usize| {
        json!({
            "name": format!("{at:0>253}"), "port": 443, "protocol": "HTTPS",
            "tls": { "certificateRefs": (0..64).map(reference).collect::<Vec<_>>() },
        })
    };
    let listeners: Vec<_> = (0..64).map(listener).collect();
    let gateway = gateway(&listeners);
    let status = status(ObjectKind::Gateway, [gateway], &Applied::default());
    let longest = longest_message(&status);
    assert!(longest > 1024, "the test makes long messages: {longest}");
    assert!(longest <= MAX_MESSAGE_BYTES, "{longest}");
    assert!(
        status.to_string().len() <= MAX_STATUS_BYTES,
        "{}",
        status.to_string().len()
    );
}

#[test]
fn an_api_server_takes_the_status_of_a_route_that_is_wrong_everywhere() {
    let parents = ["", "-2"].map(|suffix| json!({ "name": format!("web{suffix}") }));
    let backend = |at: usize| json!({ "name": format!("{at:0>63}"), "port": 80 });
    let rule = |at: usize| {
        let backends: Vec<_> = (0..16)
            .map(|backend_at| backend(at * 16 + backend_at))
            .collect();
        json!({ "backendRefs": backends, "filters": [{ "type": "u".repeat(4000) }] })
    };
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "r", "namespace": "infra" },
        "spec": { "parentRefs": parents, "rules": (0..16).map(rule).collect::<Vec<_>>() },
    });
    let mut gateway = gateway(&[json!({ "name": "http", "port": 80, "protocol": "HTTP" })]);
    gateway["metadata"] = json!({ "name": "web", "namespace": "infra" });
    let status = status(ObjectKind::HttpRoute, [gateway, route], &Applied::default());
    let longest = longest_message(&status);
    assert!((1024..=MAX_MESSAGE_BYTES).contains(&longest), "{longest}");
}

#[test]
fn a_message_of_the_data_plane_is_cut_between_characters() {
    let mut gateway = gateway(&[json!({ "name": "http", "port": 80, "protocol": "HTTP" })]);
    gateway["metadata"] = json!({ "name": "web", "namespace": "infra" });
    let object = ObjectRef::of(ObjectKind::Gateway, "infra".into(), "web".into());
    let applied = Applied {
        rejected: [(object, "ä".repeat(MAX_MESSAGE_BYTES))].into(),
        ..Applied::default()
    };
    let status = status(ObjectKind::Gateway, [gateway], &applied);
    let longest = longest_message(&status);
    assert!(
        (MAX_MESSAGE_BYTES - 1..=MAX_MESSAGE_BYTES).contains(&longest),
        "{longest}"
    );
}

#[test]
fn a_list_counts_what_it_has_no_room_for() {
    assert_eq!(listed::<&str>([], "; "), "");
    assert_eq!(listed(["a", "b"], ", "), "a, b");
    let long = "x".repeat(5000);
    assert_eq!(listed([&long], ", "), long);
    let texts = [&long, "b", "c"];
    assert_eq!(listed(texts, "; "), format!("{long}; and 2 more"));
}
