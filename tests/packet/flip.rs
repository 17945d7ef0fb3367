//! Revisions: what is applied goes live as a whole, and nothing in between is ever seen.

use std::sync::atomic::{AtomicBool, Ordering};

use gateway_l4::L4Error;
use gateway_model::l4_plan::L4Plan;
use gateway_tests::bed::{self, Bed, FRONTS, plan};
use gateway_tests::frame::syn;

const VIP: &str = "198.51.100.1";
const SOURCE: &str = "192.0.2.7";

fn denying(networks: &[&str]) -> L4Plan {
    plan(&[(Some(VIP), 443, &[], networks)], &[VIP])
}

fn passes(bed: &Bed) -> bool {
    bed.run(FRONTS[0], &syn(SOURCE, VIP, 443))
        .expect("an answer")
        .passes
}

#[test]
fn a_plan_goes_live_in_the_other_half() {
    let mut bed = Bed::new(&[], &denying(&[])).expect("a bed");
    let first = bed.l4.status().expect("status").tables_half;
    assert!(passes(&bed));
    bed.apply(&denying(&["192.0.2.0/24"])).expect("apply");
    assert_eq!(bed.l4.status().expect("status").tables_half, 1 - first);
    assert!(!passes(&bed));
    bed.apply(&denying(&["192.0.3.0/24"])).expect("apply");
    assert_eq!(bed.l4.status().expect("status").tables_half, first);
    assert!(passes(&bed));
    bed.apply(&L4Plan::default()).expect("apply");
    assert_eq!(bed.reasons().expect("counters")["not_ours"], 0);
    assert!(passes(&bed));
    assert_eq!(bed.reasons().expect("counters")["not_ours"], 1);
}

/// A flip costs the next one a wait for every program that runs, and most revisions change routes alone.
#[test]
fn a_plan_that_is_live_is_not_written_again() {
    let mut bed = Bed::new(&[], &denying(&["192.0.2.0/24"])).expect("a bed");
    let first = bed.l4.status().expect("status").tables_half;
    bed.apply(&denying(&["192.0.2.0/24"])).expect("apply");
    assert_eq!(bed.l4.status().expect("status").tables_half, first);
    assert!(!passes(&bed));
    bed.apply(&denying(&[])).expect("apply");
    assert_eq!(bed.l4.status().expect("status").tables_half, 1 - first);
    assert!(passes(&bed));
}

#[test]
fn a_frontends_counters_outlive_a_revision_and_its_slot_starts_anew() {
    let mut bed = Bed::new(&[], &denying(&[])).expect("a bed");
    assert!(passes(&bed));
    bed.apply(&denying(&["10.0.0.0/8"])).expect("apply");
    assert!(passes(&bed));
    assert_eq!(
        bed.l4.counters().expect("counters").frontends[0].passed_packets,
        2
    );
    bed.apply(&plan(&[(Some(VIP), 80, &[], &[])], &[VIP]))
        .expect("apply");
    assert_eq!(
        bed.l4.counters().expect("counters").frontends[0].passed_packets,
        0
    );
}

#[test]
fn a_plan_that_does_not_fit_changes_nothing() {
    let mut bed = Bed::new(&[], &denying(&["192.0.2.0/24"])).expect("a bed");
    let ports: Vec<bed::Wanted<'_>> = (1..=5000)
        .map(|port| (Some(VIP), port, &[] as &[&str], &[] as &[&str]))
        .collect();
    let refused = bed.apply(&plan(&ports, &[VIP])).expect_err("too many");
    assert!(
        matches!(
            refused.downcast_ref(),
            Some(L4Error::TooMany { needed: 5000, .. })
        ),
        "{refused:#}"
    );
    assert!(!passes(&bed));
}

/// Two plans that both permit the source, one by a prefix and one by default. A frontend of the one with the
/// prefixes of the other would drop it.
#[test]
fn no_packet_sees_two_revisions() {
    let by_prefix = plan(&[(Some(VIP), 443, &["192.0.2.0/24"], &[])], &[VIP]);
    let by_default = plan(&[(Some(VIP), 443, &[], &["203.0.113.0/24"])], &[VIP]);
    let mut bed = Bed::new(&[], &by_prefix).expect("a bed");
    let other = bed::load(gateway_l4::object().expect("an object"), &bed.l4).expect("the programs");
    let done = AtomicBool::new(false);
    let runs = std::thread::scope(|scope| {
        let runner = scope.spawn(|| {
            let mut runs = 0_u64;
            while !done.load(Ordering::Relaxed) {
                bed::run(&other, FRONTS[0], &syn(SOURCE, VIP, 443), 10_000).expect("an answer");
                runs += 10_000;
            }
            runs
        });
        for revision in 0..200 {
            let plan = if revision % 2 == 0 {
                &by_default
            } else {
                &by_prefix
            };
            bed.apply(plan).expect("apply");
        }
        done.store(true, Ordering::Relaxed);
        runner.join().expect("the runner")
    });
    let reasons = bed.reasons().expect("counters");
    println!("{runs} packets, 200 revisions");
    assert_eq!(reasons["permitted"], runs, "{reasons:?}");
}
