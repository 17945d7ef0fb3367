//! The same for Gateways with ListenerSets, addresses, authorities and client certificates.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{GATEWAY_API, Step, event, object, read};
use crate::objects::Object;
use crate::settings::{Publish, Settings, SourceKind};
use crate::translator::{Translator, translate};

fn gateway(name: &str, created: u32, spec: Value, assigned: &[&str]) -> Object {
    let mut whole = json!({ "gatewayClassName": "sluice" });
    let (Value::Object(whole_spec), Value::Object(spec)) = (&mut whole, spec) else {
        unreachable!("both are mappings")
    };
    whole_spec.extend(spec);
    let assigned: Vec<_> = assigned.iter().map(|a| json!({ "value": a })).collect();
    read(json!({
        "apiVersion": GATEWAY_API,
        "kind": "Gateway",
        "metadata": { "name": name, "namespace": "infra",
                      "creationTimestamp": format!("2026-01-0{created}T00:00:00Z") },
        "spec": whole,
        "status": { "addresses": assigned },
    }))
}

fn listener(name: &str, port: u16, protocol: &str, hostname: Option<&str>) -> Value {
    json!({ "name": name, "port": port, "protocol": protocol, "hostname": hostname })
}

fn tls(name: &str, port: u16, hostname: &str, namespace: &str) -> Value {
    json!({ "name": name, "port": port, "protocol": "HTTPS", "hostname": hostname,
            "tls": { "certificateRefs": [{ "name": "site", "namespace": namespace }] } })
}

fn gateways() -> Vec<Vec<Object>> {
    let allowed = |from: &str| json!({ "namespaces": { "from": from, "selector": { "matchLabels": { "team": "shop" } } } });
    let frontend = |kind: &str, namespace: &str, mode: &str| {
        json!({ "frontend": { "default": { "validation": {
            "caCertificateRefs": [{ "group": "", "kind": kind, "name": "authority",
                                    "namespace": namespace }], "mode": mode } } },
                "backend": { "clientCertificateRef": { "name": "site", "namespace": namespace } } })
    };
    let forms = |name: &str, created: u32, held: &str| {
        vec![
            gateway(
                name,
                created,
                json!({ "allowedListeners": allowed("All"),
                        "listeners": [listener("http", 80, "HTTP", None)] }),
                &[],
            ),
            gateway(
                name,
                created,
                json!({ "allowedListeners": allowed("Selector"),
                        "listeners": [listener("tcp", 81, "TCP", None),
                                      tls("https", 443, "*.example.com", "infra")],
                        "tls": frontend("ConfigMap", "infra", "AllowValidOnly"),
                        "infrastructure": { "labels": { "team": "shop" } } }),
                &["192.0.2.2", "2001:db8::1"],
            ),
            gateway(
                name,
                3 - created,
                json!({ "allowedListeners": allowed("Same"),
                        "addresses": [{ "value": held }, { "type": "IPAddress" }],
                        "listeners": [listener("http", 80, "HTTP", Some("a.example.com")),
                                      tls("https", 443, "a.example.com", "certs")],
                        "tls": frontend("ConfigMap", "certs", "AllowInsecureFallback") }),
                &["192.0.2.2"],
            ),
            gateway(
                name,
                created,
                json!({ "addresses": [{ "type": "Hostname", "value": "a.b" }],
                        "listeners": [listener("udp", 53, "UDP", None)] }),
                &["192.0.2.3"],
            ),
            gateway(
                name,
                created,
                json!({ "listeners": [listener("odd", 1, "example.com/odd", None)],
                        "allowedListeners": allowed("All") }),
                &[],
            ),
        ]
    };
    // Younger than both: it has what the ListenerSets of one that is not accepted must not keep.
    let last = json!({ "listeners": [listener("tcp", 81, "TCP", None),
                                     listener("http", 80, "HTTP", Some("a.example.com")),
                                     tls("https", 443, "c.example.com", "infra")] });
    vec![
        forms("a", 1, "192.0.2.2"),
        forms("b", 2, "192.0.2.3"),
        vec![gateway("c", 9, last, &[])],
    ]
}

fn sets() -> Vec<Vec<Object>> {
    let set = |namespace: &str, name: &str, parent: &str, created: u32, listeners: Value| {
        read(json!({
            "apiVersion": GATEWAY_API,
            "kind": "ListenerSet",
            "metadata": { "name": name, "namespace": namespace,
                          "creationTimestamp": format!("2026-01-0{created}T00:00:00Z") },
            "spec": { "parentRef": { "name": parent, "namespace": "infra" },
                      "listeners": listeners },
        }))
    };
    [("infra", "x"), ("shop", "x"), ("shop", "y")]
        .map(|(namespace, name)| {
            let http = json!([listener("l", 80, "HTTP", Some("a.example.com"))]);
            let secure = json!([
                tls("l", 443, "b.example.com", "certs"),
                listener("t", 80, "TCP", None)
            ]);
            let own = json!([
                tls("l", 443, "c.example.com", namespace),
                listener("u", 53, "UDP", None)
            ]);
            vec![
                set(namespace, name, "a", 1, http.clone()),
                set(namespace, name, "b", 1, http),
                set(namespace, name, "a", 2, secure),
                set(namespace, name, "b", 3, own),
            ]
        })
        .into()
}

fn routes() -> Vec<Vec<Object>> {
    let route = |namespace: &str, parents: Value| {
        let spec = json!({ "parentRefs": parents });
        object(
            GATEWAY_API,
            "HTTPRoute",
            namespace,
            "r",
            json!({ "spec": spec }),
        )
    };
    let of_set = |name: &str| json!({ "kind": "ListenerSet", "namespace": "shop", "name": name });
    let of_gateway = |name: &str| json!({ "namespace": "infra", "name": name });
    ["infra", "shop"]
        .map(|namespace| {
            vec![
                route(namespace, json!([of_set("x"), of_gateway("a")])),
                route(namespace, json!([of_set("y"), of_set("x")])),
            ]
        })
        .into()
}

fn referred() -> Vec<Vec<Object>> {
    let pair = rcgen::generate_simple_self_signed(["b.example.com".to_owned()]).expect("a pair");
    let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
    let secret = |namespace: &str, certificate: &str| {
        let texts = json!({ "tls.crt": certificate, "tls.key": key });
        object(
            "v1",
            "Secret",
            namespace,
            "site",
            json!({ "stringData": texts }),
        )
    };
    let authority = |namespace: &str, text: &str| {
        let data = json!({ "data": { "ca.crt": text } });
        object("v1", "ConfigMap", namespace, "authority", data)
    };
    let grant = |kinds: &[&str], to: &str| {
        let from = kinds.iter().flat_map(|kind| {
            ["infra", "shop"].map(|namespace| {
                json!({ "group": "gateway.networking.k8s.io", "kind": kind,
                        "namespace": namespace })
            })
        });
        let from: Vec<_> = from.collect();
        let spec = json!({ "from": from, "to": [{ "group": "", "kind": to }] });
        let rest = json!({ "spec": spec });
        object(GATEWAY_API, "ReferenceGrant", "certs", "grant", rest)
    };
    vec![
        vec![secret("certs", &certificate), secret("certs", "broken")],
        vec![secret("infra", &certificate), secret("infra", "broken")],
        vec![
            authority("infra", &certificate),
            authority("infra", "broken"),
        ],
        vec![
            authority("certs", &certificate),
            authority("certs", "broken"),
        ],
        vec![
            grant(&["Gateway"], "Secret"),
            grant(&["ListenerSet"], "Secret"),
            grant(&["Gateway"], "ConfigMap"),
        ],
    ]
}

fn surroundings() -> Vec<Vec<Object>> {
    let namespace = |team: &str| {
        read(json!({ "apiVersion": "v1", "kind": "Namespace",
                     "metadata": { "name": "shop", "labels": { "team": team } } }))
    };
    let node = |name: &str, kind: &str, address: &str| {
        read(
            json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name },
                     "status": { "addresses": [{ "type": kind, "address": address }] } }),
        )
    };
    let service = |ingress: Value| {
        let status = json!({ "loadBalancer": { "ingress": ingress } });
        let rest = json!({ "spec": { "ports": [{ "port": 80 }] }, "status": status });
        object("v1", "Service", "infra", "a-sluice", rest)
    };
    let class = |controller: &str| {
        let rest = json!({ "spec": { "controllerName": controller } });
        object(GATEWAY_API, "GatewayClass", "", "sluice", rest)
    };
    vec![
        vec![namespace("shop"), namespace("other")],
        vec![
            node("one", "InternalIP", "10.0.0.1"),
            node("one", "ExternalIP", "192.0.2.2"),
        ],
        vec![node("two", "InternalIP", "10.0.0.2")],
        vec![
            service(json!([])),
            service(json!([{ "ip": "198.51.100.1" }, { "hostname": "lb.example.com" }])),
        ],
        vec![
            class("sluice.dev/gateway-controller"),
            class("example.com/other"),
        ],
    ]
}

static WORLD: LazyLock<Vec<Vec<Object>>> = LazyLock::new(|| {
    let parts = [gateways(), sets(), routes(), referred(), surroundings()];
    parts.into_iter().flatten().collect()
});

fn settings(cluster: bool, pool: bool, service: bool) -> Settings {
    let pool_nets = ["192.0.2.0/29", "2001:db8::/126"].map(|n| n.parse().expect("a network"));
    Settings {
        source: if cluster {
            SourceKind::Cluster
        } else {
            SourceKind::Files
        },
        address_pool: if pool { pool_nets.to_vec() } else { Vec::new() },
        publish: if service {
            Publish::Service
        } else {
            Publish::Nodes
        },
        ..Settings::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    #[test]
    fn any_order_and_grouping_gives_the_translation_of_the_objects(
        steps in prop::collection::vec((0..18_usize, 0..6_usize, any::<bool>()), 1..60),
        cluster in any::<bool>(),
        pool in any::<bool>(),
        service in any::<bool>(),
    ) {
        let world = &*WORLD;
        prop_assert_eq!(world.len(), 18);
        let settings = settings(cluster, pool, service);
        let mut translator = Translator::new(settings.clone());
        for step in &steps {
            let step: Step = *step;
            translator.apply([event(world, step)]);
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

    /// What is served in a cluster is never served twice: each address and port of the pool
    /// belongs to one Gateway, unless several name it.
    #[test]
    fn an_address_of_the_pool_belongs_to_one_gateway(
        steps in prop::collection::vec((0..18_usize, 0..6_usize, any::<bool>()), 1..60),
    ) {
        let world = &*WORLD;
        let mut translator = Translator::new(settings(true, true, false));
        translator.apply(steps.into_iter().map(|step| event(world, step)));
        let translation = translator.translate();
        let mut owners = std::collections::BTreeMap::new();
        for listener in translation.ir.listeners.values() {
            prop_assert!(!listener.addresses.is_empty(), "every address: {:?}", listener.key);
            let named = translator.objects().gateways[&listener.gateway].addresses.iter();
            let named: Vec<_> = named.map(|a| a.value.to_string()).collect();
            for address in &listener.addresses {
                if named.contains(&address.to_string()) {
                    continue;
                }
                let owner = owners.entry(*address).or_insert(&listener.gateway);
                prop_assert_eq!(*owner, &listener.gateway, "{}", address);
            }
        }
    }
}
