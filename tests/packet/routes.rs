//! The routes that bring virtual addresses to the node: whose they are, and what becomes of the others.

use std::net::IpAddr;
use std::time::Duration;

use gateway_l4::{Attach, L4, Outcome, Settings};
use gateway_tests::bed::plan;
use gateway_tests::cleanup::{self, Leftover};

use crate::lifecycle::{is_clean, live, open};
use crate::wire::{INTERFACE, VIP, Wire, Workers, ip};

fn routed(l4: &L4) -> Vec<IpAddr> {
    l4.status().expect("status").local_routes
}

#[test]
fn an_address_that_the_kernel_refuses_takes_no_other_along() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let disable = |value| wire.node.sysctl("ipv6/conf/all/disable_ipv6", value);
        disable("1").expect("no IPv6");
        let mut l4 = live(&wire, &workers, &open()).await;
        let refused = l4.refused();
        assert_eq!(refused.borrow().keys().collect::<Vec<_>>(), [&ip(VIP[1])]);
        let frontends = l4.status().expect("status").frontends;
        let served: Vec<_> = frontends.iter().filter_map(|each| each.address).collect();
        assert_eq!(served, [ip(VIP[0])]);
        let _dialled = wire.connect(VIP[0], 443);
        workers.accept(VIP[0]);
        disable("0").expect("IPv6");
        l4.apply(&open()).await.expect("apply");
        assert!(refused.borrow().is_empty());
        assert_eq!(routed(&l4), VIP.map(ip));
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn a_plan_that_does_not_go_live_leaves_no_routes() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = live(&wire, &workers, &Default::default()).await;
        let ports: Vec<_> = (1..=4097)
            .map(|port| (None, port, &[][..], &[][..]))
            .collect();
        let too_much = plan(&ports, &VIP);
        l4.apply(&too_much).await.expect_err("does not fit");
        let routes = wire.ip_output(&["route", "show", "table", "local"]);
        assert!(!routes.contains(VIP[0]), "{routes}");
        wire.try_connect(VIP[0], 443, Duration::from_secs(1))
            .expect_err("nobody is there");
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

/// Another Sluice on the same node, with pins of its own.
fn sibling(wire: &Wire) -> Settings {
    let mut pin_dir = wire.pin_dir.clone().into_os_string();
    pin_dir.push("-sibling");
    Settings {
        pin_dir: pin_dir.into(),
        attach: Attach::Tc,
        ..wire.settings(Attach::Tc)
    }
}

pub async fn start(settings: Settings) -> L4 {
    match L4::start(settings).await.expect("a packet path") {
        Outcome::Bpf(l4) => *l4,
        Outcome::Unavailable { reason } => panic!("no packet path: {reason}"),
    }
}

fn local_routes(wire: &Wire) -> String {
    let all = |family| wire.ip_output(&[family, "route", "show", "table", "local"]);
    ["-4", "-6"].map(all).concat()
}

#[test]
fn routes_of_others_stay_theirs() {
    let wire = Wire::new();
    let foreign = [
        format!("route add local {} dev lo table local proto 83", VIP[0]),
        format!("route add local {} dev lo table local", VIP[1]),
    ];
    wire.node.block_on(async {
        wire.node
            .ip(&[&foreign[0], &foreign[1]])
            .expect("an operator's routes");
        let before = local_routes(&wire);
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &open()).await;
        assert_eq!(routed(&l4), VIP.map(ip));
        l4.detach().await.expect("detach");
        assert_eq!(local_routes(&wire), before);
    });
}

#[test]
fn a_sluice_with_other_pins_keeps_its_routes_when_this_one_leaves() {
    let wire = Wire::new();
    let settings = sibling(&wire);
    let _guard = cleanup::register(Leftover::Directory(settings.pin_dir.clone()));
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let first = live(&wire, &workers, &open()).await;
        let mut second = start(settings.clone()).await;
        second.apply(&open()).await.expect("apply");
        let other_workers = Workers::listen(1);
        second
            .take_over(&other_workers.steering())
            .await
            .expect("take over");
        let clean = start(wire.settings(Attach::Tc)).await;
        clean.detach().await.expect("nothing of its own");
        first.detach().await.expect("detach");
        drop(workers);
        for vip in VIP {
            // The first one's link may stay for a moment, as in `Wire::has_no_xdp`.
            gateway_tests::until("the second one serves alone", || {
                let _dialled = wire.try_connect(vip, 443, Duration::from_secs(1)).ok()?;
                other_workers.try_accept(vip)
            })
            .expect("a connection");
        }
        second.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn what_a_killed_process_routed_goes_with_the_next_plan() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        drop(live(&wire, &workers, &open()).await);
        assert!(VIP.iter().all(|vip| local_routes(&wire).contains(vip)));
        let l4 = live(&wire, &workers, &plan(&[], &[VIP[1]])).await;
        assert!(!local_routes(&wire).contains(VIP[0]));
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn a_broadcast_address_is_refused_and_stays_one() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let before = local_routes(&wire);
        let workers = Workers::listen(1);
        let broadcast = "192.0.2.255";
        let l4 = live(
            &wire,
            &workers,
            &plan(&[(Some(broadcast), 443, &[], &[])], &[broadcast]),
        )
        .await;
        assert!(l4.refused().borrow().contains_key(&ip(broadcast)));
        l4.detach().await.expect("detach");
        assert_eq!(local_routes(&wire), before);
    });
}

#[test]
fn an_address_that_an_interface_loses_is_routed_and_one_that_it_gets_is_not() {
    let wire = Wire::new();
    let interface = |verb: &str| {
        let line = format!("addr {verb} {}/32 dev {INTERFACE}", VIP[0]);
        wire.node.ip(&[&line]).expect("an address");
    };
    wire.node.block_on(async {
        interface("add");
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &open()).await;
        for (verb, expected) in [("del", &VIP[..]), ("add", &VIP[1..]), ("del", &VIP[..])] {
            interface(verb);
            let expected: Vec<_> = expected.iter().map(|vip| ip(vip)).collect();
            let followed = async {
                while routed(&l4) != expected {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), followed)
                .await
                .expect("the routes follow");
            let _dialled = wire.connect(VIP[0], 443);
            workers.accept(VIP[0]);
        }
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn addresses_stay_routed_for_a_successor_on_ordinary_sockets() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &open()).await;
        l4.detach_for_sockets().await.expect("detach");
        assert!(!wire.pin_dir.exists());
        wire.has_no_xdp();
        assert!(VIP.iter().all(|vip| local_routes(&wire).contains(vip)));
        let next = start(wire.settings(Attach::Auto)).await;
        next.detach().await.expect("clean-up");
        is_clean(&wire);
    });
}
