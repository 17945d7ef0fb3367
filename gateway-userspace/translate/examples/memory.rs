//! What a route with its Service and EndpointSlice costs in memory, stage by stage.
//!
//!     cargo run --release -p gateway-translate --example memory -- 5000

#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use gateway_model::names::Revision;
use gateway_model::snapshot::compile;
use gateway_translate::{Event, Object, Settings, Translator, decode};
use serde_json::{Value, json};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: everything is passed on to the system's allocator; the count is beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    let count: usize = std::env::args()
        .nth(1)
        .map_or(5_000, |n| n.parse().expect("a number"));
    let mut translator = Translator::new(Settings::default());
    translator.apply(surroundings().into_iter().map(|o| Event::Apply(read(o))));
    let mut stages = Stages {
        count,
        before: LIVE.load(Relaxed),
    };
    let kinds: [Kind; 3] = [
        ("Services", service),
        ("EndpointSlices", slice),
        ("HTTPRoutes", route),
    ];
    for (name, manifest) in kinds {
        let objects: Vec<Object> = (0..count).map(|at| read(manifest(at))).collect();
        stages.report(&format!("{name} decoded"));
        translator.apply(objects.into_iter().map(Event::Apply));
        stages.report(&format!("{name} indexed"));
    }
    let translation = translator.translate();
    stages.report("translated (IR and statuses)");
    let compiled = compile(&translation.ir, Revision(1), None);
    stages.report("compiled");
    drop(compiled);
}

/// What it is called, and one of it by number.
type Kind = (&'static str, fn(usize) -> Value);

struct Stages {
    count: usize,
    before: usize,
}

impl Stages {
    fn report(&mut self, what: &str) {
        let now = LIVE.load(Relaxed);
        let grown = now.wrapping_sub(self.before) as isize / self.count as isize;
        println!("{what}: {grown} bytes each");
        self.before = now;
    }
}

fn read(value: Value) -> Object {
    decode(value).expect("valid").expect("a kind of ours")
}

fn meta(name: &str) -> Value {
    json!({
        "name": name, "namespace": "shop", "generation": 1,
        "uid": "8a4d4d0e-52a0-4f6e-8d1c-5c8d1f0b7a11",
        "creationTimestamp": "2026-01-31T12:00:00Z",
        "labels": { "app.kubernetes.io/name": "shop", "app.kubernetes.io/part-of": "shop" },
        "annotations": { "kubectl.kubernetes.io/last-applied-configuration": "x".repeat(600) },
    })
}

fn surroundings() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass",
            "metadata": { "name": "sluice" },
            "spec": { "controllerName": "sluice.dev/gateway-controller" },
        }),
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "gatewayClassName": "sluice", "listeners": [
                { "name": "http", "port": 80, "protocol": "HTTP" } ] },
        }),
    ]
}

fn service(at: usize) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta(&format!("service-{at}")),
        "spec": { "type": "ClusterIP", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] },
    })
}

fn slice(at: usize) -> Value {
    let mut meta = meta(&format!("service-{at}-abcde"));
    meta["labels"]["kubernetes.io/service-name"] = json!(format!("service-{at}"));
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
        "addressType": "IPv4",
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{
            "addresses": [format!("10.{}.{}.{}", at / 65_536, at / 256 % 256, at % 256)],
            "conditions": { "ready": true, "serving": true, "terminating": false },
            "nodeName": "node1", "targetRef": { "kind": "Pod", "name": format!("pod-{at}") },
        }],
    })
}

fn route(at: usize) -> Value {
    let backend = json!([{ "name": format!("service-{at}"), "port": 80 }]);
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": meta(&format!("route-{at}")),
        "spec": {
            "parentRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "web" }],
            "hostnames": [format!("{at}-route.example.com")],
            "rules": [
                {
                    "matches": [{ "path": { "type": "PathPrefix", "value": "/api" } }],
                    "filters": [{ "type": "RequestHeaderModifier", "requestHeaderModifier": {
                        "add": [{ "name": "x-shop", "value": "api" }] } }],
                    "backendRefs": backend,
                },
                {
                    "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }],
                    "backendRefs": backend,
                },
            ],
        },
    })
}
