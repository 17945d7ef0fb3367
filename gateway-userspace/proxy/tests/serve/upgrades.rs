//! WebSocket: a tunnel if and only if the backend agrees.

use crate::support::{Backend, Config, World};

pub const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Agrees, then sends back what it gets; ends with the client.
pub async fn echo() -> Backend {
    Backend::start(|mut conn| async move {
        let head = conn.head().await.unwrap().to_ascii_lowercase();
        assert!(head.contains("upgrade: websocket\r\n"), "{head}");
        conn.write(AGREED).await;
        while let Some(line) = conn.until(b"\n").await {
            conn.write(&line).await;
        }
    })
    .await
}

#[tokio::test]
async fn bytes_pass_both_ways_once_the_backend_has_agreed() {
    let backend = echo().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send(HANDSHAKE).await;
    let head = client.head().await;
    assert!(
        head.starts_with("HTTP/1.1 101 ") && head.contains("Upgrade: websocket"),
        "{head}"
    );
    for i in 0..20 {
        client.send(format!("message {i}\n")).await;
        assert_eq!(
            client.until(b"\n").await,
            format!("message {i}\n").as_bytes()
        );
    }
    world
        .until("the tunnel is counted", |stats| stats.tunnels_open == 1)
        .await;
    drop(client);
    world
        .until("the tunnel is gone", |stats| stats.tunnels_open == 0)
        .await;
}

#[tokio::test]
async fn what_a_client_sends_early_waits_for_the_agreement() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        let early = tokio::time::timeout(std::time::Duration::from_millis(100), conn.exactly(1));
        assert!(early.await.is_err(), "the tunnel does not exist yet");
        conn.write(AGREED).await;
        assert_eq!(conn.exactly(5).await, b"early");
        conn.write("seen").await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send(format!("{HANDSHAKE}early")).await;
    client.head().await;
    assert_eq!(client.exactly(4).await, b"seen");
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let backend = Backend::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        client.send(HANDSHAKE).await;
        assert_eq!(client.response().await.status, 403);
    }
}

#[tokio::test]
async fn an_end_on_one_side_lets_the_other_finish() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write(AGREED).await;
        assert!(conn.ended().await);
        conn.write("last words").await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send(HANDSHAKE).await;
    client.head().await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream)
        .await
        .unwrap();
    assert_eq!(client.rest().await, b"last words");
}
