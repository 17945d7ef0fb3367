//! UDP listeners: sessions, where answers come from, what limits them, and how they outlive a process.

mod at_an_upgrade;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use gateway_model::ir::{Endpoints, ListenerProtocol, SourcePolicy, UpstreamProtocol};
use gateway_proxy::{AccessLogFormat, AccessLogOutput, Limits, Settings};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::{Config, RouteSpec, World, reserved};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LONG: Duration = Duration::from_secs(20);

/// Sends each datagram back with its name in front, and remembers from where it came.
struct Echo {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<SocketAddr>>>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start(name: &'static str) -> Self {
        Self::on(LOCAL, name).await
    }

    async fn on(ip: IpAddr, name: &'static str) -> Self {
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let list = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let Ok((n, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                list.lock().unwrap().push(from);
                let answer = [name.as_bytes(), b":", &buffer[..n]].concat();
                let _ = socket.send_to(&answer, from).await;
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    fn seen(&self) -> Vec<SocketAddr> {
        self.seen.lock().unwrap().clone()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client's socket; connected, so that only an answer from the right address arrives.
struct Client(UdpSocket);

impl Client {
    async fn to(address: SocketAddr) -> Self {
        let any = match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        Self::from(any, address).await
    }

    async fn from(source: IpAddr, address: SocketAddr) -> Self {
        let socket = UdpSocket::bind((source, 0)).await.unwrap();
        socket.connect(address).await.unwrap();
        Self(socket)
    }

    async fn ask(&self, question: impl AsRef<[u8]>) -> String {
        self.0.send(question.as_ref()).await.unwrap();
        self.answer().await
    }

    async fn answer(&self) -> String {
        let mut buffer = vec![0; 65_535];
        let read = timeout(LONG, self.0.recv(&mut buffer)).await;
        let n = read.expect("an answer").unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    }
}

fn udp(endpoints: &[SocketAddr]) -> Config {
    let mut config = Config::default().streams("udp", None, ListenerProtocol::Udp);
    let action = config.upstream("app", endpoints);
    config.route(RouteSpec::new("udp", "", action))
}

/// An address where nobody is, as the kernel says by ICMP: its socket is connected elsewhere.
async fn nobody() -> (SocketAddr, UdpSocket) {
    let socket = UdpSocket::bind((LOCAL, 0)).await.unwrap();
    socket.connect((LOCAL, 1)).await.unwrap();
    (socket.local_addr().unwrap(), socket)
}

#[tokio::test]
async fn each_client_has_a_session_of_its_own() {
    let echo = Echo::start("a").await;
    let world = World::new(udp(&[echo.address])).await;
    let (one, two) = (
        Client::to(world.address).await,
        Client::to(world.address).await,
    );
    for i in 0..3 {
        assert_eq!(one.ask(format!("one {i}")).await, format!("a:one {i}"));
        assert_eq!(two.ask(format!("two {i}")).await, format!("a:two {i}"));
    }
    let seen = echo.seen();
    assert_ne!(seen[0], seen[1]);
    assert!(seen.chunks(2).all(|pair| pair == &seen[..2]), "{seen:?}");
    let stats = world.proxy.stats();
    assert_eq!(
        (stats.datagram_sessions, stats.datagram_sessions_open),
        (2, 2)
    );
    world
        .until("all are counted", |s| {
            (s.datagrams_received, s.datagrams_sent) == (6, 6)
        })
        .await;
}

#[tokio::test]
async fn datagrams_of_every_size_pass_whole() {
    let echo = Echo::start("").await;
    let world = World::new(udp(&[echo.address])).await;
    let client = Client::to(world.address).await;
    for size in [0, 1, 1_472, 1_473, 9_000, 65_000] {
        let question = vec![b'x'; size];
        assert_eq!(client.ask(&question).await.len(), size + 1, "{size}");
    }
}

#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    let echo = Echo::start("a").await;
    let (address, reserved) = reserved((LOCAL, 0).into()).unwrap();
    let port = address.port();
    let every = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let world = World::at(every, Vec::new(), udp(&[echo.address]), settings()).await;
    drop(reserved);
    for ip in ["127.0.0.1", "127.0.0.7", "::1"] {
        let ip: IpAddr = ip.parse().unwrap();
        let client = Client::to((ip, port).into()).await;
        assert_eq!(client.ask("x").await, "a:x", "{ip}");
    }
    // One client, two addresses: two sessions.
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for ip in [[127, 0, 0, 1], [127, 0, 0, 2]] {
        client
            .send_to(b"y", (IpAddr::from(ip), port))
            .await
            .unwrap();
        let (_, from) = timeout(LONG, client.recv_from(&mut [0; 8]))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(from, SocketAddr::from((ip, port)));
    }
    assert_eq!(world.proxy.stats().datagram_sessions, 5);
}

#[tokio::test]
async fn ipv6_clients_reach_ipv4_endpoints_and_the_other_way_round() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    let (four, six) = (Echo::start("4").await, Echo::on(v6, "6").await);
    for (ip, echo, answer) in [(v6, &four, "4:x"), (LOCAL, &six, "6:x"), (v6, &six, "6:x")] {
        let (address, reserved) = reserved((ip, 0).into()).unwrap();
        let world = World::at(address, Vec::new(), udp(&[echo.address]), settings()).await;
        drop(reserved);
        assert_eq!(Client::to(address).await.ask("x").await, answer);
        world.proxy.drain(Duration::ZERO).await;
    }
}

#[tokio::test]
async fn weights_hold_and_the_share_of_what_does_not_resolve_is_dropped() {
    let (a, b) = (Echo::start("a").await, Echo::start("b").await);
    let mut config = Config::default().streams("udp", None, ListenerProtocol::Udp);
    let action = config.shares(&[
        (7, "a", Some(a.address)),
        (2, "b", Some(b.address)),
        (1, "no such Service", None),
    ]);
    let world = World::new(config.route(RouteSpec::new("udp", "", action))).await;
    let mut clients = Vec::new();
    for _ in 0..200 {
        let client = Client::to(world.address).await;
        client.0.send(b"x").await.unwrap();
        clients.push(client);
    }
    world
        .until("all are taken", |s| {
            s.datagrams_sent + s.datagrams_unrouted == 200
        })
        .await;
    let counts = [
        a.seen().len(),
        b.seen().len(),
        world.proxy.stats().datagrams_unrouted as usize,
    ];
    for (seen, expected) in counts.into_iter().zip([140_usize, 40, 20]) {
        assert!(seen.abs_diff(expected) <= 3, "{seen} of {expected}");
    }
}

#[tokio::test]
async fn what_an_endpoint_refuses_goes_to_another_one() {
    let ((dead, _silent), echo) = (nobody().await, Echo::start("a").await);
    let world = World::new(udp(&[dead, echo.address])).await;
    for i in 0..20 {
        let client = Client::to(world.address).await;
        assert_eq!(client.ask(format!("{i}")).await, format!("a:{i}"));
    }
    assert!(world.proxy.stats().upstream_connect_failures > 0);
}

#[tokio::test]
async fn a_session_whose_endpoint_has_gone_begins_anew_elsewhere() {
    let (a, b) = (Echo::start("a").await, Echo::start("b").await);
    let world = World::new(udp(&[a.address, b.address])).await;
    let client = Client::to(world.address).await;
    let first = client.ask("x").await;
    let (gone, stays) = match first.as_str() {
        "a:x" => (a, "b:x"),
        _ => (b, "a:x"),
    };
    gone.task.abort();
    let closed = async || UdpSocket::bind(gone.address).await.is_ok();
    while !closed().await {
        tokio::task::yield_now().await;
    }
    // The first one is lost with the endpoint, as any on its way would be.
    client.0.send(b"lost").await.unwrap();
    world
        .until("it is over", |s| s.datagram_sessions_open == 0)
        .await;
    for _ in 0..4 {
        let client = Client::to(world.address).await;
        assert_eq!(client.ask("x").await, stays);
    }
    assert_eq!(client.ask("x").await, stays);
}

#[tokio::test]
async fn without_a_route_or_an_endpoint_nothing_is_kept() {
    let unrouted = Config::default().streams("udp", None, ListenerProtocol::Udp);
    for config in [unrouted, udp(&[])] {
        let world = World::new(config).await;
        let client = Client::to(world.address).await;
        client.0.send(b"x").await.unwrap();
        world
            .until("it is dropped", |s| s.datagrams_dropped == 1)
            .await;
        assert_eq!(world.proxy.stats().datagram_sessions, 0);
    }
}

#[tokio::test]
async fn a_denied_source_opens_no_session() {
    let echo = Echo::start("a").await;
    let mut config = Config::default()
        .streams("udp", None, ListenerProtocol::Udp)
        .permitting(SourcePolicy {
            allow: Vec::new(),
            deny: vec!["127.0.0.2/32".parse().unwrap()],
        });
    let action = config.upstream("app", &[echo.address]);
    let world = World::new(config.route(RouteSpec::new("udp", "", action))).await;
    let denied = Client::from([127, 0, 0, 2].into(), world.address).await;
    denied.0.send(b"x").await.unwrap();
    world
        .until("it is counted", |s| s.datagrams_denied == 1)
        .await;
    assert_eq!(Client::to(world.address).await.ask("x").await, "a:x");
    assert_eq!(echo.seen().len(), 1);
}

#[tokio::test]
async fn a_silent_session_ends_and_the_next_datagram_opens_another() {
    let echo = Echo::start("a").await;
    let world = World::with(udp(&[echo.address]), |l| {
        l.datagram.unproven_idle = Duration::from_millis(200);
        l.datagram.idle = Duration::from_millis(600);
    })
    .await;
    let client = Client::to(world.address).await;
    client.ask("x").await;
    world
        .until("it is over", |s| s.datagram_sessions_open == 0)
        .await;
    client.ask("x").await;
    client.ask("proven now").await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(world.proxy.stats().datagram_sessions_open, 1);
    world
        .until("it is over too", |s| s.datagram_sessions_open == 0)
        .await;
    assert_eq!(world.proxy.stats().datagram_sessions, 2);
}

#[tokio::test]
async fn forged_sources_displace_each_other_and_nobody_who_is_heard_of_again() {
    let echo = Echo::start("a").await;
    let world = World::with(udp(&[echo.address]), |l| {
        l.datagram.sessions = 32;
    })
    .await;
    let client = Client::to(world.address).await;
    client.ask("one").await;
    client.ask("two").await;
    let port = echo.seen()[0].port();
    for i in 0..=255 {
        let forged = Client::from([127, 9, 9, i].into(), world.address).await;
        forged.0.send(b"flood").await.unwrap();
    }
    world
        .until("all came", |s| s.datagram_sessions == 257)
        .await;
    world
        .until("they went", |s| s.datagram_sessions_open <= 32)
        .await;
    assert_eq!(client.ask("three").await, "a:three");
    assert_eq!(
        echo.seen()
            .iter()
            .filter(|from| from.port() == port)
            .count(),
        3
    );
    assert_eq!(world.proxy.stats().datagram_sessions_evicted, 225);
}

#[tokio::test]
async fn a_source_with_too_many_sessions_is_the_only_one_to_lose_some() {
    let echo = Echo::start("a").await;
    let world = World::with(udp(&[echo.address]), |l| l.datagram.per_source = 4).await;
    let other = Client::from([127, 0, 0, 2].into(), world.address).await;
    other.ask("x").await;
    let mut proven = Vec::new();
    for _ in 0..4 {
        let client = Client::to(world.address).await;
        client.ask("x").await;
        client.ask("y").await;
        proven.push(client);
    }
    let late = Client::to(world.address).await;
    late.0.send(b"x").await.unwrap();
    world
        .until("it is refused", |s| s.datagrams_over_limit == 1)
        .await;
    for client in proven.iter().chain([&other]) {
        assert_eq!(client.ask("z").await, "a:z");
    }
    assert_eq!(world.proxy.stats().datagram_sessions, 5);
}

#[tokio::test]
async fn a_session_follows_its_route_to_other_endpoints_and_stays_when_it_may() {
    let (a, b) = (Echo::start("a").await, Echo::start("b").await);
    let world = World::new(udp(&[a.address])).await;
    let client = Client::to(world.address).await;
    assert_eq!(client.ask("x").await, "a:x");
    world.apply(udp(&[a.address, b.address])).await;
    assert_eq!(client.ask("x").await, "a:x");
    assert_eq!(
        world.proxy.stats().datagram_sessions,
        1,
        "its endpoint is still there"
    );
    world.apply(udp(&[b.address])).await;
    assert_eq!(client.ask("x").await, "b:x");
    let gone = Config::default().streams("tcp", None, ListenerProtocol::Tcp);
    world.apply(gone).await;
    world
        .until("it is over", |s| s.datagram_sessions_open == 0)
        .await;
    world.apply(udp(&[a.address])).await;
    assert_eq!(
        client.ask("x").await,
        "a:x",
        "the same socket is served again"
    );
}

#[tokio::test]
async fn a_backend_by_name_gets_what_came_before_it_was_resolved() {
    let echo = Echo::start("a").await;
    let mut config = Config::default().streams("udp", None, ListenerProtocol::Udp);
    let endpoints = Endpoints::Dns {
        host: "localhost".into(),
        port: echo.address.port(),
    };
    let action = config.upstream_of("app", UpstreamProtocol::Opaque, endpoints);
    let world = World::new(config.route(RouteSpec::new("udp", "", action))).await;
    assert_eq!(Client::to(world.address).await.ask("x").await, "a:x");
}

#[tokio::test]
async fn a_log_line_tells_of_each_session() {
    let echo = Echo::start("a").await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let settings = Settings {
        access_log: AccessLogFormat::Json,
        access_log_output: AccessLogOutput::File(path.clone()),
        limits: Limits {
            time: gateway_proxy::limits::TimeLimits {
                drain_grace: Duration::from_millis(100),
                ..Limits::default().time
            },
            ..Limits::default()
        },
        ..settings()
    };
    let world = World::start(udp(&[echo.address]), settings).await;
    Client::to(world.address).await.ask("12345").await;
    world.proxy.drain(LONG).await;
    let text = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    for (name, value) in [
        ("protocol", "UDP"),
        ("gateway", "test/gateway"),
        ("listener", "udp"),
        ("route", "test/route-1"),
        ("backend", "test/app:80"),
        ("client", "127.0.0.1"),
    ] {
        assert_eq!(line[name], value, "{text}");
    }
    assert_eq!(line["endpoint"], echo.address.to_string());
    assert_eq!(
        (&line["bytes_received"], &line["bytes_sent"]),
        (&5.into(), &7.into())
    );
}

#[tokio::test]
async fn draining_waits_for_sessions_in_use_and_opens_no_more() {
    let echo = Echo::start("a").await;
    let world = World::with(udp(&[echo.address]), |l| {
        l.time.drain_grace = Duration::from_millis(100);
        l.datagram.idle = Duration::from_millis(500);
    })
    .await;
    let (used, asked) = (
        Client::to(world.address).await,
        Client::to(world.address).await,
    );
    used.ask("1").await;
    used.ask("2").await;
    asked.ask("once").await;
    let clients = async {
        for i in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!(used.ask(format!("{i}")).await, format!("a:{i}"));
        }
        let late = Client::to(world.address).await;
        late.0.send(b"late").await.unwrap();
        world
            .until("it is refused", |s| s.datagrams_over_limit == 1)
            .await;
    };
    tokio::join!(world.proxy.drain(LONG), clients);
    assert_eq!(world.proxy.stats().datagram_sessions_open, 0);
}

fn settings() -> Settings {
    Settings {
        workers: 1.try_into().unwrap(),
        ..Settings::default()
    }
}
