//! Connections to virtual addresses, steered to sockets that are bound elsewhere.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::time::Duration;

use gateway_l4::{Attach, Hook, L4Error};
use gateway_tests::bed::{Wanted, plan};

use crate::wire::{CLIENT, NODE, VIP, Wire, Workers, counted, ip, socket_address, steer_hook};

const OPEN: [Wanted<'static>; 2] = [(Some(VIP[0]), 443, &[], &[]), (Some(VIP[1]), 443, &[], &[])];

#[test]
fn both_ends_have_the_addresses_that_were_dialled() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(2);
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&plan(&OPEN, &VIP)).await.expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        assert_eq!(steer_hook(&l4), Hook::SkLookup);
        for (vip, client) in VIP.iter().zip(CLIENT) {
            let dialled = wire.connect(vip, 443);
            let (_, accepted) = workers.accept(vip);
            assert_eq!(
                accepted.local_addr().expect("getsockname"),
                socket_address(vip, 443)
            );
            assert_eq!(accepted.peer_addr().expect("getpeername").ip(), ip(client));
            assert_eq!(
                accepted.peer_addr().expect("getpeername"),
                dialled.local_addr().expect("getsockname")
            );
        }
        assert_eq!(counted(&l4, "steered"), 2);
        let steered: Vec<u64> = l4
            .counters()
            .expect("counters")
            .frontends
            .iter()
            .map(|f| f.steered)
            .collect();
        assert_eq!(steered, [1, 1]);
        l4.detach().await.expect("detach");
    });
}

#[test]
fn a_frontend_on_every_address_is_reached_on_the_nodes_own() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&plan(&[(None, 80, &[], &[])], &[]))
            .await
            .expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        for address in NODE {
            let _dialled = wire.connect(address, 80);
            let (_, accepted) = workers.accept(address);
            assert_eq!(
                accepted.local_addr().expect("getsockname"),
                socket_address(address, 80)
            );
        }
        l4.detach().await.expect("detach");
    });
}

#[test]
fn the_worker_is_that_of_the_cpu() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let cpus = std::thread::available_parallelism().expect("CPUs").get();
        let workers = Workers::listen(cpus);
        let mut l4 = wire.start(Attach::Native).await;
        l4.apply(&plan(&OPEN, &VIP)).await.expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        for vip in VIP {
            for cpu in (0..cpus).cycle().take(4 * cpus) {
                // On a wire of veth, the CPU that sends is the one that receives.
                let _dialled = wire.client.run(|| {
                    pin_to(cpu);
                    std::net::TcpStream::connect(socket_address(vip, 443)).expect("a connection")
                });
                assert_eq!(workers.accept(vip).0, cpu, "{vip}");
            }
        }
        assert_eq!(counted(&l4, "steered_next"), 0);
        l4.detach().await.expect("detach");
    });
}

#[test]
fn an_empty_slot_hands_on_to_the_next_worker() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(3);
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&plan(&OPEN, &VIP)).await.expect("apply");
        let third: Vec<_> = workers
            .steering()
            .into_iter()
            .filter(|socket| socket.worker == 2)
            .collect();
        l4.take_over(&third).await.expect("take over");
        for cpu in 0..std::thread::available_parallelism().expect("CPUs").get() {
            for vip in VIP {
                let _dialled = wire.client.run(|| {
                    pin_to(cpu);
                    std::net::TcpStream::connect(socket_address(vip, 443)).expect("a connection")
                });
                assert_eq!(workers.accept(vip).0, 2);
            }
        }
        assert!(counted(&l4, "steered_next") > 0);
        l4.detach().await.expect("detach");
    });
}

#[test]
fn without_a_socket_the_ordinary_lookup_decides() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&plan(&OPEN, &VIP)).await.expect("apply");
        l4.take_over(&[]).await.expect("take over");
        let refused = wire
            .try_connect(VIP[0], 443, Duration::from_secs(10))
            .expect_err("nobody listens");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(counted(&l4, "steer_no_socket") > 0);
        let ordinary = TcpListener::bind((VIP[0], 443)).expect("the address is local");
        let _dialled = wire.connect(VIP[0], 443);
        ordinary.accept().expect("a connection");
        l4.detach().await.expect("detach");
    });
}

#[test]
fn what_is_not_a_frontend_is_left_alone() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&plan(&OPEN, &VIP)).await.expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        let ordinary = TcpListener::bind((NODE[0], 0)).expect("a socket");
        let port = ordinary.local_addr().expect("its address").port();
        let _dialled = wire.connect(NODE[0], port);
        ordinary.accept().expect("a connection");
        assert!(counted(&l4, "steer_not_ours") > 0);
        assert!(counted(&l4, "not_ours") > 0);
        l4.detach().await.expect("detach");
    });
}

#[test]
fn a_socket_that_does_not_listen_is_refused() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = wire.start(Attach::Auto).await;
        l4.apply(&plan(&OPEN, &VIP)).await.expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        let datagrams = std::os::unix::net::UnixDatagram::unbound().expect("a socket");
        let wrong = gateway_l4::SteeringSocket {
            worker: 0,
            v6: false,
            fd: std::os::fd::AsFd::as_fd(&datagrams),
        };
        let refused = l4.take_over(&[wrong]).await.expect_err("no TCP socket");
        assert!(
            matches!(
                refused,
                L4Error::Socket {
                    worker: 0,
                    family: "IPv4",
                    ..
                }
            ),
            "{refused}"
        );
        let _dialled = wire.connect(VIP[0], 443);
        assert_eq!(workers.accept(VIP[0]).0, 0, "what was live stays live");
        l4.detach().await.expect("detach");
    });
}

#[expect(unsafe_code, reason = "sched_setaffinity has no safe form in std")]
fn pin_to(cpu: usize) {
    // SAFETY: an all-zero set is valid; the set outlives the call.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(pinned, 0, "CPU {cpu}");
}
