//! The index against an oracle that sorts every match of a listener and scans.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use crate::compile::compile;
use crate::ir::{Action, HttpMatch, Ir, PathMatch, Route, ValueMatch};
use crate::names::{Hostname, Revision};
use crate::snapshot::Snapshot;
use crate::testing::{Request, header_is, hostname, ir, listener, on, query_is, route};

const HOSTS: [&str; 7] = [
    "a.example.com",
    "b.example.com",
    "example.com",
    "*.example.com",
    "*.com",
    "x.a.example.com",
    "*.a.example.com",
];
const REQUEST_HOSTS: [&str; 9] = [
    "a.example.com",
    "b.example.com",
    "c.example.com",
    "example.com",
    "x.a.example.com",
    "y.a.example.com",
    "com",
    "",
    ".example.com",
];
const PATHS: [&str; 16] = [
    "/*",
    "/a",
    "/a*",
    "/a/b",
    "/a/b*",
    "/a/b/c*",
    "/bb*",
    "/bb/c",
    "/ab*",
    "~/a.*",
    "~/.*/b",
    "~/(a|bb)/[a-z]",
    "/a/",
    "/ccc*",
    "/ccc/d*",
    "/dddddddddddddddddddddddddddd*",
];
const REGEXES: [&str; 6] = [
    "~/a(/b)?",
    "~/[ab]/.*|/bb",
    "~(/[a-z])+/?",
    "~.*c",
    "~/a/b/c/d/e|/a",
    "~(?i)/A.*",
];
const REQUEST_PATHS: [&str; 16] = [
    "/",
    "/a",
    "/a/",
    "/a/b",
    "/a/b/",
    "/a/b/c",
    "/a/b/c/d/e",
    "/a/bc",
    "/bb",
    "/bb/c",
    "/ab",
    "/ab/x",
    "/ccc/d",
    "/ccc/dd",
    "/dddddddddddddddddddddddddddd/x",
    "/zzz//a",
];

fn condition() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        4 => prop::sample::select(&PATHS[..]),
        1 => prop::sample::select(&REGEXES[..]),
    ];
    (path, 0..6u8, prop::option::weighted(0.2, 0..2u8)).prop_map(|(path, extra, second)| {
        let mut conditions = on(path);
        match extra {
            0 => conditions.method = Some("GET".into()),
            1 => conditions.method = Some("POST".into()),
            2 => conditions.headers.push(header_is("x-canary", "true")),
            3 => conditions.query.push(query_is("v", "1")),
            _ => {}
        }
        if second == Some(0) {
            conditions.headers.push(header_is("x-tags", "a,b"));
        }
        conditions
    })
}

/// A route whose matches are ordered by specificity, as Gateway API, or by position, as Istio.
fn some_route(name: usize) -> impl Strategy<Value = Route> {
    let rules = prop::collection::vec(prop::collection::vec(condition(), 1..4), 1..6);
    let hosts = prop::sample::subsequence(&HOSTS[..], 0..3);
    (rules, hosts, any::<bool>(), 0..3i64).prop_map(move |(rules, hosts, by_position, created)| {
        let mut route = route(&format!("r{name}"), "http", &hosts, rules);
        for rule in &mut route.rules {
            for each in &mut Arc::make_mut(rule).matches {
                each.order.created = created;
                if by_position {
                    each.order.rank = [each.order.rule, each.order.alternative, 0, 0, 0];
                }
            }
        }
        route
    })
}

pub(crate) fn some_routes() -> impl Strategy<Value = Vec<Route>> {
    (0..12usize).prop_flat_map(|n| (0..n).map(some_route).collect::<Vec<_>>())
}

pub(crate) fn some_request() -> impl Strategy<Value = Request> {
    (
        prop::sample::select(&REQUEST_HOSTS[..]),
        prop::sample::select(&REQUEST_PATHS[..]),
        prop::sample::select(&["", "?v=1", "?v=2&v=1", "?v"][..]),
        prop::sample::select(&["GET", "POST", "PUT"][..]),
        prop::sample::subsequence(
            &[("x-canary", "true"), ("X-Tags", "a"), ("x-tags", "b")][..],
            0..=3,
        ),
    )
        .prop_map(|(host, path, query, method, headers)| {
            let mut request = Request::get(&format!("{host}{path}{query}"));
            request.method = method.to_owned();
            headers.into_iter().fold(request, |request, (name, value)| {
                request.header(name, value)
            })
        })
}

/// What must win: route, rule, length of the prefix.
fn oracle(ir: &Ir, request: &Request) -> Option<(String, u32, usize)> {
    let mut all = Vec::new();
    for route in ir.routes.values() {
        let hosts = &route.attachments[0].hostnames;
        let hosts: Vec<Option<&Hostname>> = if hosts.is_empty() {
            vec![None]
        } else {
            hosts.iter().map(Some).collect()
        };
        for host in hosts {
            for rule in &route.rules {
                for each in &rule.matches {
                    let class = host.map_or(2, |name| u8::from(name.as_str().starts_with('*')));
                    let length = Reverse(host.map_or(0, |name| name.as_str().len()));
                    all.push((
                        (class, length, &each.order),
                        host,
                        &each.conditions,
                        route,
                        rule.index,
                    ));
                }
            }
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    let covers = |name: &Hostname| name.matches(&request.host);
    all.into_iter()
        .find_map(|(_, host, conditions, route, rule)| {
            host.is_none_or(covers).then_some(())?;
            let prefix_len = matches(conditions, request)?;
            Some((route.object.name.to_string(), rule, prefix_len))
        })
}

fn matches(conditions: &HttpMatch, request: &Request) -> Option<usize> {
    let path = &request.path;
    let prefix_len = match &conditions.path {
        PathMatch::Exact(exact) => (**exact == **path).then_some(0),
        PathMatch::Prefix(prefix) => {
            let covered = **path == **prefix || path.starts_with(&format!("{prefix}/"));
            covered.then_some(prefix.len())
        }
        PathMatch::Regex(pattern) => full_match(pattern, path).then_some(0),
    }?;
    let method = conditions
        .method
        .as_ref()
        .is_none_or(|m| **m == *request.method);
    let header = conditions.headers.iter().all(|header| {
        let values: Vec<_> = request
            .headers
            .iter()
            .filter(|(name, _)| name.eq_ignore_ascii_case(header.name.as_str()))
            .map(|(_, value)| value.as_str())
            .collect();
        !values.is_empty() && header.value == ValueMatch::Exact(values.join(",").into())
    });
    let query = conditions.query.iter().all(|query| {
        let query_text = request.query.as_deref().unwrap_or_default();
        let mut pairs = query_text
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let first = pairs.find(|(name, _)| **name == *query.name);
        first.is_some_and(|(_, value)| query.value == ValueMatch::Exact(value.into()))
    });
    (method && header && query).then_some(prefix_len)
}

fn full_match(pattern: &str, path: &str) -> bool {
    thread_local! {
        static COMPILED: RefCell<HashMap<String, regex::Regex>> = RefCell::default();
    }
    COMPILED.with_borrow_mut(|compiled| {
        let compile = || regex::Regex::new(&format!("^(?:{pattern})$")).expect("a pattern");
        let regex = compiled.entry(pattern.to_owned()).or_insert_with(compile);
        regex.is_match(path)
    })
}

fn found(snapshot: &Snapshot, request: &Request) -> Option<(String, u32, usize)> {
    let table = snapshot.port_tables().next()?;
    let found = table.listeners[0].find(request)?;
    let rule = found.rule;
    Some((rule.route.name.to_string(), rule.index, found.prefix_len))
}

/// Edits one route as users do: its backends, one rule, its hostnames, or all of it goes.
fn edit(routes: &mut Vec<Route>, (at, kind, pick): (usize, u8, usize)) {
    if routes.is_empty() {
        return;
    }
    let at = at % routes.len();
    let route = &mut routes[at];
    let rule = pick % route.rules.len();
    match kind {
        0 => {
            routes.remove(at);
        }
        1 => {
            route.rules.remove(rule);
        }
        2 => {
            let rule = Arc::make_mut(&mut route.rules[rule]);
            rule.timeouts.request = Some(Duration::from_secs(pick as u64));
        }
        3 => {
            let rule = Arc::make_mut(&mut route.rules[rule]);
            rule.action = Action::Respond {
                status: 204,
                reason: "edited".into(),
            };
        }
        4 => route.attachments[0].hostnames = vec![hostname(HOSTS[pick % HOSTS.len()])],
        _ => {
            let rule = Arc::make_mut(&mut route.rules[rule]);
            rule.matches[0].conditions = on(PATHS[pick % PATHS.len()]);
        }
    }
    if routes.get(at).is_some_and(|route| route.rules.is_empty()) {
        routes.remove(at);
    }
}

fn one_listener(routes: impl IntoIterator<Item = Route>) -> Ir {
    ir([listener("http", 80, None)], routes, [])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn the_index_finds_what_a_sorted_scan_finds(
        routes in some_routes(),
        requests in prop::collection::vec(some_request(), 1..40),
    ) {
        let ir = one_listener(routes);
        let snapshot = compile(&ir, Revision(1), None).snapshot;
        for request in &requests {
            prop_assert_eq!(found(&snapshot, request), oracle(&ir, request), "{:?}", request);
        }
    }

    #[test]
    fn small_edits_are_compiled_like_the_whole(
        mut routes in some_routes(),
        edits in prop::collection::vec((0..12usize, 0..6u8, 0..100usize), 1..15),
        requests in prop::collection::vec(some_request(), 1..20),
    ) {
        let mut snapshot = compile(&one_listener(routes.clone()), Revision(1), None).snapshot;
        for (revision, each) in (2..).zip(edits) {
            edit(&mut routes, each);
            let ir = one_listener(routes.clone());
            snapshot = compile(&ir, Revision(revision), Some(&snapshot)).snapshot;
            for request in &requests {
                prop_assert_eq!(found(&snapshot, request), oracle(&ir, request), "{:?}", request);
            }
            for rule in snapshot.rules() {
                let source = &ir.routes[&rule.route].rules;
                let source = source.iter().find(|each| each.index == rule.index);
                prop_assert_eq!(source.map(|each| each.timeouts), Some(rule.timeouts));
            }
        }
        let emptied = compile(&one_listener([]), Revision(100), Some(&snapshot)).snapshot;
        prop_assert_eq!(emptied.upstreams().count(), 0);
    }

    #[test]
    fn compiling_changes_is_compiling_from_scratch(
        versions in prop::collection::vec(some_routes(), 1..8),
        requests in prop::collection::vec(some_request(), 1..40),
    ) {
        let mut previous: Option<Arc<Snapshot>> = None;
        for (revision, routes) in (1..).zip(versions) {
            let ir = one_listener(routes);
            let compiled = compile(&ir, Revision(revision), previous.as_deref());
            for request in &requests {
                let found = found(&compiled.snapshot, request);
                prop_assert_eq!(found, oracle(&ir, request), "{:?}", request);
            }
            let scratch = compile(&ir, Revision(revision), None).snapshot;
            let keys = |snapshot: &Snapshot| {
                let mut keys: Vec<_> =
                    snapshot.upstreams().map(|each| each.upstream.key.clone()).collect();
                keys.sort();
                keys
            };
            prop_assert_eq!(keys(&compiled.snapshot), keys(&scratch));
            previous = Some(compiled.snapshot);
        }
        if let Some(last) = previous {
            let emptied = compile(&one_listener([]), Revision(100), Some(&last)).snapshot;
            prop_assert_eq!(emptied.upstreams().count(), 0);
            prop_assert!(emptied.tables.is_empty());
        }
    }
}
