//! HTTPRoute through the wire: matches, filters, weights, timeouts, mirrors, TLS by SNI.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gateway_tests::backend::{Seen, body_hash};
use gateway_tests::http1::Response;
use gateway_tests::manifests::{forward, route};
use gateway_tests::raw::Raw;

use crate::edge::{Edge, Mode};

/// A rule with these matches (YAML flow lists) that goes to a Service.
fn rule(matches: &str, service: &str) -> String {
    format!("  - matches: [{matches}]\n    backendRefs: [{{name: {service}, port: 80}}]\n")
}

/// A rule with these filters and matches that goes to `b0`.
fn filtered(path: &str, filters: &str) -> String {
    format!(
        "  - matches: [{{path: {{type: PathPrefix, value: {path}}}}}]\n    filters: [{filters}]\n    \
         backendRefs: [{{name: b0, port: 80}}]\n"
    )
}

fn backend(answer: &Response) -> &str {
    answer.header("x-backend").unwrap_or("none")
}

#[test]
fn every_kind_of_match_chooses_its_backend() -> Result<()> {
    let rules = [
        rule("{path: {type: PathPrefix, value: /a}}", "b0"),
        rule("{path: {type: Exact, value: /a/exact}}", "b1"),
        rule(
            "{path: {type: RegularExpression, value: '/re/[0-9]+'}}",
            "b2",
        ),
        rule("{path: {value: /a}, method: PUT}", "b1"),
        rule(
            "{path: {value: /a}, headers: [{name: X-Canary, value: 'true'}]}",
            "b2",
        ),
        rule(
            "{path: {value: /a}, headers: [{name: x-re, type: RegularExpression, value: 'v[12]'}]}",
            "b1",
        ),
        rule(
            "{path: {value: /q}, queryParams: [{name: who, value: me}]}",
            "b1",
        ),
        rule("{path: {value: /q}}, {path: {value: /other}}", "b2"),
    ];
    let edge = Edge::plan(Mode::Native)
        .documents([
            route("paths", &["www.example.com"], &rules.concat()),
            route("exact-host", &["one.example.com"], &forward("b1")),
            route("wildcard-host", &["*.example.com"], &forward("b2")),
        ])
        .start()?;
    let cases: &[(&str, &[&str], &str)] = &[
        ("http://www.example.com/a", &[], "b0"),
        ("http://www.example.com/a/", &[], "b0"),
        ("http://www.example.com/a/b", &[], "b0"),
        ("http://www.example.com/a/exact", &[], "b1"),
        ("http://www.example.com/a/exact/more", &[], "b0"),
        ("http://www.example.com/re/42", &[], "b2"),
        ("http://www.example.com/a", &["-X", "PUT"], "b1"),
        ("http://www.example.com/a", &["-H", "x-canary: true"], "b2"),
        ("http://www.example.com/a", &["-H", "X-CANARY: true"], "b2"),
        ("http://www.example.com/a", &["-H", "x-canary: false"], "b0"),
        ("http://www.example.com/a", &["-H", "x-re: v2"], "b1"),
        ("http://www.example.com/a", &["-H", "x-re: v22"], "b0"),
        ("http://www.example.com/q?who=me", &[], "b1"),
        ("http://www.example.com/q?who=you", &[], "b2"),
        ("http://www.example.com/other", &[], "b2"),
        ("http://one.example.com/anything", &[], "b1"),
        ("http://two.example.com/anything", &[], "b2"),
        ("http://deep.down.example.com/", &[], "b2"),
        // No rule of www.example.com has it, so the less specific host of the same listener is asked.
        ("http://www.example.com/ab", &[], "b2"),
    ];
    for (url, arguments, wanted) in cases {
        let answer = edge
            .curl(url)?
            .args(arguments.iter().copied())
            .run(edge.client())?;
        assert_eq!(backend(&answer), *wanted, "{url} {arguments:?}: {answer:?}");
    }
    assert_eq!(edge.get("http://elsewhere.test/")?.status, 404);
    Ok(())
}

#[test]
fn the_certificate_is_chosen_by_server_name() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    for (host, name) in [
        ("shop.example.com", &b"shop.example.com"[..]),
        ("any.example.com", b"*.example.com"),
    ] {
        // curl refuses a certificate that does not fit the name.
        assert_eq!(edge.get(&format!("https://{host}/"))?.status, 200);
        let config = edge.client_config(&[])?;
        let raw = Raw::connect_tls(edge.client(), edge.at(443), host, config)?;
        let chain = raw.tls().and_then(|tls| tls.peer_certificates());
        let leaf = chain.and_then(<[_]>::first).context("no certificate")?;
        assert!(
            gateway_tests::http1::find(leaf, name).is_some(),
            "{host}: {leaf:?}"
        );
    }
    Ok(())
}

#[test]
fn a_request_for_another_listeners_host_is_misdirected() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let on_wildcard = edge.curl("https://any.example.com/")?;
    let answer = on_wildcard
        .header("Host: shop.example.com")
        .run(edge.client())?;
    assert_eq!(answer.status, 421);
    let on_shop = edge.curl("https://shop.example.com/")?;
    let answer = on_shop.header("Host: any.example.com").run(edge.client())?;
    assert_eq!(answer.status, 421);
    Ok(())
}

#[test]
fn filters_change_what_the_backend_and_the_client_see() -> Result<()> {
    let request = "{type: RequestHeaderModifier, requestHeaderModifier: \
        {set: [{name: X-Set, value: new}], add: [{name: X-Add, value: more}], remove: [X-Gone]}}";
    let response = "{type: ResponseHeaderModifier, responseHeaderModifier: \
        {set: [{name: X-Backend, value: hidden}], add: [{name: X-Also, value: '1'}], remove: [Content-Type]}}";
    let prefix = "{type: URLRewrite, urlRewrite: \
        {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}";
    let full =
        "{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /whole}}}";
    let rules = [
        filtered("/headers", &format!("{request}, {response}")),
        filtered("/prefix", prefix),
        filtered("/full", full),
    ];
    let edge = Edge::plan(Mode::Native)
        .documents([route("filters", &[], &rules.concat())])
        .start()?;

    let call = edge.curl("http://a.example.com/headers")?;
    let call = call
        .header("X-Set: old")
        .header("X-Add: first")
        .header("X-Gone: yes");
    let answer = call.run(edge.client())?;
    let seen = Seen::from_json(&answer.body)?;
    assert_eq!(seen.all("x-set"), ["new"]);
    assert_eq!(seen.all("x-add").join(","), "first,more");
    assert_eq!(seen.header("x-gone"), None);
    assert_eq!(answer.header("x-backend"), Some("hidden"));
    assert_eq!(
        (answer.header("x-also"), answer.header("content-type")),
        (Some("1"), None)
    );

    let seen = |url: &str| -> Result<Seen> { Seen::from_json(&edge.get(url)?.body) };
    let rewritten = seen("http://a.example.com/prefix/x/y?q=1")?;
    assert_eq!(
        (rewritten.target.as_str(), rewritten.header("host")),
        ("/new/x/y?q=1", Some("inner.test"))
    );
    assert_eq!(seen("http://a.example.com/prefix")?.target, "/new");
    assert_eq!(
        seen("http://a.example.com/full/x?q=1")?.target,
        "/whole?q=1"
    );
    Ok(())
}

#[test]
fn redirects_are_answered_by_the_gateway() -> Result<()> {
    let redirect = |path: &str, what: &str| {
        format!(
            "  - matches: [{{path: {{value: {path}}}}}]\n    filters: \
             [{{type: RequestRedirect, requestRedirect: {{{what}}}}}]\n"
        )
    };
    let rules = [
        redirect("/tls", "scheme: https, statusCode: 301"),
        redirect("/host", "hostname: other.test"),
        redirect("/port", "port: 8443, scheme: https"),
        redirect(
            "/path",
            "path: {type: ReplacePrefixMatch, replacePrefixMatch: /to}",
        ),
        redirect(
            "/full",
            "path: {type: ReplaceFullPath, replaceFullPath: /to}, statusCode: 308",
        ),
    ];
    let edge = Edge::plan(Mode::Native)
        .documents([route("redirects", &[], &rules.concat())])
        .start()?;
    for (path, status, location) in [
        ("/tls/a?b=c", 301, "https://a.example.com/tls/a?b=c"),
        ("/host", 302, "http://other.test/host"),
        ("/port", 302, "https://a.example.com:8443/port"),
        ("/path/x", 302, "http://a.example.com/to/x"),
        ("/full/x?q=1", 308, "http://a.example.com/to?q=1"),
    ] {
        let answer = edge.get(&format!("http://a.example.com{path}"))?;
        assert_eq!(
            (answer.status, answer.header("location")),
            (status, Some(location)),
            "{path}"
        );
    }
    assert_eq!(
        edge.backends
            .iter()
            .map(gateway_tests::Backend::requests)
            .sum::<u64>(),
        0
    );
    Ok(())
}

#[test]
fn weights_split_traffic_and_weight_zero_gets_nothing() -> Result<()> {
    let rules = "  - backendRefs:\n    - {name: b0, port: 80, weight: 3}\n    \
                 - {name: b1, port: 80, weight: 1}\n    - {name: b2, port: 80, weight: 0}\n";
    let edge = Edge::plan(Mode::Native)
        .documents([route("weights", &[], rules)])
        .start()?;
    let report = edge.load("a.example.com").limit(2000).run(edge.client())?;
    report.expect_clean()?;
    let share = report.backends["b0"] as f64 / 2000.0;
    assert!((share - 0.75).abs() < 0.05, "{:?}", report.backends);
    assert!(!report.backends.contains_key("b2"), "{:?}", report.backends);
    Ok(())
}

#[test]
fn an_invalid_backend_answers_its_share_with_500() -> Result<()> {
    let rules = "  - backendRefs:\n    - {name: b0, port: 80, weight: 1}\n    \
                 - {name: missing, port: 80, weight: 1}\n";
    let edge = Edge::plan(Mode::Native)
        .documents([route("half", &[], rules)])
        .start()?;
    let report = edge.load("a.example.com").limit(1000).run(edge.client())?;
    let broken = report.statuses.get(&500).copied().unwrap_or(0);
    assert!((400..=600).contains(&broken), "{report}");
    assert_eq!(report.ok + broken, 1000, "{report}");
    Ok(())
}

#[test]
fn a_service_without_endpoints_answers_503() -> Result<()> {
    let documents = [
        route("empty", &[], &forward("empty")),
        "apiVersion: v1\nkind: Service\nmetadata: {name: empty, namespace: default}\n\
         spec: {ports: [{port: 80}]}\n"
            .to_owned(),
    ];
    let edge = Edge::plan(Mode::Native).documents(documents).start()?;
    assert_eq!(edge.get("http://a.example.com/")?.status, 503);
    Ok(())
}

#[test]
fn timeouts_end_slow_requests_with_504() -> Result<()> {
    let rules = "  - matches: [{path: {value: /request}}]\n    timeouts: {request: 200ms}\n    \
                 backendRefs: [{name: b0, port: 80}]\n  \
                 - matches: [{path: {value: /backend}}]\n    timeouts: {request: 5s, backendRequest: 200ms}\n    \
                 backendRefs: [{name: b0, port: 80}]\n  - backendRefs: [{name: b0, port: 80}]\n";
    let edge = Edge::plan(Mode::Native)
        .documents([route("timeouts", &[], rules)])
        .start()?;
    for path in ["/request", "/backend"] {
        let started = Instant::now();
        let answer = edge.get(&format!("http://a.example.com{path}?silent"))?;
        assert_eq!(answer.status, 504, "{path}");
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "{path} took {:?}",
            started.elapsed()
        );
        assert_eq!(
            edge.get(&format!("http://a.example.com{path}"))?.status,
            200
        );
    }
    assert_eq!(
        edge.get("http://a.example.com/?delay-ms=500")?.status,
        200,
        "no timeout, no limit so early"
    );
    Ok(())
}

#[test]
fn a_mirror_sees_a_copy_and_its_answer_is_thrown_away() -> Result<()> {
    let rules = "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: b1, port: 80}}}]\n    \
                 backendRefs: [{name: b0, port: 80}]\n";
    let edge = Edge::plan(Mode::Native)
        .recording()
        .documents([route("mirror", &[], rules)])
        .start()?;
    let call = edge.curl("http://a.example.com/copy?status=200")?;
    let answer = call.args(["--data", "the body"]).run(edge.client())?;
    assert_eq!(backend(&answer), "b0");
    let copy =
        edge.backends[1].wait_recorded("the copy", |r| r.seen.target.starts_with("/copy"))?;
    assert_eq!(
        (copy.seen.method.as_str(), copy.seen.body_hash),
        ("POST", body_hash(b"the body"))
    );
    assert_eq!(edge.backends[0].requests(), 1);
    Ok(())
}

#[test]
fn a_cross_origin_preflight_is_answered_by_the_gateway() -> Result<()> {
    let cors = "{type: CORS, cors: {allowOrigins: ['https://ui.test', 'https://*.apps.test'], \
                allowMethods: [GET, PUT], allowHeaders: [x-token], maxAge: 60}}";
    let edge = Edge::plan(Mode::Native)
        .documents([route("cors", &[], &filtered("/", cors))])
        .start()?;
    let preflight = |origin: &str| -> Result<Response> {
        let call = edge
            .curl("http://a.example.com/api")?
            .args(["-X", "OPTIONS"]);
        call.header(&format!("Origin: {origin}"))
            .header("Access-Control-Request-Method: PUT")
            .header("Access-Control-Request-Headers: x-token")
            .run(edge.client())
    };
    for origin in ["https://ui.test", "https://one.apps.test"] {
        let answer = preflight(origin)?;
        assert_eq!(
            answer.header("access-control-allow-origin"),
            Some(origin),
            "{answer:?}"
        );
        assert!(
            answer
                .header("access-control-allow-methods")
                .is_some_and(|m| m.contains("PUT"))
        );
        assert_eq!(answer.header("access-control-max-age"), Some("60"));
    }
    assert_eq!(
        preflight("https://evil.test")?.header("access-control-allow-origin"),
        None
    );
    assert_eq!(edge.backends[0].requests(), 0);
    let simple = edge
        .curl("http://a.example.com/api")?
        .header("Origin: https://ui.test");
    let answer = simple.run(edge.client())?;
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://ui.test")
    );
    assert_eq!(backend(&answer), "b0");
    Ok(())
}

#[test]
fn a_revoked_reference_grant_takes_effect_at_once() -> Result<()> {
    let grant = "apiVersion: gateway.networking.k8s.io/v1\nkind: ReferenceGrant\n\
                 metadata: {name: grant, namespace: other}\nspec:\n  \
                 from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: default}]\n  \
                 to: [{group: '', kind: Service}]\n"
        .to_owned();
    let rules = "  - backendRefs: [{name: far, namespace: other, port: 80}]\n";
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    let service = gateway_tests::manifests::service("far", &[edge.backends[0].address]);
    let service = service.replace("namespace: default", "namespace: other");
    let documents = [route("far", &[], rules), service, grant];
    edge.manifests.write("routes.yaml", &documents)?;
    edge.put_sluice(start.ready()?);
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    edge.apply(&documents[..2], "http://a.example.com/", |answer| {
        answer.status == 500
    })?;
    edge.apply(&documents, "http://a.example.com/", |answer| {
        answer.status == 200
    })
}
