//! What is given up first when memory runs out: keep-alive, then new requests, then new connections.
//!
//! One thread compares the memory in use with the limit; requests only read the level it found.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use crate::limits::MemoryLimits;

/// How often the memory in use is looked at.
const PERIOD: Duration = Duration::from_millis(250);

/// How bad it is; each level includes those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    #[default]
    None,
    /// Connections end after the request they are serving.
    NoKeepAlive,
    /// New requests are answered with 503.
    NoRequests,
    /// New connections are closed at once.
    NoConnections,
}

/// The level that was found last.
#[derive(Debug, Default)]
pub(crate) struct Overload(AtomicU8);

impl Overload {
    /// Starts to watch, if there is a limit to compare with.
    pub(crate) fn watch(limits: &MemoryLimits) -> Arc<Self> {
        let overload = Arc::new(Self::default());
        let Some(gauge) = Gauge::of(limits) else {
            return overload;
        };
        overload.note(gauge.percent(), limits);
        let (watched, limits) = (Arc::downgrade(&overload), limits.clone());
        let run = move || keep_watch(&watched, &gauge, &limits);
        if let Err(error) = thread::Builder::new().name("overload".into()).spawn(run) {
            tracing::warn!(%error, "cannot watch the memory in use");
        }
        overload
    }

    /// The level that was found last.
    pub(crate) fn pressure(&self) -> Pressure {
        match self.0.load(Ordering::Relaxed) {
            0 => Pressure::None,
            1 => Pressure::NoKeepAlive,
            2 => Pressure::NoRequests,
            _ => Pressure::NoConnections,
        }
    }

    fn note(&self, percent: Option<u64>, limits: &MemoryLimits) {
        let percent = percent.unwrap_or_default();
        let level = match percent {
            p if p >= limits.refuse_connections_percent => Pressure::NoConnections,
            p if p >= limits.refuse_requests_percent => Pressure::NoRequests,
            p if p >= limits.end_keep_alive_percent => Pressure::NoKeepAlive,
            _ => Pressure::None,
        };
        let before = self.0.swap(level as u8, Ordering::Relaxed);
        if before != level as u8 {
            tracing::warn!(percent, ?level, "memory pressure has changed");
        }
    }
}

fn keep_watch(watched: &Weak<Overload>, gauge: &Gauge, limits: &MemoryLimits) {
    while let Some(overload) = watched.upgrade() {
        overload.note(gauge.percent(), limits);
        drop(overload);
        thread::sleep(PERIOD);
    }
}

/// Where the memory in use stands, and how much there may be.
#[derive(Debug)]
enum Gauge {
    /// The process's resident memory, against a number.
    Process { limit: u64 },
    /// The control group's working set, against its limit.
    Cgroup { directory: PathBuf, limit: u64 },
}

impl Gauge {
    fn of(limits: &MemoryLimits) -> Option<Self> {
        match limits.bytes {
            Some(0) => None,
            Some(limit) => Some(Self::Process { limit }),
            None => Self::of_cgroup(),
        }
    }

    /// linux v6.1 Documentation/admin-guide/cgroup-v2.rst: the line `0::PATH` of `/proc/self/cgroup`.
    fn of_cgroup() -> Option<Self> {
        let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
        let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let directory = Path::new("/sys/fs/cgroup").join(path);
        let limit = number(&directory.join("memory.max"))?;
        Some(Self::Cgroup { directory, limit })
    }

    fn percent(&self) -> Option<u64> {
        let (used, limit) = match self {
            Self::Process { limit } => (resident_bytes()?, *limit),
            Self::Cgroup { directory, limit } => (working_set(directory)?, *limit),
        };
        Some(used.saturating_mul(100) / limit.max(1))
    }
}

/// What the group uses, without page cache that can be dropped at once.
fn working_set(directory: &Path) -> Option<u64> {
    let current = number(&directory.join("memory.current"))?;
    let stat = fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    let inactive = stat
        .lines()
        .find_map(|line| line.strip_prefix("inactive_file "));
    let inactive = inactive.and_then(|text| text.parse().ok()).unwrap_or(0);
    Some(current.saturating_sub(inactive))
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1_024)
}

/// A file with one number; nothing for `max`.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}
