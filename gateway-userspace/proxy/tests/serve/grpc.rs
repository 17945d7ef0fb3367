//! Calls of gRPC: streams both ways, trailers, and what Sluice itself answers.

use std::time::Duration;

use gateway_model::ir::{Action, Filter, HeaderEdits, HeaderLine, HeaderName, UpstreamProtocol};
use http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::body::Frame;
use tokio::net::TcpStream;

use crate::support::{
    Body, Config, Http2Backend, Refusing, RouteSpec, World, addresses, empty, full, get, streamed,
};

/// A gRPC call with this body.
fn call(body: Body) -> Request<Body> {
    Request::post("http://shop.example/pkg.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

fn trailers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn a_call_streams_both_ways_with_trailers_both_ways() {
    let backend = Http2Backend::start(|mut asked| async move {
        let head = Response::builder().header("content-type", "application/grpc");
        let mut out = asked
            .respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        while let Some(data) = asked.request.body_mut().data().await {
            out.send_data(data.unwrap(), false).unwrap();
        }
        let asked = asked.request.body_mut().trailers().await.unwrap().unwrap();
        let mut end = trailers(&[("grpc-status", "0"), ("my_own.key", "v")]);
        end.insert("x-echo", asked["x-sum"].clone());
        out.send_trailers(end).unwrap();
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h2 = world.http2().await;
    let (sender, body) = streamed();
    let response = h2.send_request(call(body)).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/grpc");
    let mut body = response.into_body();
    for word in ["one", "two", "three"] {
        sender.send(Frame::data(word.into())).unwrap();
        let data = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(data, word);
    }
    sender
        .send(Frame::trailers(trailers(&[("x-sum", "3")])))
        .unwrap();
    drop(sender);
    let end = body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_trailers()
        .unwrap();
    assert_eq!(end["grpc-status"], "0");
    assert_eq!(end["my_own.key"], "v");
    assert_eq!(end["x-echo"], "3");
    world
        .until("it is over", |stats| stats.requests_active == 0)
        .await;
}

#[tokio::test]
async fn an_answer_of_trailers_alone_stays_one() {
    let backend = Http2Backend::start(|mut asked| async move {
        let head = Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", "12");
        asked
            .respond
            .send_response(head.body(()).unwrap(), true)
            .unwrap();
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut raw, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for ends in [true, false] {
        let (request, ()) = (call(empty()).into_parts().0, ());
        let request = Request::from_parts(request, ());
        let (response, _open) = raw.send_request(request, ends).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "12");
        assert!(!response.headers().contains_key("content-length"));
        assert!(response.body().is_end_stream(), "the head ends the stream");
    }
    let answer = world.get("a", "/").await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let head = answer.head.to_ascii_lowercase();
    assert!(head.contains("content-length: 0\r\n"), "{head}");
}

/// The status of a call that Sluice answers itself.
async fn refused_call(world: &World) -> (String, bool) {
    let stream = TcpStream::connect(world.address).await.unwrap();
    let (mut raw, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::from_parts(call(empty()).into_parts().0, ());
    let (response, _open) = raw.send_request(request, false).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc");
    assert!(!response.headers().contains_key("content-length"));
    let status = response.headers()["grpc-status"]
        .to_str()
        .unwrap()
        .to_owned();
    (status, response.body().is_end_stream())
}

#[tokio::test]
async fn a_call_that_sluice_answers_gets_trailers_alone_with_its_own_status() {
    let silent = Http2Backend::start(|asked| async move {
        let _kept = asked;
        std::future::pending::<()>().await;
    })
    .await;
    let spec = |config: &mut Config, addresses_: &[std::net::SocketAddr]| {
        let action = config.upstream_of("app", UpstreamProtocol::Http2, addresses(addresses_));
        let mut spec = RouteSpec::new("http", "/pkg.Service", action);
        spec.timeouts.request = Some(Duration::from_millis(100));
        spec
    };
    let refusing = Refusing::new();
    let gone = refusing.address;
    for (endpoints, status) in [(&[silent.address][..], "4"), (&[gone], "14"), (&[], "14")] {
        let mut config = Config::default().http("http", None);
        let spec = spec(&mut config, endpoints);
        let world = World::new(config.route(spec)).await;
        assert_eq!(refused_call(&world).await, (status.into(), true));
    }
    let world = World::new(Config::default().http("http", None)).await;
    assert_eq!(refused_call(&world).await, ("12".into(), true));
}

#[tokio::test]
async fn a_call_whose_stream_is_reset_gets_the_status_that_the_reason_stands_for() {
    let backend = Http2Backend::start(|mut asked| async move {
        let reason: u32 = asked.request.headers()["x-reason"]
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        asked.respond.send_reset(reason.into());
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h2 = world.http2().await;
    for (reason, status) in [
        (h2::Reason::CANCEL, "1"),
        (h2::Reason::REFUSED_STREAM, "14"),
        (h2::Reason::ENHANCE_YOUR_CALM, "8"),
        (h2::Reason::INADEQUATE_SECURITY, "7"),
        (h2::Reason::INTERNAL_ERROR, "13"),
        (h2::Reason::PROTOCOL_ERROR, "13"),
        (h2::Reason::FLOW_CONTROL_ERROR, "13"),
        (h2::Reason::NO_ERROR, "13"),
    ] {
        let mut request = call(empty());
        let reason_line = u32::from(reason).to_string().parse().unwrap();
        request.headers_mut().insert("x-reason", reason_line);
        let response = h2.send_request(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], status, "{reason:?}");
    }
}

#[tokio::test]
async fn the_edits_of_a_rule_leave_the_status_of_a_call_alone() {
    let name = |text| HeaderName::parse(text).unwrap();
    let line = |text, value: &str| HeaderLine {
        name: name(text),
        value: value.into(),
    };
    let edits = HeaderEdits {
        set: [line("x-edited", "yes"), line("grpc-status", "0")].into(),
        add: [line("grpc-message", "fine")].into(),
        remove: [name("content-type")].into(),
    };
    let respond = Action::Respond {
        status: 503,
        reason: "in maintenance".into(),
    };
    let spec = RouteSpec {
        filters: vec![Filter::ResponseHeaders(edits)],
        ..RouteSpec::new("http", "", respond)
    };
    let world = World::new(Config::default().http("http", None).route(spec)).await;
    let mut h2 = world.http2().await;
    let response = h2.send_request(call(empty())).await.unwrap();
    let of = |name| response.headers().get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(of("x-edited"), ["yes"]);
    assert_eq!(of("grpc-status"), ["14"]);
    assert_eq!(of("grpc-message"), ["Service%20Unavailable"]);
    assert_eq!(of("content-type"), ["application/grpc"]);
}

#[tokio::test]
async fn a_call_over_http1_is_told_that_it_needs_http2() {
    let backend = Http2Backend::reflecting().await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut h1 = world.client().await;
    h1.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/grpc+proto\r\nContent-Length: 3\r\n\r\nabc")
        .await;
    assert_eq!(h1.response().await.status, 505);
    assert_eq!(h1.get("a", "/").await.status, 200, "the connection goes on");
    assert_eq!(backend.streams(), 1);
}

#[tokio::test]
async fn a_call_may_be_silent_for_longer_than_a_body() {
    let backend = Http2Backend::start(|mut asked| async move {
        let head = Response::builder().header("content-type", "application/grpc");
        let mut out = asked
            .respond
            .send_response(head.body(()).unwrap(), false)
            .unwrap();
        tokio::time::sleep(Duration::from_millis(400)).await;
        out.send_data("late".into(), false).unwrap();
        out.send_trailers(trailers(&[("grpc-status", "0")]))
            .unwrap();
    })
    .await;
    let world = World::with(Config::to_http2(&[backend.address]), |limits| {
        limits.time.body_idle = Duration::from_millis(50);
    })
    .await;
    let response = world
        .http2()
        .await
        .send_request(call(full("call")))
        .await
        .unwrap();
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "late");
    let plain = world.http2().await.send_request(get("/")).await.unwrap();
    assert!(plain.into_body().collect().await.is_err(), "a body may not");
}

#[tokio::test]
async fn a_call_ends_when_its_client_waits_no_longer() {
    let backend = Http2Backend::start(|asked| async move {
        assert!(asked.request.headers().contains_key("grpc-timeout"));
        let _kept = asked;
        std::future::pending::<()>().await;
    })
    .await;
    for (ruled, asked) in [(None, "100m"), (Some(60), "100m"), (Some(0), "100000u")] {
        let mut config = Config::default().http("http", None);
        let endpoints = addresses(&[backend.address]);
        let action = config.upstream_of("app", UpstreamProtocol::Http2, endpoints);
        let mut spec = RouteSpec::new("http", "/pkg.Service", action);
        spec.timeouts.request = ruled.map(Duration::from_secs);
        let world = World::new(config.route(spec)).await;
        let mut client = world.http2().await;
        let mut request = call(full("call"));
        let lines = request.headers_mut();
        lines.insert("grpc-timeout", asked.parse().unwrap());
        let response = client.send_request(request).await.unwrap();
        assert_eq!(response.headers()["grpc-status"], "4");
    }
}

#[tokio::test]
async fn a_rule_may_give_a_call_less_time_than_its_client_does() {
    let backend = Http2Backend::start(|asked| async move {
        let _kept = asked;
        std::future::pending::<()>().await;
    })
    .await;
    let mut config = Config::default().http("http", None);
    let endpoints = addresses(&[backend.address]);
    let action = config.upstream_of("app", UpstreamProtocol::Http2, endpoints);
    let mut spec = RouteSpec::new("http", "/pkg.Service", action);
    spec.timeouts.request = Some(Duration::from_millis(100));
    let world = World::new(config.route(spec)).await;
    let mut request = call(full("call"));
    let lines = request.headers_mut();
    lines.insert("grpc-timeout", "99999999H".parse().unwrap());
    let response = world.http2().await.send_request(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "4");
}

#[tokio::test]
async fn an_answer_that_has_begun_is_cut_off_when_its_client_waits_no_longer() {
    let backend = Http2Backend::start(|mut asked| async move {
        let head = Response::builder().header("content-type", "application/grpc");
        let head = head.body(()).unwrap();
        let _open = asked.respond.send_response(head, false).unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let world = World::new(Config::to_http2(&[backend.address])).await;
    let mut request = call(full("call"));
    let lines = request.headers_mut();
    lines.insert("grpc-timeout", "2S".parse().unwrap());
    let response = world.http2().await.send_request(request).await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"));
    assert!(response.into_body().collect().await.is_err());
}
