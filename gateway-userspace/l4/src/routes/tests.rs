//! Whose a route is.

use super::*;

const METRIC: u32 = 70_000;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn set(addresses: &[&str]) -> BTreeSet<IpAddr> {
    addresses.iter().map(|text| ip(text)).collect()
}

fn route(address: &str, metric: u32, is_sluices: bool) -> AddressRoute {
    AddressRoute {
        address: ip(address),
        metric,
        is_sluices,
        is_local: true,
    }
}

#[test]
fn only_what_is_missing_is_added_and_only_what_is_ours_is_stale() {
    let routes = [
        route("192.0.2.1", METRIC, true),
        route("192.0.2.2", METRIC, true),
        route("192.0.2.3", METRIC + 1, true),
        route("192.0.2.4", METRIC, false),
        route("192.0.2.5", 0, false),
    ];
    let wanted = set(&["192.0.2.1", "192.0.2.3", "192.0.2.5", "2001:db8::6"]);
    let (prepared, missing) = compare(METRIC, &wanted, &routes);
    assert_eq!(prepared.routed, set(&["192.0.2.1"]));
    assert_eq!(prepared.stale, set(&["192.0.2.2"]));
    assert_eq!(missing, set(&["192.0.2.3", "192.0.2.5", "2001:db8::6"]));
    assert!(prepared.refused.is_empty());
}

#[test]
fn a_broadcast_address_is_refused() {
    let broadcast = AddressRoute {
        is_local: false,
        ..route("192.0.2.255", 0, false)
    };
    let wanted = set(&["192.0.2.255"]);
    let (prepared, missing) = compare(METRIC, &wanted, &[broadcast]);
    assert_eq!(
        prepared.refused.into_keys().collect::<BTreeSet<_>>(),
        wanted
    );
    assert!(missing.is_empty());
}

#[test]
fn a_metric_belongs_to_a_directory_however_it_is_written() {
    let of = |path: &str| metric(Path::new(path));
    assert_eq!(of("/sys/fs/bpf/sluice"), of("/sys/fs/bpf//./sluice/"));
    assert_ne!(of("/sys/fs/bpf/sluice"), of("/sys/fs/bpf/other"));
    assert_ne!(of("/sys/fs/bpf/sluice"), of("/sys/fs/bpfs/luice"));
    assert!(of("/sys/fs/bpf/sluice") >= 1 << 16);
}
