//! Nothing stays behind: what is removed on Ctrl-C, and what a killed run left.
//!
//! Names carry the process id of whoever made the thing: `sluice-PID-…`. A leftover is removed
//! only when that process is gone.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use crate::sys;

/// Where named network namespaces are kept, as `ip netns` expects them.
pub const NETNS_DIR: &str = "/run/netns";
/// Where the BPF file system is mounted.
pub const BPFFS: &str = "/sys/fs/bpf";
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

static REGISTRY: Mutex<Vec<(u64, Leftover)>> = Mutex::new(Vec::new());
static NEXT: AtomicU64 = AtomicU64::new(1);
static PREPARE: Once = Once::new();

/// Something that has to go.
#[derive(Clone, Debug)]
pub enum Leftover {
    /// A process to be killed.
    Process(u32),
    /// A named network namespace.
    Namespace(PathBuf),
    /// A directory with everything in it.
    Directory(PathBuf),
    /// A file, such as a pin in the BPF file system.
    File(PathBuf),
}

impl Leftover {
    fn remove(&self) {
        match self {
            Self::Process(pid) => drop(sys::kill(*pid, libc::SIGKILL)),
            Self::Namespace(path) => {
                kill_inhabitants(path);
                drop(sys::unmount(path));
                drop(std::fs::remove_file(path));
            }
            Self::Directory(path) => drop(std::fs::remove_dir_all(path)),
            Self::File(path) => drop(std::fs::remove_file(path)),
        }
    }
}

/// A registration; dropping it removes the thing.
#[derive(Debug)]
pub struct Guard {
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let found = {
            let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
            let at = registry.iter().position(|(id, _)| *id == self.id);
            at.map(|at| registry.swap_remove(at).1)
        };
        if let Some(leftover) = found {
            leftover.remove();
        }
    }
}

/// Remembers that this has to go.
#[must_use]
pub fn register(leftover: Leftover) -> Guard {
    prepare();
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    registry.push((id, leftover));
    Guard { id }
}

/// A name that no other live process and no other caller has: `sluice-PID-N`.
#[must_use]
pub fn unique_name() -> String {
    prepare();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("sluice-{}-{number}", std::process::id())
}

/// Mounts the BPF file system if it is not there.
///
/// # Errors
/// What `mount(2)` says, which for anyone but root is no.
pub fn ensure_bpffs() -> std::io::Result<()> {
    let path = Path::new(BPFFS);
    if sys::has_fs_magic(path, BPF_FS_MAGIC) {
        return Ok(());
    }
    sys::mount(Path::new("bpf"), path, "bpf", 0)
}

/// Once per process: removes what killed runs left, and listens for Ctrl-C.
fn prepare() {
    PREPARE.call_once(|| {
        sweep();
        if let Ok(pipe) = sys::signal_pipe() {
            std::thread::spawn(move || leave_on_signal(pipe));
        }
    });
}

fn leave_on_signal(mut pipe: std::fs::File) {
    let mut signal = [0_u8];
    if pipe.read_exact(&mut signal).is_err() {
        return;
    }
    remove_everything();
    sys::exit_now(128 + i32::from(signal[0]));
}

/// Removes all that is registered, processes first.
pub fn remove_everything() {
    let all = std::mem::take(&mut *REGISTRY.lock().unwrap_or_else(PoisonError::into_inner));
    let (processes, rest): (Vec<_>, Vec<_>) = all
        .into_iter()
        .map(|(_, leftover)| leftover)
        .partition(|leftover| matches!(leftover, Leftover::Process(_)));
    for leftover in processes.iter().chain(&rest) {
        leftover.remove();
    }
}

fn sweep() {
    for path in dead_entries(Path::new(NETNS_DIR)) {
        Leftover::Namespace(path).remove();
    }
    for parent in [Path::new(BPFFS), &std::env::temp_dir()] {
        for path in dead_entries(parent) {
            let directory = path.is_dir();
            if directory {
                Leftover::Directory(path)
            } else {
                Leftover::File(path)
            }
            .remove();
        }
    }
}

/// Kills what still runs in a namespace: processes that a process of ours has started.
fn kill_inhabitants(namespace: &Path) {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    let Ok(wanted) = identity(namespace) else {
        return;
    };
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else {
            continue;
        };
        let inside = identity(&entry.path().join("ns/net")).is_ok_and(|found| found == wanted);
        if inside && pid != std::process::id() {
            drop(sys::kill(pid, libc::SIGKILL));
        }
    }
}

fn dead_entries(parent: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            owner(&name.to_string_lossy()).is_some_and(|pid| !sys::is_alive(pid))
        })
        .map(|entry| entry.path())
        .collect()
}

fn owner(name: &str) -> Option<u32> {
    let (pid, _) = name.strip_prefix("sluice-")?.split_once('-')?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner(&unique_name()), Some(std::process::id()));
        assert_eq!(owner("sluice-7-1-client"), Some(7));
        assert_eq!(owner("sluice"), None);
        assert_eq!(owner("sluice-x-1"), None);
    }
}
