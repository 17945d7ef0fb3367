//! What is written when nodes are quick, slow or gone.

use gateway_model::names::ObjectKind;
use gateway_translate::{Event, Settings, Translator, decode};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::status::lease::Lease;
use crate::status::node::{Identity, NodeReport, Pace};

/// Statuses of real objects, step by step.
struct World {
    translator: Translator,
    version: u64,
}

impl World {
    fn new() -> Self {
        Self {
            translator: Translator::new(Settings::default()),
            version: 0,
        }
    }

    fn apply(&mut self, object: Value) -> (Owing, Position) {
        let object = decode(object).expect("decodes").expect("is ours");
        self.translator.apply([Event::Apply(object)]);
        self.version += 1;
        let owing = Owing {
            statuses: self.translator.translate().statuses,
            rejected: Arc::default(),
        };
        (owing, at(self.version))
    }
}

fn at(version: u64) -> Position {
    let mut position = Position::default();
    position.advance(ObjectKind::Gateway, version);
    position
}

fn gateway(generation: i64, port: u16) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "infra", "generation": generation},
        "spec": {"gatewayClassName": "sluice", "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]},
    })
}

fn route(name: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "infra", "generation": 1},
        "spec": {"parentRefs": [{"name": "web"}]},
    })
}

fn name() -> ObjectRef {
    ObjectRef::new(ObjectKind::Gateway, "infra", "web")
}

fn lease(node: &str, position: Position, version: u64) -> Lease {
    let identity = Identity {
        namespace: "sluice-system".to_owned(),
        pod: node.to_owned(),
        pod_uid: None,
        node: node.to_owned(),
    };
    let report = NodeReport::new(position, &BTreeMap::new());
    let mut lease = identity.lease_of(&report, Pace::of(3), Timestamp::UNIX_EPOCH);
    lease["metadata"]["resourceVersion"] = json!(version.to_string());
    Lease::read(&lease)
}

/// Opens it where nothing stands yet.
fn opens(gate: &mut Gate, fleet: &Fleet, now: Instant) -> bool {
    gate.open(fleet, now, &mut |_, _| false)
}

/// When the first step has waited too long for a node that lives and has come so far.
fn overdue(gate: &Gate, fleet: &mut Fleet, position: u64, now: Instant) -> Instant {
    let mut ends = (0..20).filter_map(|second| {
        let heard = now + Duration::from_secs(second);
        fleet.see(lease("node1", at(position), 1_000 + second), heard);
        fleet.heard(heard);
        gate.overdue_at(fleet, heard)
    });
    ends.next().expect("something waits")
}

fn fleet(now: Instant) -> Fleet {
    let mut fleet = Fleet::new("here".to_owned());
    fleet.replace(vec![lease("node1", at(0), 1)], now);
    fleet
}

#[test]
fn nothing_is_let_through_before_every_node_serves_it() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    let (owing, needed) = world.apply(gateway(1, 80));
    gate.push(owing, needed, now);
    assert!(!opens(&mut gate, &fleet, now));
    assert!(gate.confirmed().statuses.is_empty());
    fleet.see(lease("node1", at(1), 2), now);
    assert!(opens(&mut gate, &fleet, now));
    assert!(gate.confirmed().statuses.contains_key(&name()));
    assert!(gate.pending().is_empty());
    assert_eq!(gate.overdue_at(&fleet, now), None);
}

#[test]
fn before_the_nodes_are_known_nothing_is_let_through() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let (owing, needed) = world.apply(gateway(1, 80));
    gate.push(owing, needed, now);
    let unknown = Fleet::new("here".to_owned());
    assert!(!opens(&mut gate, &unknown, now + Duration::from_secs(60)));
}

#[test]
fn a_gateway_that_never_stands_still_is_let_through_as_far_as_it_is_confirmed() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    for object in [gateway(1, 80), route("a"), route("b")] {
        let (owing, needed) = world.apply(object);
        gate.push(owing, needed, now);
    }
    fleet.see(lease("node1", at(2), 2), now);
    assert!(opens(&mut gate, &fleet, now));
    let Some(Status::Gateway(status)) = gate.confirmed().statuses.get(&name()).map(|s| &**s) else {
        panic!("a Gateway's status");
    };
    assert_eq!(status.listeners[0].attached_routes, 1);
    overdue(&gate, &mut fleet, 2, now);
}

#[test]
fn when_nodes_lag_a_gateway_is_pending_and_then_true() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    let (owing, needed) = world.apply(gateway(1, 80));
    gate.push(owing, needed, now);
    let late = overdue(&gate, &mut fleet, 0, now);
    assert!(!opens(&mut gate, &fleet, late - Duration::from_millis(1)));
    assert!(opens(&mut gate, &fleet, late));
    assert_eq!(gate.pending()[&name()], "waiting for node1 to apply it");
    assert!(!opens(&mut gate, &fleet, late));
    fleet.see(lease("node1", at(1), 2), late);
    assert!(opens(&mut gate, &fleet, late));
    assert!(gate.pending().is_empty());
}

#[test]
fn a_route_that_a_node_lacks_does_not_make_its_gateway_pending() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    let (owing, needed) = world.apply(gateway(1, 80));
    gate.push(owing, needed, now);
    fleet.see(lease("node1", at(1), 2), now);
    opens(&mut gate, &fleet, now);
    let (owing, needed) = world.apply(route("a"));
    gate.push(owing, needed, now);
    let late = overdue(&gate, &mut fleet, 1, now);
    assert!(opens(&mut gate, &fleet, late));
    assert!(gate.pending().is_empty());
    let (owing, needed) = world.apply(gateway(2, 80));
    gate.push(owing, needed, late);
    let later = overdue(&gate, &mut fleet, 1, late);
    fleet.see(lease("node1", at(1), 3), later);
    assert!(opens(&mut gate, &fleet, later));
    assert!(gate.pending().contains_key(&name()));
}

#[test]
fn a_node_that_dies_is_not_waited_for() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    let (owing, needed) = world.apply(gateway(1, 80));
    let stale = now + Pace::of(2).lease();
    fleet.heard(stale);
    gate.push(owing, needed, stale);
    assert!(opens(&mut gate, &fleet, stale));
    assert!(gate.pending().is_empty());
}

#[test]
fn however_many_steps_wait_they_are_few() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    for n in 0..400 {
        let (owing, needed) = world.apply(gateway(n + 1, 80));
        gate.push(owing, needed, now);
    }
    assert_eq!(gate.waiting.len(), MOST_STEPS);
    fleet.see(lease("node1", at(400), 2), now);
    assert!(opens(&mut gate, &fleet, now));
    assert!(gate.waiting.is_empty());
}

#[test]
fn an_address_is_proposed_at_once() {
    let settings = Settings {
        address_pool: vec!["192.0.2.0/28".parse().expect("a network")],
        source: gateway_translate::SourceKind::Cluster,
        ..Settings::default()
    };
    let (mut gate, now) = (Gate::default(), Instant::now());
    let mut world = World {
        translator: Translator::new(settings),
        version: 0,
    };
    let mut fleet = fleet(now);
    let class = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "GatewayClass", "metadata": {"name": "sluice"},
        "spec": {"controllerName": "sluice.dev/gateway-controller"},
    });
    let (owing, needed) = world.apply(class);
    gate.push(owing, needed, now);
    fleet.see(lease("node1", at(1), 2), now);
    assert!(opens(&mut gate, &fleet, now));
    let (owing, needed) = world.apply(route("a"));
    gate.push(owing, needed, now);
    let (owing, needed) = world.apply(gateway(1, 80));
    gate.push(owing, needed, now);
    assert!(
        opens(&mut gate, &fleet, now),
        "node1 has not seen the Gateway"
    );
    let proposed = gate.confirmed().statuses.get(&name()).cloned();
    assert!(proposed.as_deref().is_some_and(is_proposal));
    fleet.see(lease("node1", at(2), 3), now);
    opens(&mut gate, &fleet, now);
    assert_eq!(gate.confirmed().statuses.get(&name()).cloned(), proposed);
}

#[test]
fn what_is_owed_as_before_is_no_step() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let (owing, needed) = world.apply(gateway(1, 80));
    gate.push(owing.clone(), needed, now);
    gate.push(owing, at(9), now);
    assert_eq!(gate.waiting.len(), 1);
}

#[test]
fn a_new_writer_gives_nodes_a_whole_lease_and_takes_back_nothing_that_stands() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    world.apply(gateway(1, 80));
    let mut other = gateway(1, 81);
    other["metadata"]["name"] = json!("other");
    let (owing, needed) = world.apply(other);
    gate.push(owing, needed, now);
    let late = overdue(&gate, &mut fleet, 0, now);
    assert!(late >= now + Pace::of(2).lease());
    let mut stands = |object: &ObjectRef, owing: &Owing| {
        assert_eq!(owing.statuses.len(), 2);
        *object == name()
    };
    assert!(gate.open(&fleet, late, &mut stands));
    let held: Vec<_> = gate.pending().into_keys().collect();
    assert_eq!(
        held,
        [ObjectRef::new(ObjectKind::Gateway, "infra", "other")]
    );
}

#[test]
fn while_the_api_server_is_away_nobody_lags_and_nobody_dies() {
    let (mut gate, mut world, now) = (Gate::default(), World::new(), Instant::now());
    let mut fleet = fleet(now);
    let settled = now + Pace::of(2).lease();
    fleet.see(lease("node1", at(0), 2), settled);
    fleet.heard(settled);
    let (owing, needed) = world.apply(gateway(1, 80));
    gate.push(owing, needed, settled);
    fleet.lost(settled);
    let back = settled + Duration::from_mins(5);
    assert!(!opens(&mut gate, &fleet, back));
    assert_eq!(gate.overdue_at(&fleet, back), None);
    assert_eq!(fleet.counts(back), (2, 0));
    fleet.replace(vec![lease("node1", at(0), 2)], back);
    assert!(!opens(&mut gate, &fleet, back));
    assert_eq!(fleet.counts(back), (2, 0));
    let late = overdue(&gate, &mut fleet, 0, back);
    assert!(late >= back + Pace::of(2).lease());
    fleet.see(lease("node1", at(1), 3), back);
    assert!(opens(&mut gate, &fleet, back));
    assert!(gate.pending().is_empty());
}
