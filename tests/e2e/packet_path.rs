//! From the wire to a backend: every hook, both address families, and what the kernel counted.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Result;
use gateway_tests::backend::Seen;
use gateway_tests::cleanup::Leftover;
use gateway_tests::world::Topology;
use gateway_tests::{Sluice, World};

use crate::edge::{Edge, Mode};

fn whole_path(mode: Mode, topology: Topology) -> Result<()> {
    let mut edge = Edge::plan(mode).topology(topology).start()?;
    let world_client = [
        IpAddr::from(edge.world.client.v4),
        edge.world.client.v6.into(),
    ];
    for url in ["http://a.example.com/x?y=z", "https://a.example.com/x?y=z"] {
        for call in [edge.curl(url)?, edge.curl6(url)?] {
            let answer = call.run(edge.client())?;
            assert_eq!(answer.status, 200, "{answer:?}");
            let seen = Seen::from_json(&answer.body)?;
            assert_eq!(seen.target, "/x?y=z");
            assert_eq!(seen.header("host"), Some("a.example.com"));
            let source: IpAddr = seen.header("x-forwarded-for").unwrap_or_default().parse()?;
            assert!(world_client.contains(&source), "{source} is not the client");
        }
    }
    let hook = match mode {
        Mode::Auto | Mode::Native => "native",
        Mode::Generic => "generic",
        Mode::Tc => "tc",
        Mode::Sockets => "sockets",
    };
    let l4 = edge.sluice().cli(&["l4"])?;
    assert!(l4.to_lowercase().contains(hook), "{l4}");
    Ok(())
}

#[test]
fn native_xdp_carries_http_and_https_over_ipv4_and_ipv6() -> Result<()> {
    whole_path(Mode::Native, Topology::Routed)
}

#[test]
fn native_xdp_on_a_single_interface_carries_http_and_https() -> Result<()> {
    whole_path(Mode::Native, Topology::Bridged)
}

#[test]
fn generic_xdp_carries_http_and_https_over_ipv4_and_ipv6() -> Result<()> {
    whole_path(Mode::Generic, Topology::Routed)
}

#[test]
fn tc_carries_http_and_https_over_ipv4_and_ipv6() -> Result<()> {
    whole_path(Mode::Tc, Topology::Routed)
}

#[test]
fn ordinary_sockets_carry_http_and_https_over_ipv4_and_ipv6() -> Result<()> {
    whole_path(Mode::Sockets, Topology::Routed)
}

/// The sum of the packets that the kernel side counted for verdicts whose name contains `word`.
fn packets(sluice: &Sluice, word: &str) -> Result<f64> {
    sluice.metric("sluice_l4_verdicts_total", &[word])
}

#[test]
fn each_connection_moves_the_verdict_and_steering_counters() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let before = packets(edge.sluice(), "")?;
    let steered = edge
        .sluice()
        .metric("sluice_l4_steered_connections_total", &[])?;
    let report = edge
        .load("a.example.com")
        .new_connections()
        .limit(50)
        .run(edge.client())?;
    report.expect_clean()?;
    assert!(
        packets(edge.sluice(), "")? >= before + 200.0,
        "a connection has at least four packets"
    );
    let now = edge
        .sluice()
        .metric("sluice_l4_steered_connections_total", &[])?;
    assert!(
        now >= steered + 50.0,
        "50 connections, steered went from {steered} to {now}"
    );
    Ok(())
}

fn denied_source(mode: Mode, counter: &str) -> Result<()> {
    let mut edge = Edge::plan(mode).start()?;
    let path = edge.manifests.path("gateway.yaml");
    let denied = World::CLIENTS4[0].to_string();
    let text = std::fs::read_to_string(&path)?.replace(
        "  name: edge\n",
        &format!("  name: edge\n  annotations:\n    sluice.dev/deny-cidrs: \"{denied}/32\"\n"),
    );
    edge.manifests.write("gateway.yaml", &[text])?;
    let call = |edge: &Edge, source: &str| -> Result<_> {
        Ok(edge
            .curl("http://a.example.com/")?
            .args(["--interface", source, "--connect-timeout", "1"])
            .run(edge.client()))
    };
    // With BPF the proxy asks the same policy, and hears of a revision first.
    gateway_tests::until("the denied source is refused, and counted", || {
        let refused = call(&edge, &denied).ok()?.is_err();
        let counted = edge.sluice().metric(counter, &[]);
        (refused && counted.ok()? >= 1.0).then_some(())
    })?;
    assert_eq!(call(&edge, &World::CLIENTS4[1].to_string())??.status, 200);
    Ok(())
}

#[test]
fn a_denied_source_is_dropped_in_the_kernel_and_others_are_served() -> Result<()> {
    denied_source(Mode::Native, "sluice_l4_dropped_packets_total")
}

#[test]
fn a_denied_source_is_hung_up_on_by_ordinary_sockets_and_others_are_served() -> Result<()> {
    denied_source(Mode::Sockets, "sluice_connections_denied_total")
}

#[test]
fn a_new_listener_port_is_served_without_a_restart() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let edge = Edge::plan(mode).start()?;
        assert!(
            edge.get("http://a.example.com:8080/").is_err(),
            "nothing listens on 8080 yet"
        );
        let path = edge.manifests.path("gateway.yaml");
        let listener = gateway_tests::manifests::http_listener("more", 8080);
        let text = std::fs::read_to_string(&path)? + &listener;
        edge.manifests
            .write("gateway.yaml", std::slice::from_ref(&text))?;
        edge.wait_served("http://a.example.com:8080/", |answer| answer.status == 200)?;
        edge.manifests
            .write("gateway.yaml", &[text.replace(&listener, "")])?;
        gateway_tests::until("port 8080 is closed again", || {
            edge.get("http://a.example.com:8080/")
                .is_err()
                .then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn a_foreign_xdp_program_is_left_alone() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Auto).prepare()?;
    let program = PathBuf::from(format!("{}-foreign", edge.world.pin_dir().display()));
    gateway_tests::sys::pin_xdp_pass(&program)?;
    let _pin = gateway_tests::cleanup::register(Leftover::File(program.clone()));
    edge.world.node.ns.ip(&[&format!(
        "link set eth0 xdpgeneric pinned {}",
        program.display()
    )])?;
    edge.put_sluice(start.ready()?);
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    let l4 = edge.sluice().cli(&["l4"])?.to_lowercase();
    assert!(l4.contains("tc"), "{l4}");
    let links = gateway_tests::process::output(&edge.world.node.ns, {
        let mut command = std::process::Command::new("ip");
        command.args(["-d", "link", "show", "eth0"]);
        command
    })?;
    assert!(
        String::from_utf8_lossy(&links.stdout).contains("xdpgeneric"),
        "the foreign program is still there"
    );
    Ok(())
}

#[test]
fn a_client_on_the_node_itself_is_served() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    for call in [
        edge.curl("http://a.example.com/")?,
        edge.curl6("https://a.example.com/")?,
    ] {
        assert_eq!(call.run(&edge.world.node.ns)?.status, 200);
    }
    Ok(())
}

#[test]
fn links_with_large_frames_get_the_best_hook_that_they_allow() -> Result<()> {
    let mut edge = Edge::plan(Mode::Auto).mtu(9000).start()?;
    let url = "https://a.example.com/?bytes=3000000";
    let answer = edge.curl(url)?.run(edge.client())?;
    assert_eq!(answer.body, gateway_tests::backend::pattern(3_000_000));
    println!("{}", edge.sluice().cli(&["l4"])?);
    Ok(())
}
