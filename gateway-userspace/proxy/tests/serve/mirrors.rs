//! Copies of requests.

use std::time::Duration;

use bytes::Bytes;
use gateway_model::ir::{BackendTarget, Filter, Mirror};
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::support::{Backend, Body, Config, RouteSpec, World, streamed, upstream_key};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

struct Mirrored {
    world: World,
    seen: UnboundedReceiver<String>,
    app: Backend,
    _shadow: Backend,
}

impl Mirrored {
    /// The next copy as it was sent.
    async fn copy(&mut self) -> String {
        let copy = tokio::time::timeout(Duration::from_secs(20), self.seen.recv()).await;
        copy.expect("a copy").unwrap()
    }
}

async fn mirrored() -> Mirrored {
    let app = Backend::start(|mut conn| async move {
        while let Some(head) = conn.head().await {
            if head.contains("chunked") {
                conn.until(b"0\r\n\r\n").await.unwrap();
            } else if head.starts_with("POST") {
                conn.exactly(4).await;
            }
            conn.write(HELLO).await;
        }
    })
    .await;
    mirrored_to(app).await
}

async fn mirrored_to(app: Backend) -> Mirrored {
    let (sender, seen) = unbounded_channel();
    let shadow = Backend::start(move |mut conn| {
        let sender = sender.clone();
        async move {
            while let Some(mut request) = conn.head().await {
                if request.contains("chunked") {
                    request += &conn.until(b"0\r\n\r\n").await.unwrap();
                } else if request.starts_with("POST") {
                    request += &String::from_utf8(conn.exactly(4).await).unwrap();
                }
                sender.send(request).unwrap();
                conn.write("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await;
    let mut config = Config::default().http("http", None);
    let action = config.upstream("app", &[app.address]);
    config.upstream("shadow", &[shadow.address]);
    let mirror = Mirror {
        target: BackendTarget::Upstream(upstream_key("shadow")),
        fraction: None,
    };
    let world = World::with(
        config.route(RouteSpec {
            filters: vec![Filter::Mirror(mirror)],
            ..RouteSpec::new("http", "", action)
        }),
        |limits| limits.mirror.body_bytes = 1_000,
    )
    .await;
    Mirrored {
        world,
        seen,
        app,
        _shadow: shadow,
    }
}

#[tokio::test]
async fn a_copy_has_the_head_and_the_body_and_its_answer_is_thrown_away() {
    let mut mirrored = mirrored().await;
    let mut client = mirrored.world.client().await;
    assert_eq!(client.get("a", "/one").await.body, "hello");
    assert!(mirrored.copy().await.starts_with("GET /one HTTP/1.1\r\n"));
    client
        .send("POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        .await;
    client.send("dy").await;
    assert_eq!(client.response().await.body, "hello");
    assert!(mirrored.copy().await.ends_with("\r\n\r\nbody"));
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        .await;
    client.send("2\r\ncd\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.body, "hello");
    assert!(
        mirrored
            .copy()
            .await
            .ends_with("\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
    );
    mirrored
        .world
        .until("all are counted", |stats| stats.mirrors_sent == 3)
        .await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_copied() {
    let mirrored = mirrored().await;
    let mut client = mirrored.world.client().await;
    let chunk = format!("7d0\r\n{}\r\n0\r\n\r\n", "x".repeat(2_000));
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.send(chunk).await;
    assert_eq!(client.response().await.body, "hello");
    mirrored
        .world
        .until("it is counted", |stats| stats.mirrors_dropped == 1)
        .await;
}

/// A request under way over HTTP/2, its body in the test's hands.
async fn post(
    client: &mut SendRequest<Body>,
    length: Option<&str>,
) -> (
    UnboundedSender<Frame<Bytes>>,
    impl Future<Output = Response<Incoming>> + use<>,
) {
    let (sender, body) = streamed();
    let mut request = Request::post("http://a.example/");
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    client.ready().await.unwrap();
    let response = client.send_request(request.body(body).unwrap());
    (sender, async { response.await.unwrap() })
}

async fn text(response: Response<Incoming>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn a_body_is_whole_at_its_length_though_its_stream_ends_later() {
    let mut mirrored = mirrored().await;
    let mut client = mirrored.world.http2().await;
    for sent in 1..=3 {
        let (body, response) = post(&mut client, Some("4")).await;
        body.send(Frame::data("bo".into())).unwrap();
        body.send(Frame::data("dy".into())).unwrap();
        assert_eq!(text(response.await).await, "hello");
        let copy = mirrored.copy().await;
        assert!(copy.ends_with("\r\n\r\nbody"), "{copy}");
        mirrored
            .world
            .until("it is counted", |stats| stats.mirrors_sent == sent)
            .await;
        drop(body);
    }
    assert_eq!(mirrored.app.connections(), 1, "its connection is kept");
}

/// Answers each connection's request as soon as its head has come.
async fn hasty() -> Backend {
    Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write(HELLO).await;
        while !conn.ended().await {
            conn.exactly(1).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_copy_is_sent_though_the_answer_comes_before_the_body_over_http2() {
    let mut mirrored = mirrored_to(hasty().await).await;
    let mut client = mirrored.world.http2().await;
    for (length, rest) in [(Some("4"), "body"), (None, "4\r\nbody\r\n0\r\n\r\n")] {
        let (body, response) = post(&mut client, length).await;
        assert_eq!(text(response.await).await, "hello");
        body.send(Frame::data("bo".into())).unwrap();
        body.send(Frame::data("dy".into())).unwrap();
        drop(body);
        let copy = mirrored.copy().await;
        assert!(copy.ends_with(&format!("\r\n\r\n{rest}")), "{copy}");
    }
}

#[tokio::test]
async fn a_copy_is_sent_though_the_answer_comes_before_the_body_over_http1() {
    let mut mirrored = mirrored_to(hasty().await).await;
    for (framing, rest) in [
        ("Content-Length: 4", "body"),
        ("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n\r\n"),
    ] {
        let mut client = mirrored.world.client().await;
        client
            .send(format!("POST / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"))
            .await;
        assert_eq!(client.response().await.body, "hello");
        client.ends().await;
        client.send(rest).await;
        let copy = mirrored.copy().await;
        assert!(copy.ends_with(&format!("\r\n\r\n{rest}")), "{copy}");
    }
}

#[tokio::test]
async fn a_request_that_never_ends_is_not_copied() {
    let mirrored = mirrored_to(hasty().await).await;
    let mut client = mirrored.world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        .await;
    assert_eq!(client.response().await.body, "hello");
    drop(client);
    let stream = TcpStream::connect(mirrored.world.address).await.unwrap();
    let (mut raw, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://a.example/").body(()).unwrap();
    let (response, mut body) = raw.send_request(request, false).unwrap();
    body.send_data("bo".into(), false).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    body.send_reset(h2::Reason::CANCEL);
    mirrored
        .world
        .until("both are counted", |stats| stats.mirrors_dropped == 2)
        .await;
    assert_eq!(mirrored.world.proxy.stats().mirrors_sent, 0);
}
