//! What a peer may not do, and how long it may take. Limits are small here; the conditions are real.

use std::time::{Duration, Instant};

use gateway_model::ir::{SourcePolicy, Timeouts};
use http::Request;

use crate::support::{Backend, Client, Config, RouteSpec, World, eventually, streamed};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const SHORT: Duration = Duration::from_millis(150);

/// A backend that reads and never answers.
async fn silent() -> Backend {
    Backend::start(|mut conn| async move { while conn.head().await.is_some() {} }).await
}

#[tokio::test]
async fn a_head_that_crawls_is_answered_with_408() {
    let backend = Backend::answering(HELLO).await;
    let world = World::with(Config::to(&[backend.address]), |l| l.time.head = SHORT).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost:").await;
    let response = client.response().await;
    assert_eq!(response.status, 408);
    client.ends().await;
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_connection_that_says_nothing_is_closed() {
    let backend = Backend::answering(HELLO).await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.first_byte = SHORT;
        l.time.keep_alive = SHORT;
    })
    .await;
    world.client().await.ends().await;
    let mut client = world.client().await;
    client.get("a", "/").await;
    client.ends().await;
    world
        .until("none is left", |stats| stats.connections_open == 0)
        .await;
}

#[tokio::test]
async fn a_body_that_stops_is_answered_with_408() {
    let backend = silent().await;
    let world = World::with(Config::to(&[backend.address]), |l| l.time.body_idle = SHORT).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        .await;
    assert_eq!(client.response().await.status, 408);
    client.ends().await;
}

#[tokio::test]
async fn a_body_that_stops_after_early_hints_is_answered_with_408() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")
            .await;
        conn.ended().await;
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |l| l.time.body_idle = SHORT).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    assert_eq!(client.response().await.status, 408);
    client.ends().await;

    let (_sender, body) = streamed();
    let request = Request::post("http://a/").body(body).unwrap();
    let response = world.http2().await.send_request(request).await.unwrap();
    assert_eq!(response.status(), 408, "over http/2");
}

#[tokio::test]
async fn a_body_that_crawls_is_answered_with_408() {
    let backend = silent().await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.body_idle = Duration::from_millis(300);
        l.time.body_min_rate = 1_000_000;
    })
    .await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        .await;
    let (mut reading, mut writing) = client.stream.into_split();
    let trickle = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while writing.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut answer = vec![0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut reading, &mut answer)
        .await
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
    drop(reading);
    trickle.await.unwrap();
}

#[tokio::test]
async fn a_rules_timeouts_end_in_504() {
    let backend = silent().await;
    for timeouts in [
        Timeouts {
            request: Some(SHORT),
            backend_request: None,
        },
        Timeouts {
            request: Some(Duration::from_secs(60)),
            backend_request: Some(SHORT),
        },
    ] {
        let mut config = Config::default().http("http", None);
        let action = config.upstream("app", &[backend.address]);
        let world = World::new(config.route(RouteSpec {
            timeouts,
            ..RouteSpec::new("http", "", action)
        }))
        .await;
        let mut client = world.client().await;
        let begin = Instant::now();
        assert_eq!(client.get("a", "/").await.status, 504);
        let took = begin.elapsed();
        assert!(took >= SHORT && took < SHORT * 10, "{took:?}");
        assert_eq!(
            client.get("a", "/").await.status,
            504,
            "the connection goes on"
        );
    }
}

#[tokio::test]
async fn without_a_rule_the_process_limits_the_wait() {
    let backend = silent().await;
    let world = World::with(Config::to(&[backend.address]), |l| l.time.request = SHORT).await;
    assert_eq!(world.get("a", "/").await.status, 504);
}

#[tokio::test]
async fn a_response_that_has_begun_may_take_longer_than_the_process_allows_for_its_head() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
            .await;
        for _ in 0..10 {
            tokio::time::sleep(SHORT / 3).await;
            conn.write("x").await;
        }
        conn.head().await;
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |l| l.time.request = SHORT).await;
    assert_eq!(world.get("a", "/").await.body, "xxxxxxxxxx");
}

#[tokio::test]
async fn a_response_that_stops_is_cut_off() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            .await;
        conn.head().await;
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |l| l.time.body_idle = SHORT).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.rest().await, b"abc");
    world
        .until("it is counted", |stats| stats.timeouts_upstream == 1)
        .await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\n\r\n").await;
        let chunk = "x".repeat(1 << 20);
        for _ in 0..1_000 {
            conn.write(&chunk).await;
        }
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.write_stall = SHORT;
    })
    .await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    world
        .until("it is cut off", |stats| stats.timeouts_downstream == 1)
        .await;
}

#[tokio::test]
async fn a_head_over_the_limits_is_431() {
    let backend = Backend::answering(HELLO).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let long = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nX-Long: {}\r\n\r\n",
        "v".repeat(61 * 1024)
    );
    let many = format!(
        "GET / HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "X: y\r\n".repeat(101)
    );
    let target = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "t".repeat(9 * 1024));
    for (request, status) in [(long, 431), (many, 431), (target, 414)] {
        let mut client = world.client().await;
        client.send(request).await;
        assert_eq!(client.response().await.status, status);
        client.ends().await;
    }
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn connections_over_a_sources_limit_are_closed_and_others_go_on() {
    let backend = Backend::answering(HELLO).await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.connections.per_source = 2;
    })
    .await;
    let (mut first, mut second) = (world.client().await, world.client().await);
    assert_eq!(first.get("a", "/").await.status, 200);
    assert_eq!(second.get("a", "/").await.status, 200);
    world.client().await.ends().await;
    assert_eq!(world.proxy.stats().connections_over_limit, 1);
    drop(first);
    world
        .until("there is room again", |stats| stats.connections_open == 1)
        .await;
    assert_eq!(world.get("a", "/").await.status, 200);
    assert_eq!(second.get("a", "/").await.status, 200);
}

#[tokio::test]
async fn a_connection_ends_after_so_many_requests() {
    let backend = Backend::answering(HELLO).await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.connections.requests = 3;
    })
    .await;
    let mut client = world.client().await;
    for _ in 0..2 {
        assert!(
            !client
                .get("a", "/")
                .await
                .head
                .contains("Connection: close")
        );
    }
    assert!(
        client
            .get("a", "/")
            .await
            .head
            .contains("Connection: close")
    );
    client.ends().await;
}

#[tokio::test]
async fn a_source_that_no_listener_lets_in_gets_no_byte() {
    let backend = Backend::answering(HELLO).await;
    let deny = SourcePolicy {
        allow: Vec::new(),
        deny: vec!["127.0.0.0/8".parse().unwrap()],
    };
    let mut config = Config::default().http("http", None).permitting(deny);
    let action = config.upstream("app", &[backend.address]);
    let world = World::new(config.route(RouteSpec::new("http", "", action))).await;
    world.client().await.ends().await;
    assert_eq!(world.proxy.stats().connections_denied, 1);
}

#[tokio::test]
async fn a_source_that_another_listener_lets_in_is_refused_by_host() {
    let backend = Backend::answering(HELLO).await;
    let deny = SourcePolicy {
        allow: vec!["192.0.2.0/24".parse().unwrap()],
        deny: Vec::new(),
    };
    let mut config = Config::default()
        .http("open", Some("open.example"))
        .http("closed", Some("closed.example"))
        .permitting(deny);
    let action = config.upstream("app", &[backend.address]);
    let config = config
        .route(RouteSpec::new("open", "", action.clone()))
        .route(RouteSpec::new("closed", "", action));
    let world = World::new(config).await;
    assert_eq!(world.get("open.example", "/").await.status, 200);
    assert_eq!(world.get("closed.example", "/").await.status, 403);
}

#[tokio::test]
async fn many_idle_connections_cost_no_buffers_and_still_answer() {
    let backend = Backend::answering(HELLO).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(Client::connect(world.address).await);
    }
    eventually("all are accepted", || {
        world.proxy.stats().connections_open == 200
    })
    .await;
    for client in &mut clients {
        assert_eq!(client.get("a", "/").await.status, 200);
    }
}

/// A world that believes to use this much of its memory.
async fn pressed(backend: &Backend, thresholds: [u64; 3]) -> World {
    World::with(Config::to(&[backend.address]), |limits| {
        limits.memory.bytes = Some(1);
        limits.memory.end_keep_alive_percent = thresholds[0];
        limits.memory.refuse_requests_percent = thresholds[1];
        limits.memory.refuse_connections_percent = thresholds[2];
    })
    .await
}

#[tokio::test]
async fn short_memory_costs_keep_alive_then_requests_then_connections() {
    const NEVER: u64 = u64::MAX;
    let backend = Backend::answering(HELLO).await;
    let world = pressed(&backend, [1, NEVER, NEVER]).await;
    let response = world.get("a", "/").await;
    assert_eq!(response.status, 200);
    assert!(
        response.head.contains("Connection: close"),
        "{}",
        response.head
    );
    let world = pressed(&backend, [1, 1, NEVER]).await;
    assert_eq!(world.get("a", "/").await.status, 503);
    let world = pressed(&backend, [1, 1, 1]).await;
    world.client().await.ends().await;
    assert_eq!(world.proxy.stats().overload_refusals, 1);
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_taken_for_one_that_reads_nothing() {
    const BODY: usize = 48 << 20;
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n"
        ))
        .await;
        conn.write(&"x".repeat(BODY)).await;
        conn.head().await;
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.write_stall = Duration::from_millis(1_500);
    })
    .await;
    let mut stream = tokio::net::TcpStream::connect(world.address).await.unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request)
        .await
        .unwrap();
    let mut piece = vec![0; 64 * 1024];
    let mut read = 0;
    // A fast start makes the kernel's buffers large; then a piece at a time.
    while read < BODY {
        let n = tokio::io::AsyncReadExt::read(&mut stream, &mut piece).await;
        let n = n.unwrap_or_else(|error| panic!("after {read} bytes: {error}"));
        assert!(n > 0, "ended after {read} bytes");
        read += n;
        if (BODY / 2..BODY / 2 + (3 << 20)).contains(&read) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
