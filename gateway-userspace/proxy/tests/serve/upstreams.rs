//! Connections to endpoints: reuse, stale ones, endpoints that are not there, names.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gateway_model::ir::{Endpoints, UpstreamProtocol};
use http_body_util::BodyExt;

use crate::support::{Backend, Config, Refusing, RouteSpec, World, addresses, get};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn an_upstream_connection_serves_many_clients() {
    let backend = Backend::answering(HELLO).await;
    let world = World::new(Config::to(&[backend.address])).await;
    for _ in 0..5 {
        assert_eq!(world.get("a", "/").await.body, "hello");
    }
    assert_eq!(backend.connections(), 1);
    assert_eq!(world.proxy.stats().upstream_reuses, 4);
}

#[tokio::test]
async fn a_connection_with_bytes_that_nobody_asked_for_is_not_used_again() {
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    let backend = Backend::answering(surplus).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("a", "/").await.body, "hello");
    }
    assert_eq!(backend.connections(), 3);
}

/// Serves one request a connection, reads the next and closes instead of answering.
async fn forgetful() -> Backend {
    Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write(HELLO).await;
        conn.head().await;
    })
    .await
}

#[tokio::test]
async fn a_request_on_a_stale_connection_is_repeated_on_a_fresh_one() {
    let backend = forgetful().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    for _ in 0..4 {
        assert_eq!(client.get("a", "/").await.body, "hello");
    }
    assert_eq!(world.proxy.stats().upstream_stale_retries, 3);
    assert_eq!(backend.connections(), 4);
}

#[tokio::test]
async fn a_request_that_its_endpoint_has_begun_to_answer_is_not_repeated() {
    let begin = || {
        Backend::start(|mut conn| async move {
            conn.head().await.unwrap();
            conn.write(HELLO).await;
            conn.head().await.unwrap();
            conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
                .await;
        })
    };
    let backend = begin().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    assert_eq!(client.get("a", "/").await.status, 200);
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    assert_eq!(client.response().await.status, 502);
    assert_eq!(backend.connections(), 1);

    let backend = begin().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.http2().await;
    for status in [200, 502] {
        let response = client.send_request(get("/")).await.unwrap();
        assert_eq!(response.status(), status, "over http/2");
        response.into_body().collect().await.unwrap();
    }
    assert_eq!(backend.connections(), 1, "over http/2");
}

#[tokio::test]
async fn a_request_that_is_not_safe_to_repeat_is_not_repeated() {
    let backend = forgetful().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    assert_eq!(client.get("a", "/").await.status, 200);
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    assert_eq!(client.response().await.status, 502);
    assert_eq!(backend.connections(), 1);
    assert_eq!(
        client.get("a", "/").await.status,
        200,
        "the client's connection goes on"
    );
}

#[tokio::test]
async fn a_request_that_is_not_safe_to_repeat_gets_no_connection_that_is_known_to_be_closed() {
    let (told, mut closed) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::start(move |mut conn| {
        let told = told.clone();
        async move {
            conn.head().await.unwrap();
            conn.write(HELLO).await;
            // On loopback the end has arrived when this returns, whatever the proxy has noticed.
            drop(conn);
            told.send(()).unwrap();
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    for _ in 0..20 {
        let request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        client.send(request).await;
        assert_eq!(client.response().await.status, 200);
        closed.recv().await.unwrap();
    }
    assert_eq!(backend.connections(), 20);
}

#[tokio::test]
async fn a_fresh_connection_that_closes_is_a_bad_gateway() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    assert_eq!(world.get("a", "/").await.status, 502);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    let backend = Backend::answering(HELLO).await;
    let refusing = [Refusing::new(), Refusing::new()];
    let endpoints = [refusing[0].address, backend.address, refusing[1].address];
    let world = World::new(Config::to(&endpoints)).await;
    for _ in 0..6 {
        assert_eq!(world.get("a", "/").await.body, "hello");
    }
    assert!(world.proxy.stats().upstream_connect_failures > 0);
}

#[tokio::test]
async fn no_endpoint_at_all_is_503_and_none_that_answers_502() {
    let world = World::new(Config::to(&[])).await;
    assert_eq!(world.get("a", "/").await.status, 503);
    let refusing = Refusing::new();
    let world = World::new(Config::to(&[refusing.address])).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("a", "/").await.status, 502);
    }
}

#[tokio::test]
async fn requests_are_spread_over_endpoints() {
    let hits = Arc::new([const { AtomicUsize::new(0) }; 3]);
    let mut backends = Vec::new();
    for index in 0..3 {
        let hits = Arc::clone(&hits);
        backends.push(
            Backend::start(move |mut conn| {
                let hits = Arc::clone(&hits);
                async move {
                    while conn.head().await.is_some() {
                        hits[index].fetch_add(1, Ordering::SeqCst);
                        conn.write(HELLO).await;
                    }
                }
            })
            .await,
        );
    }
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let world = World::new(Config::to(&addresses)).await;
    let mut client = world.client().await;
    for _ in 0..90 {
        client.get("a", "/").await;
    }
    let hits = hits.each_ref().map(|n| n.load(Ordering::SeqCst));
    assert_eq!(hits, [30, 30, 30]);
}

#[tokio::test]
async fn a_name_is_resolved_by_the_worker() {
    let backend = Backend::answering(HELLO).await;
    let mut config = Config::default().http("http", None);
    let endpoints = |host: &str| Endpoints::Dns {
        host: host.into(),
        port: backend.address.port(),
    };
    let here = config.upstream_of("here", UpstreamProtocol::Http1, endpoints("127.0.0.1"));
    let nowhere = config.upstream_of("gone", UpstreamProtocol::Http1, endpoints("sluice.invalid"));
    let config = config
        .route(RouteSpec::new("http", "", here))
        .route(RouteSpec::new("http", "/gone", nowhere));
    let world = World::new(config).await;
    assert_eq!(world.get("a", "/").await.body, "hello");
    assert_eq!(world.get("a", "/gone").await.status, 502);
}

#[tokio::test]
async fn requests_to_what_speaks_no_http_are_a_clear_failure() {
    let mut config = Config::default().http("http", None);
    let action = config.upstream_of("raw", UpstreamProtocol::Opaque, addresses(&[]));
    let world = World::new(config.route(RouteSpec::new("http", "", action))).await;
    assert_eq!(world.get("a", "/").await.status, 502);
}

#[tokio::test]
async fn a_response_that_breaks_http_is_a_bad_gateway() {
    for broken in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let backend = Backend::answering(broken).await;
        let world = World::new(Config::to(&[backend.address])).await;
        assert_eq!(world.get("a", "/").await.status, 502, "{broken}");
        world
            .until("it is counted", |stats| stats.upstream_protocol_errors == 1)
            .await;
    }
}
