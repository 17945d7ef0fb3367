//! Sluice as a release of Helm in the cluster of this machine.

use std::process::Command;

use anyhow::{Context as _, ensure};

use super::{NAMESPACE, answer, succeed_in};
use crate::cluster;
use crate::cluster::lab::Lab;
use crate::workspace::root;

/// The chart, what the lab says to it, and a namespace that lets Pods have the host's network.
const CHART: &str = "deploy/helm/sluice";
const VALUES: &str = "deploy/helm/values-lab.yaml";
const PRIVILEGED: &str = "deploy/kustomize/base/namespace.yaml";
/// The release, whose name its objects have.
const RELEASE: &str = "sluice";
/// Every kind of object that the chart makes. Not Pods: what clients have open may keep them until the drain's deadline.
const KINDS: &str = "daemonsets,poddisruptionbudgets,configmaps,serviceaccounts,roles,rolebindings,\
                     clusterroles,clusterrolebindings,gatewayclasses";

/// Installs the chart, or upgrades to it.
pub fn install(lab: &Lab) -> anyhow::Result<()> {
    let mut namespace = lab.kubectl();
    namespace.args(["apply", "--server-side", "--force-conflicts", "--filename"]);
    succeed_in(namespace.arg(root().join(PRIVILEGED)))?;
    let mut helm = helm(lab)?;
    helm.args(["upgrade", "--install", RELEASE]);
    helm.arg(root().join(CHART)).arg("--values");
    succeed_in(helm.arg(root().join(VALUES)))
}

/// Takes the release away; fails if anything is left of what the chart makes.
pub fn uninstall(lab: &Lab) -> anyhow::Result<()> {
    let mut helm = helm(lab)?;
    succeed_in(helm.args(["uninstall", RELEASE, "--wait"]))?;
    let selector = format!("--selector=app.kubernetes.io/instance={RELEASE}");
    let left = answer(lab, &["get", KINDS, &selector, "--output=name"])?;
    ensure!(left.is_empty(), "uninstalled, and left:\n{left}");
    Ok(())
}

fn helm(lab: &Lab) -> anyhow::Result<Command> {
    let mut helm = Command::new(cluster::helm().context("Helm")?);
    helm.env("KUBECONFIG", &lab.kubeconfig);
    helm.args(["--namespace", NAMESPACE]);
    Ok(helm)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chart_has_the_version_of_the_workspace() {
        let chart = root().join(CHART).join("Chart.yaml");
        let text = std::fs::read_to_string(chart).expect("Chart.yaml");
        for key in ["version", "appVersion"] {
            let line = format!("{key}: {}", env!("CARGO_PKG_VERSION"));
            assert!(text.lines().any(|l| l == line), "no line {line:?}");
        }
    }
}
