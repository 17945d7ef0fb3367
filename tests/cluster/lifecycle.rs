//! Sluice is replaced, killed, drained and cut off: what fails is only what was in flight there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::{Cluster, Node};
use gateway_tests::load::Running;
use gateway_tests::wait;

use crate::site::Site;
use crate::sluice::{self, NAMESPACE, RECOVERY};

/// Everything a client may have open: kept-alive and new connections, TLS, HTTP/2.
fn loads(site: &Site) -> Result<Vec<(&'static str, Running)>> {
    let pause = Duration::from_millis(20);
    let ns = site.cluster.client();
    Ok(vec![
        ("http/1.1, kept alive", site.load().pause(pause).start(ns)?),
        (
            "http/1.1, new connections",
            site.load().pause(pause).new_connections().start(ns)?,
        ),
        (
            "http/1.1 over TLS",
            site.tls_load(&["http/1.1"])?.pause(pause).start(ns)?,
        ),
        (
            "h2 over TLS",
            site.tls_load(&["h2"])?.http2("/").pause(pause).start(ns)?,
        ),
    ])
}

/// Lets each load go on for a while.
pub fn more(loads: &[(&'static str, Running)]) -> Result<()> {
    loads
        .iter()
        .try_for_each(|(name, load)| load.wait_more(50).context(*name))
}

#[test]
fn a_rolling_update_under_load_fails_no_request() -> Result<()> {
    let site = Site::new("rolling")?;
    let before = sluice::pods(&site.cluster)?;
    let loads = loads(&site)?;
    let mut sockets = Vec::new();
    for _ in 0..6 {
        sockets.push(site.websocket()?);
        sockets.push(site.tls_websocket()?);
    }
    more(&loads)?;
    site.cluster.kubectl(&[
        "rollout",
        "restart",
        "daemonset/sluice",
        "--namespace",
        NAMESPACE,
    ])?;
    // `kubectl rollout status` would wait for the old Pods, which the WebSockets keep alive.
    wait::until_within(RECOVERY, "every node has a new Pod that is ready", || {
        let now = sluice::pods(&site.cluster).ok()?;
        let is_new =
            |pod: &sluice::Pod| pod.is_ready && before.iter().all(|old| old.name != pod.name);
        (now.len() == before.len() && now.iter().all(is_new)).then_some(())
    })?;
    more(&loads)?;
    for (n, socket) in sockets.iter_mut().enumerate() {
        socket
            .echo(&format!("socket {n}"))
            .with_context(|| format!("WebSocket {n} did not live on"))?;
    }
    let after = sluice::pods(&site.cluster)?;
    ensure!(after.len() == site.cluster.nodes().len(), "{after:?}");
    let stayed = after
        .iter()
        .any(|pod| before.iter().any(|old| old.name == pod.name));
    ensure!(!stayed, "a Pod was not replaced: {before:?}, {after:?}");
    for (name, load) in loads {
        let report = load.stop()?;
        report.expect_clean().context(name)?;
        ensure!(
            report.resent == 0,
            "{name}: a connection was closed under a request: {report}"
        );
    }
    for socket in sockets {
        socket.close()?;
    }
    wait::until_within(
        RECOVERY,
        "the old Pods end when their last connection has",
        || all_processes(&site.cluster).then_some(()),
    )
}

/// Whether each node has exactly one process of Sluice.
fn all_processes(cluster: &Cluster) -> bool {
    cluster
        .nodes()
        .iter()
        .all(|node| node.pids_of("sluice").len() == 1)
}

#[test]
fn a_killed_pod_takes_only_what_was_in_flight_there() -> Result<()> {
    let site = Site::new("killed")?;
    let (victim, others) = victim(&site.cluster)?;
    let pod = sluice::ready_on(&site.cluster, &victim.name)?;
    let elsewhere = loads_by(&site, &others)?;
    let pid = *victim.pids_of("sluice").first().context("a process")?;
    gateway_tests::sys::kill(pid, libc::SIGKILL)?;
    for node in &others {
        ask_each_way(&site, node)?;
    }
    wait::until_within(RECOVERY, "the Pod has restarted and is ready", || {
        let now = sluice::ready_on(&site.cluster, &victim.name).ok()?;
        (now.name == pod.name && now.restarts > pod.restarts).then_some(())
    })?;
    // The next start has taken over or cleared away what was left in the kernel.
    ask_each_way(&site, &victim)?;
    let path = sluice::packet_path(&victim)?;
    ensure!(
        path.pointer("/status/live") == Some(&true.into()),
        "{path:#}"
    );
    expect_clean(elsewhere)
}

#[test]
fn a_drained_node_serves_to_the_end_and_again_when_it_is_back() -> Result<()> {
    let site = Site::new("drained")?;
    let (victim, others) = victim(&site.cluster)?;
    // The router moves what is open on the node's leg to the others, which know nothing of it; new connections and
    // those of the other nodes must not notice.
    let elsewhere = loads_by(&site, &others)?;
    // What an operator does: no new connections, the Pods away, and the node's own work.
    let withdrawn = site.cluster.withdraw(&victim.name)?;
    let name = victim.name.as_str();
    let drained = site.cluster.kubectl(&[
        "drain",
        name,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
    ]);
    let tainted = drained.and_then(|_| {
        site.cluster.kubectl(&[
            "taint",
            "node",
            name,
            "sluice.dev/maintenance=:NoExecute",
            "--overwrite",
        ])
    });
    let gone = tainted.and_then(|_| {
        wait::until_within(RECOVERY, "Sluice has left the node", || {
            victim.pids_of("sluice").is_empty().then_some(())
        })
    });
    let checked = gone.and_then(|()| {
        more(&elsewhere)?;
        others
            .iter()
            .try_for_each(|node| ask_each_way(&site, node))?;
        nothing_is_left(&victim)
    });
    site.cluster
        .kubectl(&["taint", "node", name, "sluice.dev/maintenance-"])?;
    site.cluster.kubectl(&["uncordon", name])?;
    checked?;
    sluice::ready_on(&site.cluster, name)?;
    ask_each_way(&site, &victim)?;
    withdrawn.now()?;
    expect_clean(elsewhere)
}

#[test]
fn a_node_that_is_cut_off_is_missed_by_nobody_and_catches_up() -> Result<()> {
    let site = Site::new("cutoff")?;
    let (victim, others) = victim(&site.cluster)?;
    let elsewhere = loads_by(&site, &others)?;
    let cut = site.cluster.partition(&victim.name)?;
    // A change while it is away: the others serve it, and the status does not wait for the one that cannot answer.
    let started = Instant::now();
    let changed = "rules: [{matches: [{path: {value: /}}, {path: {value: /changed}}], ";
    let route = crate::site::route(site.namespace.name(), "outside", 80);
    site.cluster.apply(&route.replace("rules: [{", changed))?;
    site.route_accepted("app")?;
    ensure!(
        started.elapsed() < Duration::from_secs(60),
        "the status waited {:?}",
        started.elapsed()
    );
    others
        .iter()
        .try_for_each(|node| ask_each_way(&site, node))?;
    cut.now()?;
    wait::until_within(RECOVERY, "the node is ready again", || {
        let node = site.cluster.get("node", "", &victim.name).ok()?;
        let conditions = node.pointer("/status/conditions")?.as_array()?.clone();
        conditions
            .iter()
            .any(|c| c["type"] == "Ready" && c["status"] == "True")
            .then_some(())
    })?;
    wait::until_within(RECOVERY, "the node serves what changed", || {
        let routes = sluice::ask(&victim, &["routes", "--output", "json"]).ok()?;
        routes.contains("changed").then_some(())
    })?;
    ask_each_way(&site, &victim)?;
    expect_clean(elsewhere)
}

/// The node that something is done to, and the others.
pub fn victim(cluster: &Cluster) -> Result<(Node, Vec<Node>)> {
    let (victim, others) = cluster.nodes().split_last().context("a node")?;
    ensure!(!others.is_empty(), "needs two nodes");
    Ok((victim.clone(), others.to_vec()))
}

/// One request to each address by way of this node.
pub fn ask_each_way(site: &Site, node: &Node) -> Result<()> {
    for &to in &site.addresses {
        let from = node
            .client_addresses()
            .into_iter()
            .find(|from| from.is_ipv4() == to.is_ipv4());
        let from = from.context("an address of this family")?;
        let answer = site.curl("/", to, from).run(site.cluster.client());
        let answer = answer.with_context(|| format!("{to} by way of {}", node.name))?;
        ensure!(
            answer.status == 200,
            "{to} by way of {}: {}",
            node.name,
            answer.text()
        );
    }
    Ok(())
}

/// Load that only these nodes get, each of them.
pub fn loads_by(site: &Site, nodes: &[Node]) -> Result<Vec<(&'static str, Running)>> {
    let to = site.addresses[0];
    let mut loads = Vec::new();
    for node in nodes {
        let from = node.client_addresses()[usize::from(to.is_ipv6())];
        let pause = Duration::from_millis(20);
        loads.push((
            "kept alive",
            site.load()
                .from(from)
                .pause(pause)
                .start(site.cluster.client())?,
        ));
        let new = site.load().from(from).pause(pause).new_connections();
        loads.push(("new connections", new.start(site.cluster.client())?));
    }
    more(&loads)?;
    Ok(loads)
}

fn expect_clean(loads: Vec<(&'static str, Running)>) -> Result<()> {
    more(&loads)?;
    loads
        .into_iter()
        .try_for_each(|(name, load)| load.stop()?.expect_clean().context(name))
}

/// Nothing of Sluice is attached, pinned or routed on a node.
fn nothing_is_left(node: &Node) -> Result<()> {
    let run = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = node.exec(program, arguments)?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let pins = run("find", &["/sys/fs/bpf/", "-mindepth", "1"])?;
    ensure!(!pins.contains("sluice"), "still pinned: {pins}");
    let links = run("ip", &["link", "show", "dev", "eth0"])?;
    ensure!(!links.contains("xdp"), "still attached: {links}");
    Ok(())
}
