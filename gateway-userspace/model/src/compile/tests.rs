//! What compiling promises: what is kept, what is shared; who wins is in `matching`.

mod matching;

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::compile;
use crate::ir::{Endpoints, Filter, Ir, PathMatch, Route};
use crate::names::{ObjectRef, Revision};
use crate::snapshot::{
    CompiledAction, CompiledTarget, NoListener, Outcome, Rejected, Snapshot, WorkerIndex,
};
use crate::testing::{Request, ir, listener, on, route, tls, upstream, upstream_key};

fn local(address: &str) -> SocketAddr {
    address.parse().expect("an address")
}

/// Compiles from scratch.
fn fresh(ir: &Ir) -> Arc<Snapshot> {
    let compiled = compile(ir, Revision(1), None);
    assert_eq!(compiled.rejected, []);
    compiled.snapshot
}

/// `route/rule` of the rule that takes a request on port 80.
fn winner(snapshot: &Snapshot, request: &Request) -> Option<String> {
    let table = snapshot.port_table(local("10.0.0.1:80"))?;
    let listener = table.listener_for(&request.host)?;
    let found = listener.find(request)?;
    Some(format!("{}/{}", found.rule.route.name, found.rule.index))
}

fn won(snapshot: &Snapshot, url: &str) -> Option<String> {
    winner(snapshot, &Request::get(url))
}

fn one_listener(routes: impl IntoIterator<Item = Route>) -> Ir {
    ir([listener("http", 80, None)], routes, [])
}

#[test]
fn a_route_that_does_not_compile_keeps_its_last_good_form() {
    let good = one_listener([
        route("r", "http", &[], vec![vec![on("/good")]]),
        route("other", "http", &[], vec![vec![on("/other")]]),
    ]);
    let first = fresh(&good);
    let bad = one_listener([
        route("r", "http", &[], vec![vec![on("/new"), on("~/(")]]),
        route("other", "http", &[], vec![vec![on("/moved")]]),
    ]);
    let second = compile(&bad, Revision(2), Some(&first));
    assert_eq!(second.rejected.len(), 1);
    assert!(
        second.rejected[0].reason.contains("the path"),
        "{:?}",
        second.rejected
    );
    assert!(
        second.rejected[0]
            .reason
            .ends_with("its last good form is still served")
    );
    let without_one = compile(&bad, Revision(1), None).rejected;
    assert!(without_one[0].reason.ends_with("nothing of it is served"));
    assert_eq!(won(&second.snapshot, "x/good").as_deref(), Some("r/0"));
    assert_eq!(won(&second.snapshot, "x/new"), None);
    assert_eq!(won(&second.snapshot, "x/moved").as_deref(), Some("other/0"));
    let third = compile(&bad, Revision(3), Some(&second.snapshot));
    assert_eq!(third.rejected, second.rejected);
    let healed = compile(&good, Revision(4), Some(&third.snapshot));
    assert_eq!(healed.rejected, []);
    let removed = compile(&one_listener([]), Revision(5), Some(&third.snapshot));
    assert_eq!(removed.rejected, []);
    assert_eq!(won(&removed.snapshot, "x/good"), None);
}

#[test]
fn alternation_stays_inside_the_anchors_and_size_is_limited() {
    let snapshot = fresh(&one_listener([route(
        "r",
        "http",
        &[],
        vec![vec![on("~/a|/b")]],
    )]));
    assert!(won(&snapshot, "x/a").is_some());
    assert!(won(&snapshot, "x/ab").is_none());
    assert!(won(&snapshot, "x/c/b").is_none());
    for pattern in ["~/a)|(/b", "~/[a-z]{5000}{100}"] {
        let ir = one_listener([route("r", "http", &[], vec![vec![on(pattern)]])]);
        assert_eq!(
            compile(&ir, Revision(1), None).rejected.len(),
            1,
            "{pattern}"
        );
    }
}

#[test]
fn stats_and_upstream_numbers_outlive_a_change() {
    let listeners = || [listener("http", 80, None)];
    let upstreams = |address| [upstream("b0", &[address]), upstream("b1", &["10.0.0.9:80"])];
    let rules = || vec![vec![on("/a")], vec![on("/b")]];
    let one = ir(
        listeners(),
        [route("r", "http", &[], rules())],
        upstreams("10.0.0.1:80"),
    );
    let first = fresh(&one);
    let rule = |snapshot: &Snapshot, index: usize| {
        Arc::clone(snapshot.rules().nth(index).expect("a rule"))
    };
    let worker = WorkerIndex { index: 0, count: 1 };
    rule(&first, 1).stats.record(worker, &Outcome::default());
    let id = first.upstream_id(&upstream_key("b0")).expect("an upstream");

    let two = ir(
        listeners(),
        [route(
            "r",
            "http",
            &[],
            vec![vec![on("/a2")], vec![on("/b2")]],
        )],
        upstreams("10.0.0.2:80"),
    );
    let second = compile(&two, Revision(2), Some(&first)).snapshot;
    assert_eq!(rule(&second, 1).stats.requests(), 1);
    assert_eq!(rule(&second, 0).stats.requests(), 0);
    assert_eq!(second.upstream_id(&upstream_key("b0")), Some(id));
    let found = second.upstream(id).expect("an upstream");
    assert_eq!(found.since, Revision(1));
    assert_eq!(
        found.endpoints(),
        &upstream("b0", &["10.0.0.2:80"]).endpoints
    );
    let other = second
        .upstream_id(&upstream_key("b1"))
        .expect("an upstream");
    let unchanged = |s: &Snapshot| Arc::as_ptr(s.upstream(other).expect("an upstream"));
    assert_eq!(unchanged(&first), unchanged(&second));
}

#[test]
fn an_endpoint_change_rebuilds_no_rule() {
    let with = |address| {
        ir(
            [listener("http", 80, None)],
            [route("r", "http", &[], vec![vec![on("/a")]])],
            [upstream("b0", &[address])],
        )
    };
    let first = fresh(&with("10.0.0.1:80"));
    let second = compile(&with("10.0.0.2:80"), Revision(2), Some(&first)).snapshot;
    let rule = |s: &Snapshot| Arc::as_ptr(s.rules().next().expect("a rule"));
    assert_eq!(rule(&first), rule(&second));
}

#[test]
fn a_named_upstream_that_the_ir_lacks_has_no_endpoints_until_it_comes() {
    let routes = || [route("r", "http", &[], vec![vec![on("/a")]])];
    let first = fresh(&one_listener(routes()));
    let id = |snapshot: &Snapshot| {
        let rule = snapshot.rules().next().expect("a rule");
        let CompiledAction::Forward(forward) = &rule.action else {
            panic!("forwards")
        };
        match &forward.backends()[0].target {
            CompiledTarget::Upstream { id, .. } => *id,
            CompiledTarget::Unavailable { .. } => panic!("has a number"),
        }
    };
    let of = |s: &Snapshot| s.upstream(id(s)).expect("an upstream").endpoints().clone();
    assert_eq!(of(&first), Endpoints::Addresses(Vec::new()));
    let with = ir(
        [listener("http", 80, None)],
        routes(),
        [upstream("b0", &["10.0.0.1:80"])],
    );
    let second = compile(&with, Revision(2), Some(&first)).snapshot;
    assert_eq!(of(&second), upstream("b0", &["10.0.0.1:80"]).endpoints);
    let third = compile(&one_listener([]), Revision(3), Some(&second)).snapshot;
    assert_eq!(third.upstreams().count(), 0);
}

#[test]
fn a_route_may_come_before_its_listener() {
    let routes = || [route("r", "http", &[], vec![vec![on("/a")]])];
    let first = fresh(&ir([], routes(), []));
    assert_eq!(first.port_tables().count(), 0);
    let second = compile(&one_listener(routes()), Revision(2), Some(&first)).snapshot;
    assert_eq!(won(&second, "x/a").as_deref(), Some("r/0"));
}

#[test]
fn misdirected_is_told_from_unclaimed() {
    let at = |section: &str, host| tls(listener(section, 443, host));
    let snapshot = fresh(&ir(
        [
            at("any", None),
            at("second", Some("second-example.org")),
            at("wild", Some("*.wildcard.org")),
            at("fourth", Some("fourth-example.wildcard.org")),
        ],
        [],
        [],
    ));
    let table = snapshot.port_table(local("10.0.0.1:443")).expect("a table");
    let section = |sni, host| {
        table
            .listener_for_request(sni, host)
            .map(|listener| listener.key().section.to_string())
    };
    assert_eq!(
        section(Some("second-example.org"), "unknown"),
        Err(NoListener::Misdirected)
    );
    assert_eq!(
        section(Some("unknown"), "example.org").as_deref(),
        Ok("any")
    );
    assert_eq!(section(None, "").as_deref(), Ok("any"));
    assert_eq!(
        section(Some("a.wildcard.org"), "b.c.wildcard.org").as_deref(),
        Ok("wild")
    );
    assert_eq!(
        section(Some("a.wildcard.org"), "fourth-example.wildcard.org"),
        Err(NoListener::Misdirected)
    );
    assert_eq!(section(Some("wildcard.org"), "x").as_deref(), Ok("any"));
}

#[test]
fn a_named_address_has_its_own_table() {
    let mut named = listener("named", 80, None);
    named.addresses = vec!["10.0.0.1".parse().expect("an address")];
    let snapshot = fresh(&ir([listener("all", 80, None), named], [], []));
    let section = |address| {
        let table = snapshot.port_table(local(address)).expect("a table");
        table.listeners[0].key().section.to_string()
    };
    assert_eq!(section("10.0.0.1:80"), "named");
    assert_eq!(section("[::ffff:10.0.0.1]:80"), "named");
    assert_eq!(section("10.0.0.2:80"), "all");
    assert!(snapshot.port_table(local("10.0.0.2:81")).is_none());
    let plan = snapshot.l4_plan();
    assert_eq!(plan.frontends.len(), 2);
    assert_eq!(plan.addresses.len(), 1);
}

#[test]
fn conflicting_listeners_do_not_break_the_others() {
    let snapshot = fresh(&ir(
        [
            listener("a", 80, Some("a.example")),
            listener("b", 80, Some("a.example")),
            tls(listener("c", 80, Some("c.example"))),
        ],
        [],
        [],
    ));
    let table = snapshot.port_table(local("10.0.0.2:80")).expect("a table");
    assert!(!table.is_tls());
    let sections: Vec<_> = table.listeners.iter().map(|l| &*l.key().section).collect();
    assert_eq!(sections, ["a"]);
}

#[test]
fn a_removed_listener_stops_serving_and_a_changed_route_touches_only_its_listeners() {
    let listeners = || [listener("a", 80, None), listener("b", 81, None)];
    let routes = |path| {
        [
            route("a", "a", &[], vec![vec![on(path)]]),
            route("b", "b", &[], vec![vec![on("/b")]]),
        ]
    };
    let first = fresh(&ir(listeners(), routes("/a"), []));
    let second = compile(
        &ir(listeners(), routes("/a2"), []),
        Revision(2),
        Some(&first),
    )
    .snapshot;
    let table = |s: &Snapshot, port| {
        Arc::as_ptr(
            s.port_table(SocketAddr::from(([10, 0, 0, 1], port)))
                .expect("a table"),
        )
    };
    assert_ne!(table(&first, 80), table(&second, 80));
    assert_eq!(table(&first, 81), table(&second, 81));
    let [only, _] = listeners();
    let third = compile(&ir([only], routes("/a2"), []), Revision(3), Some(&second)).snapshot;
    assert_eq!(third.port_tables().count(), 1);
    assert_eq!(third.l4_plan().frontends.len(), 1);
}

#[test]
fn a_backends_filters_come_after_the_rules() {
    let mut route = route("r", "http", &[], vec![vec![on("/a")]]);
    let rule = Arc::make_mut(&mut route.rules[0]);
    let set = |value: &str| {
        let name = crate::ir::HeaderName::parse("x-a").expect("a token");
        Filter::RequestHeaders(crate::ir::HeaderEdits {
            set: [crate::ir::HeaderLine {
                name,
                value: value.into(),
            }]
            .into(),
            ..Default::default()
        })
    };
    rule.filters = [set("rule")].into();
    let crate::ir::Action::Forward(backends) = &mut rule.action else {
        panic!("forwards")
    };
    backends[0].filters = [set("backend")].into();
    let snapshot = fresh(&one_listener([route]));
    let rule = snapshot.rules().next().expect("a rule");
    let CompiledAction::Forward(forward) = &rule.action else {
        panic!("forwards")
    };
    let picked = forward.pick(0).expect("a backend");
    assert_eq!(picked.filters.request_headers.wire(), b"x-a: backend\r\n");
    assert_eq!(rule.filters.request_headers.wire(), b"x-a: rule\r\n");
}

#[test]
fn a_hostname_written_twice_counts_once() {
    let mut twice = route("r", "http", &["a.example"], vec![vec![on("/a")]]);
    let once = twice.attachments[0].clone();
    twice.attachments = [once.clone(), once].into();
    let first = fresh(&one_listener([twice]));
    assert_eq!(won(&first, "a.example/a").as_deref(), Some("r/0"));
    let second = compile(&one_listener([]), Revision(2), Some(&first)).snapshot;
    assert_eq!(won(&second, "a.example/a"), None);
    let object = ObjectRef::new(crate::names::ObjectKind::HttpRoute, "shop", "r");
    assert!(!second.ir().routes.contains_key(&object));
    assert_eq!(on("/a*").path, PathMatch::Prefix("/a".into()));
}

/// One configuration out of many, drawn by small numbers: listeners, routes on several of them,
/// upstreams that come and go, and now and then a route that does not compile.
fn drawn(listeners: u8, routes: &[(u8, u8, u8)], upstreams: &[(u8, u8)]) -> Ir {
    let all = [
        listener("http", 80, None),
        listener("shop", 80, Some("*.shop.example")),
        listener("alt", 8080, None),
        tls(listener("https", 443, Some("a.shop.example"))),
    ];
    let chosen = (0..).zip(all).filter(|(bit, _)| listeners >> bit & 1 == 1);
    let routes = (0..).zip(routes).map(|(name, &(attached, host, path))| {
        let hosts = [
            &[][..],
            &["a.shop.example"],
            &["*.example"],
            &["b.shop.example", "*.example"],
        ];
        let paths = ["/*", "/a", "/a*", "~/a.*", "~/(", "/b*"];
        let conditions = on(paths[usize::from(path) % paths.len()]);
        let mut route = route(
            &format!("r{name}"),
            "http",
            hosts[usize::from(host) % 4],
            vec![vec![conditions]],
        );
        let sections = ["http", "shop", "alt", "https"];
        let template = route.attachments[0].clone();
        route.attachments = (0..)
            .zip(sections)
            .filter(|(bit, _)| attached >> bit & 1 == 1)
            .map(|(_, section)| crate::ir::RouteAttachment {
                listener: crate::testing::listener_key(section),
                hostnames: template.hostnames.clone(),
            })
            .collect();
        route
    });
    let addresses = ["10.0.0.1:80", "10.0.0.2:80"];
    let upstreams = upstreams.iter().map(|&(name, address)| {
        upstream(
            &format!("b{}", name % 3),
            &addresses[..usize::from(address % 3)],
        )
    });
    ir(chosen.map(|(_, listener)| listener), routes, upstreams)
}

/// Everything that can be seen of a snapshot through its interface.
fn view(snapshot: &Snapshot) -> String {
    let mut view = format!("{:?}", snapshot.l4_plan());
    for table in snapshot.port_tables() {
        for host in ["a.shop.example", "b.shop.example", "x.example", "", "other"] {
            for path in ["/", "/a", "/ab", "/a/b", "/b"] {
                let listener = table.listener_for_request(Some(host), host);
                let found = listener.map(|l| {
                    let found = l.find(&Request::get(&format!("{host}{path}")));
                    (
                        l.key(),
                        found.map(|f| (&f.rule.route, f.rule.index, f.prefix_len)),
                    )
                });
                view += &format!("\n{} {host}{path} {found:?}", table.port);
            }
        }
    }
    let mut upstreams: Vec<_> = snapshot
        .upstreams()
        .map(|each| format!("\n{:?}", each.upstream))
        .collect();
    upstreams.sort();
    for each in snapshot.upstreams() {
        let by_key = snapshot.upstream_id(&each.upstream.key);
        assert_eq!(by_key, Some(each.id), "numbers and keys agree");
    }
    view + &upstreams.concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_sequence_of_changes_ends_where_compiling_from_scratch_does(
        versions in prop::collection::vec(
            (
                any::<u8>(),
                prop::collection::vec((0..16u8, 0..4u8, 0..6u8), 0..6),
                prop::collection::vec((0..3u8, 0..3u8), 0..3),
            ),
            1..8,
        ),
    ) {
        let mut previous: Option<Arc<Snapshot>> = None;
        for (revision, (listeners, routes, upstreams)) in (1..).zip(&versions) {
            let ir = drawn(*listeners, routes, upstreams);
            let compiled = compile(&ir, Revision(revision), previous.as_deref());
            let scratch = compile(&ir, Revision(revision), None);
            let objects = |rejected: &[Rejected]| {
                rejected.iter().map(|each| each.object.clone()).collect::<Vec<_>>()
            };
            prop_assert_eq!(objects(&compiled.rejected), objects(&scratch.rejected));
            // What is rejected keeps a form that compiling from scratch has never seen.
            if scratch.rejected.is_empty() {
                prop_assert_eq!(view(&compiled.snapshot), view(&scratch.snapshot));
            }
            previous = Some(compiled.snapshot);
        }
        if let Some(last) = previous {
            let emptied = compile(&Ir::default(), Revision(100), Some(&last)).snapshot;
            prop_assert_eq!(view(&emptied), view(&Snapshot::default()));
        }
    }
}
