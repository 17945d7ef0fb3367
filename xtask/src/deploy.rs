//! Sluice in the cluster of this machine, by the manifests that it ships: what the conformance suite and the cluster
//! tests run against.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::cluster::lab::Lab;
use crate::image::{self, Profile};
use crate::workspace::{is_root, root, succeed, xtask};

/// The manifests of the lab.
pub const OVERLAY: &str = "deploy/kustomize/overlays/lab";
/// Where Sluice lives.
pub const NAMESPACE: &str = "sluice-system";

/// Says how to become root.
pub fn ensure_root(what: &str) -> anyhow::Result<()> {
    ensure!(
        is_root(),
        "{what} needs root: run `sudo -E env PATH=\"$PATH\" cargo xtask …`"
    );
    Ok(())
}

/// Brings a cluster up if none is, and gives it.
pub fn cluster() -> anyhow::Result<Lab> {
    let mut up = xtask("cluster")?;
    up.arg("up");
    succeed(up)?;
    Lab::read()
}

/// Builds the image, loads it on every node and applies the manifests; returns when every node serves with it.
pub fn sluice(lab: &Lab, profile: Profile) -> anyhow::Result<()> {
    let id = image::build_archive(profile)?;
    let mut load = xtask("cluster")?;
    load.arg("load").arg(image::default_archive());
    succeed(load)?;
    apply(lab, &root().join(OVERLAY))?;
    // The name stays the same when the image is another one, so that the Pods have to be told.
    let loaded = format!("{{\"metadata\":{{\"annotations\":{{\"sluice.dev/image\":\"{id}\"}}}}}}");
    let before = annotation(lab)?;
    if !before.is_empty() && before != id {
        succeed(kubectl(lab, &["rollout", "restart", "daemonset/sluice"]))?;
    }
    succeed(kubectl(
        lab,
        &[
            "patch",
            "daemonset/sluice",
            "--type=merge",
            "--patch",
            &loaded,
        ],
    ))?;
    ready(lab)
}

/// Applies a directory of kustomize.
pub fn apply(lab: &Lab, directory: &Path) -> anyhow::Result<()> {
    let mut apply = lab.kubectl();
    apply.args(["apply", "--server-side", "--force-conflicts", "--kustomize"]);
    succeed_in(apply.arg(directory))
}

/// Waits until a new Pod serves on every node.
pub fn ready(lab: &Lab) -> anyhow::Result<()> {
    let rollout = ["rollout", "status", "daemonset/sluice", "--timeout=180s"];
    let rolled = succeed(kubectl(lab, &rollout));
    if rolled.is_err() {
        // What a person would ask next.
        succeed(kubectl(lab, &["get", "pods", "--output=wide"]))?;
        let logs = [
            "logs",
            "daemonset/sluice",
            "--all-pods",
            "--prefix",
            "--tail=20",
        ];
        succeed(kubectl(lab, &logs)).ok();
    }
    rolled.context("Sluice does not get ready")?;
    let accepted = [
        "wait",
        "--for=condition=Accepted",
        "gatewayclass/sluice",
        "--timeout=60s",
    ];
    succeed(kubectl(lab, &accepted)).context("nobody accepts the GatewayClass")
}

/// kubectl in Sluice's namespace.
pub fn kubectl(lab: &Lab, arguments: &[&str]) -> Command {
    let mut kubectl = lab.kubectl();
    kubectl.args(["--namespace", NAMESPACE]).args(arguments);
    kubectl
}

/// The image that the Pods were last told of.
fn annotation(lab: &Lab) -> anyhow::Result<String> {
    let path = r"--output=jsonpath={.metadata.annotations.sluice\.dev/image}";
    let output = kubectl(lab, &["get", "daemonset/sluice", path]).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn succeed_in(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().context("cannot start kubectl")?;
    ensure!(status.success(), "{command:?} failed ({status})");
    Ok(())
}
