//! `cargo bench -p gateway-model --bench route [-- -o json]`: what looking up, compiling and keeping routes costs.
//!
//! Shapes: every route has a hostname of its own; all routes share one hostname, with prefixes of
//! their own; or with regular expressions of their own (up to 1 000). A lookup asks for another
//! route each time, in random order over all of them (`uniform`), by Zipf's law (`zipf`), or over
//! 64 of them (`hot`), and costs CPU time of the thread; the requests' texts are in the cache, as when a
//! worker has just read them, and many routes are in huge pages, where `sluice run` puts them. Beside it stands
//! what it takes to read one cache line of as many as there
//! are routes, each where the last one said (`line`): no lookup of one route among so many, drawn evenly,
//! can take much less, whatever the index. Memory is the growth of the process's resident set, in a process of
//! its own for each figure.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_model::head::Head;
use gateway_model::ir::{
    Action, BackendTarget, Endpoint, Endpoints, HeaderName, HttpMatch, Ir, Listener,
    ListenerProtocol, MatchOrder, PathMatch, Route, RouteAttachment, Rule, RuleMatch, SourcePolicy,
    Timeouts, Upstream, UpstreamProtocol, WeightedBackend,
};
use gateway_model::names::{Hostname, ListenerKey, ObjectKind, ObjectRef, Revision, UpstreamKey};
use gateway_model::snapshot::{CompiledListener, Snapshot, compile};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

const HOT: usize = 64;
const REQUESTS: usize = 100_000;
/// So many are measured at once.
const BATCH: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Draw {
    Zipf,
    Uniform,
    Hot,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Shape {
    OwnHosts,
    OneHost,
    Regexes,
}

impl Shape {
    const ALL: [Self; 3] = [Self::OwnHosts, Self::OneHost, Self::Regexes];

    fn sizes(self) -> &'static [usize] {
        match self {
            Self::OwnHosts | Self::OneHost => &[10, 1_000, 10_000, 100_000],
            Self::Regexes => &[10, 1_000],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::OwnHosts => "own hosts",
            Self::OneHost => "one host",
            Self::Regexes => "regexes",
        }
    }

    fn host(self, i: usize) -> String {
        match self {
            Self::OwnHosts => format!("n{i}.apps.example.com"),
            Self::OneHost | Self::Regexes => "shop.example.com".to_owned(),
        }
    }

    fn prefix(self, i: usize) -> String {
        match self {
            Self::OwnHosts => String::new(),
            Self::OneHost | Self::Regexes => format!("/team-{}/service-{i}", i % 97),
        }
    }

    fn condition(self, i: usize) -> PathMatch {
        let prefix = self.prefix(i);
        match self {
            Self::OwnHosts | Self::OneHost => PathMatch::Prefix(prefix.into()),
            Self::Regexes => PathMatch::Regex(format!("{prefix}/v[0-9]+/.*").into()),
        }
    }
}

#[derive(Debug, Serialize)]
struct Figures {
    shape: Shape,
    routes: usize,
    lookup_zipf_ns: f64,
    lookup_uniform_ns: f64,
    lookup_hot_ns: f64,
    /// One read of one of as many cache lines.
    line_ns: f64,
    compile_all_ms: f64,
    change_route_us: Spread,
    change_endpoints_us: Spread,
    bytes_per_route_compiled: Option<f64>,
    bytes_per_route_with_ir: Option<f64>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Spread {
    median: f64,
    p99: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--memory") {
        let is_named = |shape: &Shape| format!("{shape:?}") == arguments[at + 1];
        let shape = Shape::ALL.into_iter().find(is_named).expect("a shape");
        let routes = arguments[at + 2].parse().expect("a number of routes");
        print_memory(shape, routes);
        return;
    }
    let json = arguments.windows(2).any(|pair| pair == ["-o", "json"]);
    let all: Vec<Figures> = Shape::ALL
        .into_iter()
        .flat_map(|shape| {
            shape
                .sizes()
                .iter()
                .map(move |&routes| measure(shape, routes))
        })
        .collect();
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&all).expect("plain values")
        );
    } else {
        print_table(&all);
    }
}

fn measure(shape: Shape, routes: usize) -> Figures {
    let mut ir = configuration(shape, routes);
    let started = Instant::now();
    let mut snapshot = compile(&ir, Revision(1), None).snapshot;
    let compile_all_ms = started.elapsed().as_secs_f64() * 1e3;
    let change_route_us = changes(&mut ir, &mut snapshot, routes, |ir, i, round| {
        let object = route_object(i);
        let mut route = Route::clone(&ir.routes[&object]);
        Arc::make_mut(&mut route.rules[0]).timeouts.request = Some(Duration::from_secs(round));
        ir.routes.insert(object, Arc::new(route));
    });
    let change_endpoints_us = changes(&mut ir, &mut snapshot, routes, |ir, i, round| {
        let upstream = upstream(i, u8::try_from(round % 200).expect("small"));
        ir.upstreams
            .insert(upstream.key.clone(), Arc::new(upstream));
    });
    let (with_ir, compiled) = memory(shape, routes);
    if let Err(error) = gateway_heap::collapse() {
        eprintln!("the heap stays in small pages: {error}");
    }
    let large = |bytes: f64| (routes >= 10_000).then_some(bytes);
    Figures {
        shape,
        routes,
        lookup_zipf_ns: lookup(&snapshot, shape, routes, Draw::Zipf),
        lookup_uniform_ns: lookup(&snapshot, shape, routes, Draw::Uniform),
        lookup_hot_ns: lookup(&snapshot, shape, routes, Draw::Hot),
        line_ns: read_line(routes),
        compile_all_ms,
        change_route_us,
        change_endpoints_us,
        bytes_per_route_compiled: large(compiled),
        bytes_per_route_with_ir: large(with_ir),
    }
}

fn changes(
    ir: &mut Ir,
    snapshot: &mut Arc<Snapshot>,
    routes: usize,
    change: impl Fn(&mut Ir, usize, u64),
) -> Spread {
    let mut random = Random(7);
    let mut times = Vec::new();
    for round in 0..500 {
        change(ir, random.below(routes), round + 1);
        let revision = Revision(snapshot.revision().0 + 1);
        let started = Instant::now();
        let compiled = compile(ir, revision, Some(snapshot));
        times.push(started.elapsed().as_secs_f64() * 1e6);
        assert!(compiled.rejected.is_empty());
        *snapshot = compiled.snapshot;
    }
    times.sort_by(f64::total_cmp);
    Spread {
        median: times[times.len() / 2],
        p99: times[times.len() * 99 / 100],
    }
}

/// Nanoseconds a lookup, without what reading the requests costs: the best of many rounds.
fn lookup(snapshot: &Snapshot, shape: Shape, routes: usize, draw: Draw) -> f64 {
    let local = "192.0.2.1:80".parse().expect("an address");
    let table = snapshot.port_table(local).expect("a table");
    let listener = table.listener_for("shop.example.com").expect("a listener");
    let asked = draw.of(routes);
    let mut requests = Requests::default();
    for batch in asked.chunks(BATCH) {
        requests.write(shape, batch);
        for (request, route) in requests.iter().zip(batch) {
            let found = listener.find(&request).expect("every request has a route");
            assert_eq!(found.rule.route.name, route_object(*route).name);
        }
    }
    let rounds = if shape == Shape::Regexes { 5 } else { 100 };
    let mut best = (f64::INFINITY, f64::INFINITY);
    for _ in 0..rounds {
        let (mut finding, mut reading) = (0.0, 0.0);
        for batch in asked.chunks(BATCH) {
            requests.write(shape, batch);
            let requests: Vec<Request<'_>> = requests.iter().collect();
            let started = cpu_ns();
            read_all(&requests);
            let read = cpu_ns();
            find_all(listener, &requests);
            finding += cpu_ns() - read;
            reading += read - started;
        }
        best = (best.0.min(finding), best.1.min(reading));
    }
    (best.0 - best.1) / asked.len() as f64
}

/// Nanoseconds that a read of one of so many cache lines takes, the next being known only after it.
fn read_line(lines: usize) -> f64 {
    #[derive(Clone)]
    #[repr(align(64))]
    struct Line(usize);
    let asked = Draw::Uniform.of(lines);
    let all = vec![Line(0); lines];
    let rounds = (0..100).map(|_| {
        let started = cpu_ns();
        let last = asked.iter().fold(0, |last, at| all[at + last].0);
        black_box(last);
        (cpu_ns() - started) / asked.len() as f64
    });
    rounds.fold(f64::INFINITY, f64::min)
}

/// CPU time of this thread, in nanoseconds: what else runs on the machine does not count.
fn cpu_ns() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e9 + time.tv_nsec as f64
}

#[inline(never)]
fn find_all(listener: &CompiledListener, requests: &[Request<'_>]) {
    for request in requests {
        let found = listener.find(request);
        black_box(found.map(|found| Arc::as_ptr(found.rule)));
    }
}

#[inline(never)]
fn read_all(requests: &[Request<'_>]) {
    for request in requests {
        black_box((request.host(), request.path()));
    }
}

impl Draw {
    /// Which routes are asked for, one after the other.
    fn of(self, routes: usize) -> Vec<usize> {
        let mut random = Random(42);
        let mut order: Vec<usize> = (0..routes).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random.below(i + 1));
        }
        let choices = match self {
            Self::Hot => routes.min(HOT),
            Self::Zipf | Self::Uniform => routes,
        };
        let asked = (0..REQUESTS).map(|_| match self {
            // The inverse of the distribution's integral, 1 + ln(n).
            Self::Zipf => {
                let at = (random.unit() * (choices as f64).ln()).exp();
                order[(at as usize).min(choices) - 1]
            }
            Self::Uniform | Self::Hot => order[random.below(choices)],
        });
        asked.collect()
    }
}

/// Request texts one after the other.
#[derive(Default)]
struct Requests {
    text: String,
    /// End of the host, and of the path.
    ends: Vec<(u32, u32)>,
}

struct Request<'a> {
    host: &'a str,
    path: &'a str,
}

impl Requests {
    fn write(&mut self, shape: Shape, asked: &[usize]) {
        self.text.clear();
        self.ends.clear();
        for i in asked {
            self.text += &shape.host(*i);
            let host_end = self.text.len();
            self.text += &shape.prefix(*i);
            self.text += "/v1/items";
            let end = |n: usize| u32::try_from(n).expect("small");
            self.ends.push((end(host_end), end(self.text.len())));
        }
    }

    fn iter(&self) -> impl Iterator<Item = Request<'_>> {
        let mut start = 0;
        self.ends.iter().map(move |&(host_end, path_end)| {
            let (host_end, path_end) = (host_end as usize, path_end as usize);
            let request = Request {
                host: &self.text[start..host_end],
                path: &self.text[host_end..path_end],
            };
            start = path_end;
            request
        })
    }
}

impl Head for Request<'_> {
    fn method(&self) -> &str {
        "GET"
    }

    fn path(&self) -> &str {
        self.path
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn host(&self) -> &str {
        self.host
    }

    fn header_values<'a>(&'a self, _name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        std::iter::empty()
    }
}

struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.below(1 << 53) as f64 / (1u64 << 53) as f64
    }

    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        ((u128::from(self.0) * n as u128) >> 64) as usize
    }
}

fn route_object(i: usize) -> ObjectRef {
    ObjectRef::new(ObjectKind::HttpRoute, "apps", &format!("route-{i:06}"))
}

fn upstream(i: usize, last: u8) -> Upstream {
    Upstream {
        key: UpstreamKey::http(
            ObjectRef::new(ObjectKind::Service, "apps", &format!("service-{i:06}")),
            8080,
        ),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        endpoints: Endpoints::Addresses(vec![Endpoint {
            address: ([10, 0, 0, last], 8080).into(),
        }]),
    }
}

fn configuration(shape: Shape, routes: usize) -> Ir {
    let gateway = ObjectRef::new(ObjectKind::Gateway, "infra", "web");
    let listener = Listener {
        key: ListenerKey {
            gateway: gateway.clone(),
            section: "http".into(),
        },
        gateway,
        addresses: Vec::new(),
        port: 80,
        protocol: ListenerProtocol::Http,
        backend_client_certificate: None,
        hostname: None,
        source_policy: SourcePolicy::default(),
    };
    let upstreams = (0..routes).map(|i| upstream(i, 1));
    Ir {
        upstreams: upstreams.map(|u| (u.key.clone(), Arc::new(u))).collect(),
        routes: (0..routes)
            .map(|i| route(shape, i, &listener.key))
            .map(|route| (route.object.clone(), Arc::new(route)))
            .collect(),
        listeners: [(listener.key.clone(), Arc::new(listener))]
            .into_iter()
            .collect(),
        ..Ir::default()
    }
}

fn route(shape: Shape, i: usize, listener: &ListenerKey) -> Route {
    let object = route_object(i);
    let length = u32::try_from(shape.prefix(i).len()).expect("short");
    Route {
        attachments: [RouteAttachment {
            listener: listener.clone(),
            hostnames: vec![Hostname::parse(&shape.host(i)).expect("a hostname")],
        }]
        .into(),
        rules: vec![Arc::new(Rule {
            name: None,
            index: 0,
            matches: [RuleMatch {
                conditions: HttpMatch {
                    path: shape.condition(i),
                    method: None,
                    headers: Vec::new(),
                    query: Vec::new(),
                },
                order: MatchOrder {
                    rank: [1, u32::MAX - length, 1, u32::MAX, u32::MAX],
                    created: 0,
                    object: object.clone(),
                    rule: 0,
                    alternative: 0,
                },
            }]
            .into(),
            action: Action::Forward(Box::new([WeightedBackend {
                weight: 1,
                target: BackendTarget::Upstream(upstream(i, 1).key),
                filters: Box::default(),
            }])),
            filters: Box::default(),
            cors: None,
            timeouts: Timeouts::default(),
            retry: None,
        })],
        object,
    }
}

/// Bytes a route with its service: all of it, and what compiling adds to the IR.
fn memory(shape: Shape, routes: usize) -> (f64, f64) {
    let output = Command::new(std::env::current_exe().expect("this program"))
        .args(["--memory", &format!("{shape:?}"), &routes.to_string()])
        .output()
        .expect("this program runs");
    let text = String::from_utf8(output.stdout).expect("two numbers");
    let mut numbers = text
        .split_whitespace()
        .map(|n| n.parse().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    (next(), next())
}

fn print_memory(shape: Shape, routes: usize) {
    // Static tables and the allocator's first pages are not a route's.
    drop(black_box(compile(
        &configuration(shape, 100),
        Revision(1),
        None,
    )));
    let before = resident_bytes();
    let ir = configuration(shape, routes);
    let with_ir = resident_bytes();
    let compiled = compile(&ir, Revision(1), None);
    let after = resident_bytes();
    black_box((&ir, &compiled));
    let per_route = |bytes: f64| bytes / routes as f64;
    println!(
        "{} {}",
        per_route(after - before),
        per_route(after - with_ir)
    );
}

fn resident_bytes() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let fields: BTreeMap<_, _> = status
        .lines()
        .filter_map(|line| line.split_once(':'))
        .collect();
    let kib = fields["VmRSS"].trim().trim_end_matches(" kB");
    kib.parse::<f64>().expect("a number") * 1024.0
}

fn print_table(all: &[Figures]) {
    println!(
        "{:<10} {:>7} | {:>8} {:>8} {:>8} {:>8} | {:>11} | {:>16} {:>20} | {:>13} {:>8}",
        "shape",
        "routes",
        "hot ns",
        "zipf ns",
        "uniform",
        "line ns",
        "compile ms",
        "change us (p99)",
        "endpoints us (p99)",
        "B/route",
        "with IR"
    );
    for f in all {
        let spread = |s: Spread| format!("{:.1} ({:.1})", s.median, s.p99);
        let bytes = |b: Option<f64>| b.map_or_else(|| "-".to_owned(), |b| format!("{b:.0}"));
        println!(
            "{:<10} {:>7} | {:>8.1} {:>8.1} {:>8.1} {:>8.1} | {:>11.2} | {:>16} {:>20} | {:>13} {:>8}",
            f.shape.name(),
            f.routes,
            f.lookup_hot_ns,
            f.lookup_zipf_ns,
            f.lookup_uniform_ns,
            f.line_ns,
            f.compile_all_ms,
            spread(f.change_route_us),
            spread(f.change_endpoints_us),
            bytes(f.bytes_per_route_compiled),
            bytes(f.bytes_per_route_with_ir),
        );
    }
    for shape in [Shape::OwnHosts, Shape::OneHost] {
        let of = |routes| all.iter().find(|f| f.shape == shape && f.routes == routes);
        let (Some(few), Some(many)) = (of(1_000), of(100_000)) else {
            continue;
        };
        println!(
            "{}: a lookup in 100 000 routes takes {:.2}x (hot), {:.2}x (zipf), {:.2}x (uniform) the time of 1 000; \
             one cache line of 100 000 takes {:.2}x, of 1 000 {:.2}x",
            shape.name(),
            many.lookup_hot_ns / few.lookup_hot_ns,
            many.lookup_zipf_ns / few.lookup_zipf_ns,
            many.lookup_uniform_ns / few.lookup_uniform_ns,
            many.line_ns / few.lookup_uniform_ns,
            few.line_ns / few.lookup_uniform_ns,
        );
    }
}
