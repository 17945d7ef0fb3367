//! One writer at a time, whatever the clocks say.

use super::*;

const TERMS: Terms = Terms {
    duration: Duration::from_secs(15),
};

fn lease(holder: &str, version: u32) -> Lease {
    Lease::read(&json!({
        "metadata": {"name": "w", "resourceVersion": version.to_string()},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3,
            // Decades off: nobody may care.
            "renewTime": "1999-01-01T00:00:00.000000Z", "acquireTime": "1999-01-01T00:00:00.000000Z"},
    }))
}

fn candidate() -> Election {
    Election::new("us".to_owned(), TERMS)
}

#[test]
fn a_lease_of_another_is_taken_when_it_was_not_seen_to_change_for_its_duration() {
    let start = Instant::now();
    let mut us = candidate();
    us.see(Some(lease("them", 1)), start);
    let stale = start + Duration::from_secs(15);
    assert_eq!(us.step(start), Step::Wait(stale));
    us.see(Some(lease("them", 1)), start + Duration::from_secs(14));
    assert_eq!(us.step(stale), Step::Replace);
    us.see(Some(lease("them", 2)), stale);
    assert_eq!(us.step(stale), Step::Wait(stale + Duration::from_secs(15)));
    assert_eq!(us.held_until(stale), None);
}

#[test]
fn a_lease_that_was_given_up_is_taken_at_once() {
    let now = Instant::now();
    let mut us = candidate();
    assert_eq!(us.step(now), Step::Create);
    us.see(Some(lease("", 1)), now);
    assert_eq!(us.step(now), Step::Replace);
    let spec = us.spec(Timestamp::UNIX_EPOCH);
    assert_eq!(spec["leaseTransitions"], 4);
    assert_eq!(spec["holderIdentity"], "us");
}

#[test]
fn a_holder_that_cannot_renew_stops_before_others_may_start() {
    let start = Instant::now();
    let mut us = candidate();
    us.written(lease("us", 1), start);
    assert_eq!(us.step(start), Step::Wait(start + Duration::from_secs(3)));
    assert_eq!(us.step(start + Duration::from_secs(3)), Step::Replace);
    let until = us.held_until(start).expect("held");
    assert_eq!(until, start + Duration::from_secs(10));
    assert_eq!(us.held_until(until), None);
    let mut them = Election::new("them".to_owned(), TERMS);
    them.see(Some(lease("us", 1)), start);
    assert!(matches!(them.step(until), Step::Wait(later) if later > until));
}

#[test]
fn a_holder_that_sees_another_one_stops_at_once() {
    let start = Instant::now();
    let mut us = candidate();
    us.written(lease("us", 1), start);
    assert!(us.held_until(start).is_some());
    us.see(Some(lease("them", 2)), start);
    assert_eq!(us.held_until(start), None);
    assert_eq!(us.release(Timestamp::UNIX_EPOCH), None);
    us.written(lease("us", 3), start);
    us.see(None, start);
    assert_eq!(us.held_until(start), None);
}

#[test]
fn a_process_that_starts_again_in_its_pod_goes_on_but_renews_first() {
    let now = Instant::now();
    let mut us = candidate();
    us.see(Some(lease("us", 1)), now);
    assert_eq!(us.held_until(now), None);
    assert_eq!(us.step(now), Step::Replace);
    let spec = us.spec(Timestamp::UNIX_EPOCH);
    assert_eq!(spec["leaseTransitions"], 3);
    assert_eq!(spec["acquireTime"], "1999-01-01T00:00:00.000000Z");
}

#[test]
fn giving_up_leaves_nobody_as_the_holder() {
    let mut us = candidate();
    us.written(lease("us", 1), Instant::now());
    let spec = us.release(Timestamp::UNIX_EPOCH).expect("ours");
    assert_eq!(spec["holderIdentity"], "");
    assert_eq!(spec["renewTime"], "1970-01-01T00:00:00.000000Z");
}

#[test]
fn a_lease_without_anything_in_it_is_read() {
    let empty = Lease::read(&json!({}));
    assert_eq!(
        (empty.holder.as_str(), empty.duration),
        ("", Duration::ZERO)
    );
    let negative = Lease::read(&json!({"spec": {"leaseDurationSeconds": -5}}));
    assert_eq!(negative.duration, Duration::ZERO);
    let huge = Lease::read(&json!({"spec": {"leaseDurationSeconds": i64::MAX}}));
    let seen = Sighting {
        lease: huge,
        at: Instant::now(),
    };
    assert!(!seen.is_stale(Instant::now()));
}
