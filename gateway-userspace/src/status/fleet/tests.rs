//! Nodes that come, report, fall behind and go.

use std::time::Duration;

use gateway_model::failure::Failure;
use gateway_model::names::{ObjectKind, ObjectRef};
use jiff::Timestamp;

use super::*;
use crate::status::node::Identity;

fn at(version: u64) -> Position {
    let mut position = Position::default();
    position.advance(ObjectKind::HttpRoute, version);
    position
}

fn listener() -> ListenerKey {
    ListenerKey {
        gateway: ObjectRef::new(ObjectKind::Gateway, "infra", "web"),
        section: "http".into(),
    }
}

fn lease(node: &str, version: u64, failure: Option<&str>) -> Lease {
    let identity = Identity {
        namespace: "sluice-system".to_owned(),
        pod: format!("pod-{node}"),
        pod_uid: None,
        node: node.to_owned(),
    };
    let failures = failure.map(|reason| (listener(), Failure::of_all(reason)));
    let report = NodeReport::new(at(version), &failures.into_iter().collect());
    let mut lease = identity.lease_of(&report, Pace::of(3), Timestamp::UNIX_EPOCH);
    lease["metadata"]["resourceVersion"] = version.to_string().into();
    Lease::read(&lease)
}

fn fleet(leases: Vec<Lease>, now: Instant) -> Fleet {
    let mut fleet = Fleet::new("sluice-node-pod-here".to_owned());
    fleet.replace(leases, now);
    fleet
}

#[test]
fn every_live_node_must_have_come_so_far() {
    let now = Instant::now();
    let mut fleet = fleet(vec![lease("a", 7, None), lease("b", 5, None)], now);
    assert!(fleet.has_reached(&at(5), now));
    assert!(!fleet.has_reached(&at(6), now));
    assert_eq!(fleet.lagging(&at(9), now).as_deref(), Some("a, b"));
    fleet.see(lease("b", 9, None), now);
    assert!(fleet.has_reached(&at(7), now));
    fleet.gone("sluice-node-pod-a");
    assert!(fleet.has_reached(&at(9), now));
}

#[test]
fn a_node_without_a_sign_of_life_is_not_waited_for() {
    let now = Instant::now();
    let mut fleet = fleet(vec![lease("a", 7, Some("port in use"))], now);
    let stale = now + Duration::from_secs(6);
    assert!(!fleet.has_reached(&at(9), now));
    assert!(
        !fleet.has_reached(&at(9), stale),
        "nothing was heard of anybody, so it is not known"
    );
    assert_eq!(fleet.stale_next(now), None);
    fleet.heard(stale - Duration::from_secs(2));
    assert_eq!(fleet.stale_next(now), Some(stale));
    assert!(fleet.has_reached(&at(9), stale));
    assert_eq!(fleet.counts(now), (2, 0));
    assert_eq!(fleet.counts(stale), (1, 1));
    assert!(fleet.failures(&BTreeMap::new(), "here", stale).is_empty());
    fleet.see(lease("a", 7, Some("port in use")), stale);
    assert!(
        fleet.has_reached(&at(9), stale),
        "the same Lease once more is no sign of life"
    );
    fleet.see(lease("a", 8, None), stale);
    assert!(!fleet.has_reached(&at(9), stale));
}

#[test]
fn the_own_lease_is_not_looked_at() {
    let now = Instant::now();
    let fleet = fleet(vec![lease("here", 1, Some("x"))], now);
    assert!(fleet.has_reached(&at(9), now));
    assert_eq!(fleet.counts(now), (1, 0));
}

#[test]
fn a_failure_names_its_nodes() {
    let now = Instant::now();
    let reason = "address in use";
    let fleet = fleet(
        vec![lease("b", 1, Some(reason)), lease("c", 1, Some("no route"))],
        now,
    );
    let own = BTreeMap::from([(listener(), Failure::of_all(reason))]);
    let failures = fleet.failures(&own, "a", now);
    assert_eq!(
        failures[&listener()].to_string(),
        "on a, b: address in use; on c: no route"
    );
}

#[test]
fn a_message_names_few_nodes() {
    let now = Instant::now();
    let leases = ["a", "b", "c", "d", "e", "f", "g"].map(|node| lease(node, 1, None));
    let fleet = fleet(leases.to_vec(), now);
    let lagging = fleet.lagging(&at(2), now);
    assert_eq!(lagging.as_deref(), Some("a, b, c, d, e and 2 more"));
}

#[test]
fn a_node_that_comes_back_late_after_an_outage_is_waited_for() {
    let now = Instant::now();
    let mut fleet = fleet(vec![lease("a", 7, None)], now);
    let excused = now + EXCUSED;
    fleet.excuse(Some(excused));
    let before = excused - Duration::from_secs(1);
    fleet.heard(before);
    assert_eq!(fleet.counts(before), (2, 0));
    assert_eq!(fleet.lagging(&at(8), before).as_deref(), Some("a"));
    assert_eq!(fleet.stale_next(before), Some(excused));
    assert_eq!(fleet.counts(excused), (1, 1));
    assert!(fleet.has_reached(&at(8), excused));
}
