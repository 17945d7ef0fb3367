//! TLS towards backends: who is believed, what is shown, and which connections may be used again.

use std::net::SocketAddr;
use std::sync::Arc;

use gateway_model::ir::{Authorities, SubjectAltName, UpstreamProtocol, UpstreamTls};
use gateway_model::names::Hostname;
use rustls::server::WebPkiClientVerifier;

use crate::support::{Authority, Backend, Config, RouteSpec, SecureBackend, World, addresses};

const NAME: &str = "backend.example";

/// A policy that believes this authority.
fn believing(authority: &Authority) -> UpstreamTls {
    UpstreamTls {
        server_name: NAME.into(),
        subject_alt_names: Vec::new(),
        authorities: Authorities::These(vec![authority.der()]),
    }
}

fn config(address: SocketAddr, protocol: UpstreamProtocol, tls: UpstreamTls) -> Config {
    let mut config = Config::default().http("http", None);
    let action = config.upstream_of("app", protocol, addresses(&[address]));
    config.secure("app", tls);
    config.route(RouteSpec::new("http", "", action))
}

async fn status(backend: &SecureBackend, tls: UpstreamTls) -> u16 {
    let config = config(backend.address, UpstreamProtocol::Http1, tls);
    World::new(config).await.get("a", "/").await.status
}

#[tokio::test]
async fn what_is_spoken_inside_is_what_both_sides_agree_on() {
    let authority = Authority::new();
    for (offered, protocol, seen) in [
        (&["h2", "http/1.1"][..], UpstreamProtocol::Negotiated, "h2 "),
        (&["http/1.1"], UpstreamProtocol::Negotiated, "http/1.1 "),
        (&[], UpstreamProtocol::Negotiated, " "),
        (&["h2", "http/1.1"], UpstreamProtocol::Http1, "http/1.1 "),
        (&["h2"], UpstreamProtocol::Http2, "h2 "),
    ] {
        let backend = SecureBackend::start(authority.server_offering(&[NAME], offered)).await;
        let world = World::new(config(backend.address, protocol, believing(&authority))).await;
        let mut client = world.client().await;
        for _ in 0..3 {
            let answer = client.get("a", "/").await.data();
            let expected = format!("{seen}sni={NAME} shown=false resumed=false");
            assert!(answer.starts_with(&expected), "{answer}");
            assert!(
                seen != "h2 " || answer.ends_with("scheme=https"),
                "{answer}"
            );
        }
        assert_eq!(backend.connections(), 1, "{protocol:?}");
    }
    let backend = SecureBackend::start(authority.server_offering(&[NAME], &["http/1.1"])).await;
    let config = config(
        backend.address,
        UpstreamProtocol::Http2,
        believing(&authority),
    );
    assert_eq!(World::new(config).await.get("a", "/").await.status, 502);
}

#[tokio::test]
async fn many_requests_at_once_share_what_is_agreed_on() {
    let authority = Authority::new();
    for (offered, most) in [(&["h2"][..], 1), (&["http/1.1"], 20)] {
        let backend = SecureBackend::start(authority.server_offering(&[NAME], offered)).await;
        let tls = believing(&authority);
        let world = World::new(config(backend.address, UpstreamProtocol::Negotiated, tls)).await;
        let gets = (0..20).map(|_| world.get("a", "/"));
        for answer in futures_util::future::join_all(gets).await {
            assert_eq!(answer.status, 200);
        }
        assert!(backend.connections() <= most, "{}", backend.connections());
    }
}

#[tokio::test]
async fn only_the_authorities_of_the_policy_are_believed_and_told_apart_by_key() {
    // Their subjects are equal.
    let (mine, other) = (Authority::new(), Authority::new());
    let backend = SecureBackend::start(mine.server(&[NAME])).await;
    let believed = |list: &[&Authority]| UpstreamTls {
        authorities: Authorities::These(list.iter().map(|authority| authority.der()).collect()),
        ..believing(&mine)
    };
    assert_eq!(status(&backend, believed(&[&mine])).await, 200);
    assert_eq!(status(&backend, believed(&[&other, &mine])).await, 200);
    assert_eq!(status(&backend, believed(&[&other])).await, 502);
    assert_eq!(status(&backend, believed(&[])).await, 502);
    let system = UpstreamTls {
        authorities: Authorities::System,
        ..believing(&mine)
    };
    assert_eq!(status(&backend, system).await, 502);
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_can_be_believed() {
    let (certificate, server) = Authority::alone(NAME);
    let backend = SecureBackend::start(server).await;
    let tls = UpstreamTls {
        server_name: NAME.into(),
        subject_alt_names: Vec::new(),
        authorities: Authorities::These(vec![certificate]),
    };
    assert_eq!(status(&backend, tls.clone()).await, 200);
    let misnamed = UpstreamTls {
        server_name: "other.example".into(),
        ..tls
    };
    assert_eq!(status(&backend, misnamed).await, 502);
}

#[tokio::test]
async fn the_name_must_be_the_servers_or_one_of_the_alternatives() {
    let authority = Authority::new();
    let uri = "spiffe://example/backend";
    let server = authority.server_named(&["backend.example", "*.wild.example"], &[uri]);
    let backend = SecureBackend::start(server).await;
    let host = |name: &str| SubjectAltName::Hostname(Hostname::parse(name).unwrap());
    let uri = |uri: &str| SubjectAltName::Uri(uri.into());
    for (server_name, names, expected) in [
        ("backend.example", vec![], 200),
        ("a.wild.example", vec![], 200),
        ("other.example", vec![], 502),
        ("other.example", vec![host("backend.example")], 200),
        (
            "other.example",
            vec![host("nobody.example"), uri("spiffe://example/backend")],
            200,
        ),
        ("other.example", vec![host("*.wild.example")], 200),
        ("other.example", vec![host("x.wild.example")], 200),
        ("other.example", vec![host("*.example")], 200),
        ("backend.example", vec![host("other.example")], 502),
        (
            "backend.example",
            vec![uri("spiffe://example/backend/")],
            502,
        ),
        ("backend.example", vec![host("*.other.example")], 502),
    ] {
        let tls = UpstreamTls {
            server_name: server_name.into(),
            subject_alt_names: names.clone(),
            ..believing(&authority)
        };
        assert_eq!(
            status(&backend, tls).await,
            expected,
            "{server_name} {names:?}"
        );
    }
}

#[tokio::test]
async fn another_policy_or_certificate_means_another_connection() {
    let authority = Authority::new();
    let backend = SecureBackend::start(authority.server_offering(&[NAME], &["h2"])).await;
    let make = |tls| config(backend.address, UpstreamProtocol::Negotiated, tls);
    let world = World::new(make(believing(&authority))).await;
    let seen = async || world.get("a", "/").await.data();
    assert!(seen().await.contains("shown=false"));
    assert!(seen().await.contains("shown=false"));
    assert_eq!(backend.connections(), 1);
    // The same, said once more.
    world.apply(make(believing(&authority))).await;
    assert!(seen().await.contains("shown=false"));
    assert_eq!(backend.connections(), 1);
    let renamed = UpstreamTls {
        subject_alt_names: vec![SubjectAltName::Hostname(Hostname::parse(NAME).unwrap())],
        ..believing(&authority)
    };
    world.apply(make(renamed.clone())).await;
    assert!(
        seen().await.contains("resumed=false"),
        "no session of the other policy"
    );
    assert_eq!(backend.connections(), 2);
    let unbelieved = believing(&Authority::new());
    world.apply(make(unbelieved)).await;
    assert_eq!(world.get("a", "/").await.status, 502);
    assert_eq!(backend.connections(), 2);
}

#[tokio::test]
async fn backends_see_the_client_certificate_of_the_listener() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let verifier = WebPkiClientVerifier::builder_with_provider(
        clients.roots(),
        Arc::new(rustls::crypto::aws_lc_rs::default_provider()),
    );
    let server = servers.server_verifying(&[NAME], verifier.build().unwrap());
    let backend = SecureBackend::start(server).await;
    let make = || {
        config(
            backend.address,
            UpstreamProtocol::Http1,
            believing(&servers),
        )
    };
    let world = World::new(make()).await;
    assert_eq!(world.get("a", "/").await.status, 502, "nothing is shown");
    for _ in 0..2 {
        let certificate = clients.issue(&["sluice.example"]);
        world.apply(make().showing(&certificate)).await;
        let before = backend.connections();
        for _ in 0..2 {
            let answer = world.get("a", "/").await;
            assert_eq!(answer.status, 200);
            assert!(
                answer.body.contains("shown=true resumed=false"),
                "{}",
                answer.body
            );
        }
        assert_eq!(backend.connections(), before + 1);
    }
    let stranger = Authority::new().issue(&["sluice.example"]);
    world.apply(make().showing(&stranger)).await;
    assert_eq!(world.get("a", "/").await.status, 502);
}

#[tokio::test]
async fn a_session_is_resumed_by_the_same_identity() {
    let authority = Authority::new();
    let backend = SecureBackend::start(authority.server(&[NAME])).await;
    let config = config(
        backend.address,
        UpstreamProtocol::Http1,
        believing(&authority),
    );
    let world = World::with(config, |limits| limits.upstream.idle_per_endpoint = 0).await;
    assert!(world.get("a", "/").await.body.contains("resumed=false"));
    assert!(world.get("a", "/").await.body.contains("resumed=true"));
}

#[tokio::test]
async fn an_upgrade_goes_through_tls_over_http1() {
    let authority = Authority::new();
    let offered = ["h2", "http/1.1"];
    let backend = SecureBackend::start(authority.server_offering(&[NAME], &offered)).await;
    let tls = believing(&authority);
    let world = World::new(config(backend.address, UpstreamProtocol::Negotiated, tls)).await;
    assert!(world.get("a", "/").await.data().starts_with("h2 "));
    let mut client = world.client().await;
    client
        .send(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .await;
    assert!(client.head().await.starts_with("HTTP/1.1 101 "));
    client
        .until(b"http/1.1 sni=backend.example shown=false resumed=true")
        .await;
    client.send("ping").await;
    assert_eq!(client.exactly(4).await, b"ping");
}

#[tokio::test]
async fn a_backend_without_tls_is_a_bad_gateway() {
    let backend = Backend::start(|mut conn| async move {
        conn.write("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let tls = believing(&Authority::new());
    let world = World::new(config(backend.address, UpstreamProtocol::Negotiated, tls)).await;
    assert_eq!(world.get("a", "/").await.status, 502);
}
