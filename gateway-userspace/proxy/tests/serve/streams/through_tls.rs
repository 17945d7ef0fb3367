//! TLS that is passed through, or terminated, on its way to a backend.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_model::ir::{Authorities, ListenerProtocol, SourcePolicy, UpstreamTls};
use gateway_proxy::{AccessLogFormat, AccessLogOutput, Settings};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::echo;
use crate::support::{Authority, Backend, Client, Config, RouteSpec, World, tls_connect};

/// A stream that takes seven bytes at a time.
struct Crumbs(TcpStream);

impl AsyncRead for Crumbs {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Crumbs {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let crumb = &buf[..buf.len().min(7)];
        Pin::new(&mut self.0).poll_write(cx, crumb)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A TLS backend that says its name and the name it was asked for, then sends back what it gets.
async fn secure(authority: &Authority, name: &'static str) -> Backend {
    let acceptor = TlsAcceptor::from(authority.server(&["a.example", "a.b.example"]));
    Backend::start(move |conn| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(conn.stream).await else {
                return;
            };
            let sni = stream
                .get_ref()
                .1
                .server_name()
                .unwrap_or("nobody")
                .to_owned();
            let hello = format!("{name} for {sni}\n");
            stream.write_all(hello.as_bytes()).await.unwrap();
            let mut block = vec![0; 4096];
            while let Ok(n @ 1..) = stream.read(&mut block).await {
                stream.write_all(&block[..n]).await.unwrap();
            }
            let _ = stream.shutdown().await;
        }
    })
    .await
}

/// A listener on `*.example` whose routes go by name.
fn passthrough(a: SocketAddr, b: SocketAddr) -> Config {
    let mut config =
        Config::default().streams("tls", Some("*.example"), ListenerProtocol::TlsPassthrough);
    let (to_a, to_b) = (config.upstream("a", &[a]), config.upstream("b", &[b]));
    config
        .route(RouteSpec {
            hostnames: &["a.example"],
            ..RouteSpec::new("tls", "", to_a)
        })
        .route(RouteSpec {
            hostnames: &["*.b.example"],
            ..RouteSpec::new("tls", "", to_b)
        })
}

#[tokio::test]
async fn the_server_name_chooses_the_backend_and_tls_is_the_backends_own() {
    let authority = Authority::new();
    let (a, b) = (secure(&authority, "A").await, secure(&authority, "B").await);
    let world = World::new(passthrough(a.address, b.address)).await;
    for (name, answer) in [
        ("a.example", "A for a.example\n"),
        ("a.b.example", "B for a.b.example\n"),
    ] {
        let config = authority.client(&["anything"]);
        let stream = tls_connect(&config, world.address, name).await.unwrap();
        let mut client = Client::over(stream);
        assert_eq!(client.until(b"\n").await, answer.as_bytes());
        client.send("ping").await;
        assert_eq!(client.exactly(4).await, b"ping");
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"");
    }
    let stats = world.proxy.stats();
    assert_eq!((stats.streams, stats.tls_handshakes), (2, 0));
}

#[tokio::test]
async fn what_passes_through_is_not_wrapped_again_where_a_policy_says_tls() {
    let authority = Authority::new();
    let backend = secure(&authority, "A").await;
    let mut config = passthrough(backend.address, backend.address);
    config.secure(
        "a",
        UpstreamTls {
            server_name: "a.example".into(),
            subject_alt_names: Vec::new(),
            authorities: Authorities::These(vec![authority.der()]),
        },
    );
    let world = World::new(config).await;
    let client = authority.client(&[]);
    let stream = tls_connect(&client, world.address, "a.example").await;
    let mut client = Client::over(stream.unwrap());
    assert_eq!(client.until(b"\n").await, b"A for a.example\n");
}

#[tokio::test]
async fn a_name_without_a_route_or_a_listener_is_closed_and_reaches_no_backend() {
    let authority = Authority::new();
    let backend = secure(&authority, "A").await;
    let world = World::new(passthrough(backend.address, backend.address)).await;
    for name in ["c.example", "b.example", "elsewhere.test"] {
        let config = authority.client(&[]);
        let error = tls_connect(&config, world.address, name).await.unwrap_err();
        assert!(error.to_string().contains("eof"), "{name}: {error}");
    }
    let nameless = authority.nameless_client();
    let refused = tls_connect(&nameless, world.address, "a.example").await;
    let error = refused.unwrap_err();
    assert!(error.to_string().contains("eof"), "{error}");
    assert_eq!(backend.connections(), 0);
}

#[tokio::test]
async fn a_hello_in_crumbs_arrives_whole_at_the_backend() {
    let authority = Authority::new();
    let backend = secure(&authority, "A").await;
    let world = World::new(passthrough(backend.address, backend.address)).await;
    let config = authority.client_in_records_of(64);
    let stream = TcpStream::connect(world.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = "a.example".try_into().unwrap();
    let crumbs = Crumbs(stream);
    let stream = TlsConnector::from(config).connect(name, crumbs).await;
    let mut client = Client::over(stream.unwrap());
    assert_eq!(client.until(b"\n").await, b"A for a.example\n");
}

#[tokio::test]
async fn what_is_no_hello_is_closed_and_reaches_nobody() {
    let authority = Authority::new();
    let backend = secure(&authority, "A").await;
    let world = World::with(passthrough(backend.address, backend.address), |l| {
        l.tls.handshake = Duration::from_millis(300);
    })
    .await;
    let endless = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc][..], &[0; 20_000]].concat();
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x16\x03\x01",
        b"\x16\x03\x01\0\0",
        &endless,
        b"",
    ] {
        let mut client = world.client().await;
        client.send(bytes).await;
        let mut block = vec![0; 64];
        let read = client.stream.read(&mut block).await;
        assert!(matches!(read, Ok(0..=7) | Err(_)), "{bytes:?}: {read:?}");
    }
    assert_eq!(backend.connections(), 0);
    world
        .until("all failed", |s| s.tls_handshake_failures == 5)
        .await;
}

#[tokio::test]
async fn passing_through_and_terminating_share_a_port() {
    let authority = Authority::new();
    let (secure, plain) = (secure(&authority, "A").await, echo("plain").await);
    let web = Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nweb").await;
    let certificate = authority.issue(&["t.example", "w.example"]);
    let mut config = Config::default()
        .streams("pass", Some("a.example"), ListenerProtocol::TlsPassthrough)
        .terminating("end", Some("t.example"), &certificate)
        .https("web", Some("w.example"), &certificate);
    let to_secure = config.upstream("secure", &[secure.address]);
    let to_plain = config.upstream("plain", &[plain.address]);
    let to_web = config.upstream("web", &[web.address]);
    let config = config
        .route(RouteSpec::new("pass", "", to_secure))
        .route(RouteSpec::new("end", "", to_plain))
        .route(RouteSpec::new("web", "", to_web));
    let world = World::new(config).await;
    let connect = async |name| {
        let config = authority.client(&["http/1.1"]);
        Client::over(tls_connect(&config, world.address, name).await.unwrap())
    };
    assert_eq!(
        connect("a.example").await.until(b"\n").await,
        b"A for a.example\n"
    );
    let mut terminated = connect("t.example").await;
    assert_eq!(terminated.until(b"\n").await, b"plain\n");
    terminated.send("hi\n").await;
    assert_eq!(terminated.until(b"\n").await, b"plain: hi\n");
    terminated.stream.shutdown().await.unwrap();
    assert_eq!(terminated.rest().await, b"bye\n", "TLS is half closed too");
    let mut web = connect("w.example").await;
    assert_eq!(web.get("w.example", "/").await.body, "web");
    assert_eq!(web.get("t.example", "/").await.status, 421);
}

#[tokio::test]
async fn a_client_that_speaks_one_protocol_is_told_so_and_one_of_several_gets_none() {
    let authority = Authority::new();
    let plain = echo("plain").await;
    let certificate = authority.issue(&["t.example"]);
    let mut config = Config::default().terminating("end", None, &certificate);
    let action = config.upstream("plain", &[plain.address]);
    let world = World::new(config.route(RouteSpec::new("end", "", action))).await;
    for (offered, agreed) in [
        (&["postgresql"][..], Some(&b"postgresql"[..])),
        (&["h2", "http/1.1"], None),
        (&[], None),
    ] {
        let config = authority.client(offered);
        let stream = tls_connect(&config, world.address, "t.example")
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), agreed);
        let mut client = Client::over(stream);
        assert_eq!(client.until(b"\n").await, b"plain\n");
    }
}

/// TLS that ends here and begins anew towards a backend, whose certificate has this name.
fn both_ends(authority: &Authority, backend: SocketAddr) -> Config {
    let certificate = authority.issue(&["t.example"]);
    let mut config = Config::default().terminating("end", None, &certificate);
    let action = config.upstream("app", &[backend]);
    config.secure(
        "app",
        UpstreamTls {
            server_name: "a.example".into(),
            subject_alt_names: Vec::new(),
            authorities: Authorities::These(vec![authority.der()]),
        },
    );
    config.route(RouteSpec::new("end", "", action))
}

/// What comes until a peer ends, and whether its end was whole.
async fn to_the_end(stream: &mut (impl AsyncRead + Unpin)) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    let end = stream.read_to_end(&mut all).await;
    if let Err(error) = &end {
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{error}");
    }
    (all, end.is_ok())
}

#[tokio::test]
async fn a_client_is_not_told_that_a_truncated_answer_is_whole() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(authority.server(&["a.example"]));
    let answer = vec![b'x'; 1_000_000];
    let sent = answer.clone();
    let backend = Backend::start(move |conn| {
        let (acceptor, sent) = (acceptor.clone(), sent.clone());
        async move {
            let mut stream = acceptor.accept(conn.stream).await.unwrap();
            let is_whole = stream.read_u8().await.unwrap() == b'w';
            stream.write_all(&sent).await.unwrap();
            stream.flush().await.unwrap();
            match is_whole {
                true => stream.shutdown().await.unwrap(),
                false => stream.get_mut().0.shutdown().await.unwrap(),
            }
            while let Ok(1..) = stream.read(&mut [0; 64]).await {}
        }
    })
    .await;
    let world = World::new(both_ends(&authority, backend.address)).await;
    let config = authority.client(&[]);
    for (asked, is_whole) in [(b"w", true), (b"c", false)] {
        let mut stream = tls_connect(&config, world.address, "t.example")
            .await
            .unwrap();
        stream.write_all(asked).await.unwrap();
        let (came, was_whole) = to_the_end(&mut stream).await;
        assert!(came == answer, "{} bytes", came.len());
        assert_eq!(was_whole, is_whole);
    }
}

#[tokio::test]
async fn a_backend_is_not_told_that_a_truncated_request_is_whole() {
    let authority = Authority::new();
    let acceptor = TlsAcceptor::from(authority.server(&["a.example"]));
    let (ended, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let backend = Backend::start(move |conn| {
        let (acceptor, ended) = (acceptor.clone(), ended.clone());
        async move {
            let mut stream = acceptor.accept(conn.stream).await.unwrap();
            ended.send(to_the_end(&mut stream).await).unwrap();
        }
    })
    .await;
    let world = World::new(both_ends(&authority, backend.address)).await;
    let config = authority.client(&[]);
    for is_whole in [true, false] {
        let mut stream = tls_connect(&config, world.address, "t.example")
            .await
            .unwrap();
        stream.write_all(b"request").await.unwrap();
        stream.flush().await.unwrap();
        match is_whole {
            true => stream.shutdown().await.unwrap(),
            false => stream.get_mut().0.shutdown().await.unwrap(),
        }
        let end = ends.recv().await.unwrap();
        assert_eq!(end, (b"request".to_vec(), is_whole));
    }
}

#[tokio::test]
async fn a_denied_source_is_not_passed_through() {
    let authority = Authority::new();
    let backend = secure(&authority, "A").await;
    let mut config = Config::default()
        .streams("tls", Some("a.example"), ListenerProtocol::TlsPassthrough)
        .permitting(SourcePolicy {
            allow: vec!["192.0.2.0/24".parse().unwrap()],
            deny: Vec::new(),
        })
        .streams("open", Some("b.example"), ListenerProtocol::TlsPassthrough);
    let action = config.upstream("app", &[backend.address]);
    let world = World::new(config.route(RouteSpec::new("tls", "", action))).await;
    let config = authority.client(&[]);
    assert!(
        tls_connect(&config, world.address, "a.example")
            .await
            .is_err()
    );
    assert_eq!(backend.connections(), 0);
    assert_eq!(world.proxy.stats().connections_denied, 1);
}

#[tokio::test]
async fn a_log_line_tells_of_a_stream_and_of_one_refused() {
    let authority = Authority::new();
    let backend = secure(&authority, "A").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let settings = Settings {
        workers: 1.try_into().unwrap(),
        access_log: AccessLogFormat::Json,
        access_log_output: AccessLogOutput::File(path.clone()),
        ..Settings::default()
    };
    let world = World::start(passthrough(backend.address, backend.address), settings).await;
    let config = authority.client(&[]);
    let mut client = Client::over(
        tls_connect(&config, world.address, "a.example")
            .await
            .unwrap(),
    );
    client.until(b"\n").await;
    client.stream.shutdown().await.unwrap();
    client.rest().await;
    assert!(
        tls_connect(&config, world.address, "c.example")
            .await
            .is_err()
    );
    world.until("it has ended", |s| s.streams_open == 0).await;
    world.proxy.drain(Duration::from_secs(30)).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{text}");
    for (name, value) in [
        ("protocol", "TLS"),
        ("gateway", "test/gateway"),
        ("listener", "tls"),
        ("route", "test/route-1"),
        ("backend", "test/a:80"),
        ("sni", "a.example"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(lines[0][name], value, "{text}");
    }
    assert_eq!(lines[0]["endpoint"], backend.address.to_string());
    assert!(lines[0]["bytes_received"].as_u64().unwrap() > 200, "{text}");
    assert_eq!(lines[0]["revision"], 1);
    assert_eq!(
        (&lines[1]["flags"], &lines[1]["sni"]),
        (&"NR".into(), &"c.example".into())
    );
}
