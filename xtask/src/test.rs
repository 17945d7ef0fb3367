//! `cargo xtask test`: set-up, build, and every ring of tests, each with its time.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// Only these rings: unit (with golden), packet, e2e
    #[arg(value_name = "RING", value_parser = ["unit", "packet", "e2e"])]
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
    /// Arguments of `cargo test`, one list per call.
    calls: &'static [&'static [&'static str]],
    /// How many tests run side by side; more only get in each other's way on small machines.
    threads: Option<&'static str>,
}

const RINGS: [Ring; 3] = [
    Ring {
        name: "unit",
        what: "unit and golden tests of every crate",
        root: false,
        calls: &[
            &["--workspace", "--exclude", "gateway-tests"],
            &["--package", "gateway-tests", "--lib", "--bins"],
        ],
        threads: None,
    },
    Ring {
        name: "packet",
        what: "packets through the verified programs",
        root: true,
        calls: &[&["--package", "gateway-tests", "--test", "packet"]],
        threads: Some("2"),
    },
    Ring {
        name: "e2e",
        what: "the release binary in network namespaces",
        root: true,
        calls: &[&["--package", "gateway-tests", "--test", "e2e"]],
        threads: Some("2"),
    },
];

/// One line of the summary.
struct Line {
    name: &'static str,
    outcome: Result<String, String>,
    took: Duration,
}

/// Runs it. A step that builds ends it when it fails; a ring does not, so that one run shows all.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut lines = Vec::new();
    let built = build(args, &mut lines);
    if built.is_ok() {
        for ring in RINGS
            .iter()
            .filter(|ring| args.rings.is_empty() || args.rings.iter().any(|r| r == ring.name))
        {
            heading(&format!("{}: {}", ring.name, ring.what));
            let (outcome, took) = timed(|| run_ring(ring, args.only.as_deref()));
            lines.push(Line {
                name: ring.name,
                outcome: outcome.map_err(|e| format!("{e:#}")),
                took,
            });
        }
    }
    summary(&lines, started.elapsed());
    built?;
    match lines.iter().filter(|line| line.outcome.is_err()).count() {
        0 => Ok(()),
        failed => bail!("{failed} of {} steps failed", lines.len()),
    }
}

fn build(args: &Args, lines: &mut Vec<Line>) -> anyhow::Result<()> {
    let needs_binary = args.rings.is_empty() || args.rings.iter().any(|ring| ring != "unit");
    let mut step = |name: &'static str, command: Command| -> anyhow::Result<()> {
        heading(name);
        let (done, took) = timed(|| succeed(command));
        let outcome = done
            .as_ref()
            .map(|()| String::new())
            .map_err(|error| format!("{error:#}"));
        lines.push(Line {
            name,
            outcome,
            took,
        });
        done
    };
    if needs_binary {
        step("set-up", xtask("setup")?)?;
        step("eBPF object", xtask("build-ebpf")?)?;
        step(
            "release binary",
            cargo(&[
                "build",
                "--locked",
                "--release",
                "--package",
                "gateway-userspace",
            ]),
        )?;
    }
    let tests = ["test", "--locked", "--workspace", "--no-run", "--quiet"];
    step("test binaries", cargo(&tests))
}

fn run_ring(ring: &Ring, only: Option<&str>) -> anyhow::Result<String> {
    if ring.root && !is_root() {
        bail!(
            "needs root for network namespaces and BPF: run `sudo -E env PATH=\"$PATH\" cargo xtask test`"
        );
    }
    let (mut passed, mut failed) = (0, 0);
    let mut broken = false;
    for call in ring.calls {
        let mut command = cargo(&["test", "--locked", "--no-fail-fast"]);
        command.args(*call).arg("--").args(only);
        if std::env::var_os("SLUICE_BIN").is_none() {
            command.env("SLUICE_BIN", target().join("release/sluice"));
        }
        command.args(
            ring.threads
                .iter()
                .flat_map(|threads| ["--test-threads", threads]),
        );
        let (ok, counted) = counted(command)?;
        passed += counted.0;
        failed += counted.1;
        broken |= !ok;
    }
    match (failed, broken) {
        (0, false) => Ok(format!("{passed} passed")),
        (0, true) => bail!("{passed} passed, and a test binary failed as a whole"),
        _ => bail!("{passed} passed, {failed} failed"),
    }
}

/// Runs tests, passes their output on, and adds up the `test result:` lines.
fn counted(mut command: Command) -> anyhow::Result<(bool, (u32, u32))> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| shown.clone())?;
    let output = child.stdout.take().context("no pipe from cargo")?;
    let mut counts = (0, 0);
    for line in BufReader::new(output).lines() {
        let line = line?;
        println!("{line}");
        if let Some(result) = line.strip_prefix("test result: ") {
            let count = |word: &str| -> u32 {
                let before = result
                    .split([';', '.'])
                    .find_map(|part| part.trim().strip_suffix(word));
                before.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
            };
            counts.0 += count("passed");
            counts.1 += count("failed");
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

/// This program with another command.
pub fn xtask(command: &str) -> anyhow::Result<Command> {
    let mut xtask = Command::new(std::env::current_exe()?);
    xtask.arg(command);
    Ok(xtask)
}

/// The cargo that runs this program, at the workspace's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments);
    command
}

/// The workspace's root.
pub fn root() -> std::path::PathBuf {
    let xtask = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

/// Runs a command with this program's output.
pub fn succeed(mut command: Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{} failed with {status}", command.get_program().display()),
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
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
