//! Heads that are refused, as they are counted: by class of the status that was sent, and by reason.

use gateway_proxy::Stats;
use gateway_proxy::head::Violation;
use http::Request;

use crate::support::{Config, World, empty, get};

/// The reasons with a count.
fn reasons(stats: &Stats) -> Vec<(&'static str, u64)> {
    let counts = Violation::ALL
        .iter()
        .map(|&violation| (violation.name(), stats.refusals[violation]));
    counts.filter(|&(_, count)| count > 0).collect()
}

async fn world() -> World {
    World::new(Config::default().http("http", None)).await
}

#[tokio::test]
async fn http1_counts_class_and_reason() {
    let world = world().await;
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "PUT / HTTP/1.1\r\n\r\n",
        "GET / HTTP/3.0\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
    ] {
        let mut client = world.client().await;
        client.send(request).await;
        client.response().await;
    }
    world
        .until("all are counted", |stats| stats.requests_refused >= 4)
        .await;
    let stats = world.proxy.stats();
    assert_eq!((stats.responses_4xx, stats.responses_5xx), (3, 1));
    assert_eq!(stats.requests_refused, 4);
    let expected = [
        ("version-unsupported", 1),
        ("host-missing", 2),
        ("length-and-coding", 1),
    ];
    assert_eq!(reasons(&stats), expected);
}

#[tokio::test]
async fn http2_counts_class_and_reason() {
    let world = world().await;
    let mut client = world.http2().await;
    let long = Request::builder().method(&*"X".repeat(33));
    let long = long.uri("http://shop.example/").body(empty()).unwrap();
    let many = (0..101).fold(get("/"), |mut request, i| {
        let name = http::HeaderName::try_from(format!("x-{i}")).unwrap();
        request
            .headers_mut()
            .insert(name, http::HeaderValue::from_static("y"));
        request
    });
    for (request, status) in [
        (get("/%zz"), 400),
        (get("/%00"), 400),
        (many, 431),
        (long, 501),
        (get("/"), 404),
    ] {
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.status(), status);
    }
    let stats = world.proxy.stats();
    assert_eq!((stats.responses_4xx, stats.responses_5xx), (4, 1));
    assert_eq!(
        stats.requests_refused, 4,
        "what no route takes is not refused"
    );
    let expected = [
        ("method-unknown", 1),
        ("path-escape", 2),
        ("too-many-headers", 1),
    ];
    assert_eq!(reasons(&stats), expected);
}
