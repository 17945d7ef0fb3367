//! The networks of a cluster: a router, the nodes' switch, clients behind it, and the routes to virtual addresses.
//!
//! ```text
//!   host ── sluice-lab ─┐
//!   clients ── client0 ─┤ router ── lab0 ┬ node0
//!   control plane ──────┘                ├ node1
//!                                        └ node2
//! ```
//!
//! All of it is inside of network namespaces but the host's link, which lets the host talk to the API server and to
//! virtual addresses. Packets to a virtual address reach a node's `eth0` as from any router, so that they meet XDP.
//!
//! The router spreads connections (addresses and ports hashed) over its *legs*, one per node, by a resilient group
//! of next hops: when a leg goes, only the connections of that leg move, and when it comes back, only buckets that have
//! been idle for some seconds move to it. That is what routers with resilient hashing do. A leg follows the node's link,
//! as with BFD or BGP: `partition` takes it out at once, `heal` puts it back. It does not follow Sluice's own health;
//! for that there is `withdraw` and `announce`, which is what an operator does before a node is drained.

use std::process::Command;

use anyhow::{Context, ensure};

use super::lab::{
    CLIENT, HOST_LINK, Lab, PODS4, PODS6, ROUTER, ROUTER4, ROUTER6, SERVICES4, SERVICES6, VIPS4,
    VIPS6,
};
use super::succeed_quietly;

/// The groups of next hops towards virtual addresses, by IP version; those of single nodes are below.
const GROUPS: [(&str, usize); 2] = [("-4", 400), ("-6", 600)];
/// Seconds without a packet after which a bucket may move to a leg that has come back.
const IDLE_SECONDS: u32 = 5;
/// Bridge port states, as `bridge link set` takes them.
const DISABLED: &str = "0";
const FORWARDING: &str = "3";

/// Makes the router, the client's namespace and those of the nodes.
pub fn make(lab: &Lab) -> anyhow::Result<()> {
    router()?;
    host().context("the host's link to the lab; a network of this machine may be in 172.31.0.0/16 or fd31::/32")?;
    client(lab)?;
    for n in 0..lab.nodes.len() {
        node(lab, n)?;
    }
    virtual_addresses(lab)
}

/// Takes a node's network away.
pub fn partition(lab: &Lab, node: &str) -> anyhow::Result<()> {
    leg(lab, node, false)?;
    port(lab, node, DISABLED)
}

/// Gives it back.
pub fn heal(lab: &Lab, node: &str) -> anyhow::Result<()> {
    port(lab, node, FORWARDING)?;
    leg(lab, node, true)
}

/// Puts a node's leg into the routes to virtual addresses, or takes it out.
pub fn leg(lab: &Lab, node: &str, present: bool) -> anyhow::Result<()> {
    let n = lab.node(node)?;
    for (_, group) in GROUPS {
        let mut legs = legs(group)?;
        legs.retain(|&leg| leg != n);
        if present {
            legs.push(n);
            legs.sort_unstable();
        }
        ensure!(
            !legs.is_empty(),
            "{node} is the last leg of the routes to virtual addresses; it stays"
        );
        ip(
            Some(ROUTER),
            &[format!(
                "nexthop replace id {group} {}",
                group_of(group, &legs)
            )],
        )?;
    }
    Ok(())
}

/// The state of a node's switch port, and whether its leg is in.
pub fn state(lab: &Lab, node: &str) -> anyhow::Result<(String, &'static str)> {
    let shown = succeed_quietly(
        Command::new("bridge").args(["-n", ROUTER, "-j", "link", "show", "dev", node]),
    )?;
    let shown: serde_json::Value = serde_json::from_slice(&shown)?;
    let port = shown
        .pointer("/0/state")
        .and_then(|state| state.as_str())
        .unwrap_or("unknown");
    let present = legs(GROUPS[0].1)?.contains(&lab.node(node)?);
    Ok((port.to_owned(), if present { "in" } else { "out" }))
}

/// Runs lines of `ip -batch`, in a named namespace or in this one.
pub fn ip(netns: Option<&str>, lines: &[String]) -> anyhow::Result<()> {
    use std::io::Write;
    let mut command = Command::new("ip");
    command
        .args(netns.map(|netns| ["-n", netns]).iter().flatten())
        .args(["-batch", "-"]);
    let mut child = command
        .stdin(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .context("cannot start ip: install iproute2")?;
    let mut input = child.stdin.take().context("no pipe to ip")?;
    input.write_all(lines.join("\n").as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "ip{}: {}of: {}",
        netns
            .map(|netns| format!(" in {netns}"))
            .unwrap_or_default(),
        String::from_utf8_lossy(&output.stderr),
        lines.join("; ")
    );
    Ok(())
}

fn router() -> anyhow::Result<()> {
    namespace(ROUTER)?;
    sysctl(
        ROUTER,
        &[
            "net.ipv4.ip_forward=1",
            "net.ipv6.conf.all.forwarding=1",
            "net.ipv4.conf.all.send_redirects=0",
            // Addresses and ports, not addresses alone: clients are few here.
            "net.ipv4.fib_multipath_hash_policy=1",
            "net.ipv6.fib_multipath_hash_policy=1",
        ],
    )?;
    ip(
        Some(ROUTER),
        &[
            "link add lab0 type bridge mcast_snooping 0".to_owned(),
            "link set lab0 up".to_owned(),
            format!("addr add {ROUTER4}/24 dev lab0"),
            format!("addr add {ROUTER6}/64 dev lab0 nodad"),
        ],
    )
}

fn host() -> anyhow::Result<()> {
    ip(
        None,
        &[format!(
            "link add {HOST_LINK} type veth peer name host0 netns {ROUTER}"
        )],
    )?;
    ip(
        Some(ROUTER),
        &[
            "link set host0 up".to_owned(),
            "addr add 172.31.2.1/24 dev host0".to_owned(),
            "addr add fd31:2::1/64 dev host0 nodad".to_owned(),
        ],
    )?;
    let mut lines = vec![
        format!("link set {HOST_LINK} up"),
        format!("addr add 172.31.2.2/24 dev {HOST_LINK}"),
        format!("addr add fd31:2::2/64 dev {HOST_LINK} nodad"),
    ];
    for network in ["172.31.0.0/24", "172.31.1.0/24", VIPS4, PODS4, SERVICES4] {
        lines.push(format!("route add {network} via 172.31.2.1"));
    }
    for network in ["fd31::/64", "fd31:1::/64", VIPS6, PODS6, SERVICES6] {
        lines.push(format!("route add {network} via fd31:2::1"));
    }
    ip(None, &lines)
}

fn client(lab: &Lab) -> anyhow::Result<()> {
    namespace(CLIENT)?;
    ip(
        None,
        &[format!(
            "link add eth0 netns {CLIENT} type veth peer name client0 netns {ROUTER}"
        )],
    )?;
    ip(
        Some(ROUTER),
        &[
            "link set client0 up".to_owned(),
            "addr add 172.31.1.1/24 dev client0".to_owned(),
            "addr add fd31:1::1/64 dev client0 nodad".to_owned(),
        ],
    )?;
    let mut lines = vec![
        "link set eth0 up".to_owned(),
        format!("addr add {}/24 dev eth0", lab.client.ipv4),
        format!("addr add {}/64 dev eth0 nodad", lab.client.ipv6),
        "route add default via 172.31.1.1".to_owned(),
        "route add default via fd31:1::1".to_owned(),
    ];
    for node in &lab.nodes {
        lines.push(format!("addr add {}/24 dev eth0", node.client_ipv4));
        lines.push(format!(
            "addr add {}/64 dev eth0 nodad preferred_lft 0",
            node.client_ipv6
        ));
    }
    ip(Some(CLIENT), &lines)
}

fn node(lab: &Lab, n: usize) -> anyhow::Result<()> {
    let node = &lab.nodes[n];
    namespace(&node.netns)?;
    sysctl(
        &node.netns,
        &["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"],
    )?;
    ip(
        None,
        &[format!(
            "link add eth0 netns {} type veth peer name {} netns {ROUTER}",
            node.netns, node.name
        )],
    )?;
    ip(
        Some(ROUTER),
        &[
            format!("link set {} up master lab0", node.name),
            format!("route add {} via {}", pods4(n), node.ipv4),
            format!("route add {} via {}", pods6(n), node.ipv6),
        ],
    )?;
    let mut lines = vec![
        "link set eth0 up".to_owned(),
        format!("addr add {}/24 dev eth0", node.ipv4),
        format!("addr add {}/64 dev eth0 nodad", node.ipv6),
        format!("route add default via {ROUTER4}"),
        format!("route add default via {ROUTER6}"),
        // A virtual address that nobody serves here must not go back to the router and come again.
        format!("route add unreachable {VIPS4}"),
        format!("route add unreachable {VIPS6}"),
    ];
    for (m, other) in lab.nodes.iter().enumerate().filter(|(m, _)| *m != n) {
        lines.push(format!("route add {} via {}", pods4(m), other.ipv4));
        lines.push(format!("route add {} via {}", pods6(m), other.ipv6));
    }
    ip(Some(&node.netns), &lines)
}

/// The routes to virtual addresses: by hash over all legs, and for some clients' addresses to one node.
fn virtual_addresses(lab: &Lab) -> anyhow::Result<()> {
    let all: Vec<usize> = (0..lab.nodes.len()).collect();
    let mut lines = Vec::new();
    for (n, node) in lab.nodes.iter().enumerate() {
        let (four, six) = (leg_id(GROUPS[0].1, n), leg_id(GROUPS[1].1, n));
        lines.push(format!("nexthop add id {four} via {} dev lab0", node.ipv4));
        lines.push(format!("nexthop add id {six} via {} dev lab0", node.ipv6));
        let table = 100 + n;
        lines.push(format!("route add {VIPS4} nhid {four} table {table}"));
        lines.push(format!("-6 route add {VIPS6} nhid {six} table {table}"));
        lines.push(format!("rule add from {} lookup {table}", node.client_ipv4));
        lines.push(format!(
            "-6 rule add from {} lookup {table}",
            node.client_ipv6
        ));
    }
    for (_, group) in GROUPS {
        lines.push(format!("nexthop add id {group} {}", group_of(group, &all)));
    }
    lines.push(format!("route add {VIPS4} nhid {}", GROUPS[0].1));
    lines.push(format!("-6 route add {VIPS6} nhid {}", GROUPS[1].1));
    for line in lines {
        // `ip -batch` takes no family on its lines.
        let words = line.split(' ');
        succeed_quietly(Command::new("ip").args(["-n", ROUTER]).args(words))?;
    }
    Ok(())
}

fn group_of(group: usize, legs: &[usize]) -> String {
    let ids: Vec<String> = legs.iter().map(|&n| leg_id(group, n).to_string()).collect();
    format!(
        "group {} type resilient buckets 128 idle_timer {IDLE_SECONDS}",
        ids.join("/")
    )
}

const fn leg_id(group: usize, n: usize) -> usize {
    group / 10 + n
}

/// The nodes whose legs are in a group.
fn legs(group: usize) -> anyhow::Result<Vec<usize>> {
    let shown = Command::new("ip")
        .args([
            "-n",
            ROUTER,
            "-j",
            "nexthop",
            "show",
            "id",
            &group.to_string(),
        ])
        .output()?;
    let shown: serde_json::Value =
        serde_json::from_slice(&shown.stdout).context("the router has no legs")?;
    let members = shown.pointer("/0/group").and_then(|group| group.as_array());
    let ids = members
        .into_iter()
        .flatten()
        .filter_map(|member| member.get("id")?.as_u64());
    ids.map(|id| Ok(usize::try_from(id)? - group / 10))
        .collect()
}

fn port(lab: &Lab, node: &str, state: &str) -> anyhow::Result<()> {
    lab.node(node)?;
    succeed_quietly(
        Command::new("bridge").args(["-n", ROUTER, "link", "set", "dev", node, "state", state]),
    )
    .map(drop)
}

fn namespace(name: &str) -> anyhow::Result<()> {
    succeed_quietly(Command::new("ip").args(["netns", "add", name]))?;
    sysctl(
        name,
        &[
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.default.accept_ra=0",
        ],
    )?;
    ip(Some(name), &["link set lo up".to_owned()])
}

fn sysctl(netns: &str, settings: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    succeed_quietly(
        command
            .args(["netns", "exec", netns, "sysctl", "-qw"])
            .args(settings),
    )
    .map(drop)
}

/// A node's Pods.
pub fn pods4(n: usize) -> String {
    format!("10.244.{n}.0/24")
}

/// A node's Pods.
pub fn pods6(n: usize) -> String {
    format!("fd31:244:0:{n}::/64")
}
