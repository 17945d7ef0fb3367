//! `cargo xtask setup`: finds or installs what building, testing and showing Sluice need.
//!
//! Debian and its kin by apt; elsewhere it says what is missing. Safe to run twice: what is there is left alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};

use crate::ebpf::{self, Toolchain, which};
use crate::workspace::is_root;

/// The LLVM that bpf-linker is built with; that of the toolchain which makes its input.
const LLVM: &str = "22";
/// Builds with that LLVM.
const BPF_LINKER: &str = "0.13.0";

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// Also install what only the benchmarks need (NGINX, HAProxy, wrk)
    #[arg(long)]
    pub bench: bool,
    /// Also install what only a cluster needs (runc, CNI plugins, nftables)
    #[arg(long)]
    pub cluster: bool,
}

/// What a command is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// Every build and test.
    All,
    /// Benchmarks.
    Bench,
    /// A Kubernetes cluster on this machine.
    Cluster,
}

/// Commands and the Debian packages that they come in. Add yours here.
const COMMANDS: &[(&str, &str, For)] = &[
    ("cc", "build-essential", For::All),
    ("cmake", "cmake", For::All),
    ("git", "git", For::All),
    ("ip", "iproute2", For::All),
    ("curl", "curl", For::All),
    ("h2load", "nghttp2-client", For::All),
    ("openssl", "openssl", For::All),
    ("python3", "python3", For::All),
    ("update-ca-certificates", "ca-certificates", For::All),
    ("nginx", "nginx", For::Bench),
    ("haproxy", "haproxy", For::Bench),
    ("wrk", "wrk", For::Bench),
    ("pip3", "python3-pip", For::Bench),
    ("runc", "runc", For::Cluster),
    ("ptp", "containernetworking-plugins", For::Cluster),
    ("nft", "nftables", For::Cluster),
    ("conntrack", "conntrack", For::Cluster),
    ("iptables", "iptables", For::Cluster),
    ("ip", "iproute2", For::Cluster),
    ("openssl", "openssl", For::Cluster),
    ("nsenter", "util-linux", For::Cluster),
    ("setsid", "util-linux", For::Cluster),
    ("mount", "mount", For::Cluster),
    ("sysctl", "procps", For::Cluster),
];

/// Debian's Rust with a `core` for the kernel, where rustup's nightly is not to be had.
const BPF_RUST: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

/// Sets up.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut done = Vec::new();
    packages(args, &mut done)?;
    if args.cluster {
        install(For::Cluster)?;
    }
    if which("bpf-linker").is_none() {
        bpf_linker(&mut done)?;
    }
    let toolchain = &Toolchain::usable()?[0];
    println!("setup: eBPF is built with {}", toolchain.description);
    mount_bpffs(&mut done);
    if done.is_empty() {
        println!("setup: everything was there");
    }
    Ok(())
}

/// Installs every package that is missing, in one go.
fn packages(args: &Args, done: &mut Vec<String>) -> anyhow::Result<()> {
    let wanted = COMMANDS
        .iter()
        .filter(|(_, _, what)| *what == For::All || (*what == For::Bench && args.bench));
    let mut missing: BTreeSet<String> = wanted
        .filter(|(command, _, _)| find(command).is_none())
        .map(|(_, package, _)| (*package).to_owned())
        .collect();
    let linker = which("bpf-linker");
    let llvm_of_linker = linker
        .as_deref()
        .map_or(LLVM.parse().ok(), ebpf::linker_llvm);
    if !Toolchain::exists_for(llvm_of_linker) {
        missing.extend(BPF_RUST.map(ToOwned::to_owned));
    }
    if linker.is_none() && !Path::new(&llvm("bin/llvm-config")).is_file() {
        missing.insert(format!("llvm-{LLVM}-dev"));
    }
    if missing.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = missing.into_iter().collect();
    done.push(list.join(" "));
    install_packages(&list)
}

/// Installs what is missing for one purpose alone.
pub fn install(what: For) -> anyhow::Result<()> {
    let wanted = COMMANDS.iter().filter(|(_, _, purpose)| *purpose == what);
    let missing: BTreeSet<String> = wanted
        .filter(|(command, _, _)| find(command).is_none())
        .map(|(_, package, _)| (*package).to_owned())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install_packages(&missing.into_iter().collect::<Vec<_>>())
}

fn install_packages(list: &[String]) -> anyhow::Result<()> {
    ensure_apt(list)?;
    println!("setup: installing {}", list.join(" "));
    apt(&["update", "-qq"])?;
    let mut install = vec!["install", "-y", "-qq", "--no-install-recommends"];
    install.extend(list.iter().map(String::as_str));
    apt(&install)
}

/// Says what to do where apt cannot be used.
fn ensure_apt(packages: &[String]) -> anyhow::Result<()> {
    let list = packages.join(" ");
    ensure!(
        which("apt-get").is_some(),
        "missing: {list} (as Debian calls them), and there is no apt-get; install them by your system's means, or give \
         rustup a nightly with rust-src (`rustup toolchain install nightly --component rust-src`) instead of {}",
        BPF_RUST.join(" and ")
    );
    ensure!(
        is_root(),
        "missing: {list}; run `cargo xtask setup` as root, or `sudo apt-get install {list}`"
    );
    Ok(())
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    let status = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null())
        .status()
        .context("cannot run apt-get")?;
    ensure!(
        status.success(),
        "apt-get {} failed ({status}); rustc-web and llvm-{LLVM} are in Debian 12 with security updates and later",
        arguments.join(" ")
    );
    Ok(())
}

/// Builds bpf-linker against the distribution's LLVM, which has the major of the compilers in question.
fn bpf_linker(done: &mut Vec<String>) -> anyhow::Result<()> {
    say(
        done,
        format!("building bpf-linker {BPF_LINKER} with LLVM {LLVM} (a minute)"),
    );
    let mut path = vec![llvm("bin").into()];
    path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    let library_path = match env::var("LIBRARY_PATH") {
        Ok(present) => format!("{}:{present}", llvm("lib")),
        Err(_) => llvm("lib"),
    };
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "install",
            "bpf-linker",
            "--version",
            BPF_LINKER,
            "--locked",
            "--no-default-features",
        ])
        .args(["--features", &format!("llvm-{LLVM}")])
        .env("PATH", env::join_paths(path)?)
        .env("LIBRARY_PATH", library_path)
        .env_remove("RUSTC")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .status()
        .context("cannot run cargo install")?;
    ensure!(status.success(), "bpf-linker does not build ({status})");
    if which("bpf-linker").is_none() {
        bail!(
            "bpf-linker was installed, but not to a directory on the PATH; add ~/.cargo/bin to it"
        );
    }
    Ok(())
}

/// The kernel tests pin maps; a failure here is theirs to report.
fn mount_bpffs(done: &mut Vec<String>) {
    let mounted = fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| {
        mounts
            .lines()
            .any(|line| line.split(' ').nth(2) == Some("bpf"))
    });
    if mounted {
        return;
    }
    let mount = Command::new("mount")
        .args(["-t", "bpf", "bpf", "/sys/fs/bpf"])
        .status();
    if mount.is_ok_and(|status| status.success()) {
        say(
            done,
            "mounted the BPF file system at /sys/fs/bpf".to_owned(),
        );
    } else {
        println!(
            "setup: no BPF file system at /sys/fs/bpf, and it cannot be mounted: only sockets mode can be tested"
        );
    }
}

/// Where a command is, also in the places that only root has on the PATH, or only containerd looks into.
fn find(command: &str) -> Option<()> {
    let system = ["/usr/sbin", "/sbin", "/usr/lib/cni", "/opt/cni/bin"]
        .iter()
        .any(|dir| Path::new(dir).join(command).is_file());
    (system || which(command).is_some()).then_some(())
}

/// A part of that LLVM's installation.
pub fn llvm(part: &str) -> String {
    format!("/usr/lib/llvm-{LLVM}/{part}")
}

fn say(done: &mut Vec<String>, what: String) {
    println!("setup: {what}");
    done.push(what);
}
