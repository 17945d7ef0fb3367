//! What one HTTP/2 client may make Sluice hold for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use gateway_proxy::{Limits, Settings};
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use crate::support::{Backend, Config, Http2Backend, World, get, listening_socket, streamed};

/// What a client reads from only once it is told to.
struct Gated<S> {
    stream: S,
    gate: Gate,
}

/// None once it is open.
#[derive(Clone)]
struct Gate(Arc<Mutex<Option<Vec<Waker>>>>);

impl Gate {
    fn closed() -> Self {
        Self(Arc::new(Mutex::new(Some(Vec::new()))))
    }

    fn open(&self) {
        let waiting = self.0.lock().unwrap().take();
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gated<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        if let Some(waiting) = &mut *self.gate.0.lock().unwrap() {
            waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gated<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A proxy whose kernel holds little for a client that does not read.
async fn shallow(config: Config, change: impl FnOnce(&mut Limits)) -> World {
    let (address, socket) = listening_socket();
    let sockets = SockRef::from(&socket);
    sockets.set_send_buffer_size(32 * 1024).unwrap();
    let mut settings = Settings {
        workers: 1.try_into().unwrap(),
        ..Settings::default()
    };
    change(&mut settings.limits);
    World::at(address, vec![(address, socket)], config, settings).await
}

/// A client of HTTP/2 whose windows are wide open and that reads once the gate is; and its connection.
async fn gated(world: &World, gate: &Gate) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(world.address).await.unwrap();
    let gate = gate.clone();
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30)
        .handshake(Gated { stream, gate })
        .await
        .unwrap();
    let connection = tokio::spawn(async move {
        // How it ends is the test's to see.
        let _ = connection.await;
    });
    (client, connection)
}

/// Responses of this length.
async fn answering(length: usize) -> Backend {
    Backend::start(move |mut conn| async move {
        while let Some(head) = conn.head().await {
            let length = if head.contains("/small") { 0 } else { length };
            let body = "x".repeat(length);
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        }
    })
    .await
}

/// Requests that have all come.
async fn ask(
    world: &World,
    client: &mut SendRequest<Bytes>,
    streams: usize,
) -> Vec<(ResponseFuture, SendStream<Bytes>)> {
    let ask = |_| {
        let request = Request::get("http://shop.example/").body(()).unwrap();
        client.send_request(request, true).unwrap()
    };
    let asked = (0..streams).map(ask).collect();
    let all = streams as u64;
    world
        .until("all have come", |stats| stats.requests_http2 == all)
        .await;
    // The worker that serves others has had all the time that it wants.
    let mut other = world.client().await;
    for _ in 0..200 {
        assert_eq!(other.get("a", "/small").await.status, 200);
    }
    asked
}

/// How long a response's body is.
async fn length(response: ResponseFuture) -> usize {
    let mut body = response.await.unwrap().into_body();
    let mut received = 0;
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        received += data.len();
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    received
}

#[tokio::test]
async fn answers_for_a_client_that_does_not_read_stay_with_their_backends() {
    const STREAMS: usize = 100;
    const LENGTH: usize = 60_000;
    let backend = answering(LENGTH).await;
    let world = shallow(Config::to(&[backend.address]), |_| {}).await;
    let gate = Gate::closed();
    let (mut client, _connection) = gated(&world, &gate).await;
    let asked = ask(&world, &mut client, STREAMS).await;
    let waiting = world.proxy.stats().requests_active;
    assert!(waiting > STREAMS as u64 / 2, "{waiting}");
    gate.open();
    let read = asked.into_iter().map(|(response, _)| length(response));
    assert_eq!(join_all(read).await, [LENGTH; STREAMS]);
    world
        .until("nothing is held", |stats| stats.requests_active == 0)
        .await;
}

#[tokio::test]
async fn answers_that_are_taken_back_make_room_for_those_that_wait() {
    const STREAMS: usize = 80;
    const LENGTH: usize = 200_000;
    let backend = answering(LENGTH).await;
    let world = shallow(Config::to(&[backend.address]), |_| {}).await;
    let gate = Gate::closed();
    let (mut client, _connection) = gated(&world, &gate).await;
    let mut asked = ask(&world, &mut client, STREAMS).await;
    for (_, out) in &mut asked[..STREAMS / 2] {
        out.send_reset(h2::Reason::CANCEL);
    }
    let kept = asked.split_off(STREAMS / 2);
    drop(asked);
    gate.open();
    let read = kept.into_iter().map(|(response, _)| length(response));
    assert_eq!(join_all(read).await, [LENGTH; STREAMS / 2]);
}

#[tokio::test]
async fn answers_that_wait_end_with_their_connection() {
    let backend = answering(200_000).await;
    let world = shallow(Config::to(&[backend.address]), |_| {}).await;
    let (mut client, connection) = gated(&world, &Gate::closed()).await;
    let asked = ask(&world, &mut client, 50).await;
    connection.abort();
    drop(asked);
    world
        .until("nothing is held", |stats| {
            (stats.requests_active, stats.connections_open) == (0, 0)
        })
        .await;
}

/// A client that reads at most 16 KiB in each `pause`.
async fn slow(world: &World, pause: Duration) -> SendRequest<Bytes> {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let stream = socket.connect(world.address).await.unwrap();
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (mut from_proxy, mut to_proxy) = stream.into_split();
    let (mut from_client, mut to_client) = tokio::io::split(far);
    tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_proxy).await });
    tokio::spawn(async move {
        let mut piece = vec![0; 16 * 1024];
        while let Ok(n @ 1..) = from_proxy.read(&mut piece).await {
            to_client.write_all(&piece[..n]).await.unwrap();
            tokio::time::sleep(pause).await;
        }
    });
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 30)
        .initial_connection_window_size(1 << 30)
        .handshake(near)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn answers_that_wait_for_others_are_not_given_up() {
    const STREAMS: usize = 60;
    const LENGTH: usize = 40_000;
    let backend = answering(LENGTH).await;
    let world = shallow(Config::to(&[backend.address]), |limits| {
        // A piece of each stream's takes longer, with all the others in between.
        limits.time.write_stall = Duration::from_secs(1);
    })
    .await;
    let mut client = slow(&world, Duration::from_millis(4)).await;
    let ask = |_| {
        let request = Request::get("http://shop.example/").body(()).unwrap();
        client.send_request(request, true).unwrap().0
    };
    let asked: Vec<_> = (0..STREAMS).map(ask).collect();
    let read = asked.into_iter().map(length);
    assert_eq!(join_all(read).await, [LENGTH; STREAMS]);
}

/// So many trailers.
fn many(n: usize) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    for _ in 0..n {
        trailers.append("x-t", "1".parse().unwrap());
    }
    trailers
}

#[tokio::test]
async fn trailers_of_a_request_are_held_to_the_limits_of_a_head() {
    let backend = Backend::start(|mut conn| async move {
        while conn.head().await.is_some() {
            let end = conn.until(b"\r\n\r\n").await.unwrap();
            let count = end.matches("x-t").count();
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Count: {count}\r\n\r\n"
            ))
            .await;
        }
    })
    .await;
    let http2 = Http2Backend::start(|mut asked| async move {
        let Ok((_, trailers)) = asked.body().await else {
            return;
        };
        let count = trailers.map_or(0, |trailers| trailers.len());
        let head = Response::builder().header("x-count", count);
        asked.answer(head.body(()).unwrap(), "").await;
    })
    .await;
    for config in [
        Config::to(&[backend.address]),
        Config::to_http2(&[http2.address]),
    ] {
        let world = World::with(config, |limits| limits.head.lines = 20).await;
        let mut client = world.http2().await;
        for (count, status) in [(20, 200), (21, 400)] {
            let (sender, body) = streamed();
            let request = Request::post("http://shop.example/").body(body).unwrap();
            sender.send(Frame::data("a".into())).unwrap();
            sender.send(Frame::trailers(many(count))).unwrap();
            drop(sender);
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), status, "{count}");
            if status == 200 {
                assert_eq!(response.headers()["x-count"], "20");
            }
        }
    }
}

#[tokio::test]
async fn trailers_of_a_response_are_held_to_the_limits_of_a_head() {
    let backend = Http2Backend::start(|mut asked| async move {
        let count = asked.request.uri().path()[1..].parse().unwrap();
        let mut out = asked
            .respond
            .send_response(Response::new(()), false)
            .unwrap();
        out.send_data("a".into(), false).unwrap();
        out.send_trailers(many(count)).unwrap();
    })
    .await;
    let world = World::with(Config::to_http2(&[backend.address]), |limits| {
        limits.head.lines = 20;
    })
    .await;
    let mut client = world.http2().await;
    for (path, passes) in [("/20", true), ("/21", false)] {
        let read = async {
            let response = client.send_request(get(path)).await?;
            response.into_body().collect().await
        };
        match read.await {
            Ok(body) if passes => assert_eq!(body.trailers().unwrap().len(), 20),
            Err(_) if !passes => {}
            other => panic!("{path}: {other:?}"),
        }
    }
}
