//! What the tables of a plan hold.

use super::*;

fn plan(frontends: &[(&str, u16, &[&str])]) -> L4Plan {
    let frontends = frontends.iter().map(|(address, port, deny)| {
        let frontend = Frontend {
            address: (!address.is_empty()).then(|| address.parse().expect("an address")),
            port: *port,
            transport: Transport::Tcp,
        };
        let deny = deny
            .iter()
            .map(|net| net.parse().expect("a network"))
            .collect();
        (
            frontend,
            vec![SourcePolicy {
                allow: Vec::new(),
                deny,
            }],
        )
    });
    L4Plan {
        frontends: frontends.collect(),
        addresses: BTreeSet::new(),
    }
}

fn build(plan: &L4Plan, whole: &[&str], before: &Tables) -> Tables {
    let whole = whole
        .iter()
        .map(|a| a.parse().expect("an address"))
        .collect();
    Tables::build(plan, &whole, &(32_768..=60_999), before).expect("tables")
}

fn slots(tables: &Tables) -> BTreeMap<u16, u32> {
    tables
        .frontends
        .iter()
        .map(|(key, value)| (u16::from_be(key.port), value.slot))
        .collect()
}

#[test]
fn a_frontend_keeps_its_slot_and_a_freed_one_is_reused() {
    let first = build(
        &plan(&[("", 80, &[]), ("", 443, &[]), ("", 8080, &[])]),
        &[],
        &Tables::default(),
    );
    let mut before = slots(&first);
    let second = build(
        &plan(&[("", 80, &[]), ("", 8080, &[]), ("", 9090, &[])]),
        &[],
        &first,
    );
    let freed = before.remove(&443).expect("a slot");
    let mut after = slots(&second);
    assert_eq!(after.remove(&9090), Some(freed));
    assert_eq!(after, before);
}

#[test]
fn an_open_frontend_takes_no_policy() {
    let tables = build(
        &plan(&[("192.0.2.1", 443, &[])]),
        &["192.0.2.1"],
        &Tables::default(),
    );
    let value = tables.frontends.values().next().expect("an entry");
    assert_eq!(
        (value.policy, value.default_reason),
        (NO_POLICY, Reason::OPEN.0)
    );
    assert_eq!(tables.frontends.len(), 1);
    assert!(tables.policies.is_empty());
}

#[test]
fn a_whole_address_denies_what_each_of_its_frontends_denies() {
    let common = "203.0.113.0/24";
    let plan = plan(&[
        ("192.0.2.1", 80, &[common]),
        ("192.0.2.1", 443, &[common, "198.51.100.0/24"]),
    ]);
    let tables = build(&plan, &["192.0.2.1"], &Tables::default());
    let whole = tables
        .frontends
        .iter()
        .find(|(key, _)| key.port == ANY_PORT)
        .expect("an entry");
    let denied: Vec<IpAddr> = tables
        .policies
        .iter()
        .filter(|((_, key), reason)| {
            key.policy == whole.1.policy && **reason == Reason::DENIED_FRAGMENT.0
        })
        .map(|((_, key), _)| ip(key.source))
        .collect();
    assert_eq!(
        denied,
        ["203.0.113.0".parse::<IpAddr>().expect("an address")]
    );
}

#[test]
fn an_address_that_others_answer_on_has_no_whole_entry() {
    let tables = build(
        &plan(&[("192.0.2.1", 80, &["203.0.113.0/24"])]),
        &[],
        &Tables::default(),
    );
    assert!(tables.frontends.keys().all(|key| key.port != ANY_PORT));
}

#[test]
fn a_frontend_on_every_address_has_its_say_about_a_whole_one() {
    let (common, other) = ("203.0.113.0/24", "198.51.100.0/24");
    let denied = |everywhere: (&'static str, u16, &[&str])| -> Vec<IpAddr> {
        let plan = plan(&[("192.0.2.1", 80, &[common, other]), everywhere]);
        let tables = build(&plan, &["192.0.2.1"], &Tables::default());
        let is_about_fragments = |reason: &u32| *reason == Reason::DENIED_FRAGMENT.0;
        let policies = tables.policies.iter();
        policies
            .filter(|(_, reason)| is_about_fragments(reason))
            .map(|((_, key), _)| ip(key.source))
            .collect()
    };
    assert!(denied(("", 443, &[])).is_empty());
    assert_eq!(denied(("", 443, &[common])).len(), 1);
    // Behind the one that has the address, it does not answer there.
    assert_eq!(denied(("", 80, &[])).len(), 2);
}

#[test]
fn the_node_may_dial_from_ports_that_no_address_has_for_itself() {
    let plan = plan(&[
        ("", 443, &[]),
        ("", 40_000, &[]),
        ("192.0.2.1", 40_000, &[]),
    ]);
    let tables = build(&plan, &[], &Tables::default());
    let dials = tables
        .frontends
        .iter()
        .filter(|(_, value)| value.dials == 1);
    let keys: Vec<_> = dials.map(|(key, _)| (key.address, key.port)).collect();
    assert_eq!(keys, [(ANY_ADDRESS, 40_000_u16.to_be())]);
}

#[test]
fn too_many_frontends_are_refused_as_a_whole() {
    let ports: Vec<(&str, u16, &[&str])> =
        (1..=4097).map(|port| ("", port, &[] as &[&str])).collect();
    let refused = Tables::build(
        &plan(&ports),
        &BTreeSet::new(),
        &(1..=1),
        &Tables::default(),
    );
    assert!(matches!(
        refused,
        Err(L4Error::TooMany {
            needed: 4097,
            limit: 4096,
            ..
        })
    ));
}

#[test]
fn whole_addresses_take_what_room_there_is() {
    let text: Vec<String> = (0..2080)
        .map(|host| format!("192.0.{}.{}", host / 256, host % 256))
        .collect();
    let addresses: Vec<&str> = text.iter().map(String::as_str).collect();
    let frontends: Vec<(&str, u16, &[&str])> = addresses
        .iter()
        .map(|address| (*address, 443, &["203.0.113.0/24"] as &[&str]))
        .collect();
    let tables = build(&plan(&frontends), &addresses, &Tables::default());
    let (whole, asked): (Vec<FrontendKey>, Vec<_>) = tables
        .frontends
        .keys()
        .copied()
        .partition(|key| key.port == ANY_PORT);
    assert_eq!((asked.len(), whole.len()), (2080, 4096 - 2080));
}

#[test]
fn prefixes_of_whole_addresses_give_way_too() {
    let nets: Vec<String> = (0..70_000_u32)
        .map(|n| format!("10.{}.{}.{}/32", n >> 15, n >> 7 & 0xff, n << 1 & 0xff))
        .collect();
    let nets: Vec<&str> = nets.iter().map(String::as_str).collect();
    let plan = plan(&[("192.0.2.1", 443, &nets)]);
    let tables = build(&plan, &["192.0.2.1"], &Tables::default());
    assert_eq!(tables.frontends.len(), 1);
    assert!((nets.len()..2 * nets.len()).contains(&tables.policies.len()));
}

#[test]
fn keys_tell_their_frontends() {
    for (text, port) in [("192.0.2.1", 80), ("2001:db8::1", 443)] {
        let frontend_in = Frontend {
            address: Some(text.parse().expect("an address")),
            port,
            transport: Transport::Udp,
        };
        assert_eq!(frontend(&key(&frontend_in)), Some(frontend_in));
    }
}
