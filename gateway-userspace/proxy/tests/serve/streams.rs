//! Bytes that Sluice does not read: TCP listeners, TLS passed through, TLS terminated to TCP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_model::ir::{Authorities, ListenerProtocol, SourcePolicy, UpstreamTls};
use gateway_proxy::{AccessLogFormat, AccessLogOutput, Settings};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{Authority, Backend, Client, Config, RouteSpec, World, tls_connect};

/// One TCP listener with a route to these endpoints.
fn tcp(endpoints: &[SocketAddr]) -> Config {
    let mut config = Config::default().streams("tcp", None, ListenerProtocol::Tcp);
    let action = config.upstream("app", endpoints);
    config.route(RouteSpec::new("tcp", "", action))
}

/// Greets, then sends every line back with its name in front.
async fn echo(name: &'static str) -> Backend {
    Backend::start(move |mut conn| async move {
        conn.write(&format!("{name}\n")).await;
        while let Some(line) = conn.until(b"\n").await {
            conn.write(&format!("{name}: {line}")).await;
        }
        conn.write("bye\n").await;
    })
    .await
}

/// An address that refuses connections.
async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// Asserts that a connection is refused by a reset, which may come before it is looked at.
async fn is_refused(address: SocketAddr) {
    match TcpStream::connect(address).await {
        Ok(mut stream) => is_reset(&mut stream).await,
        Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
    }
}

/// Asserts that a connection is reset, not ended in order.
async fn is_reset(stream: &mut TcpStream) {
    let error = stream.read(&mut [0; 64]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

mod over_tcp {
    use super::*;

    #[tokio::test]
    async fn bytes_pass_both_ways_whoever_speaks_first_and_ends_are_passed_on_one_by_one() {
        let backend = echo("a").await;
        let world = World::new(tcp(&[backend.address])).await;
        let mut client = world.client().await;
        assert_eq!(client.until(b"\n").await, b"a\n");
        client.send("one\ntwo\n").await;
        assert_eq!(client.until(b"two\n").await, b"a: one\na: two\n");
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, b"bye\n", "the backend still speaks");
        world
            .until("it is counted", |s| s.streams == 1 && s.streams_open == 0)
            .await;
        assert_eq!(world.proxy.stats().streams_broken, 0);
    }

    #[tokio::test]
    async fn a_backend_that_ends_first_is_still_heard_by() {
        let backend = Backend::start(|mut conn| async move {
            conn.stream.shutdown().await.unwrap();
            assert_eq!(conn.until(b"\n").await.unwrap(), "late\n");
        })
        .await;
        let world = World::new(tcp(&[backend.address])).await;
        let mut client = world.client().await;
        assert_eq!(client.stream.read(&mut [0]).await.unwrap(), 0);
        client.send("late\n").await;
        client.stream.shutdown().await.unwrap();
        world
            .until("both have ended", |s| s.streams_open == 0 && s.streams == 1)
            .await;
        assert_eq!(world.proxy.stats().streams_broken, 0);
    }

    #[tokio::test]
    async fn much_passes_unchanged_to_a_slow_reader_without_being_held() {
        const TOTAL: usize = 64 << 20;
        let backend = Backend::start(|mut conn| async move {
            let block: Vec<u8> = (0..=255).cycle().take(1 << 16).collect();
            for _ in 0..TOTAL / block.len() {
                conn.stream.write_all(&block).await.unwrap();
            }
        })
        .await;
        let world = World::new(tcp(&[backend.address])).await;
        let mut client = world.client().await;
        let mut block = vec![0; 1 << 16];
        let mut seen = 0_usize;
        loop {
            let n = client.stream.read(&mut block).await.unwrap();
            let right = |(i, b): (usize, &u8)| *b == ((seen + i) & 255) as u8;
            assert!(block[..n].iter().enumerate().all(right), "after {seen}");
            seen += n;
            if n == 0 {
                break;
            }
            if seen.is_multiple_of(64) {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
        }
        assert_eq!(seen, TOTAL);
    }

    #[tokio::test]
    async fn an_endpoint_that_refuses_is_passed_over_and_nothing_is_lost() {
        let (dead, backend) = (nobody().await, echo("a").await);
        let world = World::new(tcp(&[dead, backend.address])).await;
        for _ in 0..50 {
            let mut client = world.client().await;
            assert_eq!(client.until(b"\n").await, b"a\n");
        }
        assert!(world.proxy.stats().upstream_connect_failures > 0);
    }

    #[tokio::test]
    async fn an_endpoint_that_says_nothing_is_given_up_in_time() {
        // A full queue: the kernel drops what does not fit, and a connection is never made.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
            .unwrap();
        socket.listen(0).unwrap();
        let full = socket.local_addr().unwrap().as_socket().unwrap();
        let _first = TcpStream::connect(full).await.unwrap();
        let backend = echo("a").await;
        let world = World::with(tcp(&[full, backend.address]), |l| {
            l.upstream.connect = Duration::from_millis(200);
        })
        .await;
        for _ in 0..4 {
            let mut client = world.client().await;
            assert_eq!(client.until(b"\n").await, b"a\n");
        }
        assert!(world.proxy.stats().upstream_connect_failures > 0);
    }

    #[tokio::test]
    async fn without_an_endpoint_or_a_route_the_connection_is_reset() {
        let dead = nobody().await;
        let unrouted = Config::default().streams("tcp", None, ListenerProtocol::Tcp);
        for config in [tcp(&[]), tcp(&[dead]), unrouted] {
            let world = World::new(config).await;
            is_refused(world.address).await;
            assert_eq!(world.proxy.stats().streams_refused, 1);
        }
    }

    #[tokio::test]
    async fn weights_hold_and_the_share_of_what_does_not_resolve_is_reset() {
        let (a, b) = (echo("a").await, echo("b").await);
        let mut config = Config::default().streams("tcp", None, ListenerProtocol::Tcp);
        let action = config.shares(&[
            (7, "a", Some(a.address)),
            (2, "b", Some(b.address)),
            (1, "no such Service", None),
        ]);
        let world = World::new(config.route(RouteSpec::new("tcp", "", action))).await;
        let mut seen = [0; 3];
        for _ in 0..200 {
            let mut line = [0; 2];
            let read = async {
                let mut stream = TcpStream::connect(world.address).await?;
                stream.read_exact(&mut line).await
            };
            match read.await {
                Ok(_) => seen[usize::from(line[0] - b'a')] += 1,
                Err(_) => seen[2] += 1,
            }
        }
        for (seen, expected) in seen.into_iter().zip([140, 40, 20]) {
            assert!(i32::abs(seen - expected) <= 3, "{seen} of {expected}");
        }
    }

    #[tokio::test]
    async fn a_reset_on_one_side_is_a_reset_on_the_other() {
        let backend = Backend::start(|mut conn| async move {
            let line = conn.until(b"\n").await.unwrap();
            if line == "reset\n" {
                conn.stream.set_zero_linger().unwrap();
                return;
            }
            let error = conn.stream.read(&mut [0; 8]).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        })
        .await;
        let world = World::new(tcp(&[backend.address])).await;
        let mut client = world.client().await;
        client.send("reset\n").await;
        is_reset(&mut client.stream).await;
        let mut client = world.client().await;
        client.send("wait\n").await;
        client.stream.set_zero_linger().unwrap();
        drop(client);
        world
            .until("both are counted", |s| s.streams_broken == 2)
            .await;
    }

    #[tokio::test]
    async fn what_stands_still_is_reset_and_what_moves_is_not() {
        let backend = echo("a").await;
        let world = World::with(tcp(&[backend.address]), |l| {
            l.stream.idle = Duration::from_millis(300);
        })
        .await;
        let mut client = world.client().await;
        client.until(b"\n").await;
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.send("x\n").await;
            client.until(b"a: x\n").await;
        }
        is_reset(&mut client.stream).await;
        assert_eq!(world.proxy.stats().streams_idle, 1);
    }

    #[tokio::test]
    async fn a_denied_source_reaches_nobody() {
        let backend = echo("a").await;
        let mut config = Config::default()
            .streams("tcp", None, ListenerProtocol::Tcp)
            .permitting(SourcePolicy {
                allow: Vec::new(),
                deny: vec!["127.0.0.0/8".parse().unwrap()],
            });
        let action = config.upstream("app", &[backend.address]);
        let world = World::new(config.route(RouteSpec::new("tcp", "", action))).await;
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        let read = stream.read(&mut [0; 8]).await;
        assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        assert_eq!(backend.connections(), 0);
        assert_eq!(world.proxy.stats().connections_denied, 1);
    }

    #[tokio::test]
    async fn a_stream_survives_a_revision_that_moves_its_route() {
        let (a, b) = (echo("a").await, echo("b").await);
        let world = World::new(tcp(&[a.address])).await;
        let mut old = world.client().await;
        old.until(b"a\n").await;
        world.apply(tcp(&[b.address])).await;
        let mut new = world.client().await;
        new.until(b"b\n").await;
        old.send("still\n").await;
        assert_eq!(old.until(b"\n").await, b"a: still\n");
    }

    #[tokio::test]
    async fn draining_lets_a_stream_go_on_until_the_deadline() {
        let backend = echo("a").await;
        let world = World::with(tcp(&[backend.address]), |l| {
            l.time.drain_grace = Duration::from_millis(50);
        })
        .await;
        let (mut short, mut long) = (world.client().await, world.client().await);
        short.until(b"\n").await;
        long.until(b"\n").await;
        let clients = async {
            for i in 0..5 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                short.send(format!("{i}\n")).await;
                short.until(format!("a: {i}\n").as_bytes()).await;
            }
            drop(short);
            assert_eq!(long.rest().await, b"", "cut at the deadline");
        };
        tokio::join!(world.proxy.drain(Duration::from_secs(2)), clients);
    }
}

mod through_tls {
    use super::*;

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
}
