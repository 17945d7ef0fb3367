//! Configurations that change while requests run.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use gateway_model::names::Revision;
use gateway_model::snapshot::compile;
use gateway_proxy::{ListenMode, Proxy, Settings};
use tokio::sync::Notify;

use crate::support::{Backend, Client, Config, World, listener_key, listening_socket};

const OLD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold";
const NEW: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew";

#[tokio::test]
async fn a_request_keeps_the_revision_it_began_with_and_the_next_sees_the_new_one() {
    let gate = Arc::new(Notify::new());
    let opened = Arc::clone(&gate);
    let old = Backend::start(move |mut conn| {
        let gate = Arc::clone(&opened);
        async move {
            conn.head().await.unwrap();
            gate.notified().await;
            conn.write(OLD).await;
            conn.head().await;
        }
    })
    .await;
    let new = Backend::answering(NEW).await;
    let world = World::new(Config::to(&[old.address])).await;
    let mut client = world.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    world
        .until("it is under way", |stats| stats.requests_active == 1)
        .await;
    let applied = world.apply(Config::to(&[new.address])).await;
    assert_eq!(applied.revision, Revision(2));
    assert_eq!(world.get("a", "/").await.body, "new");
    gate.notify_one();
    assert_eq!(client.response().await.body, "old");
    assert_eq!(
        client.get("a", "/").await.body,
        "new",
        "on the same connection"
    );
}

#[tokio::test]
async fn no_request_fails_while_routes_change_under_load() {
    let (old, new) = (Backend::answering(OLD).await, Backend::answering(NEW).await);
    let world = World::new(Config::to(&[old.address])).await;
    let mut load = tokio::task::JoinSet::new();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    for _ in 0..8 {
        let (address, done) = (world.address, Arc::clone(&done));
        load.spawn(async move {
            let mut client = Client::connect(address).await;
            let mut served = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let response = client.get("a", "/").await;
                assert!(response.status == 200 && ["old", "new"].contains(&&*response.body));
                served += 1;
            }
            served
        });
    }
    for _ in 0..50 {
        world.apply(Config::to(&[new.address])).await;
        world.apply(Config::to(&[old.address])).await;
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    for served in load.join_all().await {
        assert!(served > 0);
    }
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_fails_its_listener_and_no_other() {
    let backend = Backend::answering(OLD).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::new(Config::to(&[backend.address])).await;
    let mut config = Config::to(&[backend.address]).build(world.address);
    let mut other = (**config.listeners.values().next().unwrap()).clone();
    other.key = listener_key("taken");
    other.port = taken.local_addr().unwrap().port();
    config.listeners.insert(other.key.clone(), Arc::new(other));
    let applied = world
        .proxy
        .apply(compile(&config, Revision(7), None).snapshot)
        .await;
    assert_eq!(applied.failures.len(), 1);
    assert_eq!(applied.failures[0].listener, listener_key("taken"));
    assert!(
        applied.failures[0]
            .failure
            .reason
            .contains("another process"),
        "{:?}",
        applied.failures
    );
    assert_eq!(world.get("a", "/").await.body, "old");
    drop(taken);
    let applied = world
        .proxy
        .apply(compile(&config, Revision(8), None).snapshot)
        .await;
    assert_eq!(applied.failures, [], "tried again with the next revision");
}

#[tokio::test]
async fn another_sluice_that_listens_shares_its_port_with_nobody() {
    let backend = Backend::answering(OLD).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mode = ListenMode::Sockets {
        inherited: Vec::new(),
    };
    let other = Proxy::start(Settings::default(), mode).unwrap();
    let config = Config::to(&[backend.address]).build(world.address);
    let snapshot = compile(&config, Revision(1), None).snapshot;
    let applied = other.apply(Arc::clone(&snapshot)).await;
    assert_eq!(applied.failures.len(), 1);
    let reason = applied.failures[0].failure.to_string();
    assert!(reason.contains("another process listens there"), "{reason}");
    world.proxy.drain(std::time::Duration::from_secs(30)).await;
    let applied = other.apply(snapshot).await;
    assert_eq!(applied.failures, [], "it is free now");
}

#[tokio::test]
async fn a_listener_is_served_on_those_of_its_addresses_that_the_node_has() {
    let backend = Backend::answering(OLD).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let world = World::new(Config::to(&[backend.address])).await;
    let mut config = Config::to(&[backend.address]).build(world.address);
    let (here, nowhere) = (world.address.ip(), "192.0.2.1".parse().unwrap());
    let (key, http) = config.listeners.iter().next().unwrap();
    let (key, mut http) = (key.clone(), (**http).clone());
    http.addresses = vec![here, nowhere];
    let mut other = http.clone();
    other.key = listener_key("other");
    other.port = taken.local_addr().unwrap().port();
    config.listeners.insert(key.clone(), Arc::new(http));
    config.listeners.insert(other.key.clone(), Arc::new(other));
    let applied = world
        .proxy
        .apply(compile(&config, Revision(7), None).snapshot)
        .await;
    let of = |key| {
        let mut failures = applied.failures.iter();
        &failures
            .find(|failure| failure.listener == key)
            .unwrap()
            .failure
    };
    let partly = of(key);
    assert!(partly.is_of_addresses(), "{partly:?}");
    assert_eq!(
        (&*partly.served, &*partly.unusable),
        (&[here][..], &[nowhere][..])
    );
    let text = partly.to_string();
    assert!(
        text.starts_with(&format!("served on {here}; cannot listen on {nowhere}:")),
        "{text}"
    );
    assert!(
        text.ends_with("no interface of this node has that address"),
        "{text}"
    );
    let other = of(listener_key("other"));
    assert!(other.is_refused && other.served.is_empty(), "{other:?}");
    assert_eq!(other.unusable, [nowhere]);
    assert_eq!(world.get("a", "/").await.body, "old");
}

#[tokio::test]
async fn a_listener_that_goes_away_closes_its_port_and_serves_what_is_open() {
    let backend = Backend::answering(OLD).await;
    let world = World::new(Config::to(&[backend.address])).await;
    let mut client = world.client().await;
    client.get("a", "/").await;
    world.apply(Config::default()).await;
    assert_eq!(client.get("a", "/").await.status, 404);
    world.apply(Config::to(&[backend.address])).await;
    assert_eq!(world.get("a", "/").await.status, 200);
}

#[tokio::test]
async fn a_successor_takes_the_sockets_over_without_a_refused_connection() {
    let (old, new) = (Backend::answering(OLD).await, Backend::answering(NEW).await);
    let (address, fd) = listening_socket();
    let settings = || Settings {
        workers: 2.try_into().unwrap(),
        ..Settings::default()
    };
    let start = |inherited| Proxy::start(settings(), ListenMode::Sockets { inherited }).unwrap();
    let snapshot = |backend: SocketAddr| {
        let config = Config::to(&[backend]).build(address);
        compile(&config, Revision(1), None).snapshot
    };
    let first = start(vec![(address, fd)]);
    assert_eq!(first.apply(snapshot(old.address)).await.failures, []);
    assert_eq!(
        Client::connect(address).await.get("a", "/").await.body,
        "old"
    );

    let sockets = first.listening_sockets().await.unwrap();
    assert_eq!(sockets.len(), 2);
    let second = start(sockets);
    assert_eq!(second.apply(snapshot(new.address)).await.failures, []);
    let load = async {
        let mut last = String::new();
        for _ in 0..200 {
            last = Client::connect(address).await.get("a", "/").await.body;
        }
        last
    };
    let drained = first.drain(std::time::Duration::from_secs(30));
    let ((), _) = tokio::join!(drained, load);
    assert_eq!(
        Client::connect(address).await.get("a", "/").await.body,
        "new"
    );
}

#[tokio::test]
async fn steered_workers_listen_on_loopback_and_hand_out_their_sockets() {
    let settings = Settings {
        workers: 3.try_into().unwrap(),
        ..Settings::default()
    };
    let proxy = Proxy::start(
        settings,
        ListenMode::Steered {
            inherited: Vec::new(),
            steering: Vec::new(),
        },
    )
    .unwrap();
    let sockets = proxy.steering_sockets().await.unwrap();
    let workers: Vec<_> = sockets.iter().filter(|s| !s.v6).map(|s| s.worker).collect();
    assert_eq!(workers, [0, 1, 2]);
    for socket in &sockets {
        let socket = socket2::SockRef::from(&socket.fd.as_fd())
            .local_addr()
            .unwrap();
        let address = socket.as_socket().unwrap();
        assert!(address.ip().is_loopback() && address.port() != 0);
    }
}

#[tokio::test]
async fn a_steered_connection_is_served_by_the_address_it_was_made_to() {
    let backend = Backend::answering(NEW).await;
    let settings = Settings {
        workers: 1.try_into().unwrap(),
        ..Settings::default()
    };
    let proxy = Proxy::start(
        settings,
        ListenMode::Steered {
            inherited: Vec::new(),
            steering: Vec::new(),
        },
    )
    .unwrap();
    let sockets = proxy.steering_sockets().await.unwrap();
    let socket = sockets.iter().find(|socket| !socket.v6).unwrap();
    let address = socket2::SockRef::from(&socket.fd).local_addr().unwrap();
    let address = address.as_socket().unwrap();
    Client::connect(address).await.ends().await;
    let config = Config::to(&[backend.address]).build(address);
    proxy
        .apply(compile(&config, Revision(1), None).snapshot)
        .await;
    assert_eq!(
        Client::connect(address).await.get("a", "/").await.body,
        "new"
    );
}

/// A proxy that connections are steered to, at its first worker's socket for IPv4.
async fn steered(workers: usize, steering: Vec<std::os::fd::OwnedFd>) -> (Proxy, SocketAddr) {
    let settings = Settings {
        workers: workers.try_into().unwrap(),
        ..Settings::default()
    };
    let inherited = Vec::new();
    let mode = ListenMode::Steered {
        inherited,
        steering,
    };
    let proxy = Proxy::start(settings, mode).unwrap();
    let address = steered_addresses(&proxy).await[0];
    (proxy, address)
}

async fn steered_addresses(proxy: &Proxy) -> Vec<SocketAddr> {
    let sockets = proxy.steering_sockets().await.unwrap();
    let address = |socket: &gateway_proxy::SteeringSocket| {
        let address = socket2::SockRef::from(&socket.fd).local_addr().unwrap();
        address.as_socket().unwrap()
    };
    sockets.iter().map(address).collect()
}

async fn handed_over(proxy: &Proxy) -> Vec<std::os::fd::OwnedFd> {
    let sockets = proxy.steering_sockets().await.unwrap();
    sockets.into_iter().map(|socket| socket.fd).collect()
}

#[tokio::test]
async fn steered_sockets_outlive_their_process_with_what_waits_in_them() {
    let (old_backend, new_backend) = (Backend::answering(OLD).await, Backend::answering(NEW).await);
    let (old, address) = steered(1, Vec::new()).await;
    let config = Config::to(&[old_backend.address]).build(address);
    old.apply(compile(&config, Revision(1), None).snapshot)
        .await;
    let (new, same) = steered(1, handed_over(&old).await).await;
    assert_eq!(same, address);
    let config = Config::to(&[new_backend.address]).build(address);
    new.apply(compile(&config, Revision(2), None).snapshot)
        .await;
    for _ in 0..20 {
        let body = Client::connect(address).await.get("a", "/").await.body;
        assert_eq!(
            body, "old",
            "the new one does not accept before it is told to"
        );
    }
    old.leave_connections().await;
    let waiting = Client::connect(address).await;
    old.drain(std::time::Duration::from_secs(30)).await;
    drop(old);
    new.accept_connections().await;
    let mut waiting = waiting;
    assert_eq!(waiting.get("a", "/").await.body, "new");
    let body = Client::connect(address).await.get("a", "/").await.body;
    assert_eq!(body, "new");
}

#[tokio::test]
async fn every_steered_socket_is_adopted_whatever_number_of_workers_there_are() {
    for (before, after) in [(1, 3), (3, 1)] {
        let (old, _) = steered(before, Vec::new()).await;
        let adopted = steered_addresses(&old).await;
        let (new, _) = steered(after, handed_over(&old).await).await;
        old.leave_connections().await;
        drop(old);
        let steered = steered_addresses(&new).await;
        assert_eq!(steered.len(), 2 * after, "one of each family");
        let kept = steered.iter().filter(|a| adopted.contains(a)).count();
        assert_eq!(kept, 2 * before.min(after));
        new.accept_connections().await;
        // Nobody serves these addresses, so that who accepts closes.
        for address in adopted {
            Client::connect(address).await.ends().await;
        }
    }
}
