//! The routes that bring virtual addresses to the node: whose they are, and what becomes of the others.

use std::net::IpAddr;
use std::time::Duration;

use gateway_l4::L4;

use crate::lifecycle::{is_clean, live, open};
use crate::wire::{VIP, Wire, Workers, ip};

fn routed(l4: &L4) -> Vec<IpAddr> {
    l4.status().expect("status").local_routes
}

#[test]
fn an_address_that_the_kernel_refuses_takes_no_other_along() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let disable = |value| wire.node.sysctl("ipv6/conf/all/disable_ipv6", value);
        disable("1").expect("no IPv6");
        let mut l4 = live(&wire, &workers, &open()).await;
        let refused = l4.refused();
        assert_eq!(refused.borrow().keys().collect::<Vec<_>>(), [&ip(VIP[1])]);
        let frontends = l4.status().expect("status").frontends;
        let served: Vec<_> = frontends.iter().filter_map(|each| each.address).collect();
        assert_eq!(served, [ip(VIP[0])]);
        let _dialled = wire.connect(VIP[0], 443);
        workers.accept(VIP[0]);
        disable("0").expect("IPv6");
        l4.apply(&open()).await.expect("apply");
        assert!(refused.borrow().is_empty());
        assert_eq!(routed(&l4), VIP.map(ip));
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}

#[test]
fn a_plan_that_does_not_go_live_leaves_no_routes() {
    let wire = Wire::new();
    wire.node.block_on(async {
        let workers = Workers::listen(1);
        let mut l4 = live(&wire, &workers, &Default::default()).await;
        let ports: Vec<_> = (1..=4097)
            .map(|port| (None, port, &[][..], &[][..]))
            .collect();
        let too_much = gateway_tests::bed::plan(&ports, &VIP);
        l4.apply(&too_much).await.expect_err("does not fit");
        let routes = wire.ip_output(&["route", "show", "table", "local"]);
        assert!(!routes.contains(VIP[0]), "{routes}");
        wire.try_connect(VIP[0], 443, Duration::from_secs(1))
            .expect_err("nobody is there");
        l4.detach().await.expect("detach");
        is_clean(&wire);
    });
}
