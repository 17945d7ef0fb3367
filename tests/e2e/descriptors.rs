//! A process that runs out of file descriptors: what it has it serves on, and it starves nobody for good.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use gateway_tests::raw::Raw;
use gateway_tests::wait::PATIENCE;
use gateway_tests::{sys, until};

use crate::edge::{Edge, Mode};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// Sets how many descriptors a process may have.
fn limit_descriptors(pid: u32, soft: usize) -> Result<()> {
    let done = Command::new("prlimit")
        .args(["--pid", &pid.to_string()])
        .arg(format!("--nofile={soft}:"))
        .status()
        .context("cannot run prlimit")?;
    ensure!(done.success(), "prlimit: {done}");
    Ok(())
}

/// The lowest number that no descriptor of a process has: under a limit of so many it gets none.
fn lowest_free(pid: u32) -> Result<usize> {
    let mut taken = BTreeSet::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd"))? {
        taken.insert(entry?.file_name().to_string_lossy().parse::<usize>()?);
    }
    let free = (0..).find(|number| !taken.contains(number));
    free.context("numbers do not end")
}

fn connect(edge: &Edge) -> Result<Raw> {
    Raw::connect(edge.client(), edge.at(80))
}

/// A connection that waits for a descriptor while another one is served, and what a second of that costs the process.
fn starve(edge: &mut Edge, kept: &mut Raw) -> Result<(Raw, Duration)> {
    let pid = edge.sluice().pid();
    for _ in 0..20 {
        limit_descriptors(pid, lowest_free(pid)?)?;
        let refusals = |edge: &mut Edge| edge.sluice().log().matches("cannot accept").count();
        let before = refusals(edge);
        let mut starved = connect(edge)?;
        starved.send(GET.as_bytes())?;
        until("a connection cannot be accepted, or is answered", || {
            let answered = is_answered(&mut starved, Duration::from_millis(1)).ok()?;
            (answered || refusals(edge) > before).then_some(())
        })?;
        for _ in 0..3 {
            ensure!(kept.ask(GET)?.status == 200, "what is there is served on");
        }
        let before = sys::usage(pid)?.0;
        if !is_answered(&mut starved, Duration::from_secs(1))? {
            return Ok((starved, sys::usage(pid)?.0 - before));
        }
        // What was open for a moment only, such as a file that was written, has become free.
    }
    bail!("there is always a descriptor")
}

fn is_answered(raw: &mut Raw, limit: Duration) -> Result<bool> {
    raw.read_until(limit, |received| !received.is_empty())?;
    Ok(!raw.received().is_empty())
}

#[test]
fn a_process_without_a_free_descriptor_serves_what_it_has_and_takes_the_rest_later() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let mut edge = Edge::plan(mode).start()?;
        let pid = edge.sluice().pid();
        let mut kept = connect(&edge)?;
        ensure!(kept.ask(GET)?.status == 200);
        let (mut starved, used) = starve(&mut edge, &mut kept)?;
        assert!(
            used < Duration::from_millis(300),
            "{used:?} of a second were spent on nothing"
        );

        limit_descriptors(pid, 1_024)?;
        starved.read_until(PATIENCE, |received| !received.is_empty())?;
        assert_eq!(starved.response("GET")?.status, 200);
        let errors = edge.sluice().metric("sluice_accept_errors_total", &[])?;
        assert!(errors > 0.0, "it is told");
    }
    Ok(())
}

#[test]
fn connections_leave_descriptors_for_backends_and_for_questions() -> Result<()> {
    const DESCRIPTORS: usize = 300;
    let (mut edge, start) = Edge::plan(Mode::Sockets).prepare()?;
    let limited = edge.world.dir().join("limited");
    let script = format!(
        "#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec '{}' \"$@\"\n",
        gateway_tests::sluice::binary().display()
    );
    std::fs::write(&limited, script)?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&limited, executable)?;
    edge.put_sluice(start.binary(&limited).ready()?);

    let mut served = Vec::new();
    let mut refused = 0;
    for _ in 0..DESCRIPTORS {
        let mut raw = connect(&edge)?;
        // A connection that is not wanted may be closed before it has said anything.
        let _ = raw.send(GET.as_bytes());
        raw.read_until(PATIENCE, |received| !received.is_empty())?;
        match raw.received().starts_with(b"HTTP/1.1 200") {
            true => served.push(raw),
            false => refused += 1,
        }
    }
    assert_eq!(served.len(), DESCRIPTORS * 45 / 100);
    assert_eq!(refused, DESCRIPTORS - served.len());
    let errors = edge.sluice().metric("sluice_accept_errors_total", &[])?;
    assert!(
        errors.abs() < f64::EPSILON,
        "{errors} times there was no descriptor"
    );
    for raw in &mut served {
        raw.response("GET")?;
        ensure!(raw.ask(GET)?.status == 200);
    }
    drop(served);
    until("there is room again", || {
        edge.get("http://a.example.com/")
            .ok()
            .filter(|answer| answer.status == 200)
    })?;
    Ok(())
}
