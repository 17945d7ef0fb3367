//! HTTP/2 between a client and an HTTP/1.1 backend.

use std::error::Error;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use tokio::net::TcpStream;

use crate::support::{
    Authority, Backend, Config, RouteSpec, World, empty, eventually, get, http2_over, streamed,
    tls_connect,
};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

async fn text(response: Response<Incoming>) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn prior_knowledge_is_recognised_and_many_streams_share_a_connection() {
    let backend = Backend::reflecting().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let client = world.http2().await;
    let mut streams = tokio::task::JoinSet::new();
    for i in 0..40 {
        let mut client = client.clone();
        streams.spawn(async move {
            let response = client.send_request(get(&format!("/{i}?q"))).await.unwrap();
            assert_eq!(response.status(), 200);
            let seen = text(response).await.to_ascii_lowercase();
            assert!(
                seen.starts_with(&format!("get /{i}?q http/1.1\r\n")),
                "{seen}"
            );
            assert!(seen.contains("host: shop.example\r\n"), "{seen}");
            assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n"), "{seen}");
        });
    }
    streams.join_all().await;
    let stats = world.proxy.stats();
    assert_eq!((stats.connections_accepted, stats.requests_http2), (1, 40));
}

#[tokio::test]
async fn a_body_streams_both_ways() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        for word in ["one", "two"] {
            conn.until(format!("3\r\n{word}\r\n").as_bytes())
                .await
                .unwrap();
            conn.write(&format!("3\r\n{word}\r\n")).await;
        }
        conn.until(b"0\r\n\r\n").await.unwrap();
        conn.write("0\r\nX-Sum: 42\r\n\r\n").await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.http2().await;
    let (sender, body) = streamed();
    let request = Request::post("http://shop.example/").body(body);
    let mut body = client
        .send_request(request.unwrap())
        .await
        .unwrap()
        .into_body();
    for word in ["one", "two"] {
        sender.send(Frame::data(word.into())).unwrap();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), word);
    }
    drop(sender);
    let trailers = body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_trailers()
        .unwrap();
    assert_eq!(trailers["x-sum"], "42");
}

#[tokio::test]
async fn large_bodies_pass_in_both_directions() {
    let length = 3_000_000;
    let backend = Backend::start(move |mut conn| async move {
        while let Some(head) = conn.head().await {
            assert!(
                head.to_ascii_lowercase()
                    .contains("content-length: 3000000\r\n"),
                "{head}"
            );
            let body = conn.exactly(length).await;
            let body = String::from_utf8(body).unwrap();
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.http2().await;
    let sent = Bytes::from("0123456789".repeat(length / 10));
    for _ in 0..2 {
        let body = Full::new(sent.clone())
            .map_err(|never| match never {})
            .boxed();
        let request = Request::post("http://shop.example/").body(body).unwrap();
        let response = client.send_request(request).await.unwrap();
        let received = response.into_body().collect().await.unwrap().to_bytes();
        assert!(received == sent);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_stream_that_the_client_resets_ends_its_upstream_request() {
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::start(move |mut conn| {
        let told = told.clone();
        async move {
            conn.head().await.unwrap();
            told.send(conn.ended().await).unwrap();
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.http2().await;
    let request = tokio::spawn(client.send_request(get("/")));
    eventually("the backend is asked", || backend.connections() == 1).await;
    request.abort();
    assert_eq!(tell.recv().await, Some(true));
    world
        .until("nothing is under way", |stats| stats.requests_active == 0)
        .await;
}

#[tokio::test]
async fn failures_are_answers_and_the_connection_lives() {
    let mut config = Config::default().http("http", Some("shop.example"));
    let action = config.upstream("app", &[]);
    let world = World::new(config.route(RouteSpec::new("http", "/app", action))).await;
    let mut client = world.http2().await;
    let mut status = async |path: &str| client.send_request(get(path)).await.unwrap().status();
    assert_eq!(status("/app").await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(status("/").await, StatusCode::NOT_FOUND);
    let many = (0..101).fold(Request::get("http://shop.example/app"), |request, i| {
        request.header(format!("x-{i}"), "y")
    });
    let response = client
        .send_request(many.body(empty()).unwrap())
        .await
        .unwrap();
    assert_eq!(
        response.status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    );
    let response = client.send_request(get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_coalesced_request_for_another_listeners_name_is_misdirected() {
    let authority = Authority::new();
    let certificate = authority.issue(&["one.example", "two.example"]);
    let backend = Backend::answering(HELLO).await;
    let mut config = Config::default()
        .https("one", Some("one.example"), &certificate)
        .https("two", Some("two.example"), &certificate);
    let action = config.upstream("app", &[backend.address]);
    let config = config
        .route(RouteSpec::new("one", "", action.clone()))
        .route(RouteSpec::new("two", "", action));
    let world = World::new(config).await;
    let tls = authority.client(&["h2", "http/1.1"]);
    let stream = tls_connect(&tls, world.address, "one.example")
        .await
        .unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let mut client = http2_over(stream).await;
    for (host, status) in [
        ("one.example", 200),
        ("two.example", 421),
        ("one.example", 200),
    ] {
        let request = Request::get(format!("https://{host}/"))
            .body(empty())
            .unwrap();
        assert_eq!(client.send_request(request).await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn draining_lets_streams_finish_and_refuses_new_ones() {
    let (release, held) = tokio::sync::watch::channel(false);
    let backend = Backend::start(move |mut conn| {
        let mut held = held.clone();
        async move {
            conn.head().await.unwrap();
            held.wait_for(|released| *released).await.unwrap();
            conn.write(HELLO).await;
        }
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |limits| {
        limits.time.drain_grace = Duration::from_millis(50);
    })
    .await;
    let mut client = world.http2().await;
    let response = tokio::spawn(client.send_request(get("/")));
    world
        .until("it is under way", |stats| stats.requests_active == 1)
        .await;
    let answered = async {
        while TcpStream::connect(world.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        release.send(true).unwrap();
    };
    tokio::join!(world.proxy.drain(Duration::from_secs(30)), answered);
    assert_eq!(text(response.await.unwrap().unwrap()).await, "hello");
    assert!(client.send_request(get("/")).await.is_err());
}

#[tokio::test]
async fn a_stream_whose_window_stays_closed_is_reset() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        let body = "x".repeat(1 << 20);
        conn.write(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |limits| {
        limits.time.write_stall = Duration::from_millis(200);
    })
    .await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1_000);
    let (mut client, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://shop.example/").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut received = 0;
    let end = loop {
        match body.data().await {
            Some(Ok(data)) => received += data.len(),
            end => break end,
        }
    };
    assert!(end.is_some_and(|end| end.is_err_and(|error| error.is_reset())));
    assert_eq!(received, 1_000);
    world
        .until("it is counted", |stats| stats.timeouts_downstream == 1)
        .await;
}

#[tokio::test]
async fn a_stream_whose_window_opens_slowly_is_not_reset() {
    const LENGTH: usize = 3_000;
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        let body = "x".repeat(LENGTH);
        conn.write(&format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{body}"
        ))
        .await;
        conn.head().await;
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |limits| {
        limits.time.write_stall = Duration::from_millis(600);
    })
    .await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(200);
    let (mut client, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://shop.example/").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap_or_else(|error| panic!("after {received} bytes: {error}"));
        received += data.len();
        tokio::time::sleep(Duration::from_millis(100)).await;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(received, LENGTH);
}

#[tokio::test]
async fn a_connection_of_resets_is_cut_off() {
    let backend =
        Backend::start(|mut conn| async move { while conn.head().await.is_some() {} }).await;
    let world = World::with(Config::to(&[backend.address]), |limits| {
        limits.http2.reset_sample = 50;
    })
    .await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let ended = tokio::spawn(connection);
    for _ in 0..60 {
        if futures_util::future::poll_fn(|cx| client.poll_ready(cx))
            .await
            .is_err()
        {
            break;
        }
        let request = Request::get("http://shop.example/").body(()).unwrap();
        let Ok((response, mut stream)) = client.send_request(request, false) else {
            break;
        };
        let seen = world.proxy.stats().requests_http2;
        let taken_up = async {
            while world.proxy.stats().requests_http2 == seen && !ended.is_finished() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        taken_up.await;
        stream.send_data(Bytes::from_static(b"x"), false).ok();
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
    }
    world
        .until("it is cut off", |stats| stats.http2_abuse == 1)
        .await;
    world
        .until("it is gone", |stats| stats.connections_open == 0)
        .await;
    let told = ended.await.unwrap().unwrap_err();
    assert!(told.is_go_away(), "{told}");
    assert_eq!(told.reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
}

#[tokio::test]
async fn streams_that_a_backend_breaks_off_are_not_the_clients_resets() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
            .await;
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |limits| {
        limits.http2.reset_sample = 10;
    })
    .await;
    let mut client = world.http2().await;
    for _ in 0..30 {
        let ended = async {
            let response = client.send_request(get("/")).await?;
            response.into_body().collect().await
        };
        ended.await.unwrap_err();
    }
    let stats = world.proxy.stats();
    assert_eq!((stats.connections_accepted, stats.http2_abuse), (1, 0));
}

#[tokio::test]
async fn streams_that_are_taken_back_late_were_wanted() {
    const STREAMS: u64 = 20;
    let backend =
        Backend::start(|mut conn| async move { while conn.head().await.is_some() {} }).await;
    let world = World::with(Config::to(&[backend.address]), |limits| {
        limits.http2.reset_sample = 10;
    })
    .await;
    let client = world.http2().await;
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..STREAMS {
        let mut client = client.clone();
        streams.spawn(async move { client.send_request(get("/")).await });
    }
    world
        .until("all are under way", |stats| {
            stats.requests_active == STREAMS
        })
        .await;
    let youngest = Instant::now();
    eventually("all are old", || {
        youngest.elapsed() > Duration::from_secs(1)
    })
    .await;
    streams.abort_all();
    world
        .until("all are over", |stats| stats.requests_active == 0)
        .await;
    let mut client = client;
    let another = tokio::spawn(async move { client.send_request(get("/")).await });
    world
        .until("another is served", |stats| stats.requests_http2 > STREAMS)
        .await;
    assert_eq!(world.proxy.stats().http2_abuse, 0);
    another.abort();
}

#[tokio::test]
async fn heads_that_wait_for_a_backend_have_a_budget() {
    let backend =
        Backend::start(|mut conn| async move { while conn.head().await.is_some() {} }).await;
    let world = World::with(Config::to(&[backend.address]), |limits| {
        limits.http2.head_budget = 3 * 1024;
    })
    .await;
    let request = |length| {
        Request::get("http://shop.example/")
            .header("x-large", "v".repeat(length))
            .body(empty())
            .unwrap()
    };
    let mut client = world.http2().await;
    let response = client.send_request(request(4 * 1024)).await.unwrap();
    assert_eq!(
        response.status(),
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "one alone never fits"
    );
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let sent = client.send_request(request(1_500));
        streams.spawn(sent);
    }
    let refused = streams.join_next().await.unwrap().unwrap().unwrap_err();
    let reset = refused.source().unwrap().downcast_ref::<h2::Error>();
    assert_eq!(reset.unwrap().reason(), Some(h2::Reason::REFUSED_STREAM));
    let stats = world.proxy.stats();
    assert_eq!((stats.requests_active, stats.http2_abuse), (1, 0));
}
