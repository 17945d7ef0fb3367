//! Whatever the order and grouping of events, the translation is that of the objects.

mod declarers;

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::objects::{Object, decode};
use crate::settings::SourceKind;

fn read(value: Value) -> Object {
    decode(value).expect("valid").expect("a kind of ours")
}

fn object(api: &str, kind: &str, namespace: &str, name: &str, rest: Value) -> Object {
    let mut object = json!({
        "apiVersion": api,
        "kind": kind,
        "metadata": { "name": name, "namespace": namespace },
    });
    let (Value::Object(all), Value::Object(rest)) = (&mut object, rest) else {
        unreachable!("both are mappings")
    };
    all.extend(rest);
    read(object)
}

const GATEWAY_API: &str = "gateway.networking.k8s.io/v1";

fn gateways() -> Vec<Vec<Object>> {
    let listener = |port: u16, from: &str| {
        json!({ "name": "http", "port": port, "protocol": "HTTP",
                "allowedRoutes": { "namespaces": { "from": from,
                    "selector": { "matchLabels": { "team": "shop" } } } } })
    };
    let secure = |hostname: &str| {
        json!({ "name": "https", "port": 443, "protocol": "HTTPS", "hostname": hostname,
                "tls": { "certificateRefs": [{ "name": "site", "namespace": "certs" }] } })
    };
    let gateway = |name: &str, class: &str, listeners: Value| {
        let spec = json!({ "gatewayClassName": class, "listeners": listeners });
        object(
            GATEWAY_API,
            "Gateway",
            "infra",
            name,
            json!({ "spec": spec }),
        )
    };
    ["a", "b", "c"]
        .map(|name| {
            vec![
                gateway(name, "sluice", json!([listener(80, "All")])),
                gateway(
                    name,
                    "sluice",
                    json!([listener(80, "Selector"), secure("*.example.com")]),
                ),
                gateway(
                    name,
                    "sluice",
                    json!([listener(8080, "Same"), secure("b.example.com")]),
                ),
                gateway(name, "other", json!([listener(80, "All")])),
            ]
        })
        .into()
}

fn routes() -> Vec<Vec<Object>> {
    let route = |namespace: &str, name: &str, parents: &[&str], hosts: Value, rules: Value| {
        let parents: Vec<_> = parents
            .iter()
            .map(|p| json!({ "name": p, "namespace": "infra" }))
            .collect();
        let spec = json!({ "parentRefs": parents, "hostnames": hosts, "rules": rules });
        object(
            GATEWAY_API,
            "HTTPRoute",
            namespace,
            name,
            json!({ "spec": spec }),
        )
    };
    let to = |namespace: &str, name: &str, port: u16| json!([{ "backendRefs": [{ "name": name, "namespace": namespace, "port": port }] }]);
    [("infra", "x"), ("shop", "x"), ("shop", "y")]
        .map(|(namespace, name)| {
            vec![
                route(namespace, name, &["a"], json!([]), to("shop", "cart", 80)),
                route(namespace, name, &["a", "b"], json!(["b.example.com"]), to("shop", "pay", 81)),
                route(namespace, name, &["b", "c"], json!([]), to("infra", "cart", 80)),
                route(
                    namespace,
                    name,
                    &["c"],
                    json!([]),
                    json!([{ "matches": [{ "method": "ODD" }] },
                           { "filters": [{ "type": "RequestMirror", "requestMirror":
                               { "backendRef": { "name": "pay", "namespace": "shop", "port": 80 } } }] }]),
                ),
            ]
        })
        .into()
}

/// Routes of the other kinds, which lead to Services with policies.
fn other_routes() -> Vec<Vec<Object>> {
    let route = |kind: &str, name: &str, parents: &[(&str, &str)], to: (&str, u16)| {
        let parents: Vec<_> = parents
            .iter()
            .map(|(kind, name)| json!({ "kind": kind, "name": name, "namespace": "infra" }))
            .collect();
        let rules =
            json!([{ "backendRefs": [{ "name": to.0, "namespace": "shop", "port": to.1 }] }]);
        let mut spec = json!({ "parentRefs": parents, "rules": rules });
        if kind == "TLSRoute" {
            spec["hostnames"] = json!(["b.example.com"]);
        }
        object(GATEWAY_API, kind, "infra", name, json!({ "spec": spec }))
    };
    ["GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"]
        .map(|kind| {
            vec![
                route(kind, "z", &[("Gateway", "a")], ("cart", 80)),
                route(
                    kind,
                    "z",
                    &[("Gateway", "b"), ("Gateway", "c")],
                    ("pay", 81),
                ),
                route(
                    kind,
                    "z",
                    &[("ListenerSet", "a"), ("Gateway", "c")],
                    ("cart", 53),
                ),
            ]
        })
        .into()
}

/// Policies that win and lose against each other, and what they name.
fn policies() -> Vec<Vec<Object>> {
    let policy = |name: &str, created: &str, target: Value, validation: Value| {
        read(json!({
            "apiVersion": GATEWAY_API,
            "kind": "BackendTLSPolicy",
            "metadata": { "name": name, "namespace": "shop", "creationTimestamp": created },
            "spec": { "targetRefs": [target], "validation": validation },
        }))
    };
    let service = |name: &str| json!({ "group": "", "kind": "Service", "name": name });
    let port = |name: &str, section: &str| json!({ "group": "", "kind": "Service", "name": name, "sectionName": section });
    let system =
        |hostname: &str| json!({ "hostname": hostname, "wellKnownCACertificates": "System" });
    let signed = |kind: &str| json!({ "hostname": "b.example.com", "caCertificateRefs": [{ "group": "", "kind": kind, "name": "authority" }] });
    let (old, new) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
    let pair = rcgen::generate_simple_self_signed(["b.example.com".to_owned()]).expect("a pair");
    let authority = |kind: &str, text: &str| {
        let data = if kind == "Secret" {
            "stringData"
        } else {
            "data"
        };
        object(
            "v1",
            kind,
            "shop",
            "authority",
            json!({ data: { "ca.crt": text } }),
        )
    };
    let forms = |kind: &str| vec![authority(kind, &pair.cert.pem()), authority(kind, "broken")];
    vec![
        vec![
            policy("one", old, service("cart"), signed("ConfigMap")),
            policy("one", old, port("cart", "odd"), system("b.example.com")),
            policy("one", new, service("pay"), system("a.example.com")),
        ],
        vec![
            policy("two", new, service("cart"), signed("Secret")),
            policy("two", old, port("pay", "named"), signed("ConfigMap")),
            policy(
                "two",
                old,
                service("pay"),
                json!({ "hostname": "a.b", "wellKnownCACertificates": "example.com/own" }),
            ),
        ],
        forms("ConfigMap"),
        forms("Secret"),
    ]
}

fn backends() -> Vec<Vec<Object>> {
    let service = |namespace: &str, name: &str, spec: Value| {
        object("v1", "Service", namespace, name, json!({ "spec": spec }))
    };
    let slice = |name: &str, of: &str, address: &str| {
        read(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "namespace": "shop",
                          "labels": { "kubernetes.io/service-name": of } },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address] }],
            "ports": [{ "port": 3000 }],
        }))
    };
    let services =
        [("shop", "cart"), ("shop", "pay"), ("infra", "cart")].map(|(namespace, name)| {
            vec![
                service(namespace, name, json!({ "ports": [{ "port": 80 }] })),
                service(
                    namespace,
                    name,
                    json!({ "ports": [{ "name": "named", "port": 81, "targetPort": 9 },
                                      { "name": "dns", "port": 53, "protocol": "UDP" },
                                      { "name": "dns-tcp", "port": 53, "appProtocol": "https" }] }),
                ),
                service(
                    namespace,
                    name,
                    json!({ "type": "ExternalName", "externalName": "a.b" }),
                ),
            ]
        });
    let slices = ["one", "two"].map(|name| {
        vec![
            slice(name, "cart", "10.0.0.1"),
            slice(name, "cart", "10.0.0.2"),
            slice(name, "pay", "10.0.0.3"),
        ]
    });
    services.into_iter().chain(slices).collect()
}

fn others() -> Vec<Vec<Object>> {
    let grant = |namespace: &str, kinds: &[&str], to: &str| {
        let from = kinds.iter().map(
            |kind| json!({ "group": "gateway.networking.k8s.io", "kind": kind, "namespace": "infra" }),
        );
        let from: Vec<_> = from.collect();
        let spec = json!({ "from": from, "to": [{ "group": "", "kind": to }] });
        object(
            GATEWAY_API,
            "ReferenceGrant",
            namespace,
            "grant",
            json!({ "spec": spec }),
        )
    };
    let class = |controller: &str| {
        let spec = json!({ "controllerName": controller });
        object(
            GATEWAY_API,
            "GatewayClass",
            "",
            "sluice",
            json!({ "spec": spec }),
        )
    };
    let namespace = |team: &str| {
        read(json!({ "apiVersion": "v1", "kind": "Namespace",
                     "metadata": { "name": "shop", "labels": { "team": team } } }))
    };
    let pair = rcgen::generate_simple_self_signed(["b.example.com".to_owned()]).expect("a pair");
    let secret = |cert: &str| {
        let texts = json!({ "tls.crt": cert, "tls.key": pair.signing_key.serialize_pem() });
        object(
            "v1",
            "Secret",
            "certs",
            "site",
            json!({ "stringData": texts }),
        )
    };
    vec![
        vec![
            grant("shop", &["HTTPRoute", "TCPRoute"], "Service"),
            grant("shop", &["GRPCRoute", "TLSRoute", "UDPRoute"], "Service"),
            grant("shop", &["HTTPRoute"], "Secret"),
        ],
        vec![
            grant("certs", &["Gateway"], "Secret"),
            grant("certs", &["HTTPRoute"], "Secret"),
        ],
        vec![
            class("sluice.dev/gateway-controller"),
            class("example.com/other"),
        ],
        vec![namespace("shop"), namespace("other")],
        vec![
            secret(&pair.cert.pem()),
            secret("broken"),
            secret("also broken"),
        ],
    ]
}

/// All forms of all objects of a small world. Made once, for keys are not cheap.
static WORLD: LazyLock<Vec<Vec<Object>>> = LazyLock::new(world);

fn world() -> Vec<Vec<Object>> {
    let mut world = gateways();
    world.extend(routes());
    world.extend(other_routes());
    world.extend(policies());
    world.extend(backends());
    world.extend(others());
    world
}

/// A step: which object, which form of it (deleted if there is none of that number), and whether
/// a translation follows.
type Step = (usize, usize, bool);

fn event(world: &[Vec<Object>], (object, form, _): Step) -> Event {
    let forms = &world[object % world.len()];
    match forms.get(form) {
        Some(object) => Event::Apply(object.clone()),
        None => Event::Delete(forms[0].reference()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn any_order_and_grouping_gives_the_translation_of_the_objects(
        steps in prop::collection::vec((0..1_000_usize, 0..5_usize, any::<bool>()), 1..80),
        cluster in any::<bool>(),
    ) {
        let world = &*WORLD;
        let source = if cluster { SourceKind::Cluster } else { SourceKind::Files };
        let settings = Settings { source, ..Settings::default() };
        let mut translator = Translator::new(settings.clone());
        for step in &steps {
            translator.apply([event(world, *step)]);
            if step.2 {
                let incremental = translator.translate();
                prop_assert_eq!(&incremental, &translate(translator.objects(), &settings));
            }
        }
        let incremental = translator.translate();
        prop_assert_eq!(&incremental, &translate(translator.objects(), &settings));

        // Another order, in which only the events of one object keep theirs.
        let mut sorted = steps.clone();
        sorted.sort_by_key(|step| std::cmp::Reverse(step.0 % world.len()));
        let mut other = Translator::new(settings);
        other.apply(sorted.into_iter().map(|step| event(world, step)));
        prop_assert_eq!(other.translate(), incremental);
        prop_assert_eq!(other.objects(), translator.objects());
    }
}

/// A gateway and many routes, each for a host of its own.
fn fleet(count: usize) -> Translator {
    let mut translator = Translator::new(Settings::default());
    let listeners = json!([{ "name": "http", "port": 80, "protocol": "HTTP" }]);
    let spec = json!({ "gatewayClassName": "sluice", "listeners": listeners });
    let gateway = object(
        GATEWAY_API,
        "Gateway",
        "infra",
        "web",
        json!({ "spec": spec }),
    );
    translator.apply([Event::Apply(gateway)]);
    translator.apply((0..count).map(|at| Event::Apply(member(at, "/"))));
    let spec = json!({ "ports": [{ "port": 80 }] });
    let service = |name: String| object("v1", "Service", "infra", &name, json!({ "spec": spec }));
    translator.apply((0..100).map(|at| Event::Apply(service(format!("s{at}")))));
    translator.apply((0..100).map(|at| Event::Apply(addresses(at, "10.0.0.1"))));
    translator
}

fn member(at: usize, path: &str) -> Object {
    let spec = json!({
        "parentRefs": [{ "name": "web" }],
        "hostnames": [format!("host{at}.example.com")],
        "rules": [{ "matches": [{ "path": { "value": path } }],
                    "backendRefs": [{ "name": format!("s{}", at % 100), "port": 80 }] }],
    });
    object(
        GATEWAY_API,
        "HTTPRoute",
        "infra",
        &format!("r{at}"),
        json!({ "spec": spec }),
    )
}

fn addresses(at: usize, address: &str) -> Object {
    read(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": format!("s{at}-x"), "namespace": "infra",
                      "labels": { "kubernetes.io/service-name": format!("s{at}") } },
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [address] }],
        "ports": [{ "port": 3000 }],
    }))
}

fn changed_routes(before: &Translation, after: &Translation) -> usize {
    let (before, after) = (&before.ir.routes, &after.ir.routes);
    let same = |(name, route): &(&ObjectRef, &Arc<gateway_model::ir::Route>)| {
        before.get(*name).is_some_and(|old| Arc::ptr_eq(old, route))
    };
    after.iter().filter(|entry| !same(entry)).count()
}

#[test]
fn endpoints_touch_one_upstream_and_no_route() {
    let mut translator = fleet(300);
    let before = translator.translate();
    translator.apply([Event::Apply(addresses(7, "10.0.0.2"))]);
    let after = translator.translate();
    assert_eq!(changed_routes(&before, &after), 0);
    let changed = after.ir.upstreams.diff(&before.ir.upstreams).count();
    assert_eq!(changed, 1);
    assert!(after.statuses.ptr_eq(&before.statuses));
}

#[test]
fn one_route_touches_itself_alone() {
    let mut translator = fleet(300);
    let before = translator.translate();
    translator.apply([Event::Apply(member(5, "/changed"))]);
    let after = translator.translate();
    assert_eq!(changed_routes(&before, &after), 1);
    assert!(after.ir.upstreams.ptr_eq(&before.ir.upstreams));
    assert!(after.ir.listeners.ptr_eq(&before.ir.listeners));
}

#[test]
fn an_equal_object_touches_nothing() {
    let mut translator = fleet(20);
    let before = translator.translate();
    translator.apply([
        Event::Apply(member(5, "/")),
        Event::Apply(addresses(7, "10.0.0.1")),
    ]);
    let after = translator.translate();
    assert!(after.ir.routes.ptr_eq(&before.ir.routes));
    assert!(after.statuses.ptr_eq(&before.statuses));
}

#[test]
fn unchanged_rules_of_a_changed_route_are_shared() {
    let with = |second: &str| {
        let spec = json!({
            "parentRefs": [{ "name": "web" }],
            "rules": [{ "matches": [{ "path": { "value": "/first" } }] },
                      { "matches": [{ "path": { "value": second } }] }],
        });
        object(
            GATEWAY_API,
            "HTTPRoute",
            "infra",
            "two",
            json!({ "spec": spec }),
        )
    };
    let mut translator = fleet(0);
    translator.apply([Event::Apply(with("/a"))]);
    let before = translator.translate();
    translator.apply([Event::Apply(with("/b"))]);
    let after = translator.translate();
    let rules = |t: &Translation| t.ir.routes.values().next().expect("a route").rules.clone();
    assert!(Arc::ptr_eq(&rules(&before)[0], &rules(&after)[0]));
    assert!(!Arc::ptr_eq(&rules(&before)[1], &rules(&after)[1]));
}
