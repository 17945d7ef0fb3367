//! The packet trace: off until asked for, for one peer and port, no more than its limit.

use std::time::Duration;

use gateway_common::trace::EVENTS_PER_SECOND;
use gateway_l4::{Attach, TraceFilter, TraceLines};
use gateway_tests::bed::{Bed, plan};
use gateway_tests::frame::syn;

use crate::wire::{CLIENT, VIP, Wire, Workers, ip};

const FILTER: TraceFilter = TraceFilter {
    peer: None,
    port: None,
};

async fn next(lines: &mut TraceLines) -> String {
    let line = tokio::time::timeout(Duration::from_secs(20), lines.next()).await;
    line.expect("a line in time").expect("a line")
}

#[test]
fn each_verdict_comes_with_its_reason() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = wire.start(Attach::Auto).await;
        let frontends = [
            (Some(VIP[0]), 443, &[] as &[&str], &[] as &[&str]),
            (Some(VIP[1]), 443, &[], &[CLIENT[1]]),
        ];
        l4.apply(&plan(&frontends, &VIP)).await.expect("apply");
        l4.take_over(&workers.steering()).await.expect("take over");
        let filter = TraceFilter {
            peer: Some(ip(CLIENT[0])),
            port: Some(443),
        };
        let mut lines = l4.trace(filter).await.expect("a trace");
        let dialled = wire.connect(VIP[0], 443);
        let from = dialled.local_addr().expect("its address");
        let first = next(&mut lines).await;
        assert!(
            first.starts_with("xdp if")
                && first.ends_with(&format!("tcp {from} > {}:443 pass open", VIP[0])),
            "{first}"
        );
        assert_eq!(
            next(&mut lines).await,
            format!("sk_lookup tcp {from} > {}:443 steer steered", VIP[0])
        );
        drop(lines);
        let mut lines = l4
            .trace(TraceFilter {
                peer: Some(ip(CLIENT[1])),
                port: None,
            })
            .await
            .expect("a trace");
        wire.try_connect(VIP[1], 443, Duration::from_millis(50))
            .expect_err("denied");
        loop {
            let line = next(&mut lines).await;
            // Neighbour discovery comes from the same peer.
            if line.ends_with(&format!("> [{}]:443 drop denied", VIP[1])) {
                break;
            }
            assert!(line.contains("icmpv6"), "{line}");
        }
        drop(lines);
        l4.detach().await.expect("detach");
    });
}

fn bed() -> Bed {
    Bed::new(
        &[],
        &plan(&[(Some("198.51.100.1"), 443, &[], &[])], &["198.51.100.1"]),
    )
    .expect("a bed")
}

fn packet(source: &str, port: u16) -> Vec<u8> {
    syn(source, "198.51.100.1", port)
}

#[test]
fn only_the_peer_and_the_port_that_were_asked_for() {
    let mut bed = bed();
    for (filter, expected) in [
        (
            TraceFilter {
                peer: Some(ip("192.0.2.7")),
                port: Some(443),
            },
            vec!["192.0.2.7:40000 > 198.51.100.1:443"],
        ),
        (
            TraceFilter {
                peer: Some(ip("::ffff:192.0.2.7")),
                port: Some(443),
            },
            vec!["192.0.2.7:40000 > 198.51.100.1:443"],
        ),
        (
            TraceFilter {
                peer: None,
                port: Some(80),
            },
            vec![
                "192.0.2.7:40000 > 198.51.100.1:80",
                "192.0.2.8:40000 > 198.51.100.1:80",
            ],
        ),
    ] {
        let mut lines = bed.trace(filter).expect("a trace");
        for source in ["192.0.2.7", "192.0.2.8"] {
            for port in [443, 80] {
                bed.run_attached(&packet(source, port), 1)
                    .expect("an answer");
            }
        }
        for wanted in expected {
            let line = bed.block_on(next(&mut lines));
            assert!(line.contains(wanted), "{line}, not {wanted}");
        }
        let more = bed.block_on(async {
            tokio::time::timeout(Duration::from_millis(20), lines.next()).await
        });
        assert!(more.is_err(), "{more:?}");
    }
}

#[test]
fn a_new_trace_ends_the_old_one_and_dropping_it_switches_off() {
    let mut bed = bed();
    let mut old = bed.trace(FILTER).expect("a trace");
    let new = bed.trace(FILTER).expect("another");
    assert_eq!(bed.block_on(old.next()), None);
    drop(old);
    assert!(bed.l4.status().expect("status").tracing);
    bed.block_on(async {
        drop(new);
        while bed.l4.status().expect("status").tracing {
            tokio::task::yield_now().await;
        }
    });
}

#[test]
fn a_flood_is_logged_up_to_the_limit() {
    let mut bed = bed();
    let lines = bed.trace(FILTER).expect("a trace");
    let started = std::time::Instant::now();
    let flood = 20 * EVENTS_PER_SECOND as u32;
    bed.run_attached(&packet("192.0.2.7", 443), flood)
        .expect("a run");
    let seconds = started.elapsed().as_secs() + 2;
    let suppressed = bed.reasons().expect("counters")["trace_suppressed"];
    // A run may be moved from one CPU to another, each with its own budget.
    let cpus = std::thread::available_parallelism().expect("CPUs").get() as u64;
    assert!(
        suppressed >= u64::from(flood).saturating_sub(seconds * cpus * EVENTS_PER_SECOND),
        "{suppressed}"
    );
    assert!(suppressed > 0, "{suppressed}");
    drop(lines);
}
