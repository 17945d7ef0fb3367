//! What a route with its Service and EndpointSlice costs in memory, stage by stage: bytes asked of the allocator, which
//! are the same in every run.
//!
//!     cargo test -p gateway-translate --test memory -- --nocapture

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

const COUNT: usize = 2_000;
/// What all of it may take: 5 000 such routes in less than 20 MB.
const MOST_BYTES_EACH: usize = 3_880;

#[test]
fn a_route_with_its_service_is_small() {
    let mut translator = Translator::new(Settings::default());
    translator.apply(surroundings().into_iter().map(|o| Event::Apply(read(o))));
    let mut stages = Stages::new();
    let kinds: [Kind; 3] = [
        ("Services", service),
        ("EndpointSlices", slice),
        ("HTTPRoutes", route),
    ];
    for (name, manifest) in kinds {
        let objects: Vec<Object> = (0..COUNT).map(|at| read(manifest(at))).collect();
        stages.report(&format!("{name} decoded"));
        translator.apply(objects.into_iter().map(Event::Apply));
        stages.report(&format!("{name} indexed"));
    }
    let translation = translator.translate();
    stages.report("translated (IR and statuses)");
    let compiled = compile(&translation.ir, Revision(1), None);
    stages.report("compiled");
    let each = stages.all();
    println!("all of it: {each} bytes each");
    assert!(each < MOST_BYTES_EACH, "{each} bytes each");
    drop(compiled);
}

/// What it is called, and one of it by number.
type Kind = (&'static str, fn(usize) -> Value);

struct Stages {
    first: usize,
    before: usize,
}

impl Stages {
    fn new() -> Self {
        let now = LIVE.load(Relaxed);
        Self {
            first: now,
            before: now,
        }
    }

    fn report(&mut self, what: &str) {
        let now = LIVE.load(Relaxed);
        let grown = now.wrapping_sub(self.before).cast_signed() / COUNT.cast_signed();
        println!("{what}: {grown} bytes each");
        self.before = now;
    }

    /// Since the first moment.
    fn all(&self) -> usize {
        LIVE.load(Relaxed).saturating_sub(self.first) / COUNT
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
