//! What a gateway has to refuse, sent to the real server with recording backends behind it: the
//! verdict is the tabled one, and nothing reaches a backend in another form than it was matched.
//!
//! The HTTP/1 tables are those of `gateway-userspace/proxy/testdata`; HTTP/2's stand here, since
//! they are frames.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gateway_tests::backend::Recorded;
use gateway_tests::h2frames::{self, END_HEADERS, END_STREAM, Http2, frame, kind};
use gateway_tests::manifests::{forward, route, service};
use gateway_tests::raw::{End, Raw};
use gateway_tests::wait::{PATIENCE, until_equal};
use gateway_tests::world::Host;

use crate::edge::{Edge, Mode};

#[path = "../../gateway-userspace/proxy/testdata/corpus.rs"]
mod corpus;

use corpus::Case;

/// Sends a good request on a connection of its own and gives what the backend had recorded before
/// it: what came later than the case before cannot hide.
fn recorded_so_far(edge: &Edge, number: usize) -> Result<Vec<Recorded>> {
    let marker = format!("/marker-{number}");
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    let answer = raw.ask(&format!("GET {marker} HTTP/1.1\r\nHost: a\r\n\r\n"))?;
    ensure!(
        answer.status == 200,
        "the server serves no longer: {answer:?}"
    );
    let recorded = edge.backends[0].take_recorded();
    Ok(recorded
        .into_iter()
        .filter(|r| r.seen.target != marker)
        .collect())
}

fn check_refused(raw: &mut Raw, status: u16, recorded: &[Recorded]) -> Result<()> {
    ensure!(recorded.is_empty(), "reached the backend: {recorded:?}");
    let answer = raw.response("GET")?;
    ensure!(answer.status == status, "answered {}", answer.head.start);
    let end = raw.read_to_end(Duration::from_secs(5))?;
    ensure!(end != End::Open, "the connection stays open");
    ensure!(
        raw.received().is_empty(),
        "more than one answer: {:?}",
        raw.received()
    );
    Ok(())
}

fn check_passed(case: &Case, answer: u16, client: &str, recorded: &[Recorded]) -> Result<()> {
    let [request] = recorded else {
        bail!("{} requests reached the backend", recorded.len())
    };
    ensure!(request.complete, "incomplete at the backend");
    ensure!(
        answer
            == if case.name == "row12-websocket" {
                101
            } else {
                200
            },
        "answered {answer}"
    );
    let seen = &request.seen;
    ensure!(seen.method == case.word(0), "method {}", seen.method);
    ensure!(
        seen.target.as_bytes() == case.expected[1],
        "target {}",
        seen.target
    );
    ensure!(
        seen.all("host").len() <= 1 && seen.header("host").unwrap_or_default() == case.word(2),
        "{seen:?}"
    );
    for (index, word) in case.expected.iter().enumerate().skip(3) {
        let word = std::str::from_utf8(word).with_context(|| format!("word {index}"))?;
        if let Some(name) = word.strip_prefix('-') {
            let in_trailers = seen
                .trailers
                .iter()
                .any(|(n, _)| n.eq_ignore_ascii_case(name));
            ensure!(
                seen.header(name).is_none() && !in_trailers,
                "{name} reached the backend"
            );
        } else if let Some((name, value)) = word.strip_prefix('+').and_then(|w| w.split_once('=')) {
            // The table's peer is an address for documentation; here it is the client.
            let value = if value == "192.0.2.1" { client } else { value };
            ensure!(
                seen.all(name) == [value],
                "{name} is {:?}, not {value:?}",
                seen.all(name)
            );
        }
    }
    Ok(())
}

fn check_request(edge: &Edge, number: usize, case: &Case) -> Result<()> {
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(&case.bytes)?;
    if case.name == "3a-http2-preface" {
        // This server speaks HTTP/2 to who begins with its preface; a request it is not.
        ensure!(
            recorded_so_far(edge, number)?.is_empty(),
            "reached the backend"
        );
        return Ok(());
    }
    if case.name == "row10-options-asterisk" {
        // RFC 9110 §9.3.7: it asks the server, and this server is the gateway.
        let answer = raw.response("OPTIONS")?;
        ensure!(answer.status == 204, "answered {}", answer.head.start);
        ensure!(
            recorded_so_far(edge, number)?.is_empty(),
            "reached the backend"
        );
        return Ok(());
    }
    raw.read_until(PATIENCE, |received| {
        gateway_tests::http1::find(received, b"\r\n\r\n").is_some()
            && !received.starts_with(b"HTTP/1.1 100 ")
            || gateway_tests::http1::find(received, b"\r\n\r\nHTTP/1.1 ").is_some()
    })?;
    let recorded = recorded_so_far(edge, number)?;
    match case.verdict {
        "pass" => {
            let client = edge.world.client.v4.to_string();
            let method = case.word(0).to_owned();
            check_passed(case, raw.response(&method)?.status, &client, &recorded)
        }
        "abort" => {
            ensure!(
                recorded.iter().all(|r| !r.complete),
                "complete at the backend: {recorded:?}"
            );
            let end = raw.read_to_end(Duration::from_secs(5))?;
            ensure!(end != End::Open, "the connection stays open");
            Ok(())
        }
        _ => {
            let status = case
                .status()
                .with_context(|| format!("verdict {}", case.verdict))?;
            check_refused(&mut raw, status, &recorded)
        }
    }
}

#[test]
fn every_request_of_the_table_meets_its_verdict() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).recording().start()?;
    let cases = corpus::requests();
    let mut wrong = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if let Err(error) = check_request(&edge, number, case) {
            wrong.push(format!("{} ({}): {error:#}", case.name, case.verdict));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// A backend that answers every request with the same bytes.
#[derive(Clone, Default)]
struct Scripted {
    script: Arc<Mutex<(Vec<u8>, bool)>>,
}

impl Scripted {
    fn start(&self, host: &Host) -> Result<SocketAddr> {
        let bind = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let listener = host.ns.run(|| TcpListener::bind(bind))?;
        let port = listener.local_addr()?.port();
        let this = self.clone();
        host.ns.spawn_thread("scripted", move || {
            for stream in listener.incoming().flatten() {
                let this = this.clone();
                std::thread::spawn(move || drop(this.serve(stream)));
            }
        })?;
        Ok((host.v4, port).into())
    }

    fn answer_with(&self, bytes: &[u8], close: bool) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = (bytes.to_vec(), close);
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut received = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            let count = stream.read(&mut chunk)?;
            received.extend_from_slice(&chunk[..count]);
            if count == 0 {
                return Ok(());
            }
            while let Some(at) = gateway_tests::http1::find(&received, b"\r\n\r\n") {
                received.drain(..at + 4);
                let (bytes, close) = self
                    .script
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                stream.write_all(&bytes)?;
                if close {
                    return Ok(());
                }
            }
        }
    }
}

fn check_response(edge: &Edge, backend: &Scripted, case: &Case) -> Result<()> {
    let keep = case.word(2) == "keep";
    backend.answer_with(&case.bytes, !keep);
    let method = if case.verdict == "head" {
        "HEAD"
    } else {
        "GET"
    };
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
    match case.verdict {
        "abort" => {
            let answer = raw.response(method);
            // A fault that is seen before anything is sent is told; later it can only be shown.
            ensure!(
                answer.as_ref().map_or(true, |answer| answer.status == 502),
                "looks whole to the client: {answer:?}"
            );
        }
        "502" => {
            let answer = raw.response(method)?;
            ensure!(answer.status == 502, "answered {}", answer.head.start);
        }
        _ => {
            let answer = raw.response(method)?;
            ensure!(
                answer.status.to_string() == case.word(0),
                "answered {}",
                answer.head.start
            );
            ensure!(answer.text() == case.word(1), "body {:?}", answer.text());
        }
    }
    // Whatever it was, the next request gets the answer to the next request.
    backend.answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext", false);
    let mut next = Raw::connect(edge.client(), edge.at(80))?;
    let answer = next.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
    ensure!(
        (answer.status, answer.text().as_str()) == (200, "next"),
        "the next request got {answer:?}"
    );
    Ok(())
}

#[test]
fn every_backend_answer_of_the_table_meets_its_verdict() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).args(["--workers", "1"]).start()?;
    let backend = Scripted::default();
    backend.answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nready", false);
    let address = backend.start(&edge.world.backends[1])?;
    let documents = [
        route("all", &[], &forward("scripted")),
        service("scripted", &[address]),
    ];
    edge.apply(&documents, "http://a/", |answer| answer.text() == "ready")?;
    let cases = corpus::responses();
    let mut wrong = Vec::new();
    for case in &cases {
        if let Err(error) = check_response(&edge, &backend, case) {
            wrong.push(format!("{} ({}): {error:#}", case.name, case.verdict));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    Ok(())
}

/// Header fields of a request that no backend may see, by name of the case.
fn forbidden_fields() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    let good = || h2frames::get("a", "/");
    let with = |name, value| [good(), vec![(name, value)]].concat();
    let pseudo = |method, scheme, authority, path| {
        vec![
            (":method", method),
            (":scheme", scheme),
            (":authority", authority),
            (":path", path),
        ]
    };
    vec![
        ("host differs from authority", with("host", "b")),
        (
            "neither authority nor host",
            vec![(":method", "GET"), (":scheme", "http"), (":path", "/")],
        ),
        ("userinfo", pseudo("GET", "http", "u@a", "/")),
        ("empty authority", pseudo("GET", "http", "", "/")),
        ("backslash", pseudo("GET", "http", "a", "/a\\b")),
        ("no slash", pseudo("GET", "http", "a", "foo")),
        ("empty path", pseudo("GET", "http", "a", "")),
        ("asterisk on GET", pseudo("GET", "http", "a", "*")),
        ("escaped slash", pseudo("GET", "http", "a", "/a%2fb")),
        ("escaped NUL", pseudo("GET", "http", "a", "/a%00")),
        (
            "space in path",
            pseudo("GET", "http", "a", "/a b HTTP/1.1\r\nX: y"),
        ),
        ("scheme ftp", pseudo("GET", "ftp", "a", "/")),
        ("TRACE", pseudo("TRACE", "http", "a", "/")),
        (
            "CONNECT",
            vec![(":method", "CONNECT"), (":authority", "a:443")],
        ),
        ("bad method", pseudo("G(T", "http", "a", "/")),
        ("line feed in value", with("x", "y\r\nz: w")),
        ("bare line feed in value", with("x", "y\nz: w")),
        ("NUL in value", with("x", "y\0z")),
        ("leading space in value", with("x", " y")),
        ("trailing tab in value", with("x", "y\t")),
        ("colon in name", with("x:y", "z")),
        ("space in name", with("x y", "z")),
        ("upper case name", with("X-Upper", "z")),
        ("empty name", with("", "z")),
        ("underscore", with("x_forwarded_for", "1")),
        ("dot", with("x.forwarded.for", "1")),
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "h2c")),
        ("te other than trailers", with("te", "gzip")),
        ("unknown pseudo-header", with(":unknown", "x")),
        ("pseudo-header twice", with(":path", "/other")),
        (
            "pseudo-header after a field",
            [vec![("x", "y")], good()].concat(),
        ),
        (
            "two lengths",
            [with("content-length", "0"), vec![("content-length", "1")]].concat(),
        ),
        ("length without body", with("content-length", "5")),
        ("bad length", with("content-length", "+0")),
    ]
}

/// Sends one request over HTTP/2 on a connection of its own; the status, or none when the stream
/// or connection was given up.
fn send_http2(edge: &Edge, frames: &[u8]) -> Result<Option<Vec<u8>>> {
    let mut http2 = Http2::open(Raw::connect(edge.client(), edge.at(80))?, &[])?;
    http2.send(frames)?;
    let ended =
        |f: &h2frames::Frame| matches!(f.kind, kind::HEADERS | kind::RST_STREAM | kind::GOAWAY);
    let answer = http2.wait_frame(PATIENCE, ended)?;
    Ok(answer
        .filter(|frame| frame.kind == kind::HEADERS)
        .map(|frame| frame.payload))
}

/// RFC 7541 appendix A: `:status: 200` as an indexed field.
const STATUS_200: u8 = 0x88;

#[test]
fn no_forbidden_http2_head_reaches_a_backend() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets).recording().start()?;
    let mut wrong = Vec::new();
    for (number, (name, fields)) in forbidden_fields().into_iter().enumerate() {
        let frames = frame(
            kind::HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &h2frames::block(&fields),
        );
        let answer = send_http2(&edge, &frames)?;
        let recorded = recorded_so_far(&edge, number)?;
        if !recorded.is_empty() {
            wrong.push(format!(
                "{name}: reached the backend: {:?}",
                recorded[0].seen
            ));
        } else if answer.is_some_and(|head| head.first() == Some(&STATUS_200)) {
            wrong.push(format!("{name}: answered with 200"));
        }
        let counted = format!("{name}: refusals counted");
        until_equal(&counted, &Some((number + 1) as f64), || {
            let refused = edge.sluice().metric("sluice_requests_refused_total", &[]);
            refused.ok()
        })?;
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The HTTP/2 library cuts a fragment off before anybody can see it. What was matched is then what
/// is forwarded, which is what matters; over HTTP/1 it is refused.
#[test]
fn an_http2_fragment_is_neither_matched_nor_forwarded() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).recording().start()?;
    let fields = h2frames::get("a", "/a#b");
    let frames = frame(
        kind::HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &h2frames::block(&fields),
    );
    send_http2(&edge, &frames)?;
    for request in recorded_so_far(&edge, 0)? {
        assert_eq!(request.seen.target, "/a");
    }
    Ok(())
}

#[test]
fn an_http2_body_that_does_not_fit_its_length_is_never_complete() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).recording().start()?;
    let mut head = h2frames::get("a", "/");
    head[0].1 = "POST";
    head.push(("content-length", "5"));
    let head = frame(kind::HEADERS, END_HEADERS, 1, &h2frames::block(&head));
    for (number, body) in [&b"abc"[..], b"abcdefg"].into_iter().enumerate() {
        let frames = [head.clone(), frame(kind::DATA, END_STREAM, 1, body)].concat();
        let answer = send_http2(&edge, &frames)?;
        ensure!(
            answer.is_none_or(|head| head.first() != Some(&STATUS_200)),
            "{body:?} is taken for whole"
        );
        let recorded = recorded_so_far(&edge, number)?;
        ensure!(
            recorded.iter().all(|request| !request.complete),
            "{recorded:?}"
        );
    }
    Ok(())
}

#[test]
fn forbidden_http2_trailers_reach_no_backend() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).recording().start()?;
    let mut head = h2frames::get("a", "/");
    head[0].1 = "POST";
    let head = frame(kind::HEADERS, END_HEADERS, 1, &h2frames::block(&head));
    let trailers = [
        ("content-length", "9"),
        ("host", "b"),
        ("authorization", "x"),
        ("x-forwarded-for", "1"),
        (":path", "/x"),
    ];
    for (number, trailer) in trailers.into_iter().enumerate() {
        let trailer = frame(
            kind::HEADERS,
            END_HEADERS | END_STREAM,
            1,
            &h2frames::block(&[trailer]),
        );
        let frames = [head.clone(), frame(kind::DATA, 0, 1, b"abc"), trailer].concat();
        send_http2(&edge, &frames)?;
        for request in recorded_so_far(&edge, number)? {
            ensure!(request.seen.trailers.is_empty(), "{:?}", request.seen);
            ensure!(
                request.seen.header("host") == Some("a"),
                "{:?}",
                request.seen
            );
        }
    }
    Ok(())
}

#[test]
fn cookie_crumbs_are_joined_for_the_backend() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).recording().start()?;
    let mut fields = h2frames::get("a", "/");
    fields.extend([("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")]);
    let frames = frame(
        kind::HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &h2frames::block(&fields),
    );
    send_http2(&edge, &frames)?;
    let recorded = recorded_so_far(&edge, 0)?;
    let [request] = &recorded[..] else {
        bail!("{recorded:?}")
    };
    assert_eq!(request.seen.all("cookie"), ["a=1; b=2; c=3"]);
    Ok(())
}

#[test]
fn bytes_sent_before_a_websocket_is_accepted_wait_and_are_no_request() -> Result<()> {
    let edge = Edge::plan(Mode::Sockets).recording().start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(
        b"GET /chat?status=403&bytes=2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    )?;
    // The echo backend accepts every upgrade, so what follows is the tunnel's business: it must
    // come as raw bytes of the WebSocket, never as a request of its own.
    assert_eq!(raw.response("GET")?.status, 101);
    raw.read_to_end(Duration::from_millis(500))?;
    let recorded = recorded_so_far(&edge, 0)?;
    assert!(
        recorded.iter().all(|r| !r.seen.target.contains("smuggled")),
        "{recorded:?}"
    );
    Ok(())
}

/// A generator of the same numbers every time (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap_or(0)
    }

    /// Flips, doubles, drops and inserts bytes.
    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len().max(1));
            match self.below(4) {
                _ if bytes.is_empty() => return,
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes.insert(at, b"\r\n\0 :;,\t%/\xff0"[self.below(12)]),
                2 => drop(bytes.remove(at)),
                _ => bytes.truncate(at + 1),
            }
        }
    }
}

#[test]
fn spoiled_bytes_never_make_a_worker_panic() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets).start()?;
    let mut dice = Dice(0x5eed_1e55_5eed_1e55);
    let cases = corpus::requests();
    let get = h2frames::block(&h2frames::get("a", "/"));
    let http2 = [
        h2frames::PREFACE.to_vec(),
        frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]),
        frame(kind::HEADERS, END_HEADERS | END_STREAM, 1, &get),
        frame(kind::HEADERS, END_HEADERS, 3, &get),
        frame(kind::DATA, 0, 3, b"some data"),
        frame(kind::WINDOW_UPDATE, 0, 3, &[0, 0, 1, 0]),
        frame(kind::RST_STREAM, 0, 3, &[0, 0, 0, 8]),
    ]
    .concat();
    let mut held = std::collections::VecDeque::new();
    for round in 0..3000 {
        let mut bytes = match round % 3 {
            0 => http2.clone(),
            _ => cases[dice.below(cases.len())].bytes.clone(),
        };
        bytes.truncate(10_000);
        dice.spoil(&mut bytes);
        let mut raw = Raw::connect(edge.client(), edge.at(80))?;
        raw.send(&bytes)?;
        // A few are left open for a while, so that what they began goes on.
        held.push_back(raw);
        if held.len() > 100 {
            held.pop_front();
        }
    }
    drop(held);
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    assert!(
        edge.sluice().metric("sluice_panics_total", &[])? < 0.5,
        "{}",
        edge.sluice().log()
    );
    Ok(())
}
