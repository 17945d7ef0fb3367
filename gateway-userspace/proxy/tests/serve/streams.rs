//! Bytes that Sluice does not read: TCP listeners, TLS passed through, TLS terminated to TCP.

mod through_tls;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use gateway_model::ir::{ListenerProtocol, SourcePolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Backend, Config, Refusing, RouteSpec, World};

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
        let (dead, backend) = (Refusing::new(), echo("a").await);
        let world = World::new(tcp(&[dead.address, backend.address])).await;
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
        let dead = Refusing::new();
        let unrouted = Config::default().streams("tcp", None, ListenerProtocol::Tcp);
        for config in [tcp(&[]), tcp(&[dead.address]), unrouted] {
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
