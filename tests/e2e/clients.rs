//! Real clients and every shape of HTTP/1.1 and HTTP/2 that they speak.

use std::time::Duration;

use anyhow::Result;
use gateway_tests::backend::{Seen, body_hash, pattern};
use gateway_tests::h2frames::{self, END_HEADERS, END_STREAM, Frame, Http2, frame, kind};
use gateway_tests::manifests;
use gateway_tests::raw::{End, Raw};
use gateway_tests::tools::h2load;
use gateway_tests::wait::PATIENCE;
use gateway_tests::websocket::WebSocket;

use crate::edge::{Edge, Mode};

#[test]
fn curl_speaks_http2_over_tls_and_with_prior_knowledge() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    for (url, flag) in [
        ("https://a.example.com/x", "--http2"),
        ("http://a.example.com/x", "--http2-prior-knowledge"),
    ] {
        let answer = edge
            .curl(url)?
            .args([flag, "--data", "body"])
            .run(edge.client())?;
        assert_eq!(answer.head.word(0), "HTTP/2", "{answer:?}");
        let seen = Seen::from_json(&answer.body)?;
        assert_eq!(
            (seen.method.as_str(), &seen.body_hash),
            ("POST", &body_hash(b"body"))
        );
        assert_eq!(seen.header("host"), Some("a.example.com"));
    }
    Ok(())
}

#[test]
fn h2load_finds_no_fault() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let at = edge.at(443);
    let connect = format!("--connect-to={at}");
    let tls = [
        "-n",
        "4000",
        "-c",
        "8",
        "-m",
        "16",
        &connect,
        "https://a.example.com/?bytes=1024",
    ];
    let plain = format!("http://{}/?bytes=1024", edge.at(80));
    let prior = ["-n", "4000", "-c", "8", "-m", "16", &plain];
    let http1 = ["--h1", "-n", "2000", "-c", "8", &plain];
    for (arguments, wanted) in [(&tls[..], 4000), (&prior[..], 4000), (&http1[..], 2000)] {
        let result = h2load(edge.client(), arguments)?;
        assert_eq!(
            (result.succeeded, result.failed),
            (wanted, 0),
            "{}",
            result.output
        );
    }
    Ok(())
}

#[test]
fn large_bodies_pass_whole_in_both_directions() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let file = edge.world.dir().join("upload");
    let body = pattern(5_000_000);
    std::fs::write(&file, &body)?;
    let upload = format!("@{}", file.display());
    for (url, arguments) in [
        ("http://a.example.com/", &["--http1.1"][..]),
        (
            "http://a.example.com/",
            &["--http1.1", "-H", "Transfer-Encoding: chunked"],
        ),
        ("https://a.example.com/", &["--http1.1"]),
        ("https://a.example.com/", &["--http2"]),
    ] {
        let call = edge
            .curl(url)?
            .args(arguments.iter().copied())
            .args(["--data-binary", &upload]);
        let seen = Seen::from_json(&call.run(edge.client())?.body)?;
        assert_eq!(
            (seen.body_bytes, &seen.body_hash),
            (body.len(), &body_hash(&body)),
            "{url} {arguments:?}"
        );
        for query in [
            "bytes=5000000",
            "bytes=5000000&chunked",
            "bytes=5000000&close",
        ] {
            let call = edge
                .curl(&format!("{url}?{query}"))?
                .args(arguments.iter().take(1).copied());
            assert_eq!(
                body_hash(&call.run(edge.client())?.body),
                body_hash(&body),
                "{url} {query}"
            );
        }
    }
    Ok(())
}

#[test]
fn pipelined_requests_are_answered_in_order() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    let requests: String = (0..20)
        .map(|i| {
            format!(
                "GET /{i}?delay-ms={} HTTP/1.1\r\nHost: a\r\n\r\n",
                (20 - i) % 5
            )
        })
        .collect();
    raw.send(requests.as_bytes())?;
    for i in 0..20 {
        let seen = Seen::from_json(&raw.response("GET")?.body)?;
        assert!(
            seen.target.starts_with(&format!("/{i}?")),
            "{} came as number {i}",
            seen.target
        );
    }
    Ok(())
}

#[test]
fn an_http_1_0_client_gets_a_body_that_ends_with_the_connection() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(b"GET /?bytes=1000&chunked HTTP/1.0\r\nHost: a.example.com\r\n\r\n")?;
    assert_eq!(raw.read_to_end(PATIENCE)?, End::Closed);
    let text = String::from_utf8_lossy(raw.received()).into_owned();
    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
    assert!(text.as_bytes().ends_with(&pattern(1000)), "{text}");
    Ok(())
}

#[test]
fn head_and_bodiless_statuses_keep_the_connection() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    for (request, status) in [
        ("HEAD /?bytes=500", 200),
        ("GET /?status=204", 204),
        ("GET /?status=304", 304),
        ("GET /", 200),
    ] {
        let answer = raw.ask(&format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
        assert_eq!(answer.status, status, "{request}");
        assert!(answer.keeps_alive(), "{request}: {answer:?}");
    }
    Ok(())
}

#[test]
fn an_early_hint_and_a_trailer_reach_the_client() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(b"GET /?interim=103 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    raw.read_until(PATIENCE, |received| {
        gateway_tests::http1::find(received, b"\r\n\r\n").is_some()
    })?;
    assert!(
        raw.received().starts_with(b"HTTP/1.1 103"),
        "{:?}",
        String::from_utf8_lossy(raw.received())
    );
    assert_eq!(raw.response("GET")?.status, 200);
    Ok(())
}

#[test]
fn a_client_that_expects_100_continue_gets_it_from_the_gateway() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")?;
    raw.read_until(PATIENCE, |received| received.ends_with(b"\r\n\r\n"))?;
    assert!(
        raw.received().starts_with(b"HTTP/1.1 100 "),
        "{:?}",
        String::from_utf8_lossy(raw.received())
    );
    raw.send(b"body")?;
    let seen = Seen::from_json(&raw.response("POST")?.body)?;
    assert_eq!(seen.body_hash, body_hash(b"body"));
    Ok(())
}

#[test]
fn a_streamed_answer_arrives_while_it_is_being_made() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(b"GET /?bytes=10&chunks=3&pause-ms=2000 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    let started = std::time::Instant::now();
    let first = pattern(10);
    raw.read_until(PATIENCE, |received| {
        gateway_tests::http1::find(received, &first).is_some()
    })?;
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "the first chunk was held back"
    );
    Ok(())
}

#[test]
fn websockets_work_in_clear_and_over_tls() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let tls = edge.client_config(&["http/1.1"])?;
    for (port, tls) in [(80, None), (443, Some(tls))] {
        let mut socket =
            WebSocket::open(edge.client(), edge.at(port), "a.example.com", "/chat", tls)?;
        for text in ["one", "two", &"long ".repeat(20_000)] {
            socket.echo(text)?;
        }
        socket.close()?;
    }
    gateway_tests::wait::until_equal("no tunnel is left", &Some(0.0), || {
        edge.sluice().metric("sluice_tunnels_open", &[]).ok()
    })
}

#[test]
fn backend_connections_are_reused() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    edge.load("a.example.com")
        .limit(1000)
        .run(edge.client())?
        .expect_clean()?;
    let connections = edge.backends[0].connections();
    assert!(
        connections <= 16,
        "1000 requests on 4 connections took {connections} to the backend"
    );
    Ok(())
}

#[test]
fn a_backend_that_breaks_off_is_never_taken_for_a_whole_answer() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    for query in ["bytes=100000&cut=50000", "bytes=1000&chunks=2&cut=1"] {
        let result = edge.get(&format!("http://a.example.com/?{query}"));
        assert!(result.is_err(), "{query}: {result:?}");
    }
    assert_eq!(edge.get("http://a.example.com/?reset")?.status, 502);
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    Ok(())
}

#[test]
fn a_dead_endpoint_is_passed_over_and_none_left_is_an_error() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let (dead, live) = (edge.backends[1].address, edge.backends[0].address);
    edge.backends[1].stop();
    let both = manifests::service("both", &[dead, live]);
    let route = manifests::route("all", &[], &manifests::forward("both"));
    edge.apply(&[route, both], "http://a.example.com/", |answer| {
        answer.status == 200
    })?;
    edge.load("a.example.com")
        .new_connections()
        .limit(200)
        .run(edge.client())?
        .expect_clean()?;
    let none = manifests::route("all", &[], &manifests::forward("b1"));
    edge.apply(&[none], "http://a.example.com/", |answer| {
        matches!(answer.status, 502 | 503)
    })
}

#[test]
fn forwarding_headers_are_written_and_not_believed() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let call = edge.curl("https://a.example.com/")?;
    let call = call
        .header("X-Forwarded-For: 6.6.6.6")
        .header("X-Forwarded-Proto: gopher");
    let call = call
        .header("X-Real-IP: 6.6.6.6")
        .header("Forwarded: for=6.6.6.6");
    let seen = Seen::from_json(&call.run(edge.client())?.body)?;
    let client = edge.world.client.v4.to_string();
    assert_eq!(seen.all("x-forwarded-for"), [client.as_str()]);
    assert_eq!(seen.all("x-forwarded-proto"), ["https"]);
    let all = format!("{:?}", seen.headers);
    assert!(!all.contains("6.6.6.6"), "{all}");
    Ok(())
}

#[test]
fn endpoints_may_be_ipv6_and_names() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let own = gateway_tests::Backend::start(&edge.world.node, "own")?;
    let v6 = std::net::SocketAddr::new(
        edge.world.backends[1].v6.into(),
        edge.backends[1].address.port(),
    );
    let by_name = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: named, namespace: default}}\n\
         spec: {{type: ExternalName, externalName: localhost, ports: [{{port: {}}}]}}\n",
        own.address.port()
    );
    let named = format!(
        "  - backendRefs: [{{name: named, port: {}}}]\n",
        own.address.port()
    );
    let documents = [
        manifests::route("six", &["six.example.com"], &manifests::forward("six")),
        manifests::service("six", &[v6]),
        manifests::route("named", &["named.example.com"], &named),
        by_name,
    ];
    let backend = |name: &'static str| {
        move |answer: &gateway_tests::http1::Response| answer.header("x-backend") == Some(name)
    };
    edge.apply(&documents, "http://six.example.com/", backend("b1"))?;
    edge.wait_served("http://named.example.com/", backend("own"))
}

#[test]
fn an_answer_before_the_end_of_an_upload_reaches_the_client() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let file = edge.world.dir().join("upload");
    std::fs::write(&file, pattern(20_000_000))?;
    let upload = format!("@{}", file.display());
    for (url, flag) in [
        ("http://a.example.com/", "--http1.1"),
        ("https://a.example.com/", "--http1.1"),
    ] {
        for query in ["early&status=413&bytes=9", "early&close&status=413&bytes=9"] {
            let call = edge.curl(&format!("{url}?{query}"))?;
            // Without `Expect`, so that all of it is on its way when the answer comes.
            let call = call.args([flag, "-H", "Expect:", "--data-binary", &upload]);
            let answer = call.run(edge.client())?;
            assert_eq!(
                (answer.status, answer.body.len()),
                (413, 9),
                "{url} {flag} {query}"
            );
        }
    }
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    Ok(())
}

#[test]
fn http2_answers_without_a_body_end_their_stream() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    for (query, arguments, status) in [
        ("bytes=100", &["-I"][..], 200),
        ("status=204", &[], 204),
        ("status=304", &[], 304),
        ("interim=103&bytes=5", &[], 200),
        ("bytes=0", &[], 200),
        ("chunked&bytes=70000&trailer=X-Sum:1", &[], 200),
        ("http10&bytes=70000", &[], 200),
    ] {
        let call = edge.curl(&format!("https://a.example.com/?{query}"))?;
        let answer = call
            .arg("--http2")
            .args(arguments.iter().copied())
            .run(edge.client())?;
        assert_eq!(answer.status, status, "{query}");
    }
    Ok(())
}

/// RFC 9113 §8.1: after a complete response the server may ask the client to stop sending, by
/// `RST_STREAM` with `NO_ERROR`.
#[test]
fn an_answer_before_the_end_of_an_http2_upload_is_whole_and_ends_only_its_stream() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    let raw = Raw::connect(edge.client(), edge.at(80))?;
    let mut http2 = Http2::open(raw, &[])?;
    for (stream, query) in [
        (1, "/?early&status=413&bytes=9"),
        (3, "/?early&close&bytes=9"),
    ] {
        let mut fields = h2frames::get("a.example.com", query);
        fields[0].1 = "POST";
        let head = frame(
            kind::HEADERS,
            END_HEADERS,
            stream,
            &h2frames::block(&fields),
        );
        http2.send(&[head, frame(kind::DATA, 0, stream, &[b'x'; 16_000])].concat())?;
        let of = |frame: &Frame, kind: u8| frame.stream == stream && frame.kind == kind;
        let data = http2.wait_frame(PATIENCE, |frame| of(frame, kind::DATA))?;
        assert_eq!(data.map(|frame| frame.payload), Some(pattern(9)));
        let reset = http2.wait_frame(PATIENCE, |frame| of(frame, kind::RST_STREAM))?;
        assert_eq!(
            reset.and_then(|frame| frame.error_code()),
            Some(0),
            "NO_ERROR"
        );
    }
    http2.send(&frame(
        kind::HEADERS,
        END_HEADERS | END_STREAM,
        5,
        &h2frames::block(&h2frames::get("a.example.com", "/")),
    ))?;
    assert!(
        http2
            .wait_frame(PATIENCE, |frame| frame.stream == 5)?
            .is_some()
    );
    Ok(())
}
