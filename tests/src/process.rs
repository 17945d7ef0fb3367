//! A long-running program of a test: its output is kept, and it dies with the test.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cleanup::{self, Guard, Leftover};
use crate::netns::Netns;
use crate::{sys, wait};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    status: Option<ExitStatus>,
    _guard: Guard,
}

impl Process {
    /// Starts a program in a namespace; standard output and error go to `log`, appended.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(ns: &Netns, name: &str, command: Command, log: &Path) -> Result<Self> {
        Self::start_by(|command| ns.spawn(command), name, command, log)
    }

    /// As [`Process::start`], in a PID namespace of its own, as in a container.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_apart(ns: &Netns, name: &str, command: Command, log: &Path) -> Result<Self> {
        Self::start_by(|command| ns.spawn_apart(command), name, command, log)
    }

    fn start_by(
        spawn: impl FnOnce(Command) -> Result<Child>,
        name: &str,
        mut command: Command,
        log: &Path,
    ) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log);
        let file = file.with_context(|| log.display().to_string())?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = spawn(command)?;
        let guard = cleanup::register(Leftover::Process(child.id()));
        Ok(Self {
            child,
            name: name.to_owned(),
            log: log.to_owned(),
            status: None,
            _guard: guard,
        })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it is gone.
    pub fn signal(&self, signal: i32) -> Result<()> {
        sys::kill(self.pid(), signal).with_context(|| format!("signal to {}", self.name))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What `waitpid(2)` says.
    pub fn try_status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} (pid {}) ends", self.name, self.pid());
        wait::until_within(limit, &what, || self.try_status().ok().flatten())
    }

    /// Kills it with SIGKILL and waits for its end.
    ///
    /// # Errors
    /// What `waitpid(2)` says.
    pub fn kill(&mut self) -> Result<()> {
        if self.try_status()?.is_none() {
            self.child.kill()?;
            self.status = Some(self.child.wait()?);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.kill());
    }
}

/// Runs a short program in a namespace to its end and gives its output.
///
/// # Errors
/// When it cannot be started.
pub fn output(ns: &Netns, mut command: Command) -> Result<std::process::Output> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Ok(ns.spawn(command)?.wait_with_output()?)
}
