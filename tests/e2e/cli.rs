//! The commands: the same answer offline and live, and tables that tell the truth.

use anyhow::{Context, Result};
use gateway_tests::manifests::{forward, route};
use gateway_tests::sluice;

use crate::edge::{Edge, Mode};

#[test]
fn explain_says_the_same_offline_and_live_and_what_the_wire_does() -> Result<()> {
    let rules = "  - matches: [{path: {value: /cart}}]\n    backendRefs: [{name: b1, port: 80}]\n  \
                 - matches: [{path: {value: /cart}, headers: [{name: x-canary, value: 'true'}]}]\n    \
                 backendRefs: [{name: b2, port: 80}]\n";
    let mut edge = Edge::plan(Mode::Sockets)
        .documents([
            route("shop", &["shop.example.com"], rules),
            route("all", &[], &forward("b0")),
        ])
        .start()?;
    let manifests = edge.manifests.dir().display().to_string();
    let cases: &[(&[&str], &str)] = &[
        (&["http://shop.example.com/cart"], "b1"),
        (
            &["http://shop.example.com/cart", "-H", "x-canary: true"],
            "b2",
        ),
        (&["https://shop.example.com/cart/item"], "b1"),
        (&["http://shop.example.com/elsewhere"], "b0"),
        (&["POST", "http://a.example.com/"], "b0"),
    ];
    for (arguments, backend) in cases {
        let call = [&["explain"], *arguments].concat();
        let live = edge.sluice().cli_json(&call)?;
        let offline = edge
            .sluice()
            .cli_json(&[&call[..], &["--manifests", &manifests]].concat())?;
        let same = |mut value: serde_json::Value| {
            // An offline look has no revision of a process.
            if let Some(map) = value.as_object_mut() {
                map.remove("revision");
                map.remove("source");
            }
            value
        };
        assert!(
            live.to_string().contains(&format!("{backend}:80")),
            "{arguments:?}: {live:#}"
        );
        assert_eq!(same(live), same(offline), "{arguments:?}");
        let url = arguments
            .iter()
            .find(|a| a.contains("://"))
            .context("a URL")?;
        let headers = arguments.iter().skip_while(|a| **a != "-H").copied();
        let method: &[&str] = if arguments[0] == "POST" {
            &["-X", "POST"]
        } else {
            &[]
        };
        let answer = edge
            .curl(url)?
            .args(headers)
            .args(method.iter().copied())
            .run(edge.client())?;
        assert_eq!(answer.header("x-backend"), Some(*backend), "{arguments:?}");
    }
    let text = edge
        .sluice()
        .cli(&["explain", "http://shop.example.com/cart"])?;
    for word in ["shop", "b1", "x-canary"] {
        assert!(text.contains(word), "{word} is not in\n{text}");
    }
    Ok(())
}

#[test]
fn tables_name_what_is_served() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    for (command, words) in [
        ("status", &["default/edge", "PROGRAMMED", "True"][..]),
        ("routes", &["default/all", "b0"]),
        ("listeners", &["https", "443", "shop.example.com"]),
        ("l4", &["eth0", "native"]),
    ] {
        let text = edge.sluice().cli(&[command])?;
        for word in words {
            assert!(
                text.contains(word),
                "{word} is not in the output of {command}:\n{text}"
            );
        }
        edge.sluice().cli_json(&[command])?;
        edge.sluice().cli(&[command, "-o", "yaml"])?;
    }
    Ok(())
}

#[test]
fn status_tells_of_a_route_that_is_not_accepted() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets)
        .documents([
            route("broken", &[], &forward("nowhere")),
            route("all", &[], &forward("b0")),
        ])
        .start()?;
    let status = edge.sluice().cli_json(&["status"])?.to_string();
    assert!(status.contains("BackendNotFound"), "{status}");
    Ok(())
}

#[test]
fn the_admin_socket_answers_what_it_promises() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    for path in [
        "/healthz/ready",
        "/healthz/live",
        "/metrics",
        "/snapshot",
        "/routes",
        "/listeners",
        "/status",
        "/l4",
        "/config",
    ] {
        let (status, body) = edge.sluice().admin(path)?;
        assert_eq!(status, 200, "{path}: {body}");
    }
    let (_, snapshot) = edge.sluice().admin("/snapshot")?;
    assert!(!snapshot.contains("PRIVATE KEY"), "keys are never shown");
    let (_, metrics) = edge.sluice().admin("/metrics")?;
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let value = line.rsplit_once(' ').map(|(_, value)| value.parse::<f64>());
        assert!(matches!(value, Some(Ok(_))), "no Prometheus line: {line}");
    }
    assert_eq!(edge.sluice().admin("/nonsense")?.0, 404);
    Ok(())
}

#[test]
fn the_access_log_names_everything_and_the_revision() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native)
        .args(["--access-log", "json"])
        .start()?;
    assert_eq!(edge.get("http://a.example.com/logged?q=1")?.status, 200);
    let line = gateway_tests::until("the line is written", || {
        let log = edge.sluice().log();
        log.lines()
            .find(|line| line.contains("/logged"))
            .map(str::to_owned)
    })?;
    let line: serde_json::Value = serde_json::from_str(&line).with_context(|| line.clone())?;
    for field in [
        "gateway", "listener", "route", "rule", "backend", "endpoint", "revision", "status",
        "method", "host", "client",
    ] {
        assert!(line.get(field).is_some(), "{field} is missing in {line:#}");
    }
    Ok(())
}

#[test]
fn a_packet_trace_shows_the_verdicts_of_one_peer() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let peer = edge.world.client.v4.to_string();
    let mut command = std::process::Command::new(sluice::binary());
    command
        .args(["l4", "trace", "--peer", &peer, "--state-dir"])
        .arg(edge.sluice().state_dir());
    let log = edge.world.dir().join("trace.log");
    let trace =
        gateway_tests::process::Process::start(&edge.world.node.ns, "trace", command, &log)?;
    gateway_tests::until("a line names the peer", || {
        edge.get("http://a.example.com/").ok()?;
        trace.output().contains(&peer).then_some(())
    })
    .map_err(|error| error.context(trace.output()))
}

#[test]
fn a_mistaken_setting_is_refused_with_a_hint() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Sockets).prepare()?;
    let mut sluice = start.args(["--limits", "head.bites=5"]).spawn()?;
    let status = sluice.wait_exit(gateway_tests::wait::PATIENCE)?;
    assert!(!status.success());
    assert!(sluice.log().contains("head.bytes"), "{}", sluice.log());
    edge.put_sluice(sluice);
    Ok(())
}
