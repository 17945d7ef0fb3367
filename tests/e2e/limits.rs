//! Clients that cost more than they spend: each limit of the table, with values small enough for
//! the test to be quick. After each attack everybody else is still served.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use gateway_tests::h2frames::{self, END_HEADERS, END_STREAM, Http2, frame, kind};
use gateway_tests::raw::{End, Raw};
use gateway_tests::wait::PATIENCE;

use crate::edge::{Edge, Mode};

/// RFC 9113 §7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

fn edge(limits: &str) -> Result<Edge> {
    Edge::plan(Mode::Sockets).args(["--limits", limits]).start()
}

fn connect(edge: &Edge) -> Result<Raw> {
    Raw::connect(edge.client(), edge.at(80))
}

fn still_serves(edge: &Edge) -> Result<()> {
    ensure!(edge.get("http://a.example.com/")?.status == 200);
    Ok(())
}

#[test]
fn a_silent_connection_is_closed() -> Result<()> {
    let edge = edge("time.first-byte=300ms")?;
    let mut raw = connect(&edge)?;
    assert_ne!(raw.read_to_end(PATIENCE)?, End::Open);
    still_serves(&edge)
}

#[test]
fn a_head_that_drips_in_is_answered_408() -> Result<()> {
    let edge = edge("time.head=500ms")?;
    let mut raw = connect(&edge)?;
    raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n")?;
    let started = Instant::now();
    let mut end = End::Open;
    while end == End::Open && raw.received().is_empty() {
        raw.send(b"X: y\r\n")?;
        end = raw.read_until(Duration::from_millis(50), |received| !received.is_empty())?;
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "a dripping head is never cut off"
        );
    }
    assert_eq!(raw.response("GET")?.status, 408);
    assert_ne!(raw.read_to_end(PATIENCE)?, End::Open);
    assert_eq!(edge.backends[0].requests(), 0);
    still_serves(&edge)
}

#[test]
fn an_idle_keep_alive_connection_is_closed() -> Result<()> {
    let edge = edge("time.keep-alive=300ms")?;
    let mut raw = connect(&edge)?;
    assert_eq!(raw.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?.status, 200);
    assert_eq!(raw.read_to_end(PATIENCE)?, End::Closed);
    Ok(())
}

#[test]
fn a_body_that_stops_is_answered_408_and_never_completed() -> Result<()> {
    let mut plan = Edge::plan(Mode::Sockets).recording();
    plan = plan.args(["--limits", "time.body-idle=300ms"]);
    let edge = plan.start()?;
    let mut raw = connect(&edge)?;
    raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf of it")?;
    assert_eq!(raw.response("POST")?.status, 408);
    assert_ne!(raw.read_to_end(PATIENCE)?, End::Open);
    let seen = edge.backends[0].recorded();
    assert!(seen.iter().all(|request| !request.complete), "{seen:?}");
    still_serves(&edge)
}

#[test]
fn a_body_that_drips_in_below_the_rate_is_cut_off() -> Result<()> {
    let edge = edge("time.body-idle=400ms,time.body-min-rate=1000")?;
    let mut raw = connect(&edge)?;
    raw.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")?;
    let started = Instant::now();
    let mut end = End::Open;
    while end == End::Open && raw.received().is_empty() {
        raw.send(b"x")?;
        end = raw.read_until(Duration::from_millis(50), |received| !received.is_empty())?;
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "a dripping body is never cut off"
        );
    }
    still_serves(&edge)
}

#[test]
fn a_reader_that_stalls_is_cut_off_and_frees_the_backend() -> Result<()> {
    let edge = edge("time.write-stall=400ms")?;
    let mut raw = connect(&edge)?;
    raw.send(b"GET /?bytes=50000000 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    raw.read_until(PATIENCE, |received| !received.is_empty())?;
    gateway_tests::until("the backend's connection is given up", || {
        (edge.backends[0].requests() == 1 && edge.backends[0].open_connections() == 0).then_some(())
    })?;
    drop(raw);
    still_serves(&edge)
}

#[test]
fn heads_over_a_limit_are_answered_by_status() -> Result<()> {
    let edge = edge("head.bytes=4KiB,head.lines=20,head.target-bytes=1KiB")?;
    let long = "x".repeat(1100);
    let lines = "X-Line: 1\r\n".repeat(21);
    let fat = format!("X-Fat: {}\r\n", "y".repeat(4200));
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), 431),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{fat}\r\n"), 431),
    ] {
        let mut raw = connect(&edge)?;
        assert_eq!(raw.ask(&request)?.status, status, "{}", &request[..60]);
        assert_ne!(raw.read_to_end(PATIENCE)?, End::Open);
    }
    for query in [
        format!("header=X-Fat:{}", "y".repeat(4200)),
        "header=X:1&".repeat(30),
    ] {
        // The backend's head is over the limit; its words go in an x-echo header, a few at a time.
        let echo: String = query
            .as_bytes()
            .chunks(3000)
            .map(|part| format!("X-Echo: {}\r\n", String::from_utf8_lossy(part)))
            .collect();
        if query.len() < 3000 {
            let mut raw = connect(&edge)?;
            let answer = raw.ask(&format!("GET / HTTP/1.1\r\nHost: a\r\n{echo}\r\n"))?;
            assert_eq!(answer.status, 502);
        }
    }
    assert_eq!(edge.backends[0].requests(), 1);
    still_serves(&edge)
}

#[test]
fn connections_of_one_source_and_of_all_are_bounded() -> Result<()> {
    for limits in [
        "connections.per-source=8",
        "connections.total=8",
        "connections.per-port=8",
    ] {
        let edge = edge(limits)?;
        let held: Vec<Raw> = (0..8)
            .map(|_| {
                let mut raw = connect(&edge)?;
                ensure!(
                    raw.ask("GET / HTTP/1.1\r\nHost: a\r\n\r\n")?.status == 200,
                    "{limits}"
                );
                Ok(raw)
            })
            .collect::<Result<_>>()?;
        let mut ninth = connect(&edge)?;
        ninth.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")?;
        assert_ne!(ninth.read_to_end(PATIENCE)?, End::Open, "{limits}");
        assert!(!ninth.received().starts_with(b"HTTP/1.1 200"), "{limits}");
        drop(held);
        gateway_tests::until("there is room again", || still_serves(&edge).ok())?;
    }
    Ok(())
}

#[test]
fn a_tls_handshake_that_stops_is_cut_off() -> Result<()> {
    let edge = edge("tls.handshake=300ms")?;
    let mut raw = Raw::connect(edge.client(), edge.at(443))?;
    // The first bytes of a ClientHello record, and then nothing.
    raw.send(&[0x16, 0x03, 0x01, 0x01, 0x00, 0x01])?;
    assert_ne!(raw.read_to_end(PATIENCE)?, End::Open);
    assert_eq!(edge.get("https://a.example.com/")?.status, 200);
    Ok(())
}

#[test]
fn a_client_hello_that_never_ends_is_cut_off() -> Result<()> {
    let edge = edge("tls.client-hello-bytes=2KiB")?;
    let mut raw = Raw::connect(edge.client(), edge.at(443))?;
    // A ClientHello that says it has 60 000 bytes, in records of 4 000.
    let mut record = vec![
        0x16, 0x03, 0x01, 0x0f, 0xa0, 0x01, 0x00, 0xea, 0x60, 0x03, 0x03,
    ];
    record.resize(5 + 4000, 0);
    raw.send(&record)?;
    assert_ne!(raw.read_to_end(PATIENCE)?, End::Open);
    assert_eq!(edge.get("https://a.example.com/")?.status, 200);
    Ok(())
}

fn http2(edge: &Edge, settings: &[(u16, u32)]) -> Result<Http2> {
    Http2::open(connect(edge)?, settings)
}

/// The frames of one request without a body.
fn request(stream: u32, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(
        kind::HEADERS,
        END_HEADERS | END_STREAM,
        stream,
        &h2frames::block(fields),
    )
}

#[test]
fn rapid_reset_ends_the_connection() -> Result<()> {
    let edge = edge("http2.reset-sample=50")?;
    let mut http2 = http2(&edge, &[])?;
    let cancel = 8_u32.to_be_bytes();
    for i in 0..3000_u32 {
        let stream = 2 * i + 1;
        let mut bytes = request(stream, &h2frames::get("a", "/?delay-ms=1000"));
        bytes.extend(frame(kind::RST_STREAM, 0, stream, &cancel));
        http2.send(&bytes)?;
    }
    let code = http2.wait_given_up(PATIENCE)?;
    assert!(
        code.is_none() || code == Some(ENHANCE_YOUR_CALM),
        "{code:?}"
    );
    assert!(
        edge.backends[0].requests() < 1000,
        "{} reached the backend",
        edge.backends[0].requests()
    );
    still_serves(&edge)
}

#[test]
fn resets_that_the_client_provokes_end_the_connection() -> Result<()> {
    let edge = edge("http2.local-error-resets=20")?;
    let mut http2 = http2(&edge, &[])?;
    for i in 0..500_u32 {
        let stream = 2 * i + 1;
        // RFC 9113 §6.9: an increment of 0 is a stream error.
        let mut bytes = request(stream, &h2frames::get("a", "/?delay-ms=1000"));
        bytes.extend(frame(kind::WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes()));
        http2.send(&bytes)?;
    }
    http2.wait_given_up(PATIENCE)?;
    still_serves(&edge)
}

#[test]
fn a_flood_of_continuation_frames_ends_the_connection() -> Result<()> {
    let edge = edge("head.bytes=16KiB")?;
    let mut http2 = http2(&edge, &[])?;
    http2.send(&frame(
        kind::HEADERS,
        END_STREAM,
        1,
        &h2frames::block(&h2frames::get("a", "/")),
    ))?;
    let filler = h2frames::block(&[("x-filler", &"z".repeat(8000))]);
    for _ in 0..200 {
        http2.send(&frame(kind::CONTINUATION, 0, 1, &filler))?;
    }
    http2.wait_given_up(PATIENCE)?;
    assert_eq!(edge.backends[0].requests(), 0);
    still_serves(&edge)
}

#[test]
fn an_http2_head_that_drips_in_ends_the_connection() -> Result<()> {
    let mut edge = edge("time.head=500ms")?;
    let mut http2 = http2(&edge, &[])?;
    // Neither an answer that is under way nor heads that came in time make any difference.
    http2.send(&request(1, &h2frames::get("a", "/?delay-ms=60000")))?;
    http2.send(&request(3, &h2frames::get("a", "/")))?;
    http2.wait_frame(PATIENCE, |frame| frame.stream == 3)?;
    let block = h2frames::block(&h2frames::get("a", "/never"));
    let drip = frame(
        kind::HEADERS,
        END_STREAM,
        5,
        &[&block[..], &[0; 4000]].concat(),
    );
    let (first, rest) = drip.split_at(9);
    http2.send(first)?;
    let started = Instant::now();
    for byte in rest {
        if http2.send(&[*byte]).is_err() {
            break;
        }
        let end = http2.raw.read_until(Duration::from_millis(20), |_| false)?;
        if end != End::Open {
            break;
        }
        ensure!(
            started.elapsed() < Duration::from_secs(10),
            "a dripping head is never cut off"
        );
    }
    let code = http2.wait_given_up(PATIENCE)?;
    assert!(
        code.is_none() || code == Some(ENHANCE_YOUR_CALM),
        "{code:?}"
    );
    assert_eq!(edge.backends[0].requests(), 2);
    let given_up = edge
        .sluice()
        .metric("sluice_timeouts_downstream_total", &[])?;
    assert_eq!(given_up, 1.0);
    still_serves(&edge)
}

#[test]
fn an_hpack_bomb_is_refused_and_costs_little_memory() -> Result<()> {
    let mut edge = edge("head.bytes=16KiB,time.write-stall=2s")?;
    let (_, before) = gateway_tests::sys::usage(edge.sluice().pid())?;
    let mut connections = Vec::new();
    for _ in 0..20 {
        // A window of nothing, so that no answer can leave.
        let mut http2 = http2(&edge, &[(4, 0)])?;
        for i in 0..50_u32 {
            let mut block = h2frames::block(&h2frames::get("a", "/"));
            block.extend(h2frames::indexed("cookie", &"c".repeat(3000)));
            block.extend(std::iter::repeat_n(0xbe_u8, 1000));
            http2.send(&frame(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                2 * i + 1,
                &block,
            ))?;
        }
        connections.push(http2);
    }
    still_serves(&edge)?;
    let (_, after) = gateway_tests::sys::usage(edge.sluice().pid())?;
    let grown = after.saturating_sub(before);
    assert!(grown < 50 << 20, "memory grew by {} MiB", grown >> 20);
    assert_eq!(edge.backends[0].requests(), 1);
    Ok(())
}

#[test]
fn http2_heads_over_a_limit_are_refused() -> Result<()> {
    let edge = edge("head.lines=20,head.bytes=16KiB")?;
    let mut http2 = http2(&edge, &[])?;
    let mut fields = h2frames::get("a", "/");
    fields.extend(std::iter::repeat_n(("x-line", "1"), 30));
    http2.send(&request(1, &fields))?;
    let answer = http2.wait_frame(PATIENCE, |f| {
        matches!(f.kind, kind::HEADERS | kind::RST_STREAM | kind::GOAWAY)
    });
    assert!(answer.is_ok());
    assert_eq!(edge.backends[0].requests(), 0);
    still_serves(&edge)
}

#[test]
fn floods_of_control_frames_end_or_are_ignored_cheaply() -> Result<()> {
    let edge = edge("head.bytes=16KiB")?;
    let ping = frame(kind::PING, 0, 0, &[7; 8]);
    let settings = frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255]);
    let priority = frame(kind::PRIORITY, 0, 3, &[0, 0, 0, 1, 16]);
    let empty_data = [
        frame(
            kind::HEADERS,
            END_HEADERS,
            1,
            &h2frames::block(&h2frames::get("a", "/")),
        ),
        frame(kind::DATA, 0, 1, b"").repeat(10_000),
    ];
    for bytes in [
        ping.repeat(20_000),
        settings.repeat(20_000),
        priority.repeat(20_000),
        empty_data.concat(),
    ] {
        let mut http2 = http2(&edge, &[])?;
        // Nothing is read meanwhile, so that answers pile up on the other side. The sender must not
        // wait for them either.
        http2
            .raw
            .socket()
            .set_write_timeout(Some(Duration::from_secs(2)))?;
        drop(http2.send(&bytes));
        still_serves(&edge)?;
    }
    Ok(())
}

#[test]
fn a_stream_whose_window_stays_closed_is_given_up() -> Result<()> {
    let edge = edge("time.write-stall=400ms")?;
    let mut http2 = http2(&edge, &[(4, 0)])?;
    http2.send(&request(1, &h2frames::get("a", "/?bytes=5000000")))?;
    let gone = http2.wait_frame(PATIENCE, |f| {
        matches!(f.kind, kind::RST_STREAM | kind::GOAWAY)
    })?;
    println!("given up by {gone:?}");
    gateway_tests::until("the backend's connection is given up", || {
        (edge.backends[0].open_connections() == 0).then_some(())
    })?;
    still_serves(&edge)
}

#[test]
fn no_more_streams_are_open_at_once_than_allowed() -> Result<()> {
    let edge = edge("http2.concurrent-streams=10")?;
    let mut http2 = http2(&edge, &[])?;
    for i in 0..30_u32 {
        http2.send(&request(2 * i + 1, &h2frames::get("a", "/?delay-ms=500")))?;
    }
    let refused = http2.wait_frame(PATIENCE, |f| {
        matches!(f.kind, kind::RST_STREAM | kind::GOAWAY)
    })?;
    assert!(refused.is_some(), "the eleventh stream is refused");
    assert!(edge.backends[0].requests() <= 10);
    still_serves(&edge)
}
