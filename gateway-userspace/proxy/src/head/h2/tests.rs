//! What HTTP/2 heads are refused, and what an HTTP/1.1 upstream is sent of the others.

use std::net::SocketAddr;

use gateway_model::ir::{Rewrite, Scheme};

use super::*;
use crate::forwarded::Forwarding;
use crate::h1::{RequestPlan, encode_request};
use crate::limits::Limits;

fn request(uri: &str, fields: &[(&str, &str)]) -> Parts {
    let mut request = http::Request::builder().uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).expect("a request").into_parts().0
}

fn check(uri: &str, fields: &[(&str, &str)]) -> Option<Violation> {
    H2Head::check(&request(uri, fields), &Limits::default().head, true).err()
}

#[test]
fn row11_3b_authority_and_host_must_agree() {
    let uri = "https://a.example/";
    assert_eq!(check(uri, &[]), None);
    assert_eq!(check(uri, &[("host", "A.example:443")]), None);
    assert_eq!(check("/", &[("host", "a.example")]), None);
    assert_eq!(
        check(uri, &[("host", "b.example")]),
        Some(Violation::HostMismatch)
    );
    assert_eq!(
        check(uri, &[("host", "a.example:444")]),
        Some(Violation::HostMismatch)
    );
    assert_eq!(check("/", &[]), Some(Violation::HostMissing));
    let twice = [("host", "a.example"), ("host", "a.example")];
    assert_eq!(check("/", &twice), Some(Violation::HostDuplicate));
    assert_eq!(
        check("https://u:p@a.example/", &[]),
        Some(Violation::HostInvalid)
    );
    assert_eq!(check("/", &[("host", "")]), Some(Violation::HostInvalid));
}

#[test]
fn row7_3b_targets_and_schemes_are_checked() {
    assert_eq!(check("ftp://a/", &[]), Some(Violation::Scheme));
    for (path, violation) in [
        ("/a%2fb", Violation::PathEscapedSlash),
        ("/a%00", Violation::PathEscape),
        ("/a/..;/b", Violation::PathDotParameter),
    ] {
        assert_eq!(
            check(&format!("https://a{path}"), &[]),
            Some(violation),
            "{path}"
        );
    }
    let long = format!("https://a/{}", "x".repeat(8 * 1024));
    assert_eq!(check(&long, &[]), Some(Violation::TargetTooLong));
    let parts = request("https://a/b/%2e%2e//c?q=..", &[]);
    let head = H2Head::check(&parts, &Limits::default().head, true).expect("normal");
    assert_eq!((head.path(), head.query()), ("/c", Some("q=..")));
}

#[test]
fn row7_3b_backslash_in_path_is_refused() {
    let mut parts = request("https://a/", &[]);
    let path = ::bytes::Bytes::from_static(b"/a\\b");
    let mut uri = parts.uri.into_parts();
    uri.path_and_query = http::uri::PathAndQuery::from_maybe_shared(path).ok();
    parts.uri = http::Uri::from_parts(uri).expect("a uri");
    let found = H2Head::check(&parts, &Limits::default().head, true).err();
    assert_eq!(found, Some(Violation::PathBackslash));
}

#[test]
fn row8_row15_3b_fields_are_checked() {
    let uri = "https://a/";
    for (name, value, violation) in [
        ("x_y", "1", Violation::HeaderName),
        ("x.y", "1", Violation::HeaderName),
        ("x", " 1", Violation::HeaderValue),
        ("x", "1\t", Violation::HeaderValue),
        ("connection", "close", Violation::ConnectionField),
        ("transfer-encoding", "chunked", Violation::ConnectionField),
        ("te", "gzip", Violation::ConnectionField),
        ("expect", "foo", Violation::Expectation),
        ("content-length", "+1", Violation::LengthInvalid),
    ] {
        assert_eq!(
            check(uri, &[(name, value)]),
            Some(violation),
            "{name}: {value:?}"
        );
    }
    let crumbs = vec![("cookie", "a=b"); 101];
    assert_eq!(check(uri, &crumbs), Some(Violation::TooManyHeaders));
    let large = "x".repeat(61 * 1024);
    assert_eq!(
        check(uri, &[("x", large.as_str())]),
        Some(Violation::HeadTooLarge)
    );
}

#[test]
fn row12_3b_connect_and_trace_are_refused() {
    for method in ["CONNECT", "TRACE"] {
        let mut parts = request("https://a/", &[]);
        parts.method = method.parse().expect("a method");
        let found = H2Head::check(&parts, &Limits::default().head, true).err();
        assert_eq!(found, Some(Violation::MethodRefused));
    }
}

#[test]
fn what_was_refused_is_shown_as_it_was_sent() {
    for (uri, target) in [
        ("https://a/%zz/../b?c", "/%zz/../b?c"),
        ("https://a", "/"),
        ("a:80", "a:80"),
    ] {
        assert_eq!(H2Head::as_sent(&request(uri, &[])), ("GET", target));
    }
}

/// What an upstream is sent of a request with a body.
fn encoded(uri: &str, fields: &[(&str, &str)]) -> String {
    let mut parts = request(uri, fields);
    parts.method = http::Method::POST;
    let head = H2Head::check(&parts, &Limits::default().head, false).expect("good");
    let peer = SocketAddr::from(([192, 0, 2, 1], 5000));
    let local = SocketAddr::from(([192, 0, 2, 9], 443));
    let mut out = Vec::new();
    let plan = RequestPlan {
        edits: &CompiledEdits::default(),
        rewrite: &Rewrite::default(),
        prefix_len: 0,
        forwarding: &Forwarding::new(peer, local, Scheme::Https, 0),
        request_id: Some(b"1"),
    };
    encode_request(&mut out, &head, &plan);
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn row7_the_upstream_gets_joined_cookies_and_one_host() {
    let fields = [
        ("host", "a.example"),
        ("cookie", "a=1"),
        ("accept", "*/*"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x-forwarded-for", "10.9.9.9"),
        ("x-envoy-internal", "true"),
        ("expect", "100-continue"),
        ("content-length", "007"),
    ];
    assert_eq!(
        encoded("https://A.example/x?y", &fields),
        "POST /x?y HTTP/1.1\r\nHost: a.example\r\naccept: */*\r\ncookie: a=1; b=2\r\n\
         Content-Length: 7\r\nX-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\n\
         X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\nX-Forwarded-Host: a.example\r\n\
         X-Request-Id: 1\r\n\r\n"
    );
}

#[test]
fn a_field_of_responses_is_not_taken_for_cookies() {
    let text = encoded("https://a.example/", &[("set-cookie", "a=1")]);
    assert!(text.contains("\r\nset-cookie: a=1\r\n"), "{text}");
    assert!(!text.contains("\r\ncookie:"), "{text}");
}

#[test]
fn row28_only_harmless_trailers_pass() {
    for name in [
        "grpc-status",
        "grpc-message",
        "x-checksum",
        "content-digest",
    ] {
        assert!(is_trailer_allowed(name), "{name}");
    }
    for name in [
        "content-length",
        "host",
        "transfer-encoding",
        "te",
        "authorization",
        "cookie",
        "set-cookie",
        "x-forwarded-for",
        "x_y",
        "content-type",
    ] {
        assert!(!is_trailer_allowed(name), "{name}");
    }
}
