//! What an explanation says, and that it agrees with the lookup.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::{ExplainedOutcome, Explanation};
use crate::compile::compile;
use crate::ir::{Ir, ListenerProtocol, PortKind};
use crate::names::Revision;
use crate::route_index::tests::{some_request, some_routes};
use crate::testing::{Request, header_is, ir, listener, on, route, tls, upstream};

fn explained(ir: &Ir, local: &str, sni: Option<&str>, request: &Request) -> Explanation {
    let local: SocketAddr = local.parse().expect("an address");
    compile(ir, Revision(1), None)
        .snapshot
        .explain(local, sni, request)
}

/// The canary of the seeds: a header on one rule, a plain prefix on another, and neighbours.
fn shop() -> Ir {
    let mut canary = on("/cart*");
    canary.headers = vec![header_is("x-canary", "true")];
    let mut post = on("/cart*");
    post.method = Some("POST".into());
    ir(
        [
            listener("http", 80, Some("shop.example.com")),
            listener("all", 80, None),
        ],
        [
            route(
                "shop",
                "http",
                &["shop.example.com"],
                vec![
                    vec![on("/*")],
                    vec![on("/cart*")],
                    vec![canary],
                    vec![post],
                    vec![on("/api*")],
                ],
            ),
            route("wide", "http", &["*.example.com"], vec![vec![on("/cart")]]),
        ],
        [upstream("b1", &["10.0.0.1:80", "10.0.0.2:80"])],
    )
}

fn reason(explanation: &Explanation, route: &str, rule: &str) -> String {
    let all = explanation.hosts.iter().flat_map(|host| &host.candidates);
    let mut found = all.filter(|c| &*c.route.name == route && c.rule == rule);
    found.next().expect("a candidate").reason.clone()
}

#[test]
fn each_loser_has_its_reason() {
    let request = Request::get("shop.example.com/cart");
    let explanation = explained(&shop(), "10.0.0.1:80", None, &request);
    assert_eq!(explanation.outcome, ExplainedOutcome::Matched);
    let winner = explanation.winner.as_ref().expect("a winner");
    assert_eq!((&*winner.route.name, winner.rule_index), ("shop", 1));
    assert_eq!(winner.backends[0].backend, "shop/b1:80");
    assert_eq!(winner.backends[0].endpoints, ["10.0.0.1:80", "10.0.0.2:80"]);
    for (route, rule, expected) in [
        ("shop", "0", "less specific: prefix / is shorter than /cart"),
        (
            "shop",
            "1",
            "every condition holds, and it is the first in order",
        ),
        (
            "shop",
            "2",
            "header x-canary is absent, wanted exactly \"true\"",
        ),
        ("shop", "3", "method is GET, wanted POST"),
        ("shop", "4", "path /cart is not under /api"),
        (
            "wide",
            "0",
            "less specific: hostname *.example.com comes after shop.example.com",
        ),
    ] {
        assert_eq!(reason(&explanation, route, rule), expected);
    }
    let reasons: Vec<_> = explanation
        .listeners
        .iter()
        .map(|l| (l.chosen, &*l.reason))
        .collect();
    assert_eq!(
        reasons,
        [
            (
                true,
                "shop.example.com is the most specific hostname that covers \"shop.example.com\""
            ),
            (false, "less specific than shop.example.com"),
        ]
    );
}

#[test]
fn a_matching_header_wins_and_says_over_what() {
    let request = Request::get("shop.example.com/cart/1").header("X-Canary", "true");
    let explanation = explained(&shop(), "10.0.0.1:80", None, &request);
    assert_eq!(explanation.winner.as_ref().map(|w| w.rule_index), Some(2));
    assert_eq!(
        reason(&explanation, "shop", "1"),
        "less specific: 0 header conditions are fewer than 1"
    );
    let other = Request::get("shop.example.com/cart")
        .header("x-canary", "no")
        .header("x-canary", "way");
    assert_eq!(
        reason(
            &explained(&shop(), "10.0.0.1:80", None, &other),
            "shop",
            "2"
        ),
        "header x-canary is \"no,way\", wanted exactly \"true\""
    );
}

#[test]
fn every_end_has_its_name() {
    let outcome = |ir: &Ir, local, sni, url| explained(ir, local, sni, &Request::get(url)).outcome;
    let ir = ir(
        [
            listener("http", 80, Some("a.example")),
            tls(listener("a", 443, Some("a.example"))),
            tls(listener("b", 443, Some("b.example"))),
        ],
        [route("r", "http", &[], vec![vec![on("/x")]])],
        [],
    );
    let any = "10.0.0.1:81";
    assert_eq!(
        outcome(&ir, any, None, "a.example/x"),
        ExplainedOutcome::NotServed
    );
    let http = "10.0.0.1:80";
    assert_eq!(
        outcome(&ir, http, None, "a.example/x"),
        ExplainedOutcome::Matched
    );
    assert_eq!(
        outcome(&ir, http, None, "a.example/y"),
        ExplainedOutcome::NoRule
    );
    assert_eq!(
        outcome(&ir, http, None, "b.example/x"),
        ExplainedOutcome::NoListener
    );
    let https = "10.0.0.1:443";
    let misdirected = outcome(&ir, https, Some("a.example"), "b.example/x");
    assert_eq!(misdirected, ExplainedOutcome::Misdirected);
    let unclaimed = outcome(&ir, https, Some("a.example"), "c.example/x");
    assert_eq!(unclaimed, ExplainedOutcome::NoListener);
}

#[test]
fn an_explanation_survives_json() {
    let explanation = explained(
        &shop(),
        "10.0.0.1:80",
        None,
        &Request::get("shop.example.com/"),
    );
    let text = serde_json::to_string(&explanation).expect("plain values");
    let back: Explanation = serde_json::from_str(&text).expect("the same shape");
    assert_eq!(back, explanation);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(50))]

    #[test]
    fn the_explanation_agrees_with_the_lookup(
        routes in some_routes(),
        requests in prop::collection::vec(some_request(), 1..20),
    ) {
        let ir = ir([listener("http", 80, None)], routes, []);
        let snapshot = compile(&ir, Revision(1), None).snapshot;
        let local: SocketAddr = "10.0.0.1:80".parse().expect("an address");
        let listener = &snapshot.port_table(local).expect("a table").listeners[0];
        for request in &requests {
            let explanation = snapshot.explain(local, None, request);
            let found = listener.find(request);
            prop_assert_eq!(
                explanation.winner.as_ref().map(|w| (&w.route, w.rule_index)),
                found.map(|f| (&f.rule.route, f.rule.index)),
                "{:?}", request
            );
            let candidates = explanation.hosts.iter().flat_map(|host| &host.candidates);
            let winners = candidates.filter(|c| c.won).count();
            prop_assert_eq!(winners, usize::from(found.is_some()));
        }
    }
}

#[test]
fn what_has_no_head_is_explained_by_its_name() {
    let kind = |section: &str, port, host, protocol| {
        let mut listener = listener(section, port, host);
        listener.protocol = protocol;
        listener
    };
    let web = tls(listener("web", 443, Some("web.example.com")));
    let pass = Some("*.pass.example.com");
    let ir = ir(
        [
            kind("pass", 443, pass, ListenerProtocol::TlsPassthrough),
            kind("udp", 53, None, ListenerProtocol::Udp),
            kind("tcp", 53, None, ListenerProtocol::Tcp),
            web,
        ],
        [
            route("db", "pass", &["a.pass.example.com"], vec![vec![on("/*")]]),
            route("dns", "udp", &[], vec![vec![on("/*")]]),
        ],
        [upstream("b0", &["10.0.0.1:80"])],
    );
    let snapshot = compile(&ir, Revision(1), None).snapshot;
    let asked = |kind, port, sni| {
        let local = SocketAddr::from(([10, 0, 0, 1], port));
        let said = snapshot.explain_stream(kind, local, sni);
        (said.outcome, said.summary)
    };
    for (kind, port, sni, outcome, words) in [
        (
            PortKind::Tls,
            443,
            Some("a.pass.example.com"),
            ExplainedOutcome::Matched,
            "shop/b0:80",
        ),
        (
            PortKind::Tls,
            443,
            Some("b.pass.example.com"),
            ExplainedOutcome::NoRule,
            "handshake is refused",
        ),
        (
            PortKind::Tls,
            443,
            Some("example.org"),
            ExplainedOutcome::NoListener,
            "example.org",
        ),
        (
            PortKind::Tls,
            443,
            None,
            ExplainedOutcome::NoListener,
            "handshake is refused",
        ),
        (
            PortKind::Tls,
            443,
            Some("web.example.com"),
            ExplainedOutcome::NoRule,
            "https://",
        ),
        (
            PortKind::Udp,
            53,
            None,
            ExplainedOutcome::Matched,
            "shop/b0:80",
        ),
        (
            PortKind::Tcp,
            53,
            None,
            ExplainedOutcome::NoRule,
            "connection is reset",
        ),
        (
            PortKind::Tcp,
            443,
            None,
            ExplainedOutcome::NotServed,
            "no listener",
        ),
        (
            PortKind::Udp,
            54,
            None,
            ExplainedOutcome::NotServed,
            "no listener",
        ),
    ] {
        let (said, summary) = asked(kind, port, sni);
        assert_eq!(said, outcome, "{summary}");
        assert!(summary.contains(words), "{summary}");
    }
}
