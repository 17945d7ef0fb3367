//! Processes that are pinned, die with this one, and whose CPU time and memory can be read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use gateway_tests::sys::kill;

/// The core of whatever proxy is measured.
pub const PROXY_CORE: usize = 0;
/// The core of load and backend.
pub const LOAD_CORE: usize = 1;

/// How long a process may take to end by itself.
const END: Duration = Duration::from_secs(5);

/// A child process; ended and reaped when dropped.
pub struct Process {
    name: String,
    child: Child,
    /// What it wrote.
    output: PathBuf,
}

/// `program` on one core, killed by the kernel when this process ends however it ends.
pub fn pinned(core: usize, program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args([
        "--pdeathsig",
        "KILL",
        "taskset",
        "--cpu-list",
        &core.to_string(),
        program,
    ]);
    command
}

impl Process {
    /// Starts `command` with its output in a file.
    pub fn start(name: &str, mut command: Command, output: &Path) -> anyhow::Result<Process> {
        let file = File::create(output)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            output: output.to_path_buf(),
        })
    }

    /// An error with its last words when it has ended.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else {
            return Ok(());
        };
        let said = fs::read_to_string(&self.output).unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(8).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        anyhow::bail!("{} has ended ({status}):\n{}", self.name, tail.join("\n"))
    }

    /// CPU time of all its threads since they started, from each `schedstat`.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut sum = Cpu::default();
        for task in fs::read_dir(&tasks).with_context(|| format!("{}: no {tasks}", self.name))? {
            // A thread may end between the listing and the reading.
            let Ok(stat) = fs::read_to_string(task?.path().join("schedstat")) else {
                continue;
            };
            let mut fields = stat
                .split_whitespace()
                .map(|ns| ns.parse::<u64>().unwrap_or(0));
            sum.ran_ns += fields.next().unwrap_or(0);
            sum.waited_ns += fields.next().unwrap_or(0);
        }
        Ok(sum)
    }

    /// Resident memory, in bytes.
    pub fn rss_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line
            .and_then(|rest| rest.trim().split(' ').next())
            .and_then(|kib| kib.parse::<u64>().ok());
        Ok(kib.context("no VmRSS")? * 1024)
    }
}

/// What the scheduler counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// Nanoseconds on a core.
    pub ran_ns: u64,
    /// Nanoseconds ready to run, while something else had the core.
    pub waited_ns: u64,
}

impl Drop for Process {
    /// In order where it can: a build that counts writes down at its end what it has counted.
    fn drop(&mut self) {
        // Of a process that is reaped the id may be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            kill(self.child.id(), libc::SIGTERM).ok();
        }
        let asked = Instant::now();
        while asked.elapsed() < END && matches!(self.child.try_wait(), Ok(None)) {
            thread::sleep(Duration::from_millis(5));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
