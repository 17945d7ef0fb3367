//! Certificates that listeners ask of clients: who gets in, by what, and for how long.

use std::sync::Arc;

use gateway_model::ir::{Certificate, ClientValidationMode};
use rustls::{ClientConfig, HandshakeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Authority, Backend, Client, Config, RouteSpec, World, http2_over, tls_connect,
};
use ClientValidationMode::{AllowInsecureFallback, AllowValidOnly};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const NAME: &str = "shop.example";

/// A listener's certificate, and a backend behind it.
struct Shop {
    authority: Authority,
    certificate: Arc<Certificate>,
    backend: Backend,
}

impl Shop {
    async fn new() -> Self {
        let authority = Authority::new();
        Self {
            certificate: authority.issue(&[NAME, "other.example"]),
            backend: Backend::answering(HELLO).await,
            authority,
        }
    }

    fn open(&self) -> Config {
        let config = Config::default().https("web", None, &self.certificate);
        self.routed(config)
    }

    fn asking(&self, authorities: &[&Authority], mode: ClientValidationMode) -> Config {
        let config = Config::default().https("web", None, &self.certificate);
        self.routed(config.validating(authorities, mode))
    }

    fn routed(&self, mut config: Config) -> Config {
        let action = config.upstream("app", &[self.backend.address]);
        config.route(RouteSpec::new("web", "", action))
    }

    fn with(&self, certificate: &Certificate) -> Arc<ClientConfig> {
        self.authority.client_showing(&["http/1.1"], certificate)
    }

    fn without(&self) -> Arc<ClientConfig> {
        self.authority.client(&["http/1.1"])
    }
}

/// Whether a request is answered; TLS 1.3 tells a client of its refusal only when it reads.
async fn is_served(world: &World, client: &Arc<ClientConfig>) -> bool {
    let Ok(mut stream) = tls_connect(client, world.address, NAME).await else {
        return false;
    };
    let request = format!("GET / HTTP/1.1\r\nHost: {NAME}\r\n\r\n");
    if stream.write_all(request.as_bytes()).await.is_err() {
        return false;
    }
    let mut answer = [0; 15];
    match stream.read_exact(&mut answer).await {
        Ok(_) => answer.starts_with(b"HTTP/1.1 200 OK"),
        Err(_) => false,
    }
}

#[tokio::test]
async fn only_certificates_of_the_authorities_get_in() {
    let (shop, ours, theirs) = (Shop::new().await, Authority::new(), Authority::new());
    let world = World::new(shop.asking(&[&ours], AllowValidOnly)).await;
    assert!(is_served(&world, &shop.with(&ours.issue(&["client"]))).await);
    assert!(!is_served(&world, &shop.with(&theirs.issue(&["client"]))).await);
    assert!(!is_served(&world, &shop.without()).await);
    assert_eq!(shop.backend.connections(), 1);
    world
        .until("both are counted", |stats| {
            stats.tls_handshake_failures == 2
        })
        .await;
}

#[tokio::test]
async fn insecure_fallback_lets_everybody_in_whatever_they_show() {
    let (shop, ours, theirs) = (Shop::new().await, Authority::new(), Authority::new());
    let world = World::new(shop.asking(&[&ours], AllowInsecureFallback)).await;
    assert!(is_served(&world, &shop.with(&ours.issue(&["client"]))).await);
    assert!(is_served(&world, &shop.with(&theirs.issue(&["client"]))).await);
    assert!(is_served(&world, &shop.without()).await);
}

#[tokio::test]
async fn without_an_authority_nobody_gets_in() {
    let (shop, ours) = (Shop::new().await, Authority::new());
    for mode in [AllowValidOnly, AllowInsecureFallback] {
        let world = World::new(shop.asking(&[], mode)).await;
        assert!(!is_served(&world, &shop.with(&ours.issue(&["client"]))).await);
        let error = tls_connect(&shop.without(), world.address, NAME)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("AccessDenied"), "{error}");
    }
}

#[tokio::test]
async fn authorities_of_one_name_and_number_are_told_apart_by_their_keys() {
    let (shop, [a, b, c]) = (Shop::new().await, [(); 3].map(|()| Authority::twin()));
    let world = World::new(shop.asking(&[&a, &b], AllowValidOnly)).await;
    for (authority, expected) in [(&a, true), (&b, true), (&c, false)] {
        let client = shop.with(&authority.issue(&["client"]));
        assert_eq!(is_served(&world, &client).await, expected);
    }
}

#[tokio::test]
async fn a_certificate_that_is_listed_itself_gets_in() {
    let (shop, listed) = (Shop::new().await, Authority::new());
    let own = Authority::self_signed("client");
    let other = Authority::self_signed("client");
    let config = shop.asking(&[&listed], AllowValidOnly).believing(&own);
    let world = World::new(config).await;
    assert!(is_served(&world, &shop.with(&own)).await);
    assert!(!is_served(&world, &shop.with(&other)).await);
}

#[tokio::test]
async fn no_ticket_gets_in_who_a_certificate_would_not() {
    let (shop, ours, theirs) = (Shop::new().await, Authority::new(), Authority::new());
    let world = World::new(shop.open()).await;
    let resumes = async |client: &Arc<ClientConfig>| {
        let stream = tls_connect(client, world.address, NAME).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        let mut client = Client::over(stream);
        let is_ok = client.get(NAME, "/").await.status == 200;
        is_ok && kind == Some(HandshakeKind::Resumed)
    };
    let (nobody, client) = (shop.without(), shop.with(&ours.issue(&["client"])));
    for client in [&nobody, &client] {
        assert!(!resumes(client).await);
        assert!(resumes(client).await, "tickets work");
    }
    world.apply(shop.asking(&[&ours], AllowValidOnly)).await;
    assert!(
        !is_served(&world, &nobody).await,
        "a ticket from when nothing was asked"
    );
    assert!(!resumes(&client).await);
    assert!(resumes(&client).await, "tickets work here too");
    world.apply(shop.asking(&[&theirs], AllowValidOnly)).await;
    assert!(
        !is_served(&world, &client).await,
        "a ticket from when another was believed"
    );
    world
        .apply(shop.asking(&[&ours], AllowInsecureFallback))
        .await;
    assert!(!resumes(&nobody).await);
    world.apply(shop.asking(&[&ours], AllowValidOnly)).await;
    assert!(
        !is_served(&world, &nobody).await,
        "a ticket from when all were let in"
    );
}

#[tokio::test]
async fn a_connection_from_before_is_misdirected_once_more_is_asked() {
    let (shop, ours) = (Shop::new().await, Authority::new());
    let world = World::new(shop.open()).await;
    let connect = async || {
        let stream = tls_connect(&shop.without(), world.address, NAME)
            .await
            .unwrap();
        Client::over(stream)
    };
    let mut old = connect().await;
    assert_eq!(old.get(NAME, "/").await.status, 200);
    world.apply(shop.asking(&[&ours], AllowValidOnly)).await;
    assert_eq!(old.get(NAME, "/").await.status, 421);
    old.ends().await;
}

#[tokio::test]
async fn http2_does_not_carry_a_request_to_a_listener_that_asks_for_more() {
    let (shop, ours) = (Shop::new().await, Authority::new());
    let config = Config::default()
        .https("web", Some(NAME), &shop.certificate)
        .https("strict", Some("other.example"), &shop.certificate)
        .validating(&[&ours], AllowValidOnly);
    let mut config = shop.routed(config);
    let action = config.upstream("app", &[shop.backend.address]);
    let world = World::new(config.route(RouteSpec::new("strict", "", action))).await;
    let client = shop.authority.client(&["h2"]);
    let mut send = http2_over(tls_connect(&client, world.address, NAME).await.unwrap()).await;
    for (host, status) in [(NAME, 200), ("other.example", 421), (NAME, 200)] {
        let request = http::Request::get(format!("https://{host}/"));
        let body = http_body_util::Empty::new();
        let body =
            http_body_util::BodyExt::boxed(http_body_util::BodyExt::map_err(body, |e| match e {}));
        let response = send
            .send_request(request.body(body).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{host}");
    }
}

#[tokio::test]
async fn what_is_inside_terminated_tls_is_for_those_who_get_in() {
    let (shop, ours) = (Shop::new().await, Authority::new());
    let config = Config::default()
        .terminating("web", None, &shop.certificate)
        .validating(&[&ours], AllowValidOnly);
    let world = World::new(shop.routed(config)).await;
    assert!(is_served(&world, &shop.with(&ours.issue(&["client"]))).await);
    assert!(!is_served(&world, &shop.without()).await);
    assert_eq!(shop.backend.connections(), 1);
}
