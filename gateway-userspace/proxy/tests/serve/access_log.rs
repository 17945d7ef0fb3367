//! Access log lines as they arrive in a file.

use gateway_proxy::{AccessLogFormat, AccessLogOutput, Settings};
use http::Request;
use http_body_util::BodyExt;

use crate::support::{Backend, Config, World, empty};

const SHORT: std::time::Duration = std::time::Duration::from_millis(150);
const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// What is logged of what is asked.
async fn logged(
    name: &str,
    format: AccessLogFormat,
    ask: impl AsyncFnOnce(&World),
    change: impl FnOnce(&mut Settings),
) -> Vec<String> {
    let backend = Backend::answering(HELLO).await;
    let directory = std::env::temp_dir().join(format!("sluice-log-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("access.log");
    let mut settings = Settings {
        workers: 1.try_into().unwrap(),
        access_log: format,
        access_log_output: AccessLogOutput::File(path.clone()),
        ..Settings::default()
    };
    change(&mut settings);
    let world = World::start(Config::to(&[backend.address]), settings).await;
    ask(&world).await;
    world.proxy.drain(std::time::Duration::from_secs(30)).await;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    text.lines().map(str::to_owned).collect()
}

async fn lines(format: AccessLogFormat) -> Vec<String> {
    let ask = async |world: &World| {
        let mut client = world.client().await;
        client.get("shop.example", "/a?b").await;
        client
            .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nUser-Agent: x\"\ty\r\n\r\n")
            .await;
        client.response().await;
        client.ends().await;
    };
    logged(&format!("{format:?}"), format, ask, |_| {}).await
}

#[tokio::test]
async fn json_names_everything_between_client_and_endpoint() {
    let lines = lines(AccessLogFormat::Json).await;
    assert_eq!(lines.len(), 2);
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    for (name, value) in [
        ("gateway", "test/gateway"),
        ("listener", "http"),
        ("route", "test/route-1"),
        ("backend", "test/app:80"),
        ("method", "GET"),
        ("host", "shop.example"),
        ("path", "/a"),
        ("query", "b"),
        ("client", "127.0.0.1"),
        ("protocol", "HTTP/1.1"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    assert_eq!(
        (&line["status"], &line["revision"], &line["bytes_sent"]),
        (&200.into(), &1.into(), &5.into())
    );
    assert!(
        line["endpoint"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{line}"
    );
    let line: serde_json::Value = serde_json::from_str(&lines[1]).unwrap();
    assert_eq!(line["user_agent"], "x\"\ty");
}

#[tokio::test]
async fn lines_that_cannot_be_written_are_counted() {
    let backend = Backend::answering(HELLO).await;
    let settings = Settings {
        access_log: AccessLogFormat::Text,
        access_log_output: AccessLogOutput::File("/dev/full".into()),
        ..Settings::default()
    };
    let world = World::start(Config::to(&[backend.address]), settings).await;
    let mut client = world.client().await;
    client.get("shop.example", "/").await;
    client.get("shop.example", "/").await;
    world
        .until("both lines are lost", |s| s.access_log_dropped == 2)
        .await;
}

#[tokio::test]
async fn text_is_one_line_a_request() {
    let lines = lines(AccessLogFormat::Text).await;
    assert_eq!(lines.len(), 2);
    assert!(
        lines[0].contains(" 127.0.0.1 GET shop.example /a?b HTTP/1.1 200 "),
        "{}",
        lines[0]
    );
}

#[tokio::test]
async fn an_answer_to_a_head_request_has_sent_no_body() {
    let ask = async |world: &World| {
        world.apply(Config::to(&[])).await;
        let mut http2 = world.http2().await;
        for method in ["GET", "HEAD"] {
            let mut client = world.client().await;
            let request = format!("{method} / HTTP/1.1\r\nHost: shop.example\r\n");
            client.send(request + "Connection: close\r\n\r\n").await;
            assert!(!client.rest().await.is_empty());
            let request = Request::builder().method(method);
            let request = request.uri("http://shop.example/");
            let response = http2.send_request(request.body(empty()).unwrap()).await;
            assert_eq!(response.unwrap().status(), 503);
        }
    };
    let lines = logged("head", AccessLogFormat::Json, ask, |_| {}).await;
    let sent = lines.iter().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let method = line["method"].as_str().unwrap().to_owned();
        (method, line["bytes_sent"].as_u64().unwrap() > 0)
    });
    let expected = [
        ("GET", true),
        ("GET", true),
        ("HEAD", false),
        ("HEAD", false),
    ];
    let expected = expected.map(|(method, body)| (method.to_owned(), body));
    let mut sent: Vec<_> = sent.collect();
    sent.sort();
    assert_eq!(sent, expected);
}

#[tokio::test]
async fn a_head_that_is_refused_is_logged_too() {
    const LATE: &str = "GET /late HTTP/1.1\r\nHost";
    let requests = [
        ("GET /%zz?a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (LATE, 408),
        ("PUT / HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", 417),
        ("TRACE /x HTTP/1.1\r\nHost: a\r\n\r\n", 405),
        ("\x16\x03\x01 tls\r\n", 400),
    ];
    let ask = async |world: &World| {
        for (request, status) in requests {
            let mut client = world.client().await;
            client.send(request).await;
            assert_eq!(client.response().await.status, status, "{request:?}");
            client.ends().await;
        }
    };
    let format = AccessLogFormat::Json;
    let change = |settings: &mut Settings| settings.limits.time.head = SHORT;
    let lines = logged("refused", format, ask, change).await;
    let expected = [
        ("GET", "/%zz?a", 400, "DPE"),
        ("GET", "/late", 408, "DT"),
        ("PUT", "/", 417, "DPE"),
        ("TRACE", "/x", 405, "DPE"),
        ("", "", 400, "DPE"),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (method, path, status, flags)) in lines.iter().zip(expected) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        assert_eq!(
            (text("method"), text("path")),
            (method.into(), path.into()),
            "{line}"
        );
        assert_eq!(
            (&line["status"], text("flags")),
            (&status.into(), flags.into()),
            "{line}"
        );
        assert_eq!(text("client"), "127.0.0.1");
        assert!(text("error").starts_with("downstream: "), "{line}");
    }
}

#[tokio::test]
async fn an_http2_head_that_is_refused_is_logged_with_the_status_that_is_sent() {
    let long = "X".repeat(33);
    let requests = [
        ("GET", "/é\"%zz?a", "", 400, 16),
        ("HEAD", "/%2f", "", 400, 0),
        ("PUT", "/put", "more", 417, 23),
        (&long, "/long", "", 501, 20),
    ];
    let ask = async |world: &World| {
        let mut client = world.http2().await;
        for (method, path, expect, status, bytes) in requests {
            let request = Request::builder().method(method);
            let mut request = request.uri(format!("http://shop.example{path}"));
            if !expect.is_empty() {
                request = request.header("expect", expect);
            }
            let request = request.body(empty()).unwrap();
            let response = client.send_request(request).await.unwrap();
            assert_eq!(response.status(), status, "{method} {path}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(body.len(), bytes, "{method} {path}");
        }
        let stats = world.proxy.stats();
        assert_eq!((stats.responses_4xx, stats.responses_5xx), (3, 1));
    };
    let lines = logged("refused-http2", AccessLogFormat::Json, ask, |_| {}).await;
    assert_eq!(lines.len(), requests.len(), "{lines:?}");
    for (line, (method, path, _, status, bytes)) in lines.iter().zip(requests) {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for (name, value) in [
            ("method", method),
            ("path", path),
            ("protocol", "HTTP/2"),
            ("flags", "DPE"),
            ("client", "127.0.0.1"),
        ] {
            assert_eq!(line[name], value, "{line}");
        }
        assert_eq!(
            (&line["status"], &line["bytes_sent"]),
            (&status.into(), &bytes.into()),
            "{line}"
        );
        let error = line["error"].as_str().unwrap();
        assert!(error.starts_with("downstream: "), "{line}");
    }
}
