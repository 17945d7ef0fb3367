//! Reading manifests: what no golden pair shows.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn route(spec: &Value) -> Result<Option<Object>, DecodeError> {
    decode(json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": { "name": "r" },
        "spec": spec,
    }))
}

#[test]
fn every_problem_is_reported_with_its_path() {
    let error = route(&json!({
        "hostnames": ["UPPER"],
        "rules": [{ "matches": [{ "path": { "value": "x" } }] }, { "name": 5 }],
    }))
    .expect_err("invalid");
    let paths: Vec<_> = error.problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "spec.hostnames[0]",
            "spec.rules[0].matches[0].path.value",
            "spec.rules[1].name"
        ]
    );
    assert_eq!(error.object, "HTTPRoute default/r");
    let reference = ObjectRef::new(ObjectKind::HttpRoute, "default", "r");
    assert_eq!(error.reference, Some(reference));
}

#[test]
fn a_decode_error_names_the_object_even_without_a_name() {
    let error = decode(json!({ "apiVersion": "v1", "kind": "Namespace" })).expect_err("invalid");
    assert_eq!(
        error.to_string(),
        "Namespace (without a name): metadata.name: is required"
    );
    assert_eq!(error.reference, None);
}

#[test]
fn what_is_no_object_at_all_is_not_ours() {
    for value in [
        json!(null),
        json!([]),
        json!("text"),
        json!({}),
        json!({ "kind": "Gateway" }),
    ] {
        assert_eq!(decode(value), Ok(None));
    }
}

#[test]
fn creation_time_becomes_seconds() {
    let read = |time: Value| {
        let value = json!({ "apiVersion": "v1", "kind": "Namespace",
                            "metadata": { "name": "n", "creationTimestamp": time } });
        decode(value).map(|o| o.expect("ours").meta().created)
    };
    assert_eq!(read(json!("1970-01-02T00:00:00Z")), Ok(86_400));
    assert_eq!(read(json!("1970-01-02T01:00:00+01:00")), Ok(86_400));
    assert_eq!(read(Value::Null), Ok(0));
    assert!(read(json!("yesterday")).is_err());
}

#[test]
fn secrets_never_print_their_contents() {
    let value = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" },
                        "stringData": { "tls.key": "do not print" } });
    let object = decode(value).expect("valid");
    assert!(!format!("{object:?}").contains("do not print"));
}

/// Any JSON, with the field names that lead somewhere.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/%*.:0-9é-]{0,12}".prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "name",
        "spec",
        "rules",
        "matches",
        "path",
        "value",
        "type",
        "headers",
        "filters",
        "backendRefs",
        "port",
        "listeners",
        "tls",
        "certificateRefs",
        "protocol",
        "hostname",
        "hostnames",
        "addresses",
        "ports",
        "endpoints",
        "conditions",
        "from",
        "to",
        "kind",
        "data",
        "stringData",
        "requestMirror",
        "cors",
        "urlRewrite",
        "retry",
        "timeouts",
        "request",
        "codes",
        "parentRefs",
        "allowedRoutes",
        "namespaces",
        "selector",
        "matchExpressions",
        "annotations",
        "labels",
        "weight",
        "percent",
        "fraction",
    ]);
    leaf.prop_recursive(6, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..6).prop_map(|fields| {
                let fields = fields.into_iter().map(|(name, v)| (name.to_owned(), v));
                Value::Object(fields.collect())
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_manifest_panics(spec in any_json(), metadata in any_json(), kind in 0..9_usize) {
        let (api, kind) = [
            ("gateway.networking.k8s.io/v1", "GatewayClass"),
            ("gateway.networking.k8s.io/v1", "Gateway"),
            ("gateway.networking.k8s.io/v1", "HTTPRoute"),
            ("gateway.networking.k8s.io/v1beta1", "ReferenceGrant"),
            ("v1", "Service"),
            ("discovery.k8s.io/v1", "EndpointSlice"),
            ("v1", "Secret"),
            ("v1", "ConfigMap"),
            ("v1", "Namespace"),
        ][kind];
        let mut value = json!({ "metadata": metadata, "spec": spec.clone() });
        if let (Value::Object(all), Value::Object(more)) = (&mut value, spec) {
            all.extend(more);
        }
        value["apiVersion"] = json!(api);
        value["kind"] = json!(kind);
        let _ = decode(value);
    }
}
