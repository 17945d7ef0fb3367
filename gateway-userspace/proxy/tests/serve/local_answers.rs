//! Requests that the gateway answers itself.

use std::num::NonZeroU16;

use gateway_model::ir::{
    Action, Cors, CorsOrigin, Filter, HeaderEdits, HeaderLine, HeaderName, PathRewrite, Redirect,
    Scheme,
};
use http::Request;

use crate::support::{Backend, Config, Refusing, RouteSpec, World, empty};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

fn redirect() -> Action {
    Action::Redirect(Box::new(Redirect {
        scheme: Some(Scheme::Https),
        hostname: None,
        path: None,
        port: None,
        status: 301,
    }))
}

fn cors() -> Cors {
    Cors {
        allow_origins: vec![CorsOrigin::Exact("https://a.example".into())],
        allow_credentials: false,
        allow_methods: vec!["PUT".into()],
        allow_headers: Vec::new(),
        expose_headers: Vec::new(),
        max_age_s: 5,
    }
}

#[tokio::test]
async fn a_redirect_needs_no_backend_and_keeps_the_connection() {
    let config = Config::default().http("http", None);
    let world = World::new(config.route(RouteSpec::new("http", "", redirect()))).await;
    let mut client = world.client().await;
    for _ in 0..2 {
        let response = client.get("shop.example", "/a?b").await;
        assert_eq!(response.status, 301);
        assert!(
            response
                .head
                .contains("location: https://shop.example/a?b\r\n"),
            "{}",
            response.head
        );
    }
}

#[tokio::test]
async fn a_redirect_of_a_request_without_host_names_none() {
    let to = |scheme| {
        Action::Redirect(Box::new(Redirect {
            scheme,
            hostname: None,
            path: Some(PathRewrite::Full("/to".into())),
            port: None,
            status: 302,
        }))
    };
    let config = Config::default().http("http", None);
    let config = config.route(RouteSpec::new("http", "", to(None)));
    let secure = RouteSpec::new("http", "/secure", to(Some(Scheme::Https)));
    let world = World::new(config.route(secure)).await;
    let mut client = world.client().await;
    client.send("GET /a HTTP/1.0\r\n\r\n").await;
    let head = client.response().await.head;
    assert!(head.contains("\r\nlocation: /to\r\n"), "{head}");
    let mut client = world.client().await;
    client.send("GET /secure HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
}

#[tokio::test]
async fn a_body_in_hand_is_skipped_and_one_still_to_come_ends_the_connection() {
    let config = Config::default().http("http", None);
    let world = World::new(config.route(RouteSpec::new("http", "", redirect()))).await;
    let mut client = world.client().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 301);
    assert_eq!(client.response().await.status, 301);
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
        .await;
    let response = client.response().await;
    assert!(
        response.head.contains("Connection: close"),
        "{}",
        response.head
    );
}

#[tokio::test]
async fn what_no_listener_and_no_rule_takes_is_404() {
    let config = Config::default().http("http", Some("shop.example"));
    let world = World::new(config.route(RouteSpec::new("http", "/cart", redirect()))).await;
    assert_eq!(world.get("shop.example", "/cart/1").await.status, 301);
    assert_eq!(world.get("shop.example", "/").await.status, 404);
    assert_eq!(world.get("other.example", "/cart").await.status, 404);
    world
        .until("both are counted", |stats| stats.requests_unrouted == 2)
        .await;
}

#[tokio::test]
async fn a_rule_may_answer_by_itself() {
    let respond = Action::Respond {
        status: 503,
        reason: "in maintenance".into(),
    };
    let config = Config::default().http("http", None);
    let world = World::new(config.route(RouteSpec::new("http", "", respond))).await;
    let status = NonZeroU16::new(world.get("a", "/").await.status).unwrap();
    assert_eq!(status.get(), 503);
}

#[tokio::test]
async fn a_preflight_is_answered_and_a_response_gets_its_lines() {
    let backend = Backend::answering(HELLO).await;
    let mut config = Config::default().http("http", None);
    let action = config.upstream("app", &[backend.address]);
    let world = World::new(config.route(RouteSpec {
        cors: Some(cors()),
        ..RouteSpec::new("http", "", action)
    }))
    .await;
    let mut client = world.client().await;
    client
        .send(
            "OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\
             Access-Control-Request-Method: PUT\r\n\r\n",
        )
        .await;
    let preflight = client.response().await;
    assert_eq!(preflight.status, 204);
    assert!(
        preflight
            .head
            .contains("access-control-allow-methods: PUT\r\n"),
        "{}",
        preflight.head
    );
    assert_eq!(backend.connections(), 0);
    client
        .send("PUT / HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\nContent-Length: 0\r\n\r\n")
        .await;
    let response = client.response().await;
    let line = "access-control-allow-origin: https://a.example\r\n";
    assert!(response.head.contains(line), "{}", response.head);
}

/// Rules with filters of responses whose requests Sluice answers itself, and with what.
async fn edited(refusing: &Refusing) -> (World, [(&'static str, u16); 4]) {
    let name = |text| HeaderName::parse(text).unwrap();
    let edits = HeaderEdits {
        set: [HeaderLine {
            name: name("x-edited"),
            value: "yes".into(),
        }]
        .into(),
        add: Box::default(),
        remove: [name("retry-after")].into(),
    };
    let mut config = Config::default().http("http", None);
    let respond = Action::Respond {
        status: 503,
        reason: "in maintenance".into(),
    };
    let gone = config.upstream("gone", &[refusing.address]);
    let none = config.upstream("none", &[]);
    let rules = [
        ("/a", redirect()),
        ("/b", respond),
        ("/c", gone),
        ("/d", none),
    ];
    for (path, action) in rules {
        config = config.route(RouteSpec {
            filters: vec![Filter::ResponseHeaders(edits.clone())],
            cors: Some(cors()),
            ..RouteSpec::new("http", path, action)
        });
    }
    let answers = [("/a", 301), ("/b", 503), ("/c", 502), ("/d", 503)];
    (World::new(config).await, answers)
}

#[tokio::test]
async fn what_is_answered_for_a_rule_bears_the_lines_of_its_filters() {
    let refusing = Refusing::new();
    let (world, answers) = edited(&refusing).await;
    let mut client = world.client().await;
    for (path, status) in answers {
        client
            .send(format!(
                "GET {path} HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\r\n"
            ))
            .await;
        let response = client.response().await;
        assert_eq!(response.status, status);
        for line in [
            "\r\nx-edited: yes\r\n",
            "\r\naccess-control-allow-origin: https://a.example\r\n",
        ] {
            assert!(response.head.contains(line), "{path}: {}", response.head);
        }
        assert!(!response.head.contains("retry-after"), "{path}");
    }
}

#[tokio::test]
async fn what_is_answered_for_a_rule_over_http2_bears_them_too() {
    let refusing = Refusing::new();
    let (world, answers) = edited(&refusing).await;
    let mut h2 = world.http2().await;
    for (path, status) in answers {
        let request = Request::get(format!("http://shop.example{path}"))
            .header("origin", "https://a.example")
            .body(empty())
            .unwrap();
        let response = h2.send_request(request).await.unwrap();
        assert_eq!(response.status(), status);
        let headers = response.headers();
        assert_eq!(headers["x-edited"], "yes", "{path}");
        assert_eq!(headers["access-control-allow-origin"], "https://a.example");
        assert!(!headers.contains_key("retry-after"), "{path}");
    }
}

#[tokio::test]
async fn options_asterisk_asks_about_the_gateway() {
    let world = World::new(Config::default().http("http", None)).await;
    let mut client = world.client().await;
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(client.response().await.status, 204);
}
