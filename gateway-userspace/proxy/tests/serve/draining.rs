//! The end of service without a lost request.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{Backend, Client, Config, World};
use crate::upgrades;

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const LONG: Duration = Duration::from_secs(60);

/// A backend that answers when it is told to.
async fn gated() -> (Backend, Arc<Notify>) {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let backend = Backend::start(move |mut conn| {
        let gate = Arc::clone(&opened);
        async move {
            while conn.head().await.is_some() {
                gate.notified().await;
                conn.write(HELLO).await;
            }
        }
    })
    .await;
    (backend, gate)
}

#[tokio::test]
async fn a_request_under_way_is_answered_and_its_connection_told_to_end() {
    let (backend, gate) = gated().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    world
        .until("it is under way", |stats| stats.requests_active == 1)
        .await;
    let answered = async {
        tokio::task::yield_now().await;
        gate.notify_one();
        let response = client.response().await;
        assert!(
            response.head.contains("Connection: close"),
            "{}",
            response.head
        );
        assert_eq!(response.body, "hello");
        client.ends().await;
    };
    tokio::join!(world.proxy.drain(LONG), answered);
}

#[tokio::test]
async fn an_idle_connection_is_given_a_grace_and_then_closed() {
    let backend = Backend::answering(HELLO).await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.drain_grace = Duration::from_millis(500);
    })
    .await;
    let (mut used, mut unused) = (world.client().await, world.client().await);
    used.get("a", "/").await;
    unused.get("a", "/").await;
    let clients = async {
        let response = used.get("a", "/").await;
        assert_eq!(
            response.body, "hello",
            "a request within the grace is served"
        );
        assert!(
            response.head.contains("Connection: close"),
            "{}",
            response.head
        );
        unused.ends().await;
    };
    tokio::join!(world.proxy.drain(LONG), clients);
    assert_eq!(world.proxy.stats().connections_open, 0);
}

#[tokio::test]
async fn connections_in_the_queue_are_still_taken() {
    let backend = Backend::answering(HELLO).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut queued = Vec::new();
    for _ in 0..50 {
        let mut client = Client::connect(world.address).await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        queued.push(client);
    }
    let clients = async {
        for client in &mut queued {
            assert_eq!(client.response().await.body, "hello");
        }
    };
    tokio::join!(world.proxy.drain(LONG), clients);
    assert!(
        TcpStream::connect(world.address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn an_upgraded_connection_lives_until_the_deadline() {
    let backend = upgrades::echo().await;
    let world = World::with(Config::to(&[backend.address]), |l| {
        l.time.drain_grace = Duration::from_millis(50);
    })
    .await;
    let mut client = world.client().await;
    client.send(upgrades::HANDSHAKE).await;
    client.head().await;
    let session = async {
        for i in 0..5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            client.send(format!("{i}\n")).await;
            assert_eq!(client.until(b"\n").await, format!("{i}\n").as_bytes());
        }
        client.ends().await;
    };
    tokio::join!(world.proxy.drain(Duration::from_secs(2)), session);
}

#[tokio::test]
async fn an_upgraded_connection_that_ends_by_itself_ends_the_drain() {
    let backend = upgrades::echo().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send(upgrades::HANDSHAKE).await;
    client.head().await;
    let session = async {
        client.send("bye\n").await;
        client.until(b"\n").await;
        drop(client);
    };
    tokio::join!(world.proxy.drain(LONG), session);
}
