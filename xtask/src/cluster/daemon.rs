//! A long-running program of a cluster: it outlives the command that starts it, and its control group tells whether it runs.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::lab::Lab;
use super::{cgroups, until};

/// How long a program may take to be started.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a program may take to end by itself. An API server would wait a minute for its watches.
const GRACE: Duration = Duration::from_secs(2);

/// A program and where it runs.
#[derive(Debug)]
pub struct Daemon {
    /// Such as `apiserver` or `node0/kubelet`.
    pub name: String,
    /// What goes before the program: how to enter its namespaces.
    pub inside: Vec<OsString>,
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Further environment.
    pub env: Vec<(&'static str, String)>,
    /// Where its output goes, appended.
    pub log: PathBuf,
}

impl Daemon {
    /// A program of the router's namespace.
    pub fn in_router(lab: &Lab, name: &str, argv: Vec<OsString>) -> Self {
        let inside = ["ip", "netns", "exec", &lab.router];
        Self::new(
            lab,
            name.to_owned(),
            inside.map(OsString::from).to_vec(),
            argv,
        )
    }

    /// A program of a node.
    pub fn on_node(lab: &Lab, node: usize, name: &str, argv: Vec<OsString>) -> Self {
        let node = &lab.nodes[node];
        Self::new(
            lab,
            format!("{}/{name}", node.name),
            super::node::enter(node),
            argv,
        )
    }

    /// A program of whatever namespaces.
    pub fn new(lab: &Lab, name: String, inside: Vec<OsString>, argv: Vec<OsString>) -> Self {
        let log = lab
            .dir
            .join("log")
            .join(format!("{}.log", name.replace('/', "-")));
        Self {
            name,
            inside,
            argv,
            env: Vec::new(),
            log,
        }
    }

    /// Starts it. It is in its group before it is the program.
    pub fn start(&self) -> anyhow::Result<()> {
        let group = self.group();
        cgroups::make(&group)?;
        let log = File::options().create(true).append(true).open(&self.log);
        let log = log.with_context(|| self.log.display().to_string())?;
        // `cd`: a daemon keeps no directory busy.
        let mut command = Command::new("setsid");
        command
            .args([
                "sh",
                "-c",
                "echo $$ > \"$1\" && cd / && shift && exec \"$@\"",
                "sh",
            ])
            .arg(cgroups::tracked(&group)?)
            .args(&self.inside)
            .args(&self.argv)
            .envs(self.env.iter().map(|(name, value)| (*name, value.as_str())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command
            .spawn()
            .context("cannot start setsid: install util-linux")?;
        until(PATIENCE, &format!("{} starts", self.name), || {
            Ok(self.runs()?.then_some(()))
        })
    }

    /// Ends it, by force if it does not heed the request.
    pub fn stop(&self) -> anyhow::Result<()> {
        let group = self.group();
        cgroups::signal(&group, "-TERM")?;
        let ended = until(GRACE, "", || {
            Ok(cgroups::processes(&group)?.is_empty().then_some(()))
        });
        ended.or_else(|_| cgroups::kill(&group))
    }

    /// Sends it a signal, named as for kill(1).
    pub fn signal(&self, signal: &str) -> anyhow::Result<()> {
        let reached = cgroups::signal(&self.group(), signal)?;
        ensure!(!reached.is_empty(), "{} does not run", self.name);
        Ok(())
    }

    /// Whether it runs.
    pub fn runs(&self) -> anyhow::Result<bool> {
        Ok(!self.pids()?.is_empty())
    }

    /// Its process and the processes that it started.
    pub fn pids(&self) -> anyhow::Result<BTreeSet<u32>> {
        cgroups::processes(&self.group())
    }

    /// The end of what it printed.
    pub fn tail(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }

    fn group(&self) -> String {
        format!("{}/{}", cgroups::CLUSTER, self.name)
    }
}

/// Words as arguments.
pub fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}
