//! What it costs: memory of Sluice on the nodes, and writes that the API server counted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gateway_tests::wait;
use serde::Serialize;

use crate::world::World;

/// Memory that has not changed for so long stands still.
const STILL: Duration = Duration::from_secs(4);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(250);
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Memory of Sluice at a number of routes.
#[derive(Clone, Debug, Serialize)]
pub struct Memory {
    /// Routes at that moment.
    pub routes: usize,
    /// By node.
    pub nodes: Vec<Resident>,
}

/// Memory of a node's Sluice in bytes.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Resident {
    /// All pages that are in memory now, whether anybody else has them too.
    pub resident: u64,
    /// Of these, what Sluice itself has allocated.
    pub anonymous: u64,
    /// Of these, pages of the binary.
    pub file: u64,
    /// The most that was ever in memory.
    pub peak: u64,
    /// What the kubelet calls the working set: all that the control group is charged, without files that were not
    /// used lately. None without a control group of its own.
    pub working_set: Option<u64>,
}

impl Memory {
    /// The most that any node has, in MB.
    pub fn most_mb(&self, of: impl Fn(&Resident) -> u64) -> f64 {
        self.nodes.iter().map(of).max().unwrap_or(0) as f64 / 1e6
    }
}

impl Resident {
    fn add(&mut self, pid: u32) -> Result<()> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| -> Result<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let text = line.map(|line| line.trim().trim_end_matches(" kB"));
            let kib: u64 = text.and_then(|text| text.parse().ok()).context("no Rss")?;
            Ok(kib * 1024)
        };
        self.resident += field("VmRSS:")?;
        self.anonymous += field("RssAnon:")? + field("RssShmem:")?;
        self.file += field("RssFile:")?;
        self.peak += field("VmHWM:")?;
        if let Some(bytes) = working_set(pid) {
            *self.working_set.get_or_insert(0) += bytes;
        }
        Ok(())
    }
}

/// Usage without inactive files of the control group of a container, as cAdvisor computes it.
fn working_set(pid: u32) -> Option<u64> {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let of = |controller: &str| {
        groups.lines().find_map(|line| {
            let (name, path) = line.split_once(':')?.1.split_once(':')?;
            (name == controller && path.contains("/kubepods")).then_some(path)
        })
    };
    let (dir, usage, inactive) = match (of("memory"), of("")) {
        (Some(path), _) => (
            format!("/sys/fs/cgroup/memory{path}"),
            "memory.usage_in_bytes",
            "total_inactive_file ",
        ),
        (None, path) => (
            format!("/sys/fs/cgroup{}", path?),
            "memory.current",
            "inactive_file ",
        ),
    };
    let read = |file: &str| std::fs::read_to_string(format!("{dir}/{file}")).ok();
    let used: u64 = read(usage)?.trim().parse().ok()?;
    let stat = read("memory.stat")?;
    let idle = stat.lines().find_map(|line| line.strip_prefix(inactive))?;
    Some(used.saturating_sub(idle.parse().ok()?))
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

/// Memory of Sluice's processes once it stands still: a process gives back what a change has left when it has nothing
/// else to do.
pub fn memory(world: &World, routes: usize) -> Result<Memory> {
    let mut last = reading(world, routes)?;
    let mut since = Instant::now();
    wait::until_within(PATIENCE, "memory stands still", || {
        std::thread::sleep(LOOK);
        let now = reading(world, routes).ok()?;
        let before = last.most_mb(|m| m.resident);
        if (now.most_mb(|m| m.resident) - before).abs() > before / 100.0 {
            since = Instant::now();
            last = now;
        }
        (since.elapsed() > STILL).then_some(())
    })?;
    reading(world, routes)
}

fn reading(world: &World, routes: usize) -> Result<Memory> {
    let of_node = |number| {
        let mut memory = Resident::default();
        for pid in world.site.pids(number)? {
            memory.add(pid)?;
        }
        Ok(memory)
    };
    let nodes = (0..world.site.nodes.len()).map(of_node);
    let nodes = nodes.collect::<Result<_>>()?;
    Ok(Memory { routes, nodes })
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
