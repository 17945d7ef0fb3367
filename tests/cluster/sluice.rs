//! The deployed Sluice: its Pods, and what each says of itself.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::{Cluster, Node};
use gateway_tests::wait;
use serde_json::Value;

/// Where it is deployed.
pub const NAMESPACE: &str = "sluice-system";

/// How long a node that came back may take to serve, Kubernetes' own delays included.
pub const RECOVERY: Duration = Duration::from_secs(180);

/// A running Pod of Sluice.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub node: String,
    pub is_ready: bool,
    pub restarts: u64,
}

/// All Pods that are not being deleted.
pub fn pods(cluster: &Cluster) -> Result<Vec<Pod>> {
    let list = cluster.kubectl(&["get", "pods", "--namespace", NAMESPACE, "--output=json"])?;
    let list: Value = serde_json::from_str(&list)?;
    let items = list["items"].as_array().context("a list has items")?;
    let live = items
        .iter()
        .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
    live.map(pod).collect()
}

fn pod(pod: &Value) -> Result<Pod> {
    let text = |pointer: &str| {
        let found = pod.pointer(pointer).and_then(Value::as_str);
        found.unwrap_or_default().to_owned()
    };
    let container = |field: &str| pod.pointer(&format!("/status/containerStatuses/0/{field}"));
    Ok(Pod {
        name: text("/metadata/name"),
        node: text("/spec/nodeName"),
        is_ready: container("ready").and_then(Value::as_bool).unwrap_or(false),
        restarts: container("restartCount")
            .and_then(Value::as_u64)
            .unwrap_or(0),
    })
}

/// Waits until there is one ready Pod on a node, and gives it.
pub fn ready_on(cluster: &Cluster, node: &str) -> Result<Pod> {
    wait::until_within(
        RECOVERY,
        &format!("a Pod of Sluice is ready on {node}"),
        || {
            let mut here = pods(cluster).ok()?;
            here.retain(|pod| pod.node == node);
            match here.as_slice() {
                [pod] if pod.is_ready => Some(pod.clone()),
                _ => None,
            }
        },
    )
}

/// The answer of the Pod on this node to one of its own commands.
pub fn ask(node: &Node, arguments: &[&str]) -> Result<String> {
    let pid = *node
        .pids_of("sluice")
        .first()
        .with_context(|| format!("no sluice runs on {}", node.name))?;
    // The binary of the image, where the Pod's state directory is.
    let binary = format!("/proc/{pid}/root/sluice");
    let output = node.exec(&binary, arguments)?;
    ensure!(
        output.status.success(),
        "sluice {} on {}: {}",
        arguments.join(" "),
        node.name,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What the packet path of a node has counted, as `sluice l4 --output json` tells it.
pub fn packet_path(node: &Node) -> Result<Value> {
    let text = ask(node, &["l4", "--output", "json"])?;
    serde_json::from_str(&text).with_context(|| text)
}

/// Whether an address is one of the virtual ones.
pub fn is_virtual(cluster: &Cluster, address: IpAddr) -> bool {
    let pools = cluster
        .vips()
        .iter()
        .filter_map(|pool| pool.parse::<ipnet::IpNet>().ok());
    pools.into_iter().any(|pool| pool.contains(&address))
}
