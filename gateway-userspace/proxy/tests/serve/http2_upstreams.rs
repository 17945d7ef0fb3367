//! HTTP/2 towards backends, from clients of either version.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use gateway_model::ir::{BackendTarget, Filter, Mirror, UpstreamProtocol};
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::net::TcpStream;
use tokio::sync::{Barrier, mpsc, watch};

use crate::support::{
    Asked, Backend, Config, Http2Backend, RouteSpec, World, addresses, empty, eventually, full,
    get, upstream_key,
};

#[tokio::test]
async fn requests_of_both_versions_share_one_connection() {
    let backend = Http2Backend::reflecting().await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h1 = world.client().await;
    let seen = h1.get("a.example", "/one?q=1").await;
    assert_eq!(seen.status, 200);
    for part in [
        "http://a.example/one?q=1",
        "HTTP/2",
        "x-forwarded-for",
        "\"te\": \"trailers\"",
    ] {
        assert!(seen.data().contains(part), "{part}: {}", seen.body);
    }
    assert!(!seen.data().contains("\"host\""), "{}", seen.body);
    let h2 = world.http2().await;
    let mut streams = tokio::task::JoinSet::new();
    for i in 0..50 {
        let mut h2 = h2.clone();
        streams.spawn(async move {
            let response = h2.send_request(get(&format!("/{i}"))).await.unwrap();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let seen = String::from_utf8(body.to_vec()).unwrap();
            assert!(seen.contains(&format!("http://shop.example/{i}")), "{seen}");
        });
    }
    streams.join_all().await;
    assert_eq!((backend.connections(), backend.streams()), (1, 51));
}

#[tokio::test]
async fn more_streams_than_a_connection_takes_get_another_connection() {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(2);
    let (release, _) = tokio::sync::broadcast::channel::<()>(1);
    let wait = release.clone();
    let backend = Http2Backend::with(builder, move |mut asked: Asked| {
        let mut wait = wait.subscribe();
        async move {
            if asked.request.uri().path() != "/first" {
                wait.recv().await.unwrap();
            }
            asked.answer(Response::new(()), "done").await;
        }
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h2 = world.http2().await;
    // The first answer has come after the backend's settings.
    assert_eq!(h2.send_request(get("/first")).await.unwrap().status(), 200);
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let mut h2 = h2.clone();
        streams.spawn(async move { h2.send_request(get("/")).await.unwrap().status() });
    }
    eventually("all are with the backend", || backend.streams() == 7).await;
    release.send(()).unwrap();
    assert!(streams.join_all().await.iter().all(|status| *status == 200));
    assert_eq!(backend.connections(), 3);
}

#[tokio::test]
async fn large_bodies_pass_both_ways_within_small_windows() {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(10_000);
    let backend = Http2Backend::with(builder, |mut asked: Asked| async move {
        let (body, _) = asked.body().await.unwrap();
        let mut stream = asked
            .respond
            .send_response(Response::new(()), false)
            .unwrap();
        stream.send_data(body.into(), true).unwrap();
    })
    .await;
    let world = World::with(Config::to_http2(&[backend.address]), |limits| {
        limits.upstream.streams_per_connection = 3;
        limits.upstream.stream_window = 20_000;
        limits.upstream.connection_window = 70_000;
    })
    .await;
    let mut h2 = world.http2().await;
    // The backend's settings are known before there is a body: h2 as a receiver never opens a window again that its
    // settings have made smaller than what it had received by then.
    assert_eq!(h2.send_request(get("/")).await.unwrap().status(), 200);
    let sent = "0123456789".repeat(100_000);
    let request = Request::post("http://shop.example/").body(full(sent.clone()));
    let response = h2.send_request(request.unwrap()).await.unwrap();
    let received = response.into_body().collect().await.unwrap().to_bytes();
    assert!(received == sent);
    let mut h1 = world.client().await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        sent.len()
    );
    h1.send(&(head + &sent)).await;
    assert!(h1.response().await.data() == sent);
    let chunks = "7\r\n0123456\r\n".repeat(10_000);
    h1.send(&format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"
    ))
    .await;
    assert!(h1.response().await.data() == "0123456".repeat(10_000));
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn clients_that_take_nothing_hold_up_no_other_on_the_same_connection() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let backend = Http2Backend::start(move |mut asked: Asked| {
        let count = Arc::clone(&count);
        async move {
            if asked.request.uri().path() == "/small" {
                return asked.answer(Response::new(()), "small").await;
            }
            let mut stream = asked
                .respond
                .send_response(Response::new(()), false)
                .unwrap();
            loop {
                stream.reserve_capacity(10_000);
                let Some(Ok(room)) = poll_fn(|cx| stream.poll_capacity(cx)).await else {
                    return;
                };
                stream.send_data(vec![0; room].into(), false).unwrap();
                count.fetch_add(room, Ordering::SeqCst);
            }
        }
    })
    .await;
    let world = World::with(Config::to_http2(&[backend.address]), |limits| {
        limits.upstream.connection_window = 65_535;
        limits.http2.send_buffer = 1;
    })
    .await;
    let mut closed = h2::client::Builder::new();
    closed.initial_window_size(0);
    let socket = TcpStream::connect(world.address).await.unwrap();
    let (mut stalled, connection) = closed.handshake::<_, Bytes>(socket).await.unwrap();
    tokio::spawn(connection);
    let mut answers = Vec::new();
    for _ in 0..4 {
        let request = Request::get("http://shop.example/large").body(());
        let (answer, _) = stalled.send_request(request.unwrap(), true).unwrap();
        answers.push(answer.await.unwrap());
    }
    let pinned = || sent.load(Ordering::SeqCst) >= 65_535;
    eventually("what the streams may have is theirs", pinned).await;
    let mut other = world.client().await;
    for _ in 0..20 {
        let small = other.get("a", "/small");
        let small = tokio::time::timeout(Duration::from_secs(20), small).await;
        assert_eq!(small.expect("an answer").data(), "small");
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_burst_on_a_fresh_connection_asks_for_no_more_than_the_backend_takes() {
    const BURST: usize = 60;
    let (open, opened) = watch::channel(false);
    let together = Arc::new(Barrier::new(BURST));
    let backend = Backend::start(move |conn| {
        let (mut opened, together) = (opened.clone(), Arc::clone(&together));
        async move {
            opened.wait_for(|opened| *opened).await.unwrap();
            let mut builder = h2::server::Builder::new();
            builder.max_concurrent_streams(8);
            let mut connection = builder.handshake::<_, Bytes>(conn.stream).await.unwrap();
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let together = Arc::clone(&together);
                tokio::spawn(async move {
                    together.wait().await;
                    respond.send_response(Response::new(()), true).unwrap();
                });
            }
        }
    })
    .await;
    // What is refused is not tried again.
    let world = World::with(Config::to_http2(&[backend.address]), |limits| {
        limits.upstream.connect_attempts = 0;
    })
    .await;
    let h2 = world.http2().await;
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..BURST {
        let mut h2 = h2.clone();
        streams.spawn(async move { h2.send_request(get("/")).await.unwrap().status() });
    }
    let all = "all want a connection";
    world
        .until(all, |stats| stats.requests_active == BURST as u64)
        .await;
    open.send(true).unwrap();
    while let Some(status) = streams.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(backend.connections(), 8);
}

#[tokio::test]
async fn targets_and_hosts_that_http2_has_no_form_for_arrive_all_the_same() {
    let backend = Http2Backend::reflecting().await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h1 = world.client().await;
    for (target, arrives) in [
        ("/?q=\"a\"", "/?q=%22a%22"),
        ("/?q=<a>`", "/?q=%3Ca%3E`"),
        ("/<a>`?b", "/%3Ca%3E%60?b"),
    ] {
        let seen = h1.get("a", target).await;
        assert_eq!(seen.status, 200, "{target}");
        let arrives = format!("http://a{arrives},");
        assert!(seen.data().contains(&arrives), "{target}: {}", seen.body);
    }
    h1.send("GET /old HTTP/1.0\r\n\r\n").await;
    let old = String::from_utf8(h1.rest().await).unwrap();
    assert!(old.starts_with("HTTP/1.1 200 "), "{old}");
}

#[tokio::test]
async fn an_answer_that_can_have_no_body_has_none() {
    let backend = Http2Backend::start(|mut asked| async move {
        let status = asked.request.uri().path()[1..].parse::<u16>().unwrap();
        let head = Response::builder().status(status).body(()).unwrap();
        // The head does not end the stream.
        asked.answer(head, "").await;
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h1 = world.client().await;
    let mut h2 = world.http2().await;
    for status in [204, 304] {
        let path = format!("/{status}");
        let response = h1.get("a", &path).await;
        assert_eq!(response.status, status);
        let head = response.head.to_ascii_lowercase();
        assert!(!head.contains("transfer-encoding"), "{head}");
        let response = h2.send_request(get(&path)).await.unwrap();
        assert_eq!(response.status(), status);
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.to_bytes(), "");
    }
}

#[tokio::test]
async fn a_refused_stream_is_tried_again_and_a_reset_one_is_not() {
    let backend = Http2Backend::start(|mut asked| async move {
        let reason = match asked.request.uri().path() {
            "/refused" => h2::Reason::REFUSED_STREAM,
            _ => h2::Reason::INTERNAL_ERROR,
        };
        if asked.index % 2 == 0 {
            asked.respond.send_reset(reason);
        } else {
            asked.answer(Response::new(()), "second").await;
        }
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h2 = world.http2().await;
    let post = || {
        Request::post("http://shop.example/refused")
            .body(empty())
            .unwrap()
    };
    let response = h2.send_request(post()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(backend.streams(), 2);
    assert_eq!(world.get("a", "/refused").await.data(), "second");
    assert_eq!(backend.streams(), 4);
    assert_eq!(world.get("a", "/reset").await.status, 502);
    assert_eq!(backend.streams(), 5);
}

#[tokio::test]
async fn a_storm_of_goaways_ends_in_502_and_not_in_a_storm_of_connections() {
    let backend = Backend::start(|mut conn| async move {
        // SETTINGS, then GOAWAY of everything.
        conn.write_bytes(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        conn.write_bytes(&[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
            .await;
        conn.ended().await;
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    for _ in 0..5 {
        assert_eq!(world.get("a", "/").await.status, 502);
    }
    assert!(backend.connections() <= 5 * 20, "{}", backend.connections());
}

#[tokio::test]
async fn a_connection_told_to_go_finishes_its_streams_and_takes_no_more() {
    let backend = Backend::start(|conn| async move {
        let mut connection = h2::server::handshake(conn.stream).await.unwrap();
        let (_, mut respond) = connection.accept().await.unwrap().unwrap();
        connection.graceful_shutdown();
        let driver = tokio::spawn(async move { while connection.accept().await.is_some() {} });
        // The GOAWAY goes out first, whatever else is to be sent.
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data("late".into(), true).unwrap();
        driver.await.unwrap();
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    for made in 1..=3 {
        assert_eq!(world.get("a", "/").await.data(), "late");
        assert_eq!(backend.connections(), made);
    }
}

#[tokio::test]
async fn a_client_that_leaves_resets_the_stream_and_the_connection_lives() {
    let (told, mut tell) = mpsc::unbounded_channel();
    let backend = Http2Backend::start(move |mut asked: Asked| {
        let told = told.clone();
        async move {
            if asked.request.uri().path() == "/" {
                return asked.answer(Response::new(()), "ok").await;
            }
            let reset = std::future::poll_fn(|cx| asked.respond.poll_reset(cx)).await;
            told.send(reset.unwrap()).unwrap();
        }
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h2 = world.http2().await;
    let request = tokio::spawn(h2.send_request(get("/wait")));
    eventually("the backend is asked", || backend.streams() == 1).await;
    request.abort();
    assert_eq!(tell.recv().await, Some(h2::Reason::CANCEL));
    let mut h1 = world.client().await;
    h1.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the backend is asked", || backend.streams() == 2).await;
    drop(h1);
    assert_eq!(tell.recv().await, Some(h2::Reason::CANCEL));
    assert_eq!(world.get("a", "/").await.data(), "ok");
    assert_eq!(backend.connections(), 1);
    world
        .until("nothing is under way", |stats| stats.requests_active == 0)
        .await;
}

#[tokio::test]
async fn a_body_that_the_backend_resets_is_never_passed_on_as_complete() {
    let (reset, _) = tokio::sync::broadcast::channel::<()>(1);
    let tell = reset.clone();
    let backend = Http2Backend::start(move |mut asked: Asked| {
        let mut told = tell.subscribe();
        async move {
            let mut stream = asked
                .respond
                .send_response(Response::new(()), false)
                .unwrap();
            stream.send_data("half".into(), false).unwrap();
            told.recv().await.unwrap();
            stream.send_reset(h2::Reason::INTERNAL_ERROR);
        }
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h2 = world.http2().await;
    let mut body = h2.send_request(get("/")).await.unwrap().into_body();
    let half = body.frame().await.unwrap().unwrap();
    assert_eq!(half.into_data().unwrap(), "half");
    reset.send(()).unwrap();
    assert!(body.collect().await.is_err());
    let mut h1 = world.client().await;
    h1.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    h1.until(b"half").await;
    reset.send(()).unwrap();
    let rest = String::from_utf8(h1.rest().await).unwrap();
    assert!(!rest.contains("0\r\n\r\n"), "{rest}");
}

#[tokio::test]
async fn a_backend_of_http1_is_a_bad_gateway_and_so_is_endless_header() {
    let http1 = Backend::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let endless = Backend::start(|mut conn| async move {
        conn.write_bytes(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await;
        // HEADERS without END_HEADERS, then CONTINUATION for ever.
        let lines = [0x88, 0x00, 0x01, b'a', 0x01, b'b'];
        conn.write_bytes(&[&[0, 0, 6, 1, 0, 0, 0, 0, 1][..], &lines].concat())
            .await;
        let more = [
            &[0, 0x10, 0, 9, 0, 0, 0, 0, 1][..],
            &[0x00, 0x01, b'a', 0x01, b'b', 0x00, 0x01, b'a'].repeat(512),
        ]
        .concat();
        while conn.try_write(&more).await {}
    })
    .await;
    for address in [http1.address, endless.address] {
        let world = World::new(Config::to_http2(&[address])).await;
        assert_eq!(world.get("a", "/").await.status, 502);
    }
}

#[tokio::test]
async fn a_head_over_the_limit_is_a_bad_gateway() {
    let backend = Http2Backend::start(|mut asked| async move {
        let head = (0..200).fold(Response::builder(), |head, i| {
            head.header(format!("x-{i}"), "y")
        });
        asked.answer(head.body(()).unwrap(), "").await;
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    assert_eq!(world.get("a", "/").await.status, 502);
    world
        .until("it is counted", |stats| stats.upstream_protocol_errors == 1)
        .await;
}

#[tokio::test]
async fn a_backend_whose_window_stays_closed_is_given_up() {
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(0);
    let backend = Http2Backend::with(builder, |mut asked: Asked| async move {
        if asked.request.method() == http::Method::GET {
            asked
                .respond
                .send_response(Response::new(()), true)
                .unwrap();
            return;
        }
        std::future::pending::<()>().await;
    })
    .await;
    let world = World::with(Config::to_http2(&[backend.address]), |limits| {
        limits.time.write_stall = Duration::from_millis(200);
    })
    .await;
    // Its settings have come with its first answer.
    assert_eq!(world.get("a", "/").await.status, 200);
    let mut h2 = world.http2().await;
    let request = Request::post("http://shop.example/").body(full("x".repeat(1000)));
    let response = h2.send_request(request.unwrap()).await.unwrap();
    assert_eq!(response.status(), 504);
    let mut h1 = world.client().await;
    h1.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(h1.response().await.status, 504);
}

#[tokio::test]
async fn informational_answers_reach_a_client_of_http1() {
    let backend = Http2Backend::start(|mut asked| async move {
        let hints = Response::builder().status(103).header("link", "</a>");
        asked
            .respond
            .send_informational(hints.body(()).unwrap())
            .unwrap();
        asked.answer(Response::new(()), "then").await;
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h1 = world.client().await;
    h1.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let hints = h1.head().await;
    assert!(hints.starts_with("HTTP/1.1 103 "), "{hints}");
    assert!(hints.contains("link: </a>\r\n"), "{hints}");
    assert_eq!(h1.response().await.data(), "then");
}

#[tokio::test]
async fn an_upgrade_does_not_go_over_http2() {
    let backend = Http2Backend::reflecting().await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h1 = world.client().await;
    h1.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    .await;
    assert_eq!(h1.response().await.status, 502);
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_copy_goes_over_http2_too() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let note = Arc::clone(&seen);
    let copy = Http2Backend::start(move |mut asked| {
        let note = Arc::clone(&note);
        async move {
            let (body, _) = asked.body().await.unwrap();
            let path = asked.request.uri().path().to_owned();
            note.lock().unwrap().push((path, body));
            asked.answer(Response::new(()), "ignored").await;
        }
    })
    .await;
    let backend = Http2Backend::reflecting().await;
    let mut config = Config::default().http("http", None);
    let action = config.upstream_of(
        "app",
        UpstreamProtocol::Http2,
        addresses(&[backend.address]),
    );
    config.upstream_of("copy", UpstreamProtocol::Http2, addresses(&[copy.address]));
    let mut spec = RouteSpec::new("http", "", action);
    spec.filters.push(Filter::Mirror(Mirror {
        target: BackendTarget::Upstream(upstream_key("copy")),
        fraction: None,
    }));
    let world = World::new(config.route(spec)).await;
    let mut h1 = world.client().await;
    h1.send("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(h1.response().await.status, 200);
    let mut h2 = world.http2().await;
    let request = Request::post("http://shop.example/b")
        .body(full("defg"))
        .unwrap();
    let response = h2.send_request(request).await.unwrap();
    assert_eq!(response.status(), 200);
    response.into_body().collect().await.unwrap();
    world
        .until("both are sent", |stats| stats.mirrors_sent == 2)
        .await;
    let mut seen = seen.lock().unwrap().clone();
    seen.sort();
    assert_eq!(
        seen,
        [
            ("/a".into(), b"abc".to_vec()),
            ("/b".into(), b"defg".to_vec())
        ]
    );
}
