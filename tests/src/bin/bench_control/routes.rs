//! The objects of the measurement.

use std::net::SocketAddr;

use serde_json::{Value, json};

/// Where everything of the measurement is.
pub const NAMESPACE: &str = "sluice-bench-control";
/// The Gateway that all routes are attached to.
pub const GATEWAY: &str = "bench";
/// The Gateway's port.
pub const PORT: u16 = 80;
/// Routes whose propagation is measured, in turn: a status writer may hold back an object that changes all the time.
pub const PROBES: usize = 64;
/// The route that changes under traffic.
pub const TRAFFIC: &str = "traffic";
/// Asked for by the traffic.
pub const TRAFFIC_HOST: &str = "traffic.bench.example";
/// The Services that the traffic is sent to in turn; both have the same Pods.
pub const BACKENDS: [&str; 2] = ["blue", "green"];

/// HTTPRoutes of the namespace.
pub fn collection() -> String {
    format!("/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/httproutes")
}

/// One HTTPRoute.
pub fn path(name: &str) -> String {
    format!("{}/{name}", collection())
}

/// The Gateway.
pub fn gateway_path() -> String {
    format!("/apis/gateway.networking.k8s.io/v1/namespaces/{NAMESPACE}/gateways/{GATEWAY}")
}

/// The GatewayClass, where no deployment has made it.
pub fn class() -> String {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
        "metadata": {"name": "sluice"},
        "spec": {"controllerName": "sluice.dev/gateway-controller"},
    })
    .to_string()
}

/// Namespace and Gateway, as `kubectl apply` takes them.
pub fn fixtures() -> String {
    documents(&[
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": GATEWAY, "namespace": NAMESPACE},
            "spec": {"gatewayClassName": "sluice", "listeners": [{"name": "http", "port": PORT, "protocol": "HTTP"}]},
        }),
    ])
}

/// The backends' Services, and Pods behind them.
pub fn pods() -> String {
    let mut objects = vec![json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "echo", "namespace": NAMESPACE},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "echo"}},
            "template": {
                "metadata": {"labels": {"app": "echo"}},
                "spec": {"terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "echo",
                    "image": "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0",
                    "env": [
                        {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                        {"name": "NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                    ],
                }]},
            },
        },
    })];
    objects.extend(BACKENDS.map(|backend| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": backend, "namespace": NAMESPACE},
            "spec": {"selector": {"app": "echo"}, "ports": [{"port": 80, "targetPort": 3000}]},
        })
    }));
    documents(&objects)
}

/// The backends' Services where there are no Pods, and one server behind them.
pub fn endpoints(server: SocketAddr) -> String {
    let of_backend = BACKENDS.map(|backend| {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": backend, "namespace": NAMESPACE},
            "spec": {"ports": [{"port": 80, "targetPort": server.port()}]},
        });
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": backend, "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": backend},
            },
            "addressType": "IPv4",
            "ports": [{"port": server.port()}],
            "endpoints": [{"addresses": [server.ip().to_string()], "conditions": {"ready": true}}],
        });
        [service, slice]
    });
    documents(of_backend.as_flattened())
}

fn documents(objects: &[Value]) -> String {
    let document = |object: &Value| format!("{object}\n---\n");
    objects.iter().map(document).collect()
}

/// One of many routes: a host of its own, a backend, and a response header that carries a number.
pub fn other(index: usize, number: usize) -> Value {
    let filter = json!({
        "type": "ResponseHeaderModifier",
        "responseHeaderModifier": {"set": [{"name": "x-number", "value": number.to_string()}]},
    });
    route(
        &name(index),
        &format!("r{index}.bench.example"),
        &filter,
        BACKENDS[0],
    )
}

/// The name of one of many routes.
pub fn name(index: usize) -> String {
    format!("r{index}")
}

/// The name of a probed route.
pub fn probe_name(index: usize) -> String {
    format!("probe-{index}")
}

/// The host of a probed route, asked for on every node.
pub fn probe_host(index: usize) -> String {
    format!("probe-{index}.bench.example")
}

/// A probed route: a redirect to a path with a number in it, so that its answer needs no backend.
pub fn probe(index: usize, number: u64) -> Value {
    let filter = json!({
        "type": "RequestRedirect",
        "requestRedirect": {"statusCode": 302, "path": {"type": "ReplaceFullPath", "replaceFullPath": format!("/to-{number}")}},
    });
    object(
        &probe_name(index),
        &probe_host(index),
        &json!([{"filters": [filter]}]),
    )
}

/// The number that a probed route carries.
pub fn probe_number(object: &Value) -> Option<u64> {
    let path = object.pointer("/spec/rules/0/filters/0/requestRedirect/path/replaceFullPath")?;
    path.as_str()?.strip_prefix("/to-")?.parse().ok()
}

/// The route under traffic, in its `turn`-th form: the backend and a response header change.
pub fn traffic(turn: usize) -> Value {
    let filter = json!({
        "type": "ResponseHeaderModifier",
        "responseHeaderModifier": {"set": [{"name": "x-turn", "value": turn.to_string()}]},
    });
    route(
        TRAFFIC,
        TRAFFIC_HOST,
        &filter,
        BACKENDS[turn % BACKENDS.len()],
    )
}

fn route(name: &str, host: &str, filter: &Value, backend: &str) -> Value {
    let rules = json!([{
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "filters": [filter],
        "backendRefs": [{"name": backend, "port": 80}],
    }]);
    object(name, host, &rules)
}

fn object(name: &str, host: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"parentRefs": [{"name": GATEWAY}], "hostnames": [host], "rules": rules},
    })
}
