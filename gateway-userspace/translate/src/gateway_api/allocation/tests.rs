//! Who gets which address of a pool.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use gateway_model::names::{ObjectKind, ObjectRef};
use ipnet::IpNet;

use super::*;

fn gateway(name: &str) -> ObjectRef {
    ObjectRef::new(ObjectKind::Gateway, "infra", name)
}

fn pool(nets: &[&str]) -> Vec<IpNet> {
    nets.iter().map(|n| n.parse().expect("a network")).collect()
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts
        .iter()
        .map(|t| t.parse().expect("an address"))
        .collect()
}

/// A Gateway that wants one IPv4 address, and holds these.
fn wants(held: &[&str]) -> Ask {
    Ask {
        wanted: vec![Family::V4],
        held: addresses(held),
        may_grow: true,
        ..Ask::default()
    }
}

fn asks(list: Vec<(i64, &str, Ask)>) -> BTreeMap<Rank, Ask> {
    let ranked = |(created, name, ask)| ((created, gateway(name)), ask);
    list.into_iter().map(ranked).collect()
}

fn given(grants: &BTreeMap<ObjectRef, Grant>, name: &str) -> Vec<IpAddr> {
    let grant = &grants[&gateway(name)];
    grant.given.iter().map(|(address, _)| *address).collect()
}

#[test]
fn every_gateway_gets_an_address_of_its_own_until_there_is_none() {
    let names: Vec<_> = (0..7).map(|at| format!("g{at}")).collect();
    let all = names.iter().map(|name| (0, name.as_str(), wants(&[])));
    let grants = allocate(
        &pool(&["192.0.2.0/29"]),
        &BTreeSet::new(),
        &asks(all.collect()),
    );
    let distinct: BTreeSet<_> = names.iter().flat_map(|n| given(&grants, n)).collect();
    let hosts: BTreeSet<_> = addresses(&[
        "192.0.2.1",
        "192.0.2.2",
        "192.0.2.3",
        "192.0.2.4",
        "192.0.2.5",
        "192.0.2.6",
    ])
    .into_iter()
    .collect();
    assert_eq!(distinct, hosts);
    let missing: usize = grants.values().map(|grant| grant.missing).sum();
    assert_eq!(missing, 1);
}

#[test]
fn what_a_gateway_holds_it_keeps_and_the_older_of_two_wins() {
    let grants = allocate(
        &pool(&["192.0.2.0/24"]),
        &BTreeSet::new(),
        &asks(vec![
            (2, "new", wants(&["192.0.2.7"])),
            (1, "old", wants(&["192.0.2.7"])),
        ]),
    );
    assert_eq!(given(&grants, "old"), addresses(&["192.0.2.7"]));
    assert_ne!(given(&grants, "new"), addresses(&["192.0.2.7"]));
    assert!(grants[&gateway("old")].given[0].1, "held");
    assert!(!grants[&gateway("new")].given[0].1, "not held");
}

#[test]
fn an_address_that_somebody_names_is_given_to_nobody_else() {
    let named = |texts: &[&str]| Ask {
        statics: addresses(texts),
        may_grow: true,
        ..Ask::default()
    };
    let grants = allocate(
        &pool(&["192.0.2.0/31"]),
        &BTreeSet::new(),
        &asks(vec![
            (1, "holder", wants(&["192.0.2.0"])),
            (2, "names-it", named(&["192.0.2.0", "192.0.2.1"])),
            (3, "names-it-too", named(&["192.0.2.1"])),
            (4, "late", wants(&[])),
        ]),
    );
    let denied = |name: &str| grants[&gateway(name)].denied.clone();
    assert_eq!(given(&grants, "holder"), addresses(&["192.0.2.0"]));
    assert_eq!(
        denied("names-it"),
        BTreeMap::from([(addresses(&["192.0.2.0"])[0], gateway("holder"))])
    );
    assert_eq!(denied("names-it-too"), BTreeMap::new());
    assert_eq!(grants[&gateway("late")].missing, 1);
}

#[test]
fn a_node_s_address_and_one_outside_the_pool_are_not_given() {
    let reserved = addresses(&["192.0.2.0"]).into_iter().collect();
    let grants = allocate(
        &pool(&["192.0.2.0/31"]),
        &reserved,
        &asks(vec![(0, "a", wants(&["192.0.2.0", "198.51.100.1"]))]),
    );
    assert_eq!(given(&grants, "a"), addresses(&["192.0.2.1"]));
}

#[test]
fn a_gateway_that_may_not_grow_keeps_what_it_holds() {
    let frozen = |held: &[&str]| Ask {
        may_grow: false,
        ..wants(held)
    };
    let grants = allocate(
        &pool(&["192.0.2.0/24"]),
        &BTreeSet::new(),
        &asks(vec![
            (0, "a", frozen(&["192.0.2.9"])),
            (0, "b", frozen(&[])),
        ]),
    );
    assert_eq!(given(&grants, "a"), addresses(&["192.0.2.9"]));
    assert_eq!(given(&grants, "b"), addresses(&[]));
}

#[test]
fn networks_of_every_size_have_hosts() {
    for (net, first, count) in [
        ("192.0.2.7/32", "192.0.2.7", 1),
        ("192.0.2.6/31", "192.0.2.6", 2),
        ("192.0.2.4/30", "192.0.2.5", 2),
        ("0.0.0.0/0", "0.0.0.1", (1_u128 << 32) - 2),
        ("2001:db8::1/128", "2001:db8::1", 1),
        ("2001:db8::/120", "2001:db8::1", 255),
        ("2001:db8::/32", "2001:db8::1", (1_u128 << 64) - 1),
        ("::/0", "::1", (1_u128 << 64) - 1),
    ] {
        let net: IpNet = net.parse().expect("a network");
        let (number, hosts) = hosts(net);
        let family = Family::of(net.addr());
        assert_eq!(address(family, number), addresses(&[first])[0], "{net}");
        assert_eq!(hosts, count, "{net}");
        assert!(net.contains(&address(family, number + hosts - 1)), "{net}");
    }
}
