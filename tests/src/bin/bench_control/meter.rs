//! What it costs: memory of Sluice on the nodes, and writes that the API server counted.

use anyhow::{Context, Result, ensure};
use gateway_tests::sys;
use serde::Serialize;

use crate::world::World;

/// Memory of Sluice at a number of routes.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Routes at that moment.
    pub routes: usize,
    /// Resident bytes on each node, anonymous and file-backed.
    pub resident: Vec<u64>,
    /// Of these, the anonymous ones: what Sluice itself has allocated.
    pub anonymous: Vec<u64>,
}

impl Memory {
    /// The most that any node has, in MB.
    pub fn most_mb(&self) -> f64 {
        megabytes(self.resident.iter().copied().max().unwrap_or(0))
    }

    /// As [`Self::most_mb`], of anonymous memory.
    pub fn most_anonymous_mb(&self) -> f64 {
        megabytes(self.anonymous.iter().copied().max().unwrap_or(0))
    }
}

/// Writes of statuses that the API server has answered since it started.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Writes {
    /// Successful writes of HTTPRoute statuses.
    pub routes: u64,
    /// Successful writes of Gateway statuses.
    pub gateways: u64,
    /// Refused writes, of both: conflicts.
    pub refused: u64,
}

impl std::ops::Sub for Writes {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            routes: self.routes.saturating_sub(earlier.routes),
            gateways: self.gateways.saturating_sub(earlier.gateways),
            refused: self.refused.saturating_sub(earlier.refused),
        }
    }
}

/// Memory of Sluice's processes, now.
pub fn memory(world: &World, routes: usize) -> Result<Memory> {
    let mut memory = Memory {
        routes,
        resident: Vec::new(),
        anonymous: Vec::new(),
    };
    for node in world.cluster.nodes() {
        let pids = node.pids_of("sluice");
        ensure!(!pids.is_empty(), "no sluice runs on {}", node.name);
        let (mut resident, mut anonymous) = (0, 0);
        for pid in pids {
            resident += sys::usage(pid)?.1;
            anonymous += anonymous_bytes(pid)?;
        }
        memory.resident.push(resident);
        memory.anonymous.push(anonymous);
    }
    Ok(memory)
}

/// Reads the API server's own counters.
pub fn writes(world: &World) -> Result<Writes> {
    let text = world.block_on(world.api.text("/metrics"))?;
    let mut writes = Writes::default();
    let counters = text
        .lines()
        .filter(|line| line.starts_with("apiserver_request_total{"));
    for line in counters.filter(|line| {
        line.contains("subresource=\"status\"") && line.contains("gateway.networking.k8s.io")
    }) {
        let read = ["GET", "LIST", "WATCH"]
            .iter()
            .any(|verb| line.contains(&format!("verb=\"{verb}\"")));
        let (_, count) = line.rsplit_once(' ').context("a counter without value")?;
        let count = count.parse::<f64>()? as u64;
        match (read, line.contains("code=\"200\"")) {
            (true, _) => {}
            (false, false) => writes.refused += count,
            (false, true) if line.contains("resource=\"httproutes\"") => writes.routes += count,
            (false, true) if line.contains("resource=\"gateways\"") => writes.gateways += count,
            (false, true) => {}
        }
    }
    Ok(writes)
}

fn anonymous_bytes(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kib: u64 = line
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .context("no RssAnon")?;
    Ok(kib * 1024)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
