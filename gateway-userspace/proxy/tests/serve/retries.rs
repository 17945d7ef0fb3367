//! Gateway API v1 `HTTPRoute.spec.rules.retry`: what is tried again, how often, and with what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use gateway_model::ir::{Retry, Timeouts, UpstreamProtocol};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::sync::mpsc;

use crate::support::{
    Backend, Config, Http2Backend, Refusing, RouteSpec, World, addresses, empty, eventually, full,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
const FAIL: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\noops";

fn retry(attempts: u32, codes: &[u16]) -> Option<Retry> {
    Some(Retry {
        attempts,
        codes: codes.into(),
        backoff: Some(Duration::from_millis(1)),
    })
}

fn spec_to(
    endpoints: &[SocketAddr],
    protocol: UpstreamProtocol,
    change: impl FnOnce(&mut RouteSpec),
) -> Config {
    let mut config = Config::default().http("http", None);
    let action = config.upstream_of("app", protocol, addresses(endpoints));
    let mut spec = RouteSpec::new("http", "", action);
    change(&mut spec);
    config.route(spec)
}

fn to(endpoints: &[SocketAddr], retry: Option<Retry>) -> Config {
    spec_to(endpoints, UpstreamProtocol::Http1, |spec| {
        spec.retry = retry;
    })
}

/// Fails so many requests, then answers all.
async fn failing(times: usize) -> Backend {
    let seen = Arc::new(AtomicUsize::new(0));
    Backend::start(move |mut conn| {
        let seen = Arc::clone(&seen);
        async move {
            while conn.head().await.is_some() {
                let fails = seen.fetch_add(1, Ordering::SeqCst) < times;
                conn.write(if fails { FAIL } else { OK }).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn listed_codes_are_tried_again_and_the_last_answer_passes() {
    for (fails, attempts, codes, status, tries) in [
        (2, 3, &[500][..], 200, 3),
        (4, 3, &[500], 500, 4),
        (1, 3, &[503], 500, 1),
        (1, 0, &[500], 500, 1),
    ] {
        for over_http2 in [false, true] {
            let backend = failing(fails).await;
            let world = World::new(to(&[backend.address], retry(attempts, codes))).await;
            let seen = if over_http2 {
                let get = Request::get("http://a/").body(empty());
                let response = world
                    .http2()
                    .await
                    .send_request(get.unwrap())
                    .await
                    .unwrap();
                response.status().as_u16()
            } else {
                world.get("a", "/").await.status
            };
            assert_eq!(seen, status);
            assert_eq!(world.proxy.stats().upstream_retries, tries - 1);
            assert_eq!(
                backend.connections(),
                1,
                "an answer in hand costs no connection"
            );
        }
    }
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_made_to_another_endpoint() {
    let backend = Backend::answering(OK).await;
    let refusing = [Refusing::new(), Refusing::new()];
    let endpoints = [refusing[0].address, backend.address, refusing[1].address];
    let world = World::new(to(&endpoints, retry(2, &[]))).await;
    for _ in 0..10 {
        assert_eq!(world.get("a", "/").await.status, 200);
    }
    assert!(world.proxy.stats().upstream_retries > 0);
    let refusing = Refusing::new();
    let gone = refusing.address;
    let world = World::new(to(&[gone], retry(2, &[]))).await;
    assert_eq!(world.get("a", "/").await.status, 502);
    assert_eq!(world.proxy.stats().upstream_connect_failures, 3);
    let world = World::new(to(&[gone], retry(0, &[]))).await;
    assert_eq!(world.get("a", "/").await.status, 502);
    assert_eq!(world.proxy.stats().upstream_connect_failures, 1);
}

/// One request of this method, with a body where the method has one: its status.
async fn ask(world: &World, method: &str, over_http2: bool) -> u16 {
    let sent = if method == "POST" { "hi" } else { "" };
    if over_http2 {
        let request = Request::builder().method(method).uri("http://a/");
        let request = request.body(full(sent)).unwrap();
        let response = world.http2().await.send_request(request).await.unwrap();
        return response.status().as_u16();
    }
    let length = sent.len();
    let mut client = world.client().await;
    client
        .send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{sent}"
        ))
        .await;
    client.response().await.status
}

#[tokio::test]
async fn what_may_have_been_processed_is_tried_again_only_if_that_does_no_harm() {
    for over_http2 in [false, true] {
        for (method, connections) in [("POST", 1), ("PATCH", 1), ("GET", 4), ("DELETE", 4)] {
            let backend = Backend::start(|mut conn| async move {
                conn.head().await.unwrap();
            })
            .await;
            let world = World::new(to(&[backend.address], retry(3, &[500, 502]))).await;
            assert_eq!(ask(&world, method, over_http2).await, 502);
            assert_eq!(backend.connections(), connections, "{method} {over_http2}");
        }
    }
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
    })
    .await;
    let world = World::new(to(&[backend.address], None)).await;
    assert_eq!(ask(&world, "GET", false).await, 502);
    assert_eq!(backend.connections(), 1, "without a policy");
}

/// Answers what it got only with the third of the requests that came whole.
async fn third_time_lucky() -> Backend {
    let seen = Arc::new(AtomicUsize::new(0));
    Backend::start(move |mut conn| {
        let seen = Arc::clone(&seen);
        async move {
            while let Some(head) = conn.head().await {
                let head = head.to_ascii_lowercase();
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                let body = match length {
                    Some(length) => conn.exactly(length.parse().unwrap()).await,
                    None if head.contains("transfer-encoding: chunked") => {
                        conn.until(b"0\r\n\r\n").await.unwrap().into_bytes()
                    }
                    None => Vec::new(),
                };
                if seen.fetch_add(1, Ordering::SeqCst) < 2 {
                    conn.write(FAIL).await;
                } else {
                    let body = String::from_utf8(body).unwrap();
                    let length = body.len();
                    conn.write(&format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
                    ))
                    .await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn bodies_are_sent_again_up_to_a_limit() {
    for (length, status) in [(10, 200), (40_000, 200), (100_000, 500)] {
        let sent = "x".repeat(length);
        let backend = third_time_lucky().await;
        let world = World::new(to(&[backend.address], retry(3, &[500]))).await;
        let mut client = world.client().await;
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        client.send(&head).await;
        // In pieces, so that it is not all in hand at once.
        for piece in sent.as_bytes().chunks(15_000) {
            client.send(piece).await;
            tokio::task::yield_now().await;
        }
        let answer = client.response().await;
        assert_eq!(answer.status, status, "{length}");
        assert!(status != 200 || answer.body == sent);

        let backend = third_time_lucky().await;
        let world = World::new(to(&[backend.address], retry(3, &[500]))).await;
        let body = full(sent.clone());
        let request = Request::post("http://a/").body(body).unwrap();
        let response = world.http2().await.send_request(request).await.unwrap();
        assert_eq!(response.status(), status, "{length} over http/2");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(status != 200 || body == sent);
    }
}

#[tokio::test]
async fn chunks_are_sent_again_as_they_were() {
    let backend = third_time_lucky().await;
    let world = World::new(to(&[backend.address], retry(2, &[500]))).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        .await;
    let answer = client.response().await;
    assert_eq!(answer.body, "3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n");
    assert_eq!(
        client.get("a", "/next").await.status,
        200,
        "the connection goes on"
    );
}

#[tokio::test]
async fn a_body_over_http2_upstreams_is_sent_again() {
    let backend = Http2Backend::start(|mut asked| async move {
        let (body, trailers) = asked.body().await.unwrap();
        if asked.index % 2 == 0 {
            asked.respond.send_reset(h2::Reason::REFUSED_STREAM);
        } else {
            let trailers = trailers.map_or(0, |trailers| trailers.len());
            let text = format!("{}+{trailers}", body.len());
            asked.answer(Response::new(()), text).await;
        }
    })
    .await;
    let make = |retry| {
        let change = |spec: &mut RouteSpec| spec.retry = retry;
        spec_to(&[backend.address], UpstreamProtocol::Http2, change)
    };
    let world = World::new(make(retry(1, &[]))).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(client.response().await.data(), "3+0");
    let body = Full::new(Bytes::from("x".repeat(50_000)))
        .with_trailers(async {
            Some(Ok(http::HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("1"),
            )])))
        })
        .map_err(|never: std::convert::Infallible| match never {})
        .boxed();
    let request = Request::post("http://a/").body(body).unwrap();
    let response = world.http2().await.send_request(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "50000+1");
    assert_eq!(world.proxy.stats().upstream_retries, 2);
    let world = World::new(make(retry(0, &[]))).await;
    assert_eq!(world.get("a", "/").await.status, 502);
}

#[tokio::test]
async fn a_call_that_no_method_has_seen_is_tried_again() {
    let backend = Http2Backend::start(|mut asked| async move {
        let status = if asked.index == 0 { "14" } else { "0" };
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", status);
        asked
            .respond
            .send_response(head.body(()).unwrap(), true)
            .unwrap();
    })
    .await;
    let config = spec_to(&[backend.address], UpstreamProtocol::Http2, |spec| {
        spec.retry = retry(1, &[]);
    });
    let world = World::new(config).await;
    let body = full("call");
    let request = Request::post("http://a/s/m").header("content-type", "application/grpc");
    let response = world
        .http2()
        .await
        .send_request(request.body(body).unwrap())
        .await
        .unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
    assert_eq!(backend.streams(), 2);
}

#[tokio::test]
async fn the_requests_time_covers_all_tries_and_its_end_cancels_the_last() {
    let (told, mut cancelled) = mpsc::unbounded_channel();
    let backend = Backend::start(move |mut conn| {
        let told = told.clone();
        async move {
            while conn.head().await.is_some() {
                let ended = tokio::time::timeout(Duration::from_millis(120), conn.ended()).await;
                if ended.is_ok() {
                    told.send(()).unwrap();
                    return;
                }
                conn.write(FAIL).await;
            }
        }
    })
    .await;
    let config = spec_to(&[backend.address], UpstreamProtocol::Http1, |spec| {
        spec.retry = retry(50, &[500]);
        spec.timeouts.request = Some(Duration::from_millis(300));
    });
    let world = World::new(config).await;
    let begun = Instant::now();
    assert_eq!(world.get("a", "/").await.status, 504);
    assert!(
        begun.elapsed() < Duration::from_millis(450),
        "{:?}",
        begun.elapsed()
    );
    cancelled.recv().await.unwrap();
}

#[tokio::test]
async fn one_tries_time_ends_that_try_alone() {
    for (method, codes, status, tries) in [
        ("GET", &[][..], 200, 3),
        ("POST", &[504], 200, 3),
        ("POST", &[500], 504, 1),
    ] {
        for over_http2 in [false, true] {
            let seen = Arc::new(AtomicUsize::new(0));
            let count = Arc::clone(&seen);
            let backend = Backend::start(move |mut conn| {
                let silent = count.fetch_add(1, Ordering::SeqCst) < 2;
                async move {
                    conn.head().await.unwrap();
                    if silent {
                        // To its end.
                        conn.until(b"\0").await;
                    } else {
                        conn.write(OK).await;
                    }
                }
            })
            .await;
            let config = spec_to(&[backend.address], UpstreamProtocol::Http1, |spec| {
                spec.retry = retry(2, codes);
                spec.timeouts = Timeouts {
                    request: None,
                    backend_request: Some(Duration::from_millis(100)),
                };
            });
            let world = World::new(config).await;
            assert_eq!(ask(&world, method, over_http2).await, status, "{method}");
            assert_eq!(seen.load(Ordering::SeqCst), tries, "{method} {codes:?}");
            eventually("all are counted", || {
                world.proxy.stats().upstream_retries == tries as u64 - 1
            })
            .await;
        }
    }
}
