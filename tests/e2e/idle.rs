//! Whatever state a connection is left in, waiting costs nothing: no busy loop, no pinned memory.

use std::time::Duration;

use anyhow::Result;
use gateway_tests::h2frames::{self, END_HEADERS, END_STREAM, Http2, frame, kind};
use gateway_tests::raw::Raw;
use gateway_tests::sys;
use gateway_tests::websocket::WebSocket;

use crate::edge::{Edge, Mode};

/// How much of a processor a process uses while nothing happens, measured over two seconds, which
/// is what a busy loop cannot hide in.
fn idle_share(pid: u32) -> Result<f64> {
    const WINDOW: Duration = Duration::from_secs(2);
    let before = sys::usage(pid)?.0;
    std::thread::sleep(WINDOW);
    let used = sys::usage(pid)?.0 - before;
    Ok(used.as_secs_f64() / WINDOW.as_secs_f64())
}

#[test]
fn connections_in_every_odd_state_cost_no_processor_time() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let connect = || Raw::connect(edge.client(), edge.at(80));
    let get = |query: &str| format!("GET /?{query} HTTP/1.1\r\nHost: a\r\n\r\n");

    // Kept alive; half-closed after an answer and before one; in the middle of a head and of a body.
    let mut kept = connect()?;
    kept.ask(&get("bytes=1"))?;
    let mut closed_half = connect()?;
    closed_half.ask(&get("bytes=1"))?;
    closed_half.finish()?;
    let mut waits = connect()?;
    waits.send(get("silent").as_bytes())?;
    waits.finish()?;
    let mut head = connect()?;
    head.send(b"GET / HTTP/1.1\r\nHost:")?;
    let mut body = connect()?;
    body.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc")?;
    // A reader that stalls, over HTTP/1 and with a closed window over HTTP/2.
    let mut stalled = connect()?;
    stalled.send(get("bytes=50000000").as_bytes())?;
    let mut window = Http2::open(connect()?, &[(4, 0)])?;
    let fields = h2frames::get("a", "/?bytes=5000000");
    let request = frame(
        kind::HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &h2frames::block(&fields),
    );
    window.send(&request)?;
    // A backend that streams nothing, one that has closed its idle connection, and a tunnel that
    // is closed on one side.
    let mut paused = connect()?;
    paused.send(get("bytes=10&chunks=2&pause-ms=60000").as_bytes())?;
    connect()?.ask(&get("bytes=1&close"))?;
    let mut tunnel = WebSocket::open(edge.client(), edge.at(80), "a", "/", None)?;
    tunnel.echo("hello")?;
    let handshake = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let mut half_tunnel = connect()?;
    half_tunnel.send(handshake)?;
    assert_eq!(half_tunnel.response("GET")?.status, 101);
    half_tunnel.finish()?;
    // A TLS handshake that has not begun, and one in the middle.
    let _silent = Raw::connect(edge.client(), edge.at(443))?;
    let mut hello = Raw::connect(edge.client(), edge.at(443))?;
    hello.send(&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01])?;

    let share = idle_share(edge.sluice().pid())?;
    assert!(
        share < 0.05,
        "{:.0} % of a processor for nothing",
        share * 100.0
    );
    let mut old = edge.sluice().upgrade()?;
    let share = idle_share(old.pid())?;
    assert!(
        share < 0.05,
        "draining takes {:.0} % of a processor",
        share * 100.0
    );
    tunnel.echo("still there")?;
    assert!(old.try_status()?.is_none());
    Ok(())
}

#[test]
fn readers_that_stall_pin_little_memory() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let (_, before) = sys::usage(edge.sluice().pid())?;
    let mut held = Vec::new();
    for _ in 0..100 {
        let mut raw = Raw::connect(edge.client(), edge.at(80))?;
        raw.send(b"GET /?bytes=100000&chunks=100 HTTP/1.1\r\nHost: a\r\n\r\n")?;
        held.push(raw);
    }
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut http2 = Http2::open(Raw::connect(edge.client(), edge.at(80))?, &[])?;
        for i in 0..50_u32 {
            let fields = h2frames::get("a", "/?bytes=100000&chunks=50");
            let block = h2frames::block(&fields);
            http2.send(&frame(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                2 * i + 1,
                &block,
            ))?;
        }
        streams.push(http2);
    }
    gateway_tests::until("every request is with the backend", || {
        (edge.backends[0].requests() >= 600).then_some(())
    })?;
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    let (_, after) = sys::usage(edge.sluice().pid())?;
    let grown = after.saturating_sub(before);
    println!(
        "600 stalled readers of 5 to 10 MB each cost {} MiB",
        grown >> 20
    );
    // 64 KiB of answer and as much of the backend's for each, and what connections cost anyway.
    assert!(grown < 120 << 20, "memory grew by {} MiB", grown >> 20);
    Ok(())
}
