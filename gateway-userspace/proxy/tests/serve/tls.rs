//! TLS: certificates by name, names that nobody has, names that lie, certificates that change.

use std::sync::Arc;

use gateway_model::ir::Certificate;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::support::{Authority, Backend, Client, Config, RouteSpec, World, tls_connect};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// Two listeners with a name and a certificate each, and a backend behind both.
struct Shops {
    authority: Authority,
    certificates: [Arc<Certificate>; 2],
    backend: Backend,
}

impl Shops {
    async fn new() -> Self {
        let authority = Authority::new();
        let issue = |name| authority.issue(&[name]);
        Self {
            certificates: [issue("one.example"), issue("*.two.example")],
            backend: Backend::answering(HELLO).await,
            authority,
        }
    }

    fn config(&self) -> Config {
        let [one, two] = &self.certificates;
        let mut config = Config::default()
            .https("one", Some("one.example"), one)
            .https("two", Some("*.two.example"), two);
        let action = config.upstream("app", &[self.backend.address]);
        config
            .route(RouteSpec::new("one", "", action.clone()))
            .route(RouteSpec::new("two", "/two", action))
    }

    async fn connect(&self, world: &World, name: &str) -> Client<TlsStream<TcpStream>> {
        let config = self.authority.client(&["http/1.1"]);
        Client::over(tls_connect(&config, world.address, name).await.unwrap())
    }
}

fn leaf(client: &Client<TlsStream<TcpStream>>) -> Vec<u8> {
    let (_, session) = client.stream.get_ref();
    session.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn each_name_gets_its_certificate_and_its_routes() {
    let shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    let mut one = shops.connect(&world, "one.example").await;
    let mut two = shops.connect(&world, "a.two.example").await;
    assert_eq!(leaf(&one), *shops.certificates[0].chain[0]);
    assert_eq!(leaf(&two), *shops.certificates[1].chain[0]);
    assert_eq!(one.get("one.example", "/").await.body, "hello");
    assert_eq!(two.get("a.two.example", "/two").await.body, "hello");
    assert_eq!(two.get("a.two.example", "/").await.status, 404);
}

#[tokio::test]
async fn of_several_certificates_a_client_gets_the_one_for_its_name() {
    let authority = Authority::new();
    let backend = Backend::answering(HELLO).await;
    let names = ["first.example", "*.two.example", "own.two.example"];
    let certificates = names.map(|name| authority.issue(&[name]));
    let [first, wild, own] = &certificates;
    let mut config = Config::default()
        .https("all", None, first)
        .or("wild", wild)
        .or("own", own);
    let action = config.upstream("app", &[backend.address]);
    let world = World::new(config.route(RouteSpec::new("all", "", action))).await;
    let trusting = authority.client(&["http/1.1"]);
    for (name, certificate) in [
        ("first.example", first),
        ("a.two.example", wild),
        ("OWN.two.example", own),
    ] {
        let stream = tls_connect(&trusting, world.address, name).await.unwrap();
        let mut client = Client::over(stream);
        assert_eq!(leaf(&client), *certificate.chain[0], "{name}");
        assert_eq!(client.get(name, "/").await.body, "hello");
    }
    // For others, and who names nobody, the first.
    let nameless = authority.nameless_client();
    let stream = tls_connect(&nameless, world.address, "first.example").await;
    let client = Client::over(stream.unwrap());
    assert_eq!(leaf(&client), *first.chain[0]);
}

#[tokio::test]
async fn a_request_for_another_listeners_name_is_misdirected() {
    let shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    let mut client = shops.connect(&world, "one.example").await;
    assert_eq!(client.get("one.example", "/").await.status, 200);
    let response = client.get("a.two.example", "/two").await;
    assert_eq!(response.status, 421);
    world
        .until("it is counted", |stats| stats.requests_misdirected == 1)
        .await;
}

#[tokio::test]
async fn a_name_that_no_listener_has_gets_no_handshake() {
    let shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    let config = shops.authority.client(&["http/1.1"]);
    let error = tls_connect(&config, world.address, "three.example")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("UnrecognisedName"), "{error}");
    world
        .until("it is counted", |stats| stats.tls_handshake_failures == 1)
        .await;
}

#[tokio::test]
async fn a_new_certificate_serves_new_connections_and_old_ones_go_on() {
    let mut shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    let mut old = shops.connect(&world, "one.example").await;
    assert_eq!(old.get("one.example", "/").await.status, 200);
    shops.certificates[0] = shops.authority.issue(&["one.example"]);
    world.apply(shops.config()).await;
    let mut new = shops.connect(&world, "one.example").await;
    assert_ne!(leaf(&old), leaf(&new));
    assert_eq!(leaf(&new), *shops.certificates[0].chain[0]);
    assert_eq!(old.get("one.example", "/").await.status, 200);
    assert_eq!(new.get("one.example", "/").await.status, 200);
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_fails_its_listener_and_no_other() {
    let mut shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    let mut broken = (*shops.certificates[1]).clone();
    broken.private_key = gateway_model::ir::PrivateKey::Pkcs8([1, 2, 3][..].into());
    shops.certificates[1] = Arc::new(broken);
    for _ in 0..2 {
        let applied = world.apply(shops.config()).await;
        assert_eq!(applied.failures.len(), 1);
        assert_eq!(&*applied.failures[0].listener.section, "two");
    }
    let mut client = shops.connect(&world, "one.example").await;
    assert_eq!(client.get("one.example", "/").await.status, 200);
    let config = shops.authority.client(&["http/1.1"]);
    assert!(
        tls_connect(&config, world.address, "a.two.example")
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_session_is_resumed_by_ticket_with_the_same_name_only() {
    let shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    let config = shops.authority.client(&["http/1.1"]);
    for _ in 0..2 {
        let stream = tls_connect(&config, world.address, "one.example")
            .await
            .unwrap();
        let mut client = Client::over(stream);
        assert_eq!(client.get("one.example", "/").await.status, 200);
    }
    world
        .until("one was resumed", |stats| stats.tls_resumptions == 1)
        .await;
}

#[tokio::test]
async fn what_is_not_tls_is_told_so_and_closed() {
    let shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    let mut client = world.client().await;
    client
        .send("GET / HTTP/1.1\r\nHost: one.example\r\n\r\n")
        .await;
    let alert = client.rest().await;
    assert_eq!(alert.first(), Some(&21), "an alert record");
    let mut silent = world.client().await;
    silent.send([22, 3, 1]).await;
    tokio::io::AsyncWriteExt::shutdown(&mut silent.stream)
        .await
        .unwrap();
    silent.ends().await;
}

#[tokio::test]
async fn a_handshake_that_does_not_end_is_cut_off() {
    let shops = Shops::new().await;
    let world = World::with(shops.config(), |limits| {
        limits.tls.handshake = std::time::Duration::from_millis(150);
    })
    .await;
    world.client().await.ends().await;
    let over = "it is counted";
    world
        .until(over, |stats| stats.tls_handshake_failures == 1)
        .await;
    assert_eq!(world.proxy.stats().tls_handshakes_active, 0);
}

#[tokio::test]
async fn clients_that_leave_their_handshakes_half_done_keep_nobody_out() {
    let shops = Shops::new().await;
    let world = World::with(shops.config(), |limits| {
        limits.tls.concurrent_handshakes = 1;
    })
    .await;
    let config = shops.authority.client(&["http/1.1"]);
    let mut silent = Vec::new();
    for _ in 0..3 {
        let name = "one.example".try_into().unwrap();
        let session = rustls::ClientConnection::new(Arc::clone(&config), name);
        let mut hello = Vec::new();
        session.unwrap().write_tls(&mut hello).unwrap();
        let mut client = world.client().await;
        client.send(hello).await;
        // Sluice has said what it has to say, and waits.
        client.exactly(1).await;
        silent.push(client);
    }
    let mut client = shops.connect(&world, "one.example").await;
    assert_eq!(client.get("one.example", "/").await.body, "hello");
    assert_eq!(world.proxy.stats().tls_handshakes_active, 3);
}

#[tokio::test]
async fn a_large_response_arrives_whole_through_tls() {
    let body = "0123456789abcdef".repeat(64 * 1024);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut shops = Shops::new().await;
    shops.backend = Backend::answering(answer.leak()).await;
    let world = World::new(shops.config()).await;
    let mut client = shops.connect(&world, "one.example").await;
    for _ in 0..3 {
        assert!(client.get("one.example", "/").await.body == body);
    }
}

#[tokio::test]
async fn aes_128_comes_first_unless_the_client_wants_chacha() {
    use rustls::CipherSuite;
    let shops = Shops::new().await;
    let world = World::new(shops.config()).await;
    for (first, agreed) in [
        (
            CipherSuite::TLS13_AES_256_GCM_SHA384,
            CipherSuite::TLS13_AES_128_GCM_SHA256,
        ),
        (
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
            CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
        ),
    ] {
        let config = shops.authority.client_preferring(first);
        let stream = tls_connect(&config, world.address, "one.example")
            .await
            .unwrap();
        let suite = stream
            .get_ref()
            .1
            .negotiated_cipher_suite()
            .unwrap()
            .suite();
        assert_eq!(suite, agreed, "{first:?} first");
    }
}
