//! The shipped binary as a process: started, asked, upgraded, stopped, killed.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::netns::Netns;
use crate::process::{self, Process};
use crate::world::World;
use crate::{sys, wait};

/// How long a start may take.
const START: Duration = Duration::from_secs(30);

/// The binary under test: `$SLUICE_BIN`, else `target/release/sluice` of this workspace.
#[must_use]
pub fn binary() -> PathBuf {
    let built = || workspace().join("target/release/sluice");
    std::env::var_os("SLUICE_BIN").map_or_else(built, PathBuf::from)
}

/// The root of the workspace that this was built in.
#[must_use]
pub fn workspace() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// How to start it.
#[derive(Clone, Debug)]
pub struct Start {
    ns: Netns,
    dir: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    user: Option<u32>,
    is_apart: bool,
    binary: PathBuf,
    runs: Arc<AtomicUsize>,
}

impl Start {
    /// In a namespace, with its state and log in `dir`.
    #[must_use]
    pub fn new(ns: &Netns, dir: &Path) -> Self {
        Self {
            ns: ns.clone(),
            dir: dir.to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            user: None,
            is_apart: false,
            binary: binary(),
            runs: Arc::default(),
        }
    }

    /// On a world's node, with two workers, the world's pin directory and all of the node's interfaces.
    #[must_use]
    pub fn on(world: &World) -> Self {
        let pin_dir = world.pin_dir().display().to_string();
        Self::new(&world.node.ns, world.dir())
            .args(["--pin-dir", &pin_dir])
            .args(["--interfaces", &world.node_interfaces().join(",")])
            .args(["--workers", "2"])
    }

    /// Follows this directory of manifests.
    #[must_use]
    pub fn manifests(self, dir: &Path) -> Self {
        let dir = dir.display().to_string();
        self.args(["--manifests", &dir])
    }

    /// Adds flags of `sluice run` with their values; a flag that is there already is replaced.
    #[must_use]
    pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        for argument in arguments {
            let there = self
                .arguments
                .iter()
                .position(|a| a.starts_with("--") && a == argument);
            if let Some(at) = there {
                self.arguments.drain(at..at + 2);
            }
            self.arguments.push(argument.to_owned());
        }
        self
    }

    /// Sets a variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs it as another user, without capabilities.
    #[must_use]
    pub fn user(mut self, id: u32) -> Self {
        self.user = Some(id);
        self
    }

    /// Runs it in a PID namespace of its own, as in a Pod.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.is_apart = true;
        self
    }

    /// Runs this binary instead of the one under test.
    #[must_use]
    pub fn binary(mut self, path: &Path) -> Self {
        path.clone_into(&mut self.binary);
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it ends or is not ready within 30 seconds; the error has its output.
    pub fn ready(self) -> Result<Sluice> {
        let mut sluice = self.spawn()?;
        sluice.wait_ready()?;
        Ok(sluice)
    }

    /// Starts it and does not wait.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn spawn(self) -> Result<Sluice> {
        let run = self.runs.fetch_add(1, Ordering::Relaxed);
        let state_dir = self.state_dir();
        std::fs::create_dir_all(&state_dir)?;
        if let Some(user) = self.user {
            std::os::unix::fs::chown(&state_dir, Some(user), Some(user))?;
        }
        let mut command = self.command();
        command
            .arg("run")
            .arg("--state-dir")
            .arg(&state_dir)
            .args(&self.arguments);
        let log = self.dir.join(format!("sluice-{run}.log"));
        let start = match self.is_apart {
            true => Process::start_apart,
            false => Process::start,
        };
        let process = start(&self.ns, "sluice", command, &log)?;
        Ok(Sluice {
            process,
            start: self,
        })
    }

    fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
            .env("NO_COLOR", "1")
            .envs(self.environment.iter().map(|(k, v)| (k, v)));
        if let Some(user) = self.user {
            sys::run_as(&mut command, user);
        }
        command
    }
}

/// A running `sluice`. Dropping it kills it.
#[derive(Debug)]
pub struct Sluice {
    process: Process,
    start: Start,
}

impl Sluice {
    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// What it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.output()
    }

    /// Its state directory.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.start.state_dir()
    }

    /// Waits until it serves its configuration, and not a predecessor in its stead.
    ///
    /// # Errors
    /// When it ends or is not ready within 30 seconds; the error has its output.
    pub fn wait_ready(&mut self) -> Result<()> {
        let ready = wait::until_within(START, "sluice is ready", || {
            if let Ok(Some(status)) = self.process.try_status() {
                return Some(Err(status));
            }
            // In this order: until it has the socket, its predecessor answers.
            let is_ready = self.owns_admin_socket() && self.admin("/healthz/ready").ok()?.0 == 200;
            is_ready.then_some(Ok(()))
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("sluice ended with {status}:\n{}", self.log()),
            Err(error) => Err(error.context(self.log())),
        }
    }

    /// Whether the process behind the admin socket is this one.
    fn owns_admin_socket(&self) -> bool {
        let socket = UnixStream::connect(self.admin_socket());
        let Ok(socket) = socket else { return false };
        sys::peer_pid(&socket).is_ok_and(|pid| pid == self.pid())
    }

    /// The admin socket's path.
    #[must_use]
    pub fn admin_socket(&self) -> PathBuf {
        self.state_dir().join("admin.sock")
    }

    /// Asks the admin socket for a path; gives the status and the body.
    ///
    /// # Errors
    /// When there is no such socket or no answer.
    pub fn admin(&self, path: &str) -> Result<(u16, String)> {
        admin(&self.admin_socket(), path)
    }

    /// The value of a metric, summed over the series whose labels contain all of `labels`.
    ///
    /// # Errors
    /// When there is no answer or no such series.
    pub fn metric(&self, name: &str, labels: &[&str]) -> Result<f64> {
        let (_, text) = self.admin("/metrics")?;
        let values: Vec<f64> = text
            .lines()
            .filter(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse().ok())
            .collect();
        ensure!(
            !values.is_empty(),
            "no series {name} with {labels:?} in /metrics"
        );
        Ok(values.iter().sum())
    }

    /// Runs a command of the CLI in the same namespace and gives what it printed.
    ///
    /// # Errors
    /// With its output, when it fails.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        let output = self.cli_output(arguments)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "sluice {}: {}\n{errors}{text}",
            arguments.join(" "),
            output.status
        );
        Ok(text)
    }

    /// As [`Sluice::cli`] with `-o json`, parsed.
    ///
    /// # Errors
    /// When it fails or prints no JSON.
    pub fn cli_json(&self, arguments: &[&str]) -> Result<serde_json::Value> {
        let text = self.cli(&[arguments, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
    }

    /// Runs a command of the CLI in the same namespace, whatever comes of it.
    ///
    /// # Errors
    /// When the binary cannot be started.
    pub fn cli_output(&self, arguments: &[&str]) -> Result<std::process::Output> {
        let mut command = self.start.command();
        command
            .env("SLUICE_STATE_DIR", self.state_dir())
            .args(arguments);
        process::output(&self.start.ns, command)
    }

    /// How it was started, to start another one with the same state directory.
    #[must_use]
    pub fn restart(&self) -> Start {
        self.start.clone()
    }

    /// Starts a second process with the same settings, waits until it has taken over, and gives
    /// the first one, which is draining.
    ///
    /// # Errors
    /// When the second does not become ready.
    pub fn upgrade(&mut self) -> Result<Self> {
        let successor = self.start.clone().ready()?;
        Ok(std::mem::replace(self, successor))
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// When it is gone.
    pub fn terminate(&self) -> Result<()> {
        self.process.signal(libc::SIGTERM)
    }

    /// Kills it with SIGKILL and waits for its end. What it leaves in the state directory stays.
    ///
    /// # Errors
    /// What `waitpid(2)` says.
    pub fn kill(mut self) -> Result<Start> {
        self.process.kill()?;
        Ok(self.start.clone())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it still runs after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.process.wait_exit(limit);
        status.map_err(|error| error.context(self.log()))
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What `waitpid(2)` says.
    pub fn try_status(&mut self) -> Result<Option<ExitStatus>> {
        self.process.try_status()
    }
}

/// Asks an admin socket for a path; gives the status and the body.
///
/// # Errors
/// When there is no such socket or no answer.
pub fn admin(socket: &Path, path: &str) -> Result<(u16, String)> {
    let mut stream = UnixStream::connect(socket).with_context(|| socket.display().to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let mut wire = crate::http1::Wire::new(bytes.as_slice());
    let response = crate::netns::runtime()?.block_on(wire.response("GET"))?;
    Ok((response.status, response.text()))
}
