//! What an HTTP/2 client sees besides requests and answers: informational responses, pings, windows.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use gateway_proxy::{AccessLogFormat, AccessLogOutput, Settings};
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{Ping, Reason, SendStream};
use http::{HeaderMap, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{Authority, Backend, Config, RouteSpec, World, eventually, tls_connect};

/// A client that sees every frame's meaning.
async fn client(world: &World) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

fn post(client: &mut SendRequest<Bytes>, expects: bool) -> (ResponseFuture, SendStream<Bytes>) {
    let mut request = Request::post("http://shop.example/");
    if expects {
        request = request.header("expect", "100-continue");
    }
    client
        .send_request(request.body(()).unwrap(), false)
        .unwrap()
}

/// The informational responses that come before the answer.
async fn informational(response: &mut ResponseFuture) -> Vec<(u16, HeaderMap)> {
    let mut seen = Vec::new();
    while let Some(head) = poll_fn(|cx| response.poll_informational(cx)).await {
        let (head, ()) = head.unwrap().into_parts();
        seen.push((head.status.as_u16(), head.headers));
    }
    seen
}

#[tokio::test]
async fn early_hints_reach_the_client_and_a_backends_continue_does_not() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\
             Connection: x-hop\r\nX-Hop: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
        .await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = client(&world).await;
    let request = Request::get("http://shop.example/").body(()).unwrap();
    let (mut response, _) = client.send_request(request, true).unwrap();
    let seen = informational(&mut response).await;
    let [(103, lines)] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(lines.get("link").unwrap(), "</a.css>");
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_backend_whose_informational_responses_never_end_is_given_up() {
    for status in ["103 Early Hints", "100 Continue"] {
        let backend = Backend::start(move |mut conn| async move {
            conn.head().await.unwrap();
            let head = format!("HTTP/1.1 {status}\r\nLink: </a>\r\n\r\n");
            while conn.try_write(head.as_bytes()).await {}
        })
        .await;
        let world = World::new(Config::to(&[backend.address])).await;
        let mut client = client(&world).await;
        let request = Request::get("http://shop.example/").body(()).unwrap();
        let (mut response, _) = client.send_request(request, true).unwrap();
        let passed = informational(&mut response).await.len();
        assert_eq!(response.await.unwrap().status(), 502);
        assert!(passed < 100, "{passed}");
    }
}

#[tokio::test]
async fn a_client_that_expects_it_is_told_to_continue() {
    let backend = Backend::start(|mut conn| async move {
        while let Some(head) = conn.head().await {
            assert!(!head.to_ascii_lowercase().contains("expect"), "{head}");
            conn.until(b"0\r\n\r\n").await.unwrap();
            conn.write("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = client(&world).await;
    let (mut response, mut body) = post(&mut client, true);
    let told = poll_fn(|cx| response.poll_informational(cx)).await;
    assert_eq!(told.unwrap().unwrap().status(), 100);
    body.send_data("yes".into(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 204);

    let (mut response, mut body) = post(&mut client, false);
    body.send_data("yes".into(), true).unwrap();
    assert!(informational(&mut response).await.is_empty());
    assert_eq!(response.await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_request_that_its_client_takes_back_is_logged() {
    let backend =
        Backend::start(|mut conn| async move { while conn.head().await.is_some() {} }).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let settings = Settings {
        workers: 1.try_into().unwrap(),
        access_log: AccessLogFormat::Json,
        access_log_output: AccessLogOutput::File(path.clone()),
        ..Settings::default()
    };
    let world = World::start(Config::to(&[backend.address]), settings).await;
    let mut client = client(&world).await;
    let (response, mut body) = post(&mut client, false);
    eventually("the backend is asked", || backend.connections() == 1).await;
    body.send_reset(Reason::CANCEL);
    drop(response);
    world
        .until("it is over", |stats| stats.requests_active == 0)
        .await;
    world.proxy.drain(Duration::from_secs(30)).await;
    let line = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["route"], "test/route-1", "{line}");
    assert_eq!(line["status"], 0, "{line}");
    assert!(line["error"].as_str().unwrap().contains("closed"), "{line}");
}

#[tokio::test]
async fn a_body_never_waits_in_front_of_a_closed_window() {
    const LENGTH: usize = 5_000;
    let backend = Backend::start(|mut conn| async move {
        while conn.head().await.is_some() {
            let body = "x".repeat(LENGTH);
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n{body}"
            ))
            .await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(700);
    let (mut client, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://shop.example/").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    let mut body = response.await.unwrap().into_body();
    let mut sizes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        sizes.push(data.len());
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(sizes.iter().sum::<usize>(), LENGTH);
    assert!(sizes.iter().all(|&size| size <= 700), "{sizes:?}");
}

/// The bytes of a client that opens a connection, and reads frames by itself.
async fn silent(world: &World) -> TcpStream {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(&settings).await.unwrap();
    stream
}

/// The next frame: its type, its flags and its payload; nothing at the connection's end.
async fn frame(stream: &mut TcpStream) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}

/// A GET of `shop.example` on this stream.
async fn ask(stream: &mut TcpStream, id: u8) {
    let mut headers = vec![0, 0, 17, 1, 5, 0, 0, 0, id, 0x82, 0x86, 0x84, 0x41, 12];
    headers.extend(b"shop.example");
    // A connection that has ended is the test's to notice.
    let _ = stream.write_all(&headers).await;
}

const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 1;

async fn with_pings() -> World {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    World::with(Config::to(&[backend.address]), |limits| {
        limits.http2.ping_interval = Duration::from_millis(50);
        limits.http2.ping_timeout = Duration::from_millis(100);
    })
    .await
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let world = with_pings().await;
    let mut stream = silent(&world).await;
    let mut answered = 0;
    while answered < 4 {
        let (kind, flags, payload) = frame(&mut stream).await.expect("the connection lives");
        if (kind, flags) == (PING, 0) {
            let mut pong = vec![0, 0, 8, PING, ACK, 0, 0, 0, 0];
            pong.extend(payload);
            stream.write_all(&pong).await.unwrap();
            answered += 1;
        }
    }
    assert_eq!(world.proxy.stats().connections_open, 1);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_given_up() {
    let world = with_pings().await;
    let mut stream = silent(&world).await;
    let mut asked = 0;
    while let Some((kind, flags, _)) = frame(&mut stream).await {
        asked += usize::from((kind, flags) == (PING, 0));
    }
    assert_eq!(asked, 1);
    world
        .until("it is gone", |stats| stats.connections_open == 0)
        .await;
}

type Tls = TlsStream<TcpStream>;

async fn tls_client(world: &World, authority: &Authority) -> (SendRequest<Bytes>, Connection<Tls>) {
    let config = authority.client(&["h2"]);
    let stream = tls_connect(&config, world.address, "shop.example").await;
    h2::client::handshake(stream.unwrap()).await.unwrap()
}

async fn is_served(client: &mut SendRequest<Bytes>) {
    let request = Request::get("https://shop.example/").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    assert_eq!(response.await.unwrap().status(), 204);
}

#[tokio::test]
async fn a_client_that_has_only_come_when_draining_begins_is_served() {
    let authority = Authority::new();
    let certificate = authority.issue(&["shop.example"]);
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let mut config = Config::default().https("https", None, &certificate);
    let action = config.upstream("app", &[backend.address]);
    let config = config.route(RouteSpec::new("https", "", action));
    let world = World::with(config, |l| l.time.drain_grace = Duration::from_secs(60)).await;
    let (mut witness, its_connection) = tls_client(&world, &authority).await;
    let its_connection = tokio::spawn(its_connection);
    is_served(&mut witness).await;
    let (tls, name) = (authority.client(&["h2"]), "shop.example");
    let stream = tls_connect(&tls, world.address, name).await.unwrap();
    world
        .until("its handshake is over", |stats| stats.tls_handshakes == 2)
        .await;
    let comes = async {
        // One that has been served is told to go at once.
        let _ = its_connection.await.unwrap();
        let (mut client, mut connection) = h2::client::handshake(stream).await.unwrap();
        let mut pings = connection.ping_pong().unwrap();
        tokio::spawn(connection);
        // What the proxy has to say before the first request has been heard with its pong.
        pings.ping(Ping::opaque()).await.unwrap();
        is_served(&mut client).await;
    };
    tokio::select! {
        () = world.proxy.drain(Duration::from_secs(60)) => panic!("the drain ended first"),
        () = comes => {}
    }
}

#[tokio::test]
async fn a_client_that_asks_nothing_once_draining_has_begun_is_told_to_go() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.drain_grace = Duration::from_millis(50);
    })
    .await;
    let mut stream = silent(&world).await;
    assert!(frame(&mut stream).await.is_some(), "its settings");
    let told = async {
        while let Some((kind, ..)) = frame(&mut stream).await {
            if kind == GOAWAY {
                return true;
            }
        }
        false
    };
    tokio::select! {
        () = world.proxy.drain(Duration::from_secs(60)) => panic!("the drain ended first"),
        told = told => assert!(told),
    }
}

/// Reads to the connection's end, and says how often each type of frame came.
async fn to_its_end(stream: &mut TcpStream) -> [usize; 10] {
    let mut seen = [0; 10];
    let read = async {
        while let Some((kind, ..)) = frame(stream).await {
            seen[usize::from(kind)] += 1;
        }
    };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, read).await.expect("an end");
    seen
}

#[tokio::test]
async fn a_client_that_confirms_no_goaway_is_left_all_the_same() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.connections.requests = 1;
        l.time.drain_grace = Duration::from_millis(50);
    })
    .await;
    let mut stream = silent(&world).await;
    ask(&mut stream, 1).await;
    let seen = to_its_end(&mut stream).await;
    assert_eq!(seen[usize::from(GOAWAY)], 2, "{seen:?}");
    assert_eq!(world.proxy.stats().requests_http2, 1);
}

#[tokio::test]
async fn a_drain_waits_for_no_idle_client_that_confirms_nothing() {
    let backend = Backend::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.drain_grace = Duration::from_millis(50);
    })
    .await;
    let mut stream = silent(&world).await;
    ask(&mut stream, 1).await;
    world
        .until("it is served", |stats| stats.responses_2xx == 1)
        .await;
    tokio::join!(
        world.proxy.drain(Duration::from_secs(60)),
        to_its_end(&mut stream)
    );
    assert_eq!(world.proxy.stats().connections_open, 0);
}

#[tokio::test]
async fn streams_after_the_grace_of_a_goaway_are_refused_and_those_before_it_served() {
    let (open, gate) = tokio::sync::watch::channel(false);
    let backend = Backend::start(move |mut conn| {
        let mut gate = gate.clone();
        async move {
            while conn.head().await.is_some() {
                gate.wait_for(|open| *open).await.unwrap();
                conn.write("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.connections.requests = 1;
        l.time.drain_grace = Duration::from_millis(100);
    })
    .await;
    let mut stream = silent(&world).await;
    ask(&mut stream, 1).await;
    while let Some((kind, ..)) = frame(&mut stream).await {
        if kind == GOAWAY {
            break;
        }
    }
    let mut id = 1;
    let refused = async {
        loop {
            id += 2;
            ask(&mut stream, id).await;
            let soon = tokio::time::timeout(Duration::from_millis(100), frame(&mut stream));
            match soon.await {
                Ok(Some((RST_STREAM, _, reason))) => break reason,
                Ok(None) => panic!("the connection has ended"),
                _ => {}
            }
        }
    };
    let refused = tokio::time::timeout(Duration::from_secs(20), refused).await;
    assert_eq!(refused.expect("a refusal"), [0, 0, 0, 7], "REFUSED_STREAM");
    assert!(id < 100, "no other limit has refused {id}");
    open.send(true).unwrap();
    let seen = to_its_end(&mut stream).await;
    let taken = world.proxy.stats().requests_http2;
    assert_eq!(seen[1] as u64, taken, "{seen:?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_after_its_handshake_is_closed() {
    let authority = Authority::new();
    let certificate = authority.issue(&["shop.example"]);
    let config = Config::default().https("https", None, &certificate);
    let world = World::with(config, |l| {
        l.time.first_byte = Duration::from_millis(100);
    })
    .await;
    let (tls, name) = (authority.client(&["h2"]), "shop.example");
    let mut stream = tls_connect(&tls, world.address, name).await.unwrap();
    let ended = async { while stream.read_u8().await.is_ok() {} };
    let patience = Duration::from_secs(20);
    tokio::time::timeout(patience, ended).await.expect("an end");
}
