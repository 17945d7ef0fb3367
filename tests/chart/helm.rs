//! Helm, and the chart of this tree.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use gateway_tests::sluice::workspace;

use crate::objects::{self, Objects};

/// Where the chart is.
pub fn chart() -> PathBuf {
    workspace().join("deploy/helm/sluice")
}

/// What a release's objects are, with these values beside the chart's own.
pub fn render(release: &str, namespace: &str, values: &str) -> Result<Objects> {
    let output = template(release, namespace, values)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{values}: {said}");
    objects::parse(&String::from_utf8(output.stdout)?)
}

/// What Helm says to values that it must not take.
pub fn refusal(values: &str) -> Result<String> {
    let output = template("sluice", "sluice-system", values)?;
    ensure!(!output.status.success(), "{values} is taken");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `helm lint --strict`, with these values.
pub fn lint(values: &str) -> Result<Output> {
    run(&["lint", "--strict", "--values", "-"], &[&chart()], values)
}

fn template(release: &str, namespace: &str, values: &str) -> Result<Output> {
    let arguments = ["template", "--namespace", namespace, "--values", "-"];
    run(&arguments, &[Path::new(release), &chart()], values)
}

fn run(arguments: &[&str], places: &[&Path], input: &str) -> Result<Output> {
    let mut helm = Command::new(program()?);
    // Nothing of the user's own cluster or repositories.
    helm.env("KUBECONFIG", "/dev/null").args(arguments);
    let piped = || Stdio::piped();
    helm.args(places)
        .stdin(piped())
        .stdout(piped())
        .stderr(piped());
    let mut child = helm.spawn().context("helm")?;
    let mut stdin = child.stdin.take().context("no pipe to helm")?;
    stdin.write_all(input.as_bytes())?;
    drop(stdin);
    Ok(child.wait_with_output()?)
}

/// The newest Helm that was built.
fn program() -> Result<PathBuf> {
    let cache = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("$HOME is not set")?).join(".cache"),
    };
    let entries = std::fs::read_dir(cache.join("sluice/helm"));
    let versions = entries.into_iter().flatten().flatten();
    let built = versions.map(|version| version.path().join("bin/helm"));
    let newest = built
        .filter(|helm| helm.is_file())
        .max_by_key(|helm| helm.metadata().and_then(|m| m.modified()).ok());
    newest.context("Helm is not built: run `cargo xtask test chart`")
}
