//! One process after another: upgrades, clean stops, and what a killed process leaves.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use gateway_l4::{Attach, Hook, L4, L4Error, Settings};
use gateway_model::l4_plan::L4Plan;
use gateway_tests::bed::plan;
use gateway_tests::until;

use crate::wire::{CLIENT, VIP, Wire, Workers, counted, front, socket_address};

pub fn open() -> L4Plan {
    plan(
        &[(Some(VIP[0]), 443, &[], &[]), (Some(VIP[1]), 443, &[], &[])],
        &VIP,
    )
}

pub async fn live(wire: &Wire, workers: &Workers, plan: &L4Plan) -> L4 {
    let mut l4 = wire.start(Attach::Auto).await;
    l4.apply(plan).await.expect("apply");
    l4.take_over(&workers.steering()).await.expect("take over");
    l4
}

pub fn is_clean(wire: &Wire) {
    assert!(!wire.pin_dir.exists(), "pins are left");
    wire.has_no_xdp();
    for family in ["-4", "-6"] {
        let routes = wire.ip_output(&[family, "route", "show", "table", "local"]);
        assert!(
            !VIP.iter().any(|vip| routes.contains(vip)),
            "a route is left: {routes}"
        );
    }
}

#[test]
fn a_clean_stop_leaves_nothing() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &open()).await;
        assert!(l4.is_live());
        assert!(wire.has_xdp());
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn a_start_that_never_went_live_leaves_nothing() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&open()).await.expect("apply");
        assert!(!l4.is_live());
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

/// The order of an upgrade, with a client that connects without pause.
#[test]
fn a_successor_takes_over_without_a_refused_connection() {
    let wire = Wire::new();
    let done = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let node = scope.spawn(|| {
            let _end = SetOnDrop(&done);
            wire.node.block_on(async {
                let old_workers = Workers::listen(2);
                let mut old = live(&wire, &old_workers, &open()).await;
                let mut programs = vec![front(&old).program_id];
                serve_some(&served, 50, &old_workers);
                let new_workers = Workers::listen(2);
                let mut new = wire.start(Attach::Auto).await;
                new.apply(&open()).await.expect("apply");
                assert!(old.is_live() && !new.is_live());
                assert_eq!(
                    front(&new).program_id,
                    programs[0],
                    "the old program stays until the take-over"
                );
                serve_some(&served, 50, &old_workers);
                new.take_over(&new_workers.steering())
                    .await
                    .expect("take over");
                assert!(new.is_live() && !old.is_live());
                programs.push(front(&new).program_id);
                assert_ne!(
                    programs[0], programs[1],
                    "the new program hangs on the old link"
                );
                assert!(matches!(old.apply(&open()).await, Err(L4Error::Superseded)));
                assert!(matches!(
                    old.take_over(&old_workers.steering()).await,
                    Err(L4Error::Superseded)
                ));
                old.detach().await.expect("detach");
                drain(&old_workers);
                drop(old_workers);
                serve_some(&served, 100, &new_workers);
                assert_eq!(front(&new).hook, Hook::XdpNative);
                assert_eq!(counted(&new, "steer_no_socket"), 0);
                done.store(true, Ordering::Relaxed);
                drain(&new_workers);
                new.detach().await.expect("detach");
                is_clean(&wire);
            });
        });
        let client = scope.spawn(|| wire.client.run(|| connect_until(&done, &served)));
        client.join().expect("the client");
        node.join().expect("the node");
    });
    assert!(served.load(Ordering::Relaxed) >= 200);
}

/// Ends the other thread, however this one ends.
struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connects again and again; each connection must be answered with one byte.
fn connect_until(done: &AtomicBool, served: &AtomicUsize) {
    until("the node serves", || {
        TcpStream::connect(socket_address(VIP[0], 443)).ok()
    })
    .expect("a first connection");
    for vip in VIP.iter().cycle() {
        if done.load(Ordering::Relaxed) {
            return;
        }
        let mut stream = match TcpStream::connect(socket_address(vip, 443)) {
            Ok(stream) => stream,
            Err(_) if done.load(Ordering::Relaxed) => return,
            Err(error) => panic!("refused after {}: {error}", served.load(Ordering::Relaxed)),
        };
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a timeout");
        match stream.read(&mut [0]) {
            Ok(1) => served.fetch_add(1, Ordering::Relaxed),
            _ if done.load(Ordering::Relaxed) => return,
            other => panic!(
                "not served after {}: {other:?}",
                served.load(Ordering::Relaxed)
            ),
        };
    }
}

/// Answers what comes until so many more have been served.
fn serve_some(served: &AtomicUsize, count: usize, workers: &Workers) {
    let target = served.load(Ordering::Relaxed) + count;
    until("connections are served", || {
        drain(workers);
        (served.load(Ordering::Relaxed) >= target).then_some(())
    })
    .expect("enough connections");
}

/// Answers what is queued.
fn drain(workers: &Workers) {
    for socket in workers.steering() {
        let listener = workers.socket(socket.worker as usize, VIP[usize::from(socket.v6)]);
        listener.set_nonblocking(true).expect("a mode");
        while let Ok((mut stream, _)) = listener.accept() {
            // The client may be gone at the end of the test.
            drop(stream.write_all(b"x"));
        }
    }
}

#[test]
fn the_place_of_a_successor_that_dies_is_taken_back() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut old = live(&wire, &workers, &open()).await;
        let program = front(&old).program_id;
        let new_workers = Workers::listen(2);
        let new = live(&wire, &new_workers, &open()).await;
        assert!(!old.is_live() && !old.is_forsaken());
        drop(new);
        drop(new_workers);
        let forsaken = async {
            while !old.is_forsaken() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), forsaken)
            .await
            .expect("the dead one's locks go");
        wire.try_connect(VIP[0], 443, Duration::from_secs(1))
            .expect_err("nobody listens");
        old.take_over(&workers.steering()).await.expect("take over");
        assert!(old.is_live() && !old.is_forsaken());
        assert_eq!(front(&old).program_id, program);
        for vip in VIP {
            wire.try_connect(vip, 443, Duration::from_secs(1))
                .expect("steered again");
        }
        old.apply(&open()).await.expect("apply");
        old.detach().await.expect("detach");
        is_clean(&wire);
    });
}

/// Closing all descriptors is what the kernel sees of kill -9.
#[test]
fn what_a_killed_process_leaves_harms_nobody_and_is_taken_over() {
    let wire = Wire::new();
    let denying = plan(
        &[
            (Some(VIP[0]), 443, &[], &[CLIENT[0]]),
            (Some(VIP[1]), 443, &[], &[]),
        ],
        &VIP,
    );
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &denying).await;
        wire.try_connect(VIP[0], 443, Duration::from_millis(300))
            .expect_err("denied");
        drop(l4);
        drop(workers);
        assert!(wire.has_xdp(), "the link is pinned");
        for vip in VIP {
            let refused = wire
                .try_connect(vip, 443, Duration::from_secs(10))
                .expect_err("nobody serves");
            assert_eq!(
                refused.kind(),
                ErrorKind::ConnectionRefused,
                "{vip}: not dropped, the policy's owner is dead"
            );
        }
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &open()).await;
        assert!(
            counted(&l4, "no_owner") > 0,
            "the counters are those of the predecessor"
        );
        for vip in VIP {
            let _dialled = wire.connect(vip, 443);
            workers.accept(vip);
        }
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn a_predecessor_may_stop_while_its_successor_starts() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let old_workers = Workers::listen(1);
        let old = live(&wire, &old_workers, &open()).await;
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&open()).await.expect("apply");
        old.detach().await.expect("detach");
        drop(old_workers);
        let workers = Workers::listen(1);
        l4.take_over(&workers.steering()).await.expect("take over");
        assert!(l4.is_live());
        // Everything is pinned again: another successor finds it.
        let hook = front(&l4).hook;
        let next_workers = Workers::listen(1);
        let next = live(&wire, &next_workers, &open()).await;
        assert!(!l4.is_live());
        drop((l4, workers));
        assert_eq!(front(&next).hook, hook);
        for vip in VIP {
            let _dialled = wire.connect(vip, 443);
            next_workers.accept(vip);
        }
        next.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn what_a_killed_process_leaves_can_be_cleaned_up() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let killed = live(&wire, &workers, &open()).await;
        let cleaner = wire.start(Attach::Auto).await;
        assert!(cleaner.status().expect("status").another_is_live);
        cleaner.detach().await.expect("nothing of its own");
        let _dialled = wire.connect(VIP[0], 443);
        drop((killed, workers));
        let cleaner = wire.start(Attach::Auto).await;
        assert!(!cleaner.status().expect("status").another_is_live);
        cleaner.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn a_successor_that_dies_before_it_takes_over_changes_nothing() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = live(&wire, &workers, &open()).await;
        let mut successor = wire.start(Attach::Auto).await;
        successor.apply(&L4Plan::default()).await.expect("apply");
        drop(successor);
        assert!(l4.is_live());
        l4.apply(&open()).await.expect("apply");
        let _dialled = wire.connect(VIP[0], 443);
        workers.accept(VIP[0]);
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn pins_of_another_layout_are_taken_over_too() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let old_workers = Workers::listen(1);
        let old = live(&wire, &old_workers, &open()).await;
        let old_program = front(&old).program_id;
        let pins = old.status().expect("status").pin_dir;
        let renamed = pins.with_file_name("v0123456789abcdef");
        std::fs::rename(&pins, &renamed).expect("a layout of another name");
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &open()).await;
        assert_ne!(front(&l4).program_id, old_program);
        assert!(!renamed.exists());
        drop(old);
        drop(old_workers);
        for vip in VIP {
            let _dialled = wire.connect(vip, 443);
            workers.accept(vip);
        }
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn pins_of_a_namespace_that_is_gone_are_removed() {
    let gone = Wire::new();
    let pin_dir = gone.pin_dir.clone();
    let leftover = gone.node.block_on(async {
        let workers = Workers::listen(1);
        let l4 = live(&gone, &workers, &open()).await;
        l4.status().expect("status").pin_dir
    });
    assert!(leftover.exists());
    let wire = Wire::with_pins(pin_dir);
    let Wire { node, client, .. } = gone;
    drop((node, client));
    wire.node.block_on(async {
        let mut removed = false;
        // The kernel takes a namespace down in its own time.
        for _ in 0..1000 {
            let l4 = wire.start(Attach::Auto).await;
            removed = l4
                .status()
                .expect("status")
                .notes
                .iter()
                .any(|note| note.contains("a network namespace that is gone"));
            l4.detach().await.expect("detach");
            if removed {
                break;
            }
        }
        assert!(removed);
        assert!(!leftover.exists());
    });
}

#[test]
fn routes_follow_the_plan_and_not_the_interfaces() {
    let wire = Wire::new();
    let own = crate::wire::NODE;
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let all = [VIP[0], VIP[1], own[0], own[1]];
        let mut l4 = live(&wire, &workers, &plan(&[(None, 443, &[], &[])], &all)).await;
        let routed = |l4: &L4| l4.status().expect("status").local_routes;
        assert_eq!(
            routed(&l4),
            VIP.map(|vip| vip.parse::<std::net::IpAddr>().expect("an address"))
        );
        l4.apply(&plan(&[(None, 443, &[], &[])], &[VIP[1]]))
            .await
            .expect("apply");
        assert_eq!(
            routed(&l4),
            [VIP[1].parse::<std::net::IpAddr>().expect("an address")]
        );
        let local = wire.ip_output(&["route", "show", "table", "local"]);
        assert!(!local.contains(VIP[0]) && local.contains(own[0]), "{local}");
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn an_address_that_the_node_gets_later_is_the_nodes() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let l4 = live(
            &wire,
            &workers,
            &plan(&[(None, 8080, &[], &[CLIENT[0]])], &[]),
        )
        .await;
        let late = "192.0.2.99";
        wire.node
            .ip(&[&format!(
                "addr add {late}/24 dev {}",
                crate::wire::INTERFACE
            )])
            .expect("an address");
        let mut tries = 0;
        while counted(&l4, "denied") == 0 {
            // The news comes to a task of this runtime.
            tokio::time::sleep(Duration::from_millis(1)).await;
            wire.try_connect(late, 8080, Duration::from_millis(50))
                .err();
            tries += 1;
            assert!(tries < 400, "the address stays unknown");
        }
        l4.detach().await.expect("detach");
    });
}

#[test]
fn a_process_that_is_no_successor_does_not_take_over() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let l4 = live(&wire, &workers, &open()).await;
        let stranger = |lineage| Settings {
            lineage,
            ..wire.settings(Attach::Auto)
        };
        let mut other = crate::routes::start(stranger(1)).await;
        other.apply(&open()).await.expect("apply");
        let other_workers = Workers::listen(1);
        assert!(matches!(
            other.take_over(&other_workers.steering()).await,
            Err(L4Error::Occupied { .. })
        ));
        assert!(l4.is_live());
        let _dialled = wire.connect(VIP[0], 443);
        workers.accept(VIP[0]);
        drop((l4, workers));
        let dead = async {
            while other.status().expect("status").another_is_live {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), dead)
            .await
            .expect("the dead one's locks go");
        other
            .take_over(&other_workers.steering())
            .await
            .expect("the other one is dead");
        other.detach().await.expect("detach");
        is_clean(&wire);
    });
}
