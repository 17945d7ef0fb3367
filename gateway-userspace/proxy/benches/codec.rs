//! `cargo bench -p gateway-proxy --bench codec`: nanoseconds of the HTTP/1.1 codec per message.
//!
//! One exchange as the connection drives it, without its four system calls: both heads parsed,
//! both written. The figures are the cheapest of many batches, for the machine may be shared.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Instant;

use gateway_model::ir::{Rewrite, Scheme};
use gateway_model::snapshot::CompiledEdits;
use gateway_proxy::forwarded::Forwarding;
use gateway_proxy::h1::{
    Asked, RequestHead, RequestPlan, ResponseHead, ResponsePlan, encode_request, encode_response,
};
use gateway_proxy::limits::Limits;

const BATCHES: usize = 200;
const BATCH: u32 = 1_000;

const PLAIN: &[u8] =
    b"GET /64 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: wrk/4.1\r\nAccept: */*\r\n\r\n";
const BROWSER: &[u8] = b"GET /cart/items?page=2&sort=price HTTP/1.1\r\nHost: shop.example.com\r\n\
    Connection: keep-alive\r\nsec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\n\
    sec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\nUpgrade-Insecure-Requests: 1\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
    Sec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-User: ?1\r\nSec-Fetch-Dest: document\r\n\
    Referer: https://shop.example.com/cart\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n\
    Accept-Language: en-GB,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 64\r\n\r\n";

fn main() {
    let limits = Limits::default().head;
    let edits = CompiledEdits::default();
    let rewrite = Rewrite::default();
    let (peer, local) = (
        SocketAddr::from(([127, 0, 0, 1], 4711)),
        SocketAddr::from(([127, 0, 0, 1], 80)),
    );
    let forwarding = Forwarding::new(peer, local, Scheme::Http, 0);
    let mut request = RequestHead::default();
    let mut out = Vec::with_capacity(4096);
    for (name, text) in [("plain request", PLAIN), ("browser's request", BROWSER)] {
        report(&format!("{name}: parse"), || {
            request.reset();
            black_box(request.parse(black_box(text), &limits)).expect("a lawful head");
        });
        report(&format!("{name}: write"), || {
            out.clear();
            let plan = RequestPlan {
                edits: &edits,
                rewrite: &rewrite,
                prefix_len: 1,
                forwarding: &forwarding,
                request_id: None,
            };
            encode_request(&mut out, &request.view(black_box(text)), &plan);
            black_box(&out);
        });
    }
    let mut response = ResponseHead::default();
    report("response: parse", || {
        response.reset();
        black_box(response.parse(black_box(ANSWER), &limits, Asked::default()))
            .expect("a lawful head");
    });
    report("response: write", || {
        out.clear();
        let plan = ResponsePlan {
            edits: &edits,
            extra: b"",
            http10: false,
            keep_alive: true,
        };
        black_box(encode_response(
            &mut out,
            &response.view(black_box(ANSWER)),
            &plan,
        ));
    });
}

fn report(what: &str, mut once: impl FnMut()) {
    let mut best = f64::INFINITY;
    for _ in 0..BATCHES {
        let started = Instant::now();
        for _ in 0..BATCH {
            once();
        }
        best = best.min(started.elapsed().as_nanos() as f64 / f64::from(BATCH));
    }
    println!("  {what:<28}{best:>8.1} ns");
}
