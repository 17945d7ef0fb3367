//! What users do to a cluster: `kubectl`, with its outcome checked.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Cluster;
use crate::{cleanup, wait};

/// How long Kubernetes may take for anything before a test gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two questions: a `kubectl` takes more processor time than what it asks about.
const PAUSE: Duration = Duration::from_millis(200);

/// A namespace of a test's own; dropping it deletes it with everything in it.
#[derive(Debug)]
pub struct TestNamespace {
    cluster: Cluster,
    name: String,
}

impl TestNamespace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestNamespace {
    fn drop(&mut self) {
        let deleted = self
            .cluster
            .kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
        if let Err(error) = deleted {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}

impl Cluster {
    /// A `kubectl` of the administrator, to be completed and run.
    #[must_use]
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.lab.programs.join("kubectl"));
        command.env("KUBECONFIG", &self.lab.kubeconfig);
        command
    }

    /// Runs `kubectl` and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with its own words.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.try_kubectl(arguments)?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `kubectl`, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn try_kubectl(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.kubectl_command();
        command.args(arguments).stdin(Stdio::null());
        command.output().context("cannot start kubectl")
    }

    /// Applies manifests, by server-side apply.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        self.feed(
            &[
                "apply",
                "--server-side",
                "--force-conflicts",
                "--filename=-",
            ],
            manifests,
        )
    }

    /// Deletes what is in these manifests, and does not mind what is not there.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub fn delete(&self, manifests: &str) -> Result<()> {
        self.feed(
            &[
                "delete",
                "--ignore-not-found",
                "--wait=false",
                "--filename=-",
            ],
            manifests,
        )
    }

    /// Reads one object.
    ///
    /// # Errors
    /// When it is not there.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(&["get", kind, name, "--namespace", namespace, "--output=json"])?;
        serde_json::from_str(&text).context("kubectl printed no JSON")
    }

    /// Waits until an object is as wanted, and gives it.
    ///
    /// # Errors
    /// When it is not within two minutes; the error shows the object.
    pub fn wait_for(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let mut last = Value::Null;
        let waited = wait::until_within(
            PATIENCE,
            &format!("{kind} {namespace}/{name} is as wanted"),
            || {
                last = self.get(kind, namespace, name).unwrap_or_default();
                let found = wanted(&last).then(|| last.clone());
                if found.is_none() {
                    std::thread::sleep(PAUSE);
                }
                found
            },
        );
        waited.with_context(|| format!("last seen: {last:#}"))
    }

    /// Waits until a condition in the object's `status.conditions` is `True` for the object's generation.
    ///
    /// # Errors
    /// When it is not within two minutes; the error shows the object.
    pub fn wait_condition(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        condition: &str,
    ) -> Result<Value> {
        self.wait_for(kind, namespace, name, |object| {
            let generation = object.pointer("/metadata/generation");
            let conditions = object
                .pointer("/status/conditions")
                .and_then(Value::as_array);
            conditions.into_iter().flatten().any(|found| {
                found.get("type").and_then(Value::as_str) == Some(condition)
                    && found.get("status").and_then(Value::as_str) == Some("True")
                    && found
                        .get("observedGeneration")
                        .is_none_or(|observed| Some(observed) == generation)
            })
        })
    }

    /// Waits until a Deployment, DaemonSet or StatefulSet has rolled out.
    ///
    /// # Errors
    /// When it has not within two minutes.
    pub fn wait_rollout(&self, workload: &str, namespace: &str) -> Result<()> {
        let limit = format!("--timeout={}s", PATIENCE.as_secs());
        self.kubectl(&[
            "rollout",
            "status",
            workload,
            "--namespace",
            namespace,
            &limit,
        ])
        .map(drop)
    }

    /// Makes a namespace of a test's own; its name begins as told.
    ///
    /// # Errors
    /// With what `kubectl` said.
    pub fn test_namespace(&self, prefix: &str) -> Result<TestNamespace> {
        let unique = cleanup::unique_name();
        let name = format!("{prefix}-{}", unique.trim_start_matches("sluice-"));
        self.kubectl(&["create", "namespace", &name])?;
        Ok(TestNamespace {
            cluster: self.clone(),
            name,
        })
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Result<()> {
        let mut command = self.kubectl_command();
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let written = child
            .stdin
            .take()
            .context("no pipe to kubectl")?
            .write_all(input.as_bytes());
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        written.context("kubectl did not read all of its input")
    }
}
