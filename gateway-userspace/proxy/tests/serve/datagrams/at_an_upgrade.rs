//! One process after the other on the same sockets, as an upgrade does it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use gateway_proxy::Settings;

use super::{Client, Echo, LOCAL, settings, udp};
use crate::support::{Config, World, reserved};

async fn two(config: &Config, settings: &Settings) -> [World; 2] {
    let (address, reserved) = reserved((LOCAL, 0).into()).unwrap();
    let old = World::at(address, Vec::new(), config.clone(), settings.clone()).await;
    drop(reserved);
    let inherited = old.proxy.listening_sockets().await.unwrap();
    assert_eq!(inherited.len(), settings.workers.get());
    let new = World::at(address, inherited, config.clone(), settings.clone()).await;
    [old, new]
}

#[tokio::test]
async fn sessions_stay_where_they_are_and_new_ones_go_to_the_new_process() {
    let echo = Echo::start("a").await;
    let [old, new] = two(&udp(&[echo.address]), &settings()).await;
    let address = old.address;
    let client = Client::to(address).await;
    client.ask("before").await;
    assert_eq!(old.proxy.stats().datagrams_received, 1, "the new one waits");
    old.proxy.leave_datagrams().await;
    new.proxy.receive_datagrams().await;
    let late = Client::to(address).await;
    for i in 0..5 {
        assert_eq!(client.ask(format!("{i}")).await, format!("a:{i}"));
        assert_eq!(late.ask(format!("{i}")).await, format!("a:{i}"));
    }
    let (before, after) = (old.proxy.stats(), new.proxy.stats());
    assert_eq!(
        (before.datagrams_received, after.datagrams_received),
        (6, 5)
    );
    assert_eq!((before.datagram_sessions, after.datagram_sessions), (1, 1));
    // The old one ends: its client is served by the new one.
    old.proxy.drain(Duration::ZERO).await;
    while new.proxy.stats().datagram_sessions < 2 {
        client.0.send(b"after").await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(client.answer().await, "a:after");
    assert_eq!(new.proxy.stats().datagram_sessions, 2);
}

#[tokio::test]
async fn what_is_queued_when_the_old_process_leaves_is_answered_by_its_session() {
    let echo = Echo::start("a").await;
    let [old, new] = two(&udp(&[echo.address]), &settings()).await;
    let address = old.address;
    let client = Client::to(address).await;
    client.ask("before").await;
    for i in 0..100 {
        client.0.send(format!("{i}").as_bytes()).await.unwrap();
    }
    old.proxy.leave_datagrams().await;
    new.proxy.receive_datagrams().await;
    for i in 0..100 {
        assert_eq!(client.answer().await, format!("a:{i}"));
    }
    assert_eq!(new.proxy.stats().datagram_sessions, 0);
}

fn of_several_workers() -> Settings {
    Settings {
        workers: 3.try_into().unwrap(),
        ..Settings::default()
    }
}

/// A hand-over in the midst of what 32 clients ask; each has one session, before and after.
async fn nothing_is_lost_under_load(ip: Ipv4Addr) {
    let echo = Echo::start("a").await;
    let settings = of_several_workers();
    let (address, reserved) = reserved((LOCAL, 0).into()).unwrap();
    let bound = SocketAddr::from((ip, address.port()));
    let old = World::at(bound, Vec::new(), udp(&[echo.address]), settings.clone()).await;
    drop(reserved);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..32)
        .map(|n| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let client = Client::to(address).await;
                let mut i = 0;
                while !*stopped.borrow() {
                    assert_eq!(client.ask(format!("{n} {i}")).await, format!("a:{n} {i}"));
                    i += 1;
                }
            })
        })
        .collect();
    old.until("all ask", |s| s.datagram_sessions == 32).await;
    let inherited = old.proxy.listening_sockets().await.unwrap();
    let new = World::at(bound, inherited, udp(&[echo.address]), settings).await;
    old.proxy.leave_datagrams().await;
    new.proxy.receive_datagrams().await;
    let before = old.proxy.stats().datagrams_received;
    old.until("they go on", |s| s.datagrams_received >= before + 1_000)
        .await;
    stop.send(true).unwrap();
    for client in clients {
        client.await.unwrap();
    }
    let sessions = [&old, &new].map(|world| world.proxy.stats().datagram_sessions);
    assert_eq!(sessions, [32, 0], "no client has changed its session");
    assert_eq!(Client::to(address).await.ask("x").await, "a:x");
    assert_eq!(new.proxy.stats().datagram_sessions, 1);
}

#[tokio::test]
async fn nothing_is_lost_under_load_with_several_workers_on_every_address() {
    nothing_is_lost_under_load(Ipv4Addr::UNSPECIFIED).await;
}

#[tokio::test]
async fn nothing_is_lost_under_load_with_several_workers_on_one_address() {
    nothing_is_lost_under_load(Ipv4Addr::LOCALHOST).await;
}

#[tokio::test]
async fn a_client_keeps_its_session_when_those_of_the_old_process_end() {
    let echo = Echo::start("a").await;
    let [old, new] = two(&udp(&[echo.address]), &of_several_workers()).await;
    let address = old.address;
    let ask_all = async |clients: &[Client]| {
        for client in clients {
            assert_eq!(client.ask("x").await, "a:x");
        }
    };
    let mut clients = Vec::new();
    for _ in 0..64 {
        clients.push(Client::to(address).await);
    }
    let (early, late) = clients.split_at(32);
    ask_all(early).await;
    old.proxy.leave_datagrams().await;
    new.proxy.receive_datagrams().await;
    ask_all(late).await;
    assert_eq!(new.proxy.stats().datagram_sessions, 32);
    old.proxy.drain(Duration::ZERO).await;
    ask_all(late).await;
    assert_eq!(new.proxy.stats().datagram_sessions, 32);
}

#[tokio::test]
async fn a_successor_that_never_comes_changes_nothing() {
    let echo = Echo::start("a").await;
    let [old, new] = two(&udp(&[echo.address]), &settings()).await;
    let address = old.address;
    drop(new);
    let client = Client::to(address).await;
    assert_eq!(client.ask("x").await, "a:x");
    assert_eq!(old.proxy.stats().datagrams_received, 1);
}
