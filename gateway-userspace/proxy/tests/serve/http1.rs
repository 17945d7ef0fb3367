//! HTTP/1.x between a client and a backend: framing, order, streams, what ends a connection.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway_model::ir::{Filter, HeaderEdits, HeaderLine, HeaderName};
use http::Request;
use tokio::io::AsyncWriteExt;

use crate::support::{Backend, Client, Config, RouteSpec, World, empty, eventually};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[tokio::test]
async fn a_request_reaches_the_backend_with_what_the_gateway_adds() {
    let backend = Backend::reflecting().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("GET /a?b=c HTTP/1.1\r\nHost: Shop.Example\r\nX-Real-IP: 6.6.6.6\r\nX-One: 1\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 200);
    let seen = response.body.to_ascii_lowercase();
    assert!(seen.starts_with("get /a?b=c http/1.1\r\n"), "{seen}");
    assert!(seen.contains("x-one: 1\r\n"), "{seen}");
    assert!(seen.contains("x-forwarded-for: 127.0.0.1\r\n"), "{seen}");
    assert!(!seen.contains("6.6.6.6"), "{seen}");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start(|mut conn| async move {
        while let Some(head) = conn.head().await {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let length = path.len();
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}"
            ))
            .await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    let requests: String = (0..50)
        .map(|i| format!("GET /{i} HTTP/1.1\r\nHost: a\r\n\r\n"))
        .collect();
    client.send(requests).await;
    for i in 0..50 {
        assert_eq!(client.response().await.body, format!("/{i}"));
    }
    assert_eq!(
        backend.connections(),
        1,
        "one after the other on one connection"
    );
}

#[tokio::test]
async fn a_request_pipelined_behind_a_body_is_not_part_of_it() {
    let backend = Backend::start(|mut conn| async move {
        while let Some(head) = conn.head().await {
            let body = if head.starts_with("POST") {
                conn.exactly(3).await
            } else {
                b"-".to_vec()
            };
            let body = String::from_utf8(body).unwrap();
            let length = body.len();
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"
            ))
            .await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.response().await.body, "abc");
    assert_eq!(client.response().await.body, "-");
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            .await;
        for word in ["one", "two", "end"] {
            conn.until(word.as_bytes()).await.unwrap();
            conn.write(&format!("3\r\n{word}\r\n")).await;
        }
        conn.until(b"0\r\n\r\n").await.unwrap();
        conn.write("0\r\n\r\n").await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    client.head().await;
    for word in ["one", "two", "end"] {
        client.send(format!("3\r\n{word}\r\n")).await;
        let echoed = client.until(b"\r\n").await;
        assert_eq!(echoed, b"3\r\n");
        assert_eq!(
            client.until(b"\r\n").await,
            format!("{word}\r\n").as_bytes()
        );
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.exactly(5).await, b"0\r\n\r\n");
}

/// More than all socket buffers on the way can hold.
const FLOOD: usize = 128 * 1024 * 1024;

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_backend_back() {
    let written = Arc::new(AtomicUsize::new(0));
    let stalled = Arc::new(AtomicUsize::new(0));
    let (count, stall) = (Arc::clone(&written), Arc::clone(&stalled));
    let backend = Backend::start(move |mut conn| {
        let (count, stall) = (Arc::clone(&count), Arc::clone(&stall));
        async move {
            conn.head().await.unwrap();
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {FLOOD}\r\n\r\n"
            ))
            .await;
            let chunk = vec![b'x'; 64 * 1024];
            while count.load(Ordering::SeqCst) < FLOOD {
                let room = tokio::time::timeout(Duration::from_millis(300), conn.stream.writable());
                if room.await.is_err() {
                    stall.store(count.load(Ordering::SeqCst), Ordering::SeqCst);
                    conn.stream.writable().await.unwrap();
                }
                let left = (FLOOD - count.load(Ordering::SeqCst)).min(chunk.len());
                match conn.stream.try_write(&chunk[..left]) {
                    Ok(n) => drop(count.fetch_add(n, Ordering::SeqCst)),
                    Err(e) => assert_eq!(e.kind(), io::ErrorKind::WouldBlock),
                }
            }
            conn.head().await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    eventually("the backend finds no room", || {
        stalled.load(Ordering::SeqCst) > 0
    })
    .await;
    assert!(stalled.load(Ordering::SeqCst) < FLOOD);
    assert_eq!(client.exactly(FLOOD).await.len(), FLOOD);
    assert_eq!(written.load(Ordering::SeqCst), FLOOD);
}

#[tokio::test]
async fn a_client_that_waits_for_100_gets_it_from_the_gateway() {
    let backend = Backend::start(|mut conn| async move {
        let head = conn.head().await.unwrap();
        assert!(!head.to_ascii_lowercase().contains("expect"), "{head}");
        assert_eq!(conn.exactly(4).await, b"body");
        conn.write(HELLO).await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 100 "));
    client.send("body").await;
    assert_eq!(client.response().await.body, "hello");
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_ends_the_connection() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            .await;
        assert!(conn.ended().await || !conn.is_drained());
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!((response.status, &*response.body), (413, "no"));
    assert!(
        response.head.contains("Connection: close"),
        "{}",
        response.head
    );
    client.ends().await;
}

#[tokio::test]
async fn a_response_before_the_end_of_the_request_outlives_what_is_on_its_way() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            .await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
        .await;
    // Read only once it is written, as by a client that does one after the other.
    client.send(vec![b'x'; 12_000_000]).await;
    let response = client.response().await;
    assert_eq!((response.status, &*response.body), (413, "no"));
    client.ends().await;
}

#[tokio::test]
async fn a_backend_whose_informational_responses_never_end_is_given_up() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        while conn
            .try_write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            .await
        {}
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut passed = 0;
    let last = loop {
        match client.response().await {
            response if response.status == 103 => passed += 1,
            response => break response,
        }
    };
    assert_eq!(last.status, 502);
    assert!((1..100).contains(&passed), "{passed}");
}

#[tokio::test]
async fn informational_responses_pass_on_the_way_to_the_final_one() {
    let answer = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n\
                  HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let backend = Backend::answering(answer).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let hints = client.head().await;
        assert!(
            hints.starts_with("HTTP/1.1 103 ") && hints.contains("Link: </a.css>"),
            "{hints}"
        );
        assert_eq!(client.response().await.body, "hello");
    }
}

#[tokio::test]
async fn chunks_are_joined_for_a_client_of_http_1_0() {
    let answer =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n";
    let backend = Backend::answering(answer).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .await;
    let response = client.response().await;
    assert_eq!(response.body, "hello");
    assert!(
        response.head.contains("Connection: close"),
        "{}",
        response.head
    );
}

#[tokio::test]
async fn a_body_without_length_is_chunked_for_a_client_of_http_1_1() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\n\r\nhello").await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        assert_eq!(client.get("a", "/").await.body, "5\r\nhello\r\n0\r\n\r\n");
    }
}

#[tokio::test]
async fn a_body_cut_short_is_never_passed_on_as_complete() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
            .await;
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    assert_eq!(client.rest().await, b"5\r\nhello\r\n");
}

#[tokio::test]
async fn a_body_that_is_broken_before_any_of_it_is_sent_is_a_bad_gateway() {
    for body in ["zz\r\n", "3\r\nabc\r\nzz\r\n"] {
        let backend = Backend::start(move |mut conn| async move {
            conn.head().await.unwrap();
            conn.write(&format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            ))
            .await;
            conn.ended().await;
        })
        .await;
        let world = World::new(Config::to(&[backend.address])).await;
        let mut client = world.client().await;
        for asked in ["GET / HTTP/1.1\r\nHost: a", "GET / HTTP/1.0"] {
            client.send(format!("{asked}\r\n\r\n")).await;
            let response = client.response().await;
            assert_eq!(
                (response.status, &*response.body),
                (502, "502 Bad Gateway\n")
            );
        }
        world
            .until("both are counted", |stats| stats.responses_5xx == 2)
            .await;
        assert_eq!(world.proxy.stats().responses_2xx, 0);
    }
}

#[tokio::test]
async fn what_comes_before_a_fault_is_passed_on() {
    let sent = Arc::new(tokio::sync::Notify::new());
    let seen = Arc::clone(&sent);
    let backend = Backend::start(move |mut conn| {
        let seen = Arc::clone(&seen);
        async move {
            conn.head().await.unwrap();
            conn.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            seen.notified().await;
            conn.write("3\r\nabc\r\nzz\r\n").await;
            conn.ended().await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.head().await;
    sent.notify_one();
    assert_eq!(client.rest().await, b"3\r\nabc\r\n");
}

#[tokio::test]
async fn a_date_that_a_rule_writes_is_the_only_one() {
    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let backend = Backend::answering(HELLO).await;
    let line = || HeaderLine {
        name: HeaderName::parse("Date").unwrap(),
        value: OLD.into(),
    };
    for edits in [
        HeaderEdits {
            set: [line()].into(),
            ..HeaderEdits::default()
        },
        HeaderEdits {
            add: [line()].into(),
            ..HeaderEdits::default()
        },
    ] {
        let mut config = Config::default().http("http", None);
        let mut spec = RouteSpec::new("http", "", config.upstream("app", &[backend.address]));
        spec.filters.push(Filter::ResponseHeaders(edits));
        let world = World::new(config.route(spec)).await;
        let head = world.get("a", "/").await.head.to_ascii_lowercase();
        assert_eq!(head.matches("\r\ndate:").count(), 1, "{head}");
        let request = Request::get("http://a/").body(empty()).unwrap();
        let response = world.http2().await.send_request(request).await.unwrap();
        let dates = response.headers().get_all("date").iter();
        assert_eq!(dates.collect::<Vec<_>>(), [OLD], "over http/2");
    }
}

#[tokio::test]
async fn responses_without_a_body_keep_the_connection() {
    let backend = Backend::start(|mut conn| async move {
        while let Some(head) = conn.head().await {
            let answer = match head.split(' ').next().unwrap() {
                "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
                "PUT" => "HTTP/1.1 204 No Content\r\n\r\n",
                "GET" if head.contains("/304") => {
                    "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"
                }
                _ => HELLO,
            };
            conn.write(answer).await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.head().await.contains("Content-Length: 5\r\n"));
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 204);
    assert_eq!(client.get("a", "/304").await.status, 304);
    assert_eq!(client.get("a", "/").await.body, "hello");
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn connection_close_is_honoured_after_the_response() {
    let backend = Backend::answering(HELLO).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let response = client.response().await;
    assert!(
        response.head.contains("Connection: close"),
        "{}",
        response.head
    );
    client.ends().await;
    world
        .until("the connection is gone", |stats| {
            stats.connections_open == 0
        })
        .await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let backend = Backend::start(|mut conn| async move {
        conn.head().await.unwrap();
        assert!(conn.ended().await);
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the backend is asked", || backend.connections() == 1).await;
    drop(client);
    world
        .until("the request is given up", |stats| {
            stats.requests_aborted == 1
        })
        .await;
}

#[tokio::test]
async fn a_body_that_breaks_its_framing_aborts_the_upstream_request() {
    let (told, tell) = tokio::sync::mpsc::unbounded_channel();
    let _keep = &tell;
    let backend = Backend::start(move |mut conn| {
        let told = told.clone();
        async move {
            conn.head().await.unwrap();
            let complete = conn.until(b"0\r\n\r\n").await.is_some();
            told.send(complete).unwrap();
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        .await;
    eventually("the backend is asked", || backend.connections() == 1).await;
    client.send("zz\r\n").await;
    assert_eq!(client.response().await.status, 400);
    let mut tell = tell;
    assert_eq!(
        tell.recv().await,
        Some(false),
        "the backend must not see an end"
    );
}

#[tokio::test]
async fn a_long_head_is_read_across_many_reads() {
    let backend = Backend::reflecting().await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let value = "v".repeat(1_000);
    for i in 0..50 {
        client
            .stream
            .write_all(format!("X-{i}: {value}\r\n").as_bytes())
            .await
            .unwrap();
    }
    client.send("\r\n").await;
    let response = client.response().await;
    assert_eq!(response.status, 200);
    assert!(response.body.contains(&format!("X-49: {value}\r\n")));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(
        client.response().await.status,
        200,
        "and the connection goes on"
    );
}

#[tokio::test]
async fn a_hostile_head_reaches_no_backend() {
    let backend = Backend::answering(HELLO).await;
    let world = World::new(Config::to(&[backend.address])).await;
    for (hostile, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let mut client = Client::connect(world.address).await;
        client.send(hostile).await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{hostile}");
        assert!(
            response.head.contains("Connection: close"),
            "{}",
            response.head
        );
        client.ends().await;
    }
    assert_eq!(backend.connections(), 0);
    let stats = world.proxy.stats();
    assert_eq!((stats.responses_4xx, stats.responses_5xx), (4, 1));
    assert_eq!(stats.requests_refused, 5);
}

#[tokio::test]
async fn a_head_as_long_as_its_buffer_waits_for_its_body() {
    let backend = Backend::start(|mut conn| async move {
        while conn.head().await.is_some() {
            assert_eq!(conn.exactly(4).await, b"body");
            conn.write(HELLO).await;
        }
    })
    .await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    for bytes in [16 * 1024, 32 * 1024] {
        let start = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nX-Long: ";
        let value = "v".repeat(bytes - start.len() - 4);
        client.send(format!("{start}{value}\r\n\r\n")).await;
        // The head has been read when its request has been sent on.
        eventually("the head is read", || {
            world.proxy.stats().requests_http1 > u64::from(bytes > 16 * 1024)
        })
        .await;
        client.send("body").await;
        assert_eq!(client.response().await.body, "hello", "{bytes}");
    }
}

#[tokio::test]
async fn head_is_refused_without_a_body() {
    let world = World::new(Config::default().http("http", None)).await;
    for refused in [
        "HEAD /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nHEAD / HTTP/1.1\r\n\r\n",
    ] {
        let mut client = world.client().await;
        client.send(refused).await;
        let head = client.head().await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
        assert!(head.contains("Content-Length: 16\r\n"), "{head}");
        client.ends().await;
    }
}
