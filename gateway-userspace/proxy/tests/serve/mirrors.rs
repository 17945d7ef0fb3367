//! Copies of requests.

use gateway_model::ir::{Filter, Mirror};

use crate::support::{Backend, Config, RouteSpec, World, upstream_key};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

struct Mirrored {
    world: World,
    seen: tokio::sync::mpsc::UnboundedReceiver<String>,
    _backends: [Backend; 2],
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
    let (sender, seen) = tokio::sync::mpsc::unbounded_channel();
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
        upstream: Some(upstream_key("shadow")),
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
        _backends: [app, shadow],
    }
}

#[tokio::test]
async fn a_copy_has_the_head_and_the_body_and_its_answer_is_thrown_away() {
    let mut mirrored = mirrored().await;
    let mut client = mirrored.world.client().await;
    assert_eq!(client.get("a", "/one").await.body, "hello");
    assert!(
        mirrored
            .seen
            .recv()
            .await
            .unwrap()
            .starts_with("GET /one HTTP/1.1\r\n")
    );
    client
        .send("POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbo")
        .await;
    client.send("dy").await;
    assert_eq!(client.response().await.body, "hello");
    assert!(
        mirrored
            .seen
            .recv()
            .await
            .unwrap()
            .ends_with("\r\n\r\nbody")
    );
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
        .await;
    client.send("2\r\ncd\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.body, "hello");
    assert!(
        mirrored
            .seen
            .recv()
            .await
            .unwrap()
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
