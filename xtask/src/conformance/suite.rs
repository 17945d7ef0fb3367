//! The suite's test binary: built once for each version, and run in the clients' network.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::outcome::{Outcome, Outcomes};
use crate::cluster::{self, lab::Lab};
use crate::workspace::root;

/// The Go that the suite demands; the go command fetches it like any module.
const TOOLCHAIN: &str = "go1.27.4";
/// Written into every binary's name, so that a change of one of these builds it anew.
const SOURCES: [&str; 3] = ["conformance_test.go", "go.mod", "go.sum"];
/// An address of the lab's pool that Sluice gives to a Gateway only if it asks for it, and one that it has not.
const ADDRESSES: [(&str, &str); 2] = [
    ("SLUICE_CONFORMANCE_USABLE", "172.31.200.250"),
    ("SLUICE_CONFORMANCE_UNUSABLE", "192.0.2.1"),
];
/// Who made the implementation, as the report says.
const IMPLEMENTATION: [(&str, &str); 5] = [
    ("--organization", "sluice"),
    ("--project", "sluice"),
    ("--url", "https://sluice.dev"),
    ("--version", concat!("v", env!("CARGO_PKG_VERSION"))),
    ("--contact", "https://sluice.dev/contact"),
];

/// The built suite.
pub struct Suite {
    binary: PathBuf,
    /// What a whole run consists of.
    pub plan: Plan,
}

/// What the suite says that a whole run consists of.
#[derive(Debug, Deserialize)]
pub struct Plan {
    /// Names of the gateway tests.
    pub tests: Vec<String>,
    /// Every feature that one of them needs.
    pub features: Vec<String>,
}

/// One run.
pub struct Wanted {
    /// Names of tests; none for all.
    pub only: Vec<String>,
    /// Where the official report goes.
    pub report: PathBuf,
    /// Where everything goes that the suite prints.
    pub log: PathBuf,
}

impl Suite {
    /// Builds it, unless it is in the cache.
    pub fn build() -> anyhow::Result<Self> {
        let sources = root().join("tests/conformance");
        let mut hash = Sha256::new();
        for name in SOURCES {
            let path = sources.join(name);
            hash.update(fs::read(&path).with_context(|| path.display().to_string())?);
        }
        let hash: String = hash
            .finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let directory = cluster::xdg("XDG_CACHE_HOME", ".cache")?.join("sluice/conformance");
        let binary = directory.join(format!("suite-{hash}"));
        if !binary.is_file() {
            fs::create_dir_all(&directory)?;
            compile(&sources, &binary)?;
        }
        let plan = plan(&binary)?;
        println!(
            "conformance: {} tests, {} features",
            plan.tests.len(),
            plan.features.len()
        );
        Ok(Self { binary, plan })
    }

    /// Runs it in the clients' network; `at` hears how many tests have ended, each time one has.
    pub fn run(
        &self,
        lab: &Lab,
        wanted: &Wanted,
        at: &mut dyn FnMut(usize) -> anyhow::Result<()>,
    ) -> anyhow::Result<BTreeMap<String, Outcome>> {
        for file in [&wanted.report, &wanted.log] {
            fs::create_dir_all(file.parent().unwrap_or(file))?;
        }
        let mut log = fs::File::create(&wanted.log)?;
        let mut child = self
            .command(lab, wanted)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?)
            .spawn()
            .context("cannot start ip: install iproute2")?;
        let output = child.stdout.take().context("no pipe from the suite")?;
        let (mut outcomes, mut moved) = (Outcomes::default(), Ok(()));
        let mut last = Instant::now();
        for line in BufReader::new(output).lines() {
            let line = line?;
            writeln!(log, "{line}")?;
            let Some((name, outcome)) = outcomes.line(&line) else {
                continue;
            };
            if outcome.word() != "was skipped" {
                println!(
                    "  {:>3} {name} {} after {} s",
                    outcomes.count(),
                    outcome.word(),
                    last.elapsed().as_secs()
                );
                last = Instant::now();
                moved = moved.and_then(|()| at(outcomes.count()));
            }
        }
        let status = child.wait()?;
        println!(
            "conformance: the suite ended with {status}; all that it said is in {}",
            wanted.log.display()
        );
        moved?;
        Ok(outcomes.finish())
    }

    fn command(&self, lab: &Lab, wanted: &Wanted) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &lab.client.netns])
            .arg(&self.binary);
        command.args([
            "-test.v",
            "-test.timeout=60m",
            "-test.run=^TestConformance$",
        ]);
        command.args(["--gateway-class=sluice"]);
        command.arg(format!("--report-output={}", wanted.report.display()));
        for (flag, value) in IMPLEMENTATION {
            command.arg(format!("{flag}={value}"));
        }
        command.env("KUBECONFIG", &lab.kubeconfig).envs(ADDRESSES);
        if !wanted.only.is_empty() {
            command.env("SLUICE_CONFORMANCE_ONLY", wanted.only.join(","));
        }
        command
    }
}

fn compile(sources: &Path, binary: &Path) -> anyhow::Result<()> {
    cluster::ensure_go()?;
    println!("conformance: building the suite with {TOOLCHAIN}: about three minutes, once");
    let partial = binary.with_extension("partial");
    let status = Command::new("go")
        .current_dir(sources)
        .args(["test", "-c", "-ldflags=-s -w", "-o"])
        .arg(&partial)
        .arg(".")
        .env("GOTOOLCHAIN", TOOLCHAIN)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false -mod=readonly")
        .env("GOWORK", "off")
        .status()
        .context("cannot start go")?;
    ensure!(
        status.success(),
        "the suite does not build ({status}); is the module proxy ($GOPROXY) reachable?"
    );
    fs::rename(&partial, binary).with_context(|| binary.display().to_string())
}

/// Asks the binary.
fn plan(binary: &Path) -> anyhow::Result<Plan> {
    let file = binary.with_extension("plan");
    let output = Command::new(binary)
        .arg("-test.run=^TestPlan$")
        .env("SLUICE_CONFORMANCE_PLAN", &file)
        .output()
        .with_context(|| binary.display().to_string())?;
    ensure!(
        output.status.success(),
        "the suite does not say what it has: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(serde_json::from_slice(&fs::read(&file)?)?)
}
