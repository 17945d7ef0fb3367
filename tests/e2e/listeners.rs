//! Listeners and addresses that come, go and cannot be had.

use anyhow::Result;
use gateway_tests::manifests::{forward, gateway, http_listener, route};
use gateway_tests::world::World;
use gateway_tests::{Load, until};

use crate::edge::{Edge, Mode};

#[test]
fn a_port_that_another_program_holds_fails_alone_and_is_told() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Sockets).prepare()?;
    let address = std::net::SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 443));
    let other = gateway_tests::Backend::start_in(&edge.world.node.ns, "other", address, false)?;
    edge.put_sluice(start.ready()?);
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    let status = edge.sluice().cli(&["status"])?;
    assert!(status.contains("False"), "{status}");
    let listeners = edge.sluice().cli(&["listeners"])?;
    assert!(
        listeners.contains("another process listens there"),
        "{listeners}"
    );
    drop(other);
    // Another look is taken when something changes.
    let both = [route("all", &[], &forward("b1"))];
    edge.apply(&both, "https://a.example.com/", |answer| {
        answer.status == 200
    })
}

#[test]
fn addresses_of_a_gateway_come_and_go_with_it() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let node = edge.world.node.ns.clone();
    let has_route = || -> Result<bool> {
        let mut command = std::process::Command::new("ip");
        command.args(["route", "show", "table", "local"]);
        let output = gateway_tests::process::output(&node, command)?;
        Ok(String::from_utf8_lossy(&output.stdout).contains("192.0.2.10"))
    };
    assert!(has_route()?);
    let own = edge.world.node.v4.to_string();
    let moved = gateway(&[&own], &http_listener("http", 80));
    edge.manifests.write("gateway.yaml", &[moved])?;
    let url = format!("http://{own}/");
    until("the node's own address is served", || {
        let call = gateway_tests::tools::Curl::new(&url).run(edge.client());
        call.is_ok_and(|answer| answer.status == 200).then_some(())
    })?;
    until("the virtual address is given up", || {
        (!has_route().ok()?).then_some(())
    })?;
    edge.manifests.remove("gateway.yaml")?;
    until("nothing is served", || {
        edge.client().connect((edge.world.node.v4, 80).into()).err()
    })?;
    assert_eq!(edge.sluice().admin("/healthz/live")?.0, 200);
    Ok(())
}

#[test]
fn two_gateways_share_a_port_on_different_addresses() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let own = edge.world.node.v4.to_string();
    let second =
        gateway(&[&own], &http_listener("http", 80)).replace("name: edge\n", "name: second\n");
    let to_second = route("second", &[], &forward("b2")).replace("{name: edge}", "{name: second}");
    edge.manifests.write("second.yaml", &[second, to_second])?;
    let at_own = Load::new((edge.world.node.v4, 80).into(), "a.example.com").limit(1);
    until("the second gateway is served", || {
        let report = at_own.clone().run(edge.client()).ok()?;
        report.backends.contains_key("b2").then_some(())
    })?;
    assert_eq!(
        edge.get("http://a.example.com/")?.header("x-backend"),
        Some("b0")
    );
    let _ = (edge.sluice(), World::VIP4);
    Ok(())
}

#[test]
fn nothing_is_kept_of_connections_that_are_gone() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let pid = edge.sluice().pid();
    let descriptors = || std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    edge.load("a.example.com")
        .limit(50)
        .run(edge.client())?
        .expect_clean()?;
    let before = descriptors();
    let loads = [
        edge.load("a.example.com")
            .new_connections()
            .connections(16)
            .limit(3000),
        edge.tls_load("a.example.com")?
            .new_connections()
            .connections(16)
            .limit(1500),
    ];
    for load in loads {
        load.run(edge.client())?.expect_clean()?;
    }
    // Idle connections to backends are kept for a while; one for each client at most.
    until("descriptors are given back", || {
        (descriptors() <= before + 40).then_some(())
    })?;
    gateway_tests::wait::until_equal("no connection is open", &Some(0.0), || {
        edge.sluice().metric("sluice_connections_open", &[]).ok()
    })
}
