//! Nanoseconds for one request head through the codec: parse and policy, view, encode; and the
//! response's way back. `cargo bench -p gateway-proxy --bench codec`. Prints the fastest of many
//! rounds, for other load on the machine only ever adds.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use gateway_model::head::Head;
use gateway_model::ir::{Rewrite, Scheme};
use gateway_model::snapshot::CompiledEdits;
use gateway_proxy::forwarded::Forwarding;
use gateway_proxy::h1::{
    Asked, BodyDecoder, RequestHead, RequestPlan, ResponseHead, ResponsePlan, encode_request,
    encode_response, push_chunk,
};
use gateway_proxy::limits::Limits;

const WRK: &[u8] =
    b"GET /api/v1/items HTTP/1.1\r\nHost: bench.example.com\r\nUser-Agent: wrk/4.2.0\r\n\
    Accept: */*\r\n\r\n";
const BROWSER: &[u8] = b"GET /shop/cart?item=42&color=blue HTTP/1.1\r\nHost: shop.example.com\r\n\
    Connection: keep-alive\r\nCache-Control: max-age=0\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Referer: https://shop.example.com/shop\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";
const ODD_PATH: &[u8] = b"GET /a/./b//%2e%2e/%c3%a9 HTTP/1.1\r\nHost: Bench.Example.com.\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: bench\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 64\r\n\r\n";

const ROUNDS: usize = 200;
const PER_ROUND: u32 = 5_000;

fn main() {
    let limits = Limits::default().head;
    for (name, wire) in [("wrk", WRK), ("browser", BROWSER), ("odd path", ODD_PATH)] {
        let mut head = RequestHead::default();
        report(&format!("request {name}: parse and policy"), || {
            head.reset();
            black_box(head.parse(black_box(wire), &limits)).is_ok()
        });
        report(&format!("request {name}: parse, view, encode"), {
            let forwarding = forwarding();
            let (edits, rewrite) = (CompiledEdits::default(), Rewrite::default());
            let mut out = Vec::with_capacity(4096);
            let limits = &limits;
            let mut head = RequestHead::default();
            move || {
                head.reset();
                let parsed = head.parse(black_box(wire), limits).is_ok();
                let view = head.view(wire);
                black_box((view.path(), view.host()));
                out.clear();
                let plan = RequestPlan {
                    edits: &edits,
                    rewrite: &rewrite,
                    prefix_len: 0,
                    forwarding: &forwarding,
                    request_id: None,
                };
                encode_request(&mut out, &view, &plan);
                black_box(&out);
                parsed
            }
        });
    }
    response(&limits);
    chunked(&limits);
    httparse_alone();
}

fn response(limits: &gateway_proxy::limits::HeadLimits) {
    let mut head = ResponseHead::default();
    let mut out = Vec::with_capacity(4096);
    let edits = CompiledEdits::default();
    report("response: parse, encode", || {
        head.reset();
        let parsed = head.parse(black_box(RESPONSE), limits, Asked::default());
        out.clear();
        let plan = ResponsePlan {
            edits: &edits,
            cors: &[],
            date: &[b'x'; 29],
            http10: false,
            keep_alive: true,
        };
        black_box(encode_response(&mut out, &head.view(RESPONSE), &plan));
        parsed.is_ok()
    });
}

fn chunked(limits: &gateway_proxy::limits::HeadLimits) {
    let mut wire = Vec::new();
    for _ in 0..4 {
        push_chunk(&mut wire, &[b'x'; 4096]);
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    report("chunked body: 4 chunks of 4 KiB", || {
        let mut body = BodyDecoder::new(gateway_proxy::h1::BodyKind::Chunked, limits);
        let mut input = black_box(&wire[..]);
        while let Ok(step) = body.step(input) {
            input = &input[step.consumed..];
            if step.end {
                return true;
            }
        }
        false
    });
}

/// For comparison: what the tokens alone cost in another parser.
fn httparse_alone() {
    report("request wrk: httparse alone", || {
        let mut lines = [httparse::EMPTY_HEADER; 100];
        let mut request = httparse::Request::new(&mut lines);
        black_box(request.parse(black_box(WRK))).is_ok()
    });
}

fn forwarding() -> Forwarding {
    let peer = SocketAddr::from(([192, 0, 2, 1], 40_000));
    let local = SocketAddr::from(([192, 0, 2, 9], 80));
    Forwarding::new(peer, local, Scheme::Http, 0)
}

fn report(name: &str, mut work: impl FnMut() -> bool) {
    let mut best = f64::MAX;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..PER_ROUND {
            assert!(work(), "{name}");
        }
        let ns = start.elapsed().as_secs_f64() * 1e9 / f64::from(PER_ROUND);
        best = best.min(ns);
    }
    println!("{name:<40} {best:>8.1} ns");
}
