//! `cargo xtask cluster`: a real Kubernetes cluster on this machine, for the tests that need one.
//!
//! etcd and the control plane run in one network namespace, which is also the router; each node is a network,
//! mount and UTS namespace with its own containerd, kubelet and kube-proxy. All of them are built from their Go
//! modules into a cache. A cluster is described to its users by `lab.json` in its state directory.
//! There is one cluster per machine: its namespaces, networks and control groups have fixed names.

mod cgroups;
mod control;
mod daemon;
mod down;
mod gomod;
mod images;
pub mod lab;
mod network;
mod node;
mod pki;
mod programs;
mod up;

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::lab::Lab;
pub use self::programs::{ensure_go, helm};
use crate::deploy::By;
use crate::image::Profile;

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Start a cluster; what a crashed one left is removed first, one that is well is left alone
    Up {
        /// How many nodes
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
        nodes: u8,
    },
    /// Stop it and remove every trace of it
    Down,
    /// Say what runs
    Status,
    /// Run kubectl as the cluster's administrator
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Import an image archive (`docker save` or OCI layout) on every node
    Load {
        /// The archive
        image: PathBuf,
    },
    /// Build Sluice's image, load it and apply the manifests of the lab; returns when every node serves with it
    Deploy {
        /// Install the chart instead, by Helm
        #[arg(long)]
        helm: bool,
        /// How the binary is built: as it is shipped, or quickly
        #[arg(long, value_enum, default_value_t)]
        profile: Profile,
    },
    /// Take a node's network away: its switch port forwards nothing, and the router takes its leg out
    Partition {
        /// Such as `node1`
        node: String,
    },
    /// Give a node its network back
    Heal {
        /// Such as `node1`
        node: String,
    },
    /// Take a node's leg out of the router's routes to the virtual addresses, and nothing else
    Withdraw {
        /// Such as `node1`
        node: String,
    },
    /// Put a node's leg back into the router's routes
    Announce {
        /// Such as `node1`
        node: String,
    },
    /// Stop a program: `apiserver`, `etcd`, `controller-manager`, `scheduler`, or `kubelet node1`
    Stop {
        /// Which
        program: String,
        /// On which node, for kubelet and kube-proxy
        node: Option<String>,
    },
    /// Start a program that was stopped, and wait until it answers
    Start {
        /// Which
        program: String,
        /// On which node, for kubelet, kube-proxy and containerd
        node: Option<String>,
    },
    /// Freeze a program: its connections stay open and nothing comes any more
    Pause {
        /// Which
        program: String,
    },
    /// Let a frozen program go on
    Resume {
        /// Which
        program: String,
    },
    /// Only build the programs into the cache
    Build {
        /// Helm alone, which needs no cluster
        #[arg(long)]
        helm: bool,
    },
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.what {
        What::Build { helm: true } => return helm().map(drop),
        What::Build { helm: false } => return programs::build().map(drop),
        What::Kubectl { arguments } => return kubectl(arguments),
        _ => ensure!(
            crate::workspace::is_root(),
            "a cluster needs root, for namespaces, mounts and control groups: run `sudo -E env PATH=\"$PATH\" cargo xtask cluster …`"
        ),
    }
    match &args.what {
        What::Up { nodes } => up::run(*nodes),
        What::Down => {
            let dir = state_dir()?;
            let _alone = alone(&dir)?;
            down::run(&dir)
        }
        What::Status => status(),
        What::Load { image } => load(image),
        What::Deploy { helm, profile } => {
            let by = if *helm { By::Helm } else { By::Kustomize };
            crate::deploy::sluice(&Lab::read()?, *profile, by)
        }
        What::Partition { node } => network::partition(&Lab::read()?, node),
        What::Heal { node } => network::heal(&Lab::read()?, node),
        What::Withdraw { node } => network::leg(&Lab::read()?, node, false),
        What::Announce { node } => network::leg(&Lab::read()?, node, true),
        What::Stop { program, node } => stop(&Lab::read()?, program, node.as_deref()),
        What::Start { program, node } => start(&Lab::read()?, program, node.as_deref()),
        What::Pause { program } => daemon_of(&Lab::read()?, program, None)?.signal("-STOP"),
        What::Resume { program } => daemon_of(&Lab::read()?, program, None)?.signal("-CONT"),
        What::Build { .. } | What::Kubectl { .. } => Ok(()),
    }
}

/// Where a cluster keeps its state: `$SLUICE_CLUSTER_DIR`, else below `$XDG_STATE_HOME` or `~/.local/state`.
fn state_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SLUICE_CLUSTER_DIR") {
        return std::path::absolute(dir).context("SLUICE_CLUSTER_DIR");
    }
    Ok(xdg("XDG_STATE_HOME", ".local/state")?.join("sluice-cluster"))
}

/// A directory of the XDG specification: what a variable says, else a place below the home directory.
pub fn xdg(variable: &str, below_home: &str) -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os(variable).filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let home = std::env::var_os("HOME").with_context(|| format!("set {variable} or HOME"))?;
    Ok(Path::new(&home).join(below_home))
}

/// Held while a cluster is made or removed; the lock is on the state directory's parent, so that it leaves nothing.
fn alone(state: &Path) -> anyhow::Result<File> {
    let parent = state
        .parent()
        .context("the state directory has no parent")?;
    std::fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
    let lock = File::open(parent).with_context(|| parent.display().to_string())?;
    if lock.try_lock().is_err() {
        println!("cluster: waiting for another `cargo xtask cluster` to finish");
        lock.lock().context("lock on the state directory")?;
    }
    Ok(lock)
}

fn kubectl(arguments: &[OsString]) -> anyhow::Result<()> {
    let lab = Lab::read()?;
    Err(lab.kubectl().args(arguments).exec().into())
}

fn load(image: &Path) -> anyhow::Result<()> {
    let lab = Lab::read()?;
    let image = std::fs::canonicalize(image).with_context(|| image.display().to_string())?;
    on_every_node(&lab, |n| node::import(&lab, n, &image))?;
    println!(
        "cluster: {} is on {} nodes",
        image.display(),
        lab.nodes.len()
    );
    Ok(())
}

/// Does a thing for all nodes at once; the first error is the outcome.
fn on_every_node(
    lab: &Lab,
    work: impl Fn(usize) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..lab.nodes.len())
            .map(|n| scope.spawn(move || work(n).with_context(|| lab.nodes[n].name.clone())))
            .collect();
        let ended = threads.into_iter().map(|thread| match thread.join() {
            Ok(outcome) => outcome,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        ended.collect::<Vec<_>>().into_iter().collect()
    })
}

fn stop(lab: &Lab, program: &str, node: Option<&str>) -> anyhow::Result<()> {
    ensure!(
        program != "containerd",
        "Pods would lose what keeps them with containerd; stop the kubelet, or `partition` the node"
    );
    let daemon = daemon_of(lab, program, node)?;
    daemon.stop()?;
    println!("cluster: {} has stopped", daemon.name);
    Ok(())
}

fn start(lab: &Lab, program: &str, node: Option<&str>) -> anyhow::Result<()> {
    let daemon = daemon_of(lab, program, node)?;
    ensure!(!daemon.runs()?, "{} runs already", daemon.name);
    daemon.start()?;
    if program == "apiserver" || program == "etcd" {
        control::ready(lab)?;
    }
    println!("cluster: {} runs", daemon.name);
    Ok(())
}

fn daemon_of(lab: &Lab, program: &str, node: Option<&str>) -> anyhow::Result<daemon::Daemon> {
    let found = match node {
        Some(node) => node::daemon(lab, lab.node(node)?, program)?,
        None => control::daemon(lab, program),
    };
    found.with_context(|| {
        format!(
            "no program {program:?}{}; there are {} and, with a node's name behind, {}",
            node.map(|node| format!(" on {node}")).unwrap_or_default(),
            control::PROGRAMS.join(", "),
            node::PROGRAMS.join(", ")
        )
    })
}

fn status() -> anyhow::Result<()> {
    let lab = Lab::read()?;
    println!("state     {}", lab.dir.display());
    println!("export    KUBECONFIG={}", lab.kubeconfig.display());
    let show = |daemon: &daemon::Daemon| -> anyhow::Result<()> {
        let pids = daemon.pids()?;
        let mark = if pids.is_empty() { "STOPPED" } else { "runs" };
        println!("{:<28} {mark}", daemon.name);
        Ok(())
    };
    for program in control::PROGRAMS {
        show(&daemon_of(&lab, program, None)?)?;
    }
    for node in &lab.nodes {
        for program in node::PROGRAMS {
            show(&daemon_of(&lab, program, Some(&node.name))?)?;
        }
        let (port, leg) = network::state(&lab, &node.name)?;
        println!("{:<28} port {port}, leg {leg}", node.name);
    }
    let mut nodes = lab.kubectl();
    succeed(nodes.args(["--request-timeout=5s", "get", "nodes", "-o", "wide"]))
}

/// Runs a command quietly; what it printed is the error.
fn succeed_quietly(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{command:?} failed ({}): {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            String::from_utf8_lossy(&output.stdout)
        );
    }
    Ok(output.stdout)
}

/// Runs a command with this program's output.
fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}

/// Asks again and again until there is an answer or `limit` is over; then `what` says what was waited for.
fn until<T>(
    limit: Duration,
    what: &str,
    mut attempt: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = attempt()? {
            return Ok(value);
        }
        ensure!(
            Instant::now() < deadline,
            "waited {} s in vain: {what}",
            limit.as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}
