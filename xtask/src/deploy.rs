//! Sluice in the cluster of this machine, by the manifests or by the chart that it ships: what the conformance suite and
//! the cluster tests run against. What Helm does is [`release`]'s.

mod release;

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

/// How Sluice comes into a cluster. Both make a DaemonSet of one name; what the other one has made goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// `kubectl apply --kustomize` of [`OVERLAY`].
    Kustomize,
    /// `helm upgrade --install`.
    Helm,
}

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

/// Builds the image, loads it on every node and installs Sluice; returns when every node serves with it.
pub fn sluice(lab: &Lab, profile: Profile, by: By) -> anyhow::Result<()> {
    let id = image::build_archive(profile)?;
    let mut load = xtask("cluster")?;
    load.arg("load").arg(image::default_archive());
    succeed(load)?;
    match by {
        By::Kustomize => {
            uninstall(lab)?;
            apply(lab, &root().join(OVERLAY))?;
        }
        By::Helm => {
            if installed(lab)? == Some(By::Kustomize) {
                delete(lab)?;
            }
            release::install(lab)?;
        }
    }
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

/// How the Sluice was installed that is in the cluster.
fn installed(lab: &Lab) -> anyhow::Result<Option<By>> {
    let path =
        r"--output=jsonpath={.metadata.name},{.metadata.labels.app\.kubernetes\.io/managed-by}";
    let found = answer(
        lab,
        &["get", "daemonset/sluice", "--ignore-not-found", path],
    )?;
    Ok(match found.as_str() {
        "" => None,
        "sluice,Helm" => Some(By::Helm),
        _ => Some(By::Kustomize),
    })
}

/// Takes away what the manifests have made.
fn delete(lab: &Lab) -> anyhow::Result<()> {
    let mut delete = lab.kubectl();
    delete.args(["delete", "--ignore-not-found", "--kustomize"]);
    succeed_in(delete.arg(root().join(OVERLAY)))
}

/// Takes away the release of Helm, if Sluice is one; fails if anything of it is left.
pub fn uninstall(lab: &Lab) -> anyhow::Result<()> {
    match installed(lab)? {
        Some(By::Helm) => release::uninstall(lab),
        _ => Ok(()),
    }
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
    answer(lab, &["get", "daemonset/sluice", path])
}

/// What kubectl says in Sluice's namespace.
fn answer(lab: &Lab, arguments: &[&str]) -> anyhow::Result<String> {
    let output = kubectl(lab, arguments).output()?;
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
