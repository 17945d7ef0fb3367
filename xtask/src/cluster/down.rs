//! `cargo xtask cluster down`: removes a cluster, whatever state it is in.
//!
//! It looks for what is there by its fixed names and needs no record of what was made, so that it works after a crash
//! and after an `up` that was cut short. Mounts are all in the nodes' mount namespaces and go with their last process.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;

use super::lab::{CLIENT, HOST_LINK, ROUTER};
use super::{cgroups, succeed_quietly, until};

/// Settings of the whole machine that a kubelet changes.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// Removes every trace of a cluster whose state directory is this.
pub fn run(dir: &Path) -> anyhow::Result<()> {
    let had = dir.exists();
    cgroups::kill(cgroups::CLUSTER)?;
    cgroups::remove(cgroups::CLUSTER)?;
    for name in namespaces()? {
        succeed_quietly(Command::new("ip").args(["netns", "delete", &name]))?;
    }
    if Path::new("/sys/class/net").join(HOST_LINK).exists() {
        // The router's end went with its namespace, asynchronously, and took this one with it or will.
        Command::new("ip")
            .args(["link", "delete", HOST_LINK])
            .stderr(std::process::Stdio::null())
            .status()?;
    }
    restore_sysctls(dir)?;
    // The kernel unmounts after the last process of a namespace has ended, not before.
    until(
        Duration::from_secs(20),
        &format!("{} can be removed", dir.display()),
        || match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Ok(None),
            _ => Ok(Some(())),
        },
    )?;
    if had {
        println!("cluster: removed");
    }
    Ok(())
}

/// Moves the logs of a cluster that did not come up to where they survive its removal; says where.
pub fn keep_logs(dir: &Path) -> String {
    let kept = std::env::temp_dir().join("sluice-cluster-logs");
    fs::remove_dir_all(&kept).ok();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(dir.join("log"))
        .arg(&kept)
        .status();
    match copied {
        Ok(status) if status.success() => format!(
            "the cluster did not come up; its logs are in {}",
            kept.display()
        ),
        _ => "the cluster did not come up".to_owned(),
    }
}

/// Writes down the machine's settings before a kubelet changes them.
pub fn remember_sysctls(dir: &Path) -> anyhow::Result<()> {
    let mut text = String::new();
    for name in SYSCTLS {
        if let Ok(value) = fs::read_to_string(Path::new("/proc/sys").join(name)) {
            text.push_str(&format!("{name}={}\n", value.trim()));
        }
    }
    let path = dir.join("sysctl");
    fs::write(&path, text).with_context(|| path.display().to_string())
}

fn restore_sysctls(dir: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(dir.join("sysctl")).unwrap_or_default();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let path = Path::new("/proc/sys").join(name);
        fs::write(&path, value).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// The named network namespaces of a cluster; others of this project's tests carry a process id.
fn namespaces() -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir("/run/netns") {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).context("/run/netns"),
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names
        .filter(|name| name == ROUTER || name == CLIENT || is_node(name))
        .collect())
}

fn is_node(name: &str) -> bool {
    let number = name.strip_prefix("sluice-node");
    number.is_some_and(|number| number.len() == 1 && number.bytes().all(|b| b.is_ascii_digit()))
}
