//! What the documents promise to a user of a cluster: the tour of README.md runs as written, the manifests are sound.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use gateway_tests::cluster::Cluster;
use gateway_tests::sluice::workspace;
use gateway_tests::{Netns, process};

/// The shell blocks of README.md that follow the mark of the tour of a cluster, as one script.
fn tour() -> Result<String> {
    let readme = std::fs::read_to_string(workspace().join("README.md"))?;
    let blocks = readme.split("<!-- cluster tour -->\n```sh\n").skip(1);
    let script: Vec<&str> = blocks.filter_map(|rest| rest.split("```").next()).collect();
    ensure!(
        script.len() >= 3,
        "only {} blocks of the tour in README.md",
        script.len()
    );
    Ok(script.concat())
}

#[test]
fn the_tour_of_a_cluster_in_the_readme_runs_as_written() -> Result<()> {
    let cluster = Cluster::running()?;
    let kubectl = cluster.kubectl_command();
    let programs = std::path::Path::new(kubectl.get_program());
    let programs = programs.parent().context("kubectl is in a directory")?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("bash");
    command.args(["-e", "-x", "-o", "pipefail", "-c", &tour()?]);
    command.current_dir(workspace());
    command
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("KUBECONFIG", cluster.kubeconfig());
    let dir = tempfile::tempdir()?;
    let log = dir.path().join("tour.log");
    // What is started in a namespace dies with the last of its values.
    let here = Netns::current()?;
    let mut shell = process::Process::start(&here, "tour", command, &log)?;
    let status = shell.wait_exit(std::time::Duration::from_secs(240))?;
    ensure!(status.success(), "{status}:\n{}", shell.output());
    Ok(())
}

#[test]
fn the_account_of_sluice_may_do_what_it_needs_and_nothing_else() -> Result<()> {
    let cluster = Cluster::running()?;
    let may = |verb: &str, what: &str, rest: &[&str]| -> Result<bool> {
        let account = "--as=system:serviceaccount:sluice-system:sluice";
        let mut arguments = vec!["auth", "can-i", verb, what, account];
        arguments.extend(rest);
        let output = cluster.try_kubectl(&arguments)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim() == "yes")
    };
    let everywhere: &[&str] = &["--all-namespaces"];
    let status: &[&str] = &["--all-namespaces", "--subresource=status"];
    let own: &[&str] = &["--namespace=sluice-system"];
    for (verb, what, rest) in [
        ("list", "secrets", everywhere),
        ("watch", "httproutes.gateway.networking.k8s.io", everywhere),
        ("update", "gateways.gateway.networking.k8s.io", status),
        ("create", "services", everywhere),
        ("update", "leases.coordination.k8s.io", own),
    ] {
        ensure!(may(verb, what, rest)?, "may not {verb} {what}");
    }
    for (verb, what, rest) in [
        ("create", "secrets", everywhere),
        ("update", "configmaps", everywhere),
        ("update", "gateways.gateway.networking.k8s.io", everywhere),
        ("delete", "httproutes.gateway.networking.k8s.io", everywhere),
        ("create", "pods", everywhere),
        (
            "update",
            "leases.coordination.k8s.io",
            &["--namespace=kube-system"],
        ),
        ("update", "nodes", everywhere),
    ] {
        ensure!(!may(verb, what, rest)?, "may {verb} {what}");
    }
    Ok(())
}
