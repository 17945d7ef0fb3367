//! Control groups: where the kubelets put their Pods, and how every process of a cluster is found again.
//!
//! A process cannot leave its group by itself, so that killing a group ends what it started as well, and no
//! process id that was written down can belong to somebody else by now. Both versions of cgroups are served.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::until;

/// The group of a whole cluster.
pub const CLUSTER: &str = "sluice-lab";

/// Makes a group (and those above it) in every hierarchy.
pub fn make(group: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let mut dir = hierarchy;
        for part in Path::new(group) {
            delegate(&dir);
            let parent = dir.clone();
            dir.push(part);
            fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
            inherit(&parent, &dir)?;
        }
    }
    Ok(())
}

/// Lets everything in the cluster's group have as much of the processors as a dozen processes outside it: without, all
/// the nodes together had no more than one of them.
pub fn weigh() -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(CLUSTER);
        for (file, weight) in [("cpu.shares", "12288"), ("cpu.weight", "1200")] {
            let file = group.join(file);
            if file.exists() {
                fs::write(&file, weight).with_context(|| file.display().to_string())?;
            }
        }
    }
    Ok(())
}

/// The file that a process writes itself into to be of a group.
pub fn tracked(group: &str) -> anyhow::Result<PathBuf> {
    Ok(tracking()?.join(group).join("cgroup.procs"))
}

/// The processes of a group and of those below it, in every hierarchy.
pub fn processes(group: &str) -> anyhow::Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for hierarchy in hierarchies()? {
        for dir in below(&hierarchy.join(group)) {
            let text = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    Ok(found)
}

/// Sends a signal to every process of a group; one that has just ended does not matter.
pub fn signal(group: &str, signal: &str) -> anyhow::Result<BTreeSet<u32>> {
    let found = processes(group)?;
    if !found.is_empty() {
        let pids = found.iter().map(u32::to_string);
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill \"$@\" 2> /dev/null; true", "sh", signal]);
        super::succeed_quietly(kill.args(pids))?;
    }
    Ok(found)
}

/// Kills a group until nobody is left.
pub fn kill(group: &str) -> anyhow::Result<()> {
    let what = format!("the processes of {group} end");
    until(Duration::from_secs(30), &what, || {
        Ok(signal(group, "-KILL")?.is_empty().then_some(()))
    })
}

/// Removes an empty group and those below it from every hierarchy.
pub fn remove(group: &str) -> anyhow::Result<()> {
    for hierarchy in hierarchies()? {
        let top = hierarchy.join(group);
        let what = format!("{} can be removed", top.display());
        until(Duration::from_secs(10), &what, || {
            for dir in below(&top).iter().rev() {
                fs::remove_dir(dir).ok();
            }
            Ok((!top.exists()).then_some(()))
        })?;
    }
    Ok(())
}

/// Where cgroups are mounted: every controller of version 1, or the one tree of version 2.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("/proc/self/mounts")?;
    let of = |kind: &str| -> Vec<PathBuf> {
        let fields = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let matching = fields.filter(|f| f.len() > 2 && f[2] == kind);
        let paths: BTreeSet<PathBuf> = matching.map(|f| PathBuf::from(f[1])).collect();
        paths
            .into_iter()
            .filter(|path| path.starts_with("/sys/fs/cgroup"))
            .collect()
    };
    let found = Some(of("cgroup"))
        .filter(|v1| !v1.is_empty())
        .unwrap_or_else(|| of("cgroup2"));
    ensure!(
        !found.is_empty(),
        "no cgroups are mounted below /sys/fs/cgroup"
    );
    Ok(found)
}

/// The hierarchy whose groups say which process is whose.
fn tracking() -> anyhow::Result<PathBuf> {
    let all = hierarchies()?;
    let pids = all.iter().find(|path| path.ends_with("pids"));
    Ok(pids.unwrap_or(&all[0]).clone())
}

/// A directory and all below it, those above before those below.
fn below(top: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(dir) = left.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        let directories = entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        left.extend(directories.map(|entry| entry.path()));
        found.push(dir);
    }
    found
}

/// Version 2: lets the groups below use every controller of this one, as far as the kernel allows it.
fn delegate(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}")).ok();
    }
}

/// Version 1: a new group of `cpuset` may use nothing, which no process can live with.
fn inherit(parent: &Path, dir: &Path) -> anyhow::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (parent.join(file), dir.join(file));
        let version1 = dir.starts_with("/sys/fs/cgroup/cpuset");
        if version1 && fs::read_to_string(&to).is_ok_and(|own| own.trim().is_empty()) {
            let value = fs::read(&from).with_context(|| from.display().to_string())?;
            fs::write(&to, value).with_context(|| to.display().to_string())?;
        }
    }
    Ok(())
}
