//! `cargo xtask ci`: the static checks, every test, the public suite of the Gateway API, and the chart.
//!
//! The steps run in the order of what they cost, each as the command a person would type, so that a
//! failure can be repeated by hand. `.ci/run` runs the tests first, as a fresh machine's first command.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::workspace::{cargo, xtask};

/// The newest release that builds with the workspace's Rust.
const DENY_VERSION: &str = "0.20.2";
/// The advisory database is fetched over the network; a machine without it must not hang here.
const DATABASE: &str = "https://github.com/rustsec/advisory-db";
const DATABASE_TIMEOUT: Duration = Duration::from_secs(20);

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// Only the static checks: fmt, tidy, deny, clippy, rustdoc
    #[arg(long, conflicts_with = "tests")]
    checks: bool,
    /// Only `cargo xtask test`, `cargo xtask conformance --check` and `cargo xtask test chart`
    #[arg(long)]
    tests: bool,
}

/// Runs it; the first step that fails ends it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    if !args.tests {
        step("setup", xtask("setup")?)?;
        for manifest in ["Cargo.toml", "gateway-ebpf/Cargo.toml"] {
            step(
                "fmt",
                cargo(&["fmt", "--all", "--check", "--manifest-path", manifest]),
            )?;
        }
        step("tidy", xtask("tidy")?)?;
        step("clippy", clippy())?;
        step("rustdoc", rustdoc())?;
        deny()?;
    }
    if !args.checks {
        step("test", xtask("test")?)?;
        let mut conformance = xtask("conformance")?;
        conformance.arg("--check");
        step("conformance", conformance)?;
        let mut chart = xtask("test")?;
        chart.arg("chart");
        step("chart", chart)?;
    }
    println!(
        "ci: all steps passed in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn clippy() -> Command {
    cargo(&[
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ])
}

fn rustdoc() -> Command {
    let mut doc = cargo(&[
        "doc",
        "--locked",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    doc.env("RUSTDOCFLAGS", "--deny warnings");
    doc
}

/// Licences, bans and sources always; advisories when the database can be had.
fn deny() -> anyhow::Result<()> {
    let deny = cargo_deny()?;
    let check = |what: &[&str]| {
        let mut check = Command::new(&deny);
        check.args(["--workspace", "--locked", "check"]).args(what);
        check
    };
    step("deny", check(&["bans", "licenses", "sources"]))?;
    if database_reachable() {
        step("deny advisories", check(&["advisories"]))
    } else {
        println!(
            "\n!!! deny advisories: NOT CHECKED: {DATABASE} cannot be reached from this machine\n"
        );
        Ok(())
    }
}

/// cargo-deny from the PATH, else from `target/tools`, where it is built once.
fn cargo_deny() -> anyhow::Result<PathBuf> {
    let on_path = Command::new("cargo-deny")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if on_path.is_ok_and(|status| status.success()) {
        return Ok(PathBuf::from("cargo-deny"));
    }
    let tools = Path::new("target/tools");
    let installed = tools.join("bin/cargo-deny");
    if !installed.exists() {
        let root = tools.to_str().context("a path that is not UTF-8")?;
        let version = format!("cargo-deny@{DENY_VERSION}");
        // `cargo-deny --version` answers for itself; its features beyond these are for other uses.
        step(
            "install cargo-deny",
            cargo(&["install", "--quiet", "--locked", "--root", root, &version]),
        )?;
    }
    Ok(installed)
}

/// Asks for the database's newest commit, for a bounded time.
fn database_reachable() -> bool {
    let mut ask = Command::new("git");
    ask.args(["ls-remote", "--heads", DATABASE])
        .env("GIT_TERMINAL_PROMPT", "0");
    let Ok(mut asked) = ask.stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return false;
    };
    let deadline = Instant::now() + DATABASE_TIMEOUT;
    loop {
        match asked.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            _ => {
                // It ended by itself or is ended here; either way the answer is no.
                asked.kill().ok();
                asked.wait().ok();
                return false;
            }
        }
    }
}

fn step(name: &str, mut command: Command) -> anyhow::Result<()> {
    println!("ci: {name}: {command:?}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{name}: cannot start {command:?}"))?;
    if !status.success() {
        bail!("ci: {name} failed ({status}); to repeat it: {command:?}");
    }
    println!("ci: {name}: ok in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}
