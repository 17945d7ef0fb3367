//! How long a translation takes: from scratch, and after one change.
//!
//!     cargo run --release -p gateway-translate --example measure -- 10000

use std::time::{Duration, Instant};

use gateway_translate::{Event, Object, Settings, Translator, decode, translate};
use serde_json::{Value, json};

fn main() {
    let count = std::env::args()
        .nth(1)
        .map_or(10_000, |n| n.parse().expect("a number"));
    let manifests: Vec<Value> = (0..count).map(|at| route(at, "/")).collect();
    let start = Instant::now();
    let routes: Vec<_> = manifests.into_iter().map(read).collect();
    report("decode", count, start.elapsed());

    let mut translator = Translator::new(Settings::default());
    let start = Instant::now();
    translator.apply(surroundings().into_iter().map(Event::Apply));
    translator.apply(routes.into_iter().map(Event::Apply));
    let first = translator.translate();
    report("apply and translate", count, start.elapsed());

    let start = Instant::now();
    let scratch = translate(translator.objects(), &Settings::default());
    report("translate from scratch", count, start.elapsed());
    assert_eq!(first, scratch);

    let changes: Vec<_> = (0..1_000)
        .map(|at| read(route(at * 7 % count, "/new")))
        .collect();
    one_by_one("one route changed", &mut translator, changes);
    let changes = (0..1_000)
        .map(|at| read(slice(at % 100, "10.2.0.1")))
        .collect();
    one_by_one("one EndpointSlice changed", &mut translator, changes);
    let changes = (0..10).map(|at| read(gateway(8_000 + at))).collect();
    one_by_one(
        "the Gateway of all routes changed",
        &mut translator,
        changes,
    );
}

fn one_by_one(what: &str, translator: &mut Translator, changes: Vec<Object>) {
    let mut kept = translator.translate();
    let mut times = Vec::with_capacity(changes.len());
    for change in changes {
        let start = Instant::now();
        translator.apply([Event::Apply(change)]);
        let translation = translator.translate();
        times.push(start.elapsed());
        kept = translation;
    }
    drop(kept);
    times.sort_unstable();
    let at = |share: usize| times[(times.len() - 1) * share / 100];
    println!(
        "{what}: p50 {:?}, p99 {:?}, max {:?}",
        at(50),
        at(99),
        at(100)
    );
}

fn report(what: &str, count: usize, elapsed: Duration) {
    let each = elapsed / u32::try_from(count).expect("few");
    println!("{what}: {elapsed:?}, {each:?} per route");
}

fn read(value: Value) -> Object {
    decode(value).expect("valid").expect("a kind of ours")
}

fn surroundings() -> Vec<Object> {
    let service = |at: usize| {
        let ports = json!([{ "port": 80, "targetPort": 3000 }]);
        let meta = json!({ "name": format!("s{at}"), "namespace": "shop" });
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": { "ports": ports } })
    };
    let mut objects = vec![read(gateway(80))];
    objects.extend((0..100).map(|at| read(service(at))));
    objects.extend((0..100).map(|at| read(slice(at, "10.1.0.1"))));
    objects
}

fn gateway(port: u16) -> Value {
    let listeners = json!([{ "name": "http", "port": port, "protocol": "HTTP",
                             "allowedRoutes": { "namespaces": { "from": "All" } } }]);
    let spec = json!({ "gatewayClassName": "sluice", "listeners": listeners });
    let meta = json!({ "name": "web", "namespace": "infra" });
    json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": meta, "spec": spec })
}

fn slice(at: usize, address: &str) -> Value {
    let labels = json!({ "kubernetes.io/service-name": format!("s{at}") });
    let meta = json!({ "name": format!("s{at}-x"), "namespace": "shop", "labels": labels });
    json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
            "addressType": "IPv4", "endpoints": [{ "addresses": [address] }],
            "ports": [{ "port": 3000 }] })
}

fn route(at: usize, path: &str) -> Value {
    let backend = |at: usize| json!([{ "name": format!("s{}", at % 100), "port": 80 }]);
    let rules = json!([
        { "matches": [{ "path": { "value": path } }], "backendRefs": backend(at) },
        { "matches": [{ "path": { "type": "Exact", "value": "/health" }, "method": "GET" },
                      { "headers": [{ "name": "X-Canary", "value": "true" }] }],
          "filters": [{ "type": "RequestHeaderModifier",
                        "requestHeaderModifier": { "set": [{ "name": "x", "value": "y" }] } }],
          "backendRefs": backend(at + 1) },
    ]);
    let spec = json!({ "parentRefs": [{ "name": "web", "namespace": "infra" }],
                       "hostnames": [format!("host{at}.example.com")], "rules": rules });
    let meta = json!({ "name": format!("r{at}"), "namespace": "shop" });
    json!({ "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": meta, "spec": spec })
}
