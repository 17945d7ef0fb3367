//! `cargo xtask test`: set-up, build, and every ring of tests, each with its time.

use std::io::{BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::cluster::lab::Lab;
use crate::image;
use crate::workspace::{cargo, is_root, succeed, target, xtask};

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// These rings instead of unit (with golden), packet and e2e; control, cluster and chart run when
    /// they are named, for they need Go, and the programs of a cluster take a quarter of an hour to build once
    #[arg(value_name = "RING", value_parser = ["unit", "packet", "e2e", "control", "cluster", "chart"])]
    rings: Vec<String>,
    /// Only tests whose name contains this
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// A group of tests that need the same.
struct Ring {
    name: &'static str,
    what: &'static str,
    root: bool,
    /// The test target that it is; none for all others.
    target: Option<&'static str>,
    /// How many tests run side by side.
    threads: &'static str,
}

const RINGS: [Ring; 6] = [
    Ring {
        name: "unit",
        what: "unit and golden tests of every crate",
        root: false,
        target: None,
        threads: WAITING_THREADS,
    },
    Ring {
        name: "packet",
        what: "packets through the verified programs",
        root: true,
        target: Some("packet"),
        threads: KERNEL_THREADS,
    },
    Ring {
        name: "e2e",
        what: "the release binary in network namespaces",
        root: true,
        target: Some("e2e"),
        threads: KERNEL_THREADS,
    },
    Ring {
        name: "control",
        what: "the release binary and a real API server",
        root: true,
        target: Some("control"),
        threads: KERNEL_THREADS,
    },
    Ring {
        name: "cluster",
        what: "the deployed image on a real cluster of three nodes",
        root: true,
        target: Some("cluster"),
        // They share the cluster.
        threads: "1",
    },
    Ring {
        name: "chart",
        what: "the Helm chart, as Helm renders it",
        root: false,
        target: Some("chart"),
        threads: KERNEL_THREADS,
    },
];

/// The rings that need programs which are built with Go.
const GO_RINGS: [&str; 3] = ["control", "cluster", "chart"];

/// How many tests that need the kernel run side by side; more only get in each other's way on
/// small machines.
const KERNEL_THREADS: &str = "2";

/// The same for tests that wait for timeouts and closes more than they compute.
const WAITING_THREADS: &str = "8";

/// A test binary, as cargo tells of it.
struct Binary {
    package: PathBuf,
    target: String,
    executable: PathBuf,
}

impl Ring {
    fn has(&self, binary: &Binary) -> bool {
        let named =
            |ring: &Ring| ring.target == Some(&binary.target) && binary.package.ends_with("tests");
        match self.target {
            Some(_) => named(self),
            None => !RINGS.iter().any(named),
        }
    }
}

/// One line of the summary.
struct Line {
    name: &'static str,
    outcome: Result<String, String>,
    took: Duration,
}

impl Line {
    fn of_step<T>(name: &'static str, done: &anyhow::Result<T>, took: Duration) -> Self {
        let outcome = match done {
            Ok(_) => Ok(String::new()),
            Err(error) => Err(format!("{error:#}")),
        };
        Self {
            name,
            outcome,
            took,
        }
    }
}

/// Runs it. A step that builds ends it when it fails; a ring does not, so that one run shows all.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut lines = Vec::new();
    let had_cluster = Lab::read().is_ok();
    let built = build(args, &mut lines);
    if let Ok(binaries) = &built {
        for ring in RINGS.iter().filter(|ring| args.wants(ring.name)) {
            heading(&format!("{}: {}", ring.name, ring.what));
            let (outcome, took) = timed(|| run_ring(ring, binaries, args.only.as_deref()));
            lines.push(Line {
                name: ring.name,
                outcome: outcome.map_err(|e| format!("{e:#}")),
                took,
            });
        }
    }
    if args.wants("cluster") && !had_cluster {
        let mut down = xtask("cluster")?;
        down.arg("down");
        let (done, took) = timed(|| succeed(down));
        lines.push(Line::of_step("cluster down", &done, took));
    }
    summary(&lines, started.elapsed());
    let left: Vec<_> = RINGS
        .iter()
        .map(|ring| ring.name)
        .filter(|ring| !args.wants(ring))
        .collect();
    if !left.is_empty() {
        println!(
            "    not run: {}; `cargo xtask test {}` runs them",
            left.join(", "),
            left.join(" ")
        );
    }
    built?;
    match lines.iter().filter(|line| line.outcome.is_err()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} steps failed", lines.len()),
    }
}

impl Args {
    fn wants(&self, ring: &str) -> bool {
        if self.rings.is_empty() {
            !GO_RINGS.contains(&ring)
        } else {
            self.rings.iter().any(|wanted| wanted == ring)
        }
    }
}

fn build(args: &Args, lines: &mut Vec<Line>) -> anyhow::Result<Vec<Binary>> {
    let mut step = |name: &'static str, command: Command| -> anyhow::Result<()> {
        heading(name);
        let (done, took) = timed(|| succeed(command));
        lines.push(Line::of_step(name, &done, took));
        done
    };
    if RINGS.iter().any(|ring| ring.root && args.wants(ring.name)) {
        step("set-up", xtask("setup")?)?;
        step("eBPF object", xtask("build-ebpf")?)?;
        step("release binary", shipped_binary())?;
    }
    let cluster = |verb: &str| -> anyhow::Result<Command> {
        let mut command = xtask("cluster")?;
        command.arg(verb);
        Ok(command)
    };
    if args.wants("control") || args.wants("cluster") {
        step("cluster programs", cluster("build")?)?;
    }
    if args.wants("chart") {
        let mut helm = cluster("build")?;
        helm.arg("--helm");
        step("helm", helm)?;
    }
    if args.wants("cluster") {
        step("cluster up", cluster("up")?)?;
        step("cluster deploy", cluster("deploy")?)?;
    }
    heading("test binaries");
    let (binaries, took) = timed(|| test_binaries(args));
    lines.push(Line::of_step("test binaries", &binaries, took));
    binaries
}

/// Builds the binary as it is shipped.
pub fn shipped_binary() -> Command {
    image::binary(image::Profile::Release)
}

/// Builds the tests of the wanted rings in one go, and asks cargo where the binaries are.
///
/// Always for the whole workspace, so that all crates see the same features whichever rings they are.
fn test_binaries(args: &Args) -> anyhow::Result<Vec<Binary>> {
    let format = "--message-format=json-render-diagnostics";
    let mut command = cargo(&["test", "--locked", "--workspace", "--no-run", format]);
    if args.wants("unit") {
        command.args(["--lib", "--bins"]);
    }
    for test in test_targets()? {
        if args.wants(ring_of(&test).name) {
            command.args(["--test", &test]);
        }
    }
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let output = child.stdout.take().context("no pipe from cargo")?;
    let mut binaries = Vec::new();
    for line in BufReader::new(output).lines() {
        binaries.extend(test_binary(&serde_json::from_str(&line?)?));
    }
    if !child.wait()?.success() {
        bail!("the tests do not build");
    }
    Ok(binaries)
}

/// The names of the workspace's test targets, as cargo tells of them.
fn test_targets() -> anyhow::Result<Vec<String>> {
    let metadata = cargo(&["metadata", "--locked", "--no-deps", "--format-version=1"]).output()?;
    if !metadata.status.success() {
        bail!(
            "cargo metadata: {}",
            String::from_utf8_lossy(&metadata.stderr)
        );
    }
    let metadata: Value = serde_json::from_slice(&metadata.stdout)?;
    let list = |value: &Value, name| value[name].as_array().cloned().unwrap_or_default();
    let packages = list(&metadata, "packages").into_iter();
    let targets = packages.flat_map(|package| list(&package, "targets"));
    let tests = targets.filter(|target| target["kind"][0] == "test");
    let names = tests.filter_map(|target| target["name"].as_str().map(str::to_owned));
    Ok(names.collect())
}

/// The ring that a test target belongs to.
fn ring_of(test: &str) -> &'static Ring {
    let named = RINGS.iter().find(|ring| ring.target == Some(test));
    named.unwrap_or(&RINGS[0])
}

/// The test binary that a message of cargo tells of, if it tells of one.
fn test_binary(message: &Value) -> Option<Binary> {
    let is_test = message.pointer("/profile/test")?.as_bool()?;
    let executable = message.get("executable")?.as_str()?;
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    is_test.then(|| Binary {
        package: manifest.parent().unwrap_or(manifest).to_owned(),
        target: message
            .pointer("/target/name")
            .and_then(|name| name.as_str())
            .unwrap_or("?")
            .to_owned(),
        executable: executable.into(),
    })
}

fn run_ring(ring: &Ring, binaries: &[Binary], only: Option<&str>) -> anyhow::Result<String> {
    if ring.root && !is_root() {
        bail!(
            "needs root for network namespaces and BPF: run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
    }
    let mut counts = (0, 0);
    let mut broken = Vec::new();
    for binary in binaries.iter().filter(|binary| ring.has(binary)) {
        let mut command = Command::new(&binary.executable);
        command.current_dir(&binary.package).args(only);
        command.env("CARGO_MANIFEST_DIR", &binary.package);
        command.args(["--test-threads", ring.threads]);
        if std::env::var_os("SLUICE_BIN").is_none() {
            command.env("SLUICE_BIN", target().join("release/sluice"));
        }
        let (ok, (passed, failed)) = counted(command)?;
        counts = (counts.0 + passed, counts.1 + failed);
        if !ok && failed == 0 {
            broken.push(binary.target.as_str());
        }
    }
    match (counts, broken.is_empty()) {
        ((0, 0), true) => bail!("no test was run"),
        ((passed, 0), true) => Ok(format!("{passed} passed")),
        ((passed, failed), true) => bail!("{passed} passed, {failed} failed"),
        ((passed, failed), false) => {
            bail!(
                "{passed} passed, {failed} failed, broke off: {}",
                broken.join(", ")
            )
        }
    }
}

/// Runs a test binary, passes its output on, and adds up its `test result:` lines.
fn counted(mut command: Command) -> anyhow::Result<(bool, (u32, u32))> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| shown.clone())?;
    let output = child.stdout.take().context("no pipe from a test")?;
    let mut counts = (0, 0);
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            let count = |word: &str| -> u32 {
                let mut parts = result.split([';', '.']);
                let before = parts.find_map(|part| part.trim().strip_suffix(word));
                before.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
            };
            counts = (counts.0 + count("passed"), counts.1 + count("failed"));
        }
    }
    Ok((child.wait().with_context(|| shown)?.success(), counts))
}

fn summary(lines: &[Line], total: Duration) {
    heading("summary");
    for Line {
        name,
        outcome,
        took,
    } in lines
    {
        let (mark, text) = match outcome {
            Ok(text) => (paint("✓", 32), text.as_str()),
            Err(text) => (paint("✗", 31), text.as_str()),
        };
        println!("  {mark} {name:<16} {:>7}  {text}", clock(*took));
    }
    println!("    {:<16} {:>7}", "together", clock(total));
}

fn clock(took: Duration) -> String {
    let seconds = took.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (work(), started.elapsed())
}

fn heading(text: &str) {
    println!("\n{}", paint(&format!("── {text} "), 1));
}

fn paint(text: &str, code: u8) -> String {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    if colours {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}
