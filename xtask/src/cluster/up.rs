//! `cargo xtask cluster up`.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::lab::Lab;
use super::{
    alone, control, daemon_of, down, network, node, on_every_node, pki, programs, state_dir,
    succeed_quietly, until,
};
use crate::setup;

/// Makes a cluster of so many nodes, or finds that it is there and well.
pub fn run(nodes: u8) -> anyhow::Result<()> {
    let dir = state_dir()?;
    ensure_place(&dir)?;
    let _alone = alone(&dir)?;
    if let Ok(lab) = Lab::read()
        && lab.nodes.len() == usize::from(nodes)
        && is_well(&lab)
    {
        println!(
            "cluster: runs already; KUBECONFIG={}",
            lab.kubeconfig.display()
        );
        return Ok(());
    }
    let built = programs::build()?;
    setup::install(setup::For::Cluster)?;
    down::run(&dir)?;
    let started = Instant::now();
    let made = make(&dir, &built, nodes);
    if let Err(error) = made {
        let kept = down::keep_logs(&dir);
        if let Err(left) = down::run(&dir) {
            eprintln!("cluster: what was made could not be removed: {left:#}");
        }
        return Err(error.context(kept));
    }
    println!(
        "cluster: {nodes} nodes ready after {:.1} s; KUBECONFIG={}",
        started.elapsed().as_secs_f64(),
        dir.join("admin.conf").display()
    );
    Ok(())
}

fn make(dir: &Path, built: &Path, nodes: u8) -> anyhow::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(dir.join("log"))?;
    down::remember_sysctls(dir)?;
    let mut lab = Lab::plan(dir, &built.join("bin"), nodes)?;
    pki::make(&lab)?;
    network::make(&lab)?;
    let start = |program: &str| daemon_of(&lab, program, None)?.start();
    start("etcd")?;
    start("apiserver")?;
    for n in 0..lab.nodes.len() {
        lab.nodes[n].pid = node::make(&lab, n).with_context(|| lab.nodes[n].name.clone())?;
    }
    lab.write()?;
    control::ready(&lab)?;
    for program in ["controller-manager", "scheduler"] {
        daemon_of(&lab, program, None)?.start()?;
    }
    std::thread::scope(|scope| {
        let nodes = scope.spawn(|| on_every_node(&lab, |n| node::start(&lab, n)));
        custom_resources(&lab, &built.join("crds"))?;
        nodes
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    nodes_ready(&lab)
}

/// Gateway API's kinds. They are too large for the annotation of a client-side apply.
fn custom_resources(lab: &Lab, crds: &Path) -> anyhow::Result<()> {
    let mut apply = lab.kubectl();
    succeed_quietly(
        apply
            .args(["apply", "--server-side", "--filename"])
            .arg(crds),
    )?;
    let mut wait = lab.kubectl();
    wait.args([
        "wait",
        "--for=condition=Established",
        "--timeout=60s",
        "customresourcedefinitions",
        "--all",
    ]);
    succeed_quietly(&mut wait).map(drop)
}

fn nodes_ready(lab: &Lab) -> anyhow::Result<()> {
    let what = format!(
        "every node is ready; see the logs in {}",
        lab.dir.join("log").display()
    );
    until(Duration::from_secs(120), &what, || {
        for node in &lab.nodes {
            for program in node::PROGRAMS {
                let daemon = daemon_of(lab, program, Some(&node.name))?;
                if !daemon.runs()? {
                    bail!("{} has ended: {}", daemon.name, daemon.tail());
                }
            }
        }
        Ok((ready_nodes(lab) == lab.nodes.len()).then_some(()))
    })
}

fn ready_nodes(lab: &Lab) -> usize {
    let mut ask = lab.kubectl();
    let path =
        r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}"#;
    ask.args(["--request-timeout=5s", "get", "nodes", "--output", path]);
    let output = ask.stderr(Stdio::null()).output();
    let text = output
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default();
    text.split_whitespace()
        .filter(|status| *status == "True")
        .count()
}

/// Every program runs, the API server answers, every node is ready and connected.
fn is_well(lab: &Lab) -> bool {
    let runs = |program: &str, node: Option<&str>| {
        daemon_of(lab, program, node)
            .and_then(|d| d.runs())
            .unwrap_or(false)
    };
    let forwards = |node: &str| {
        network::state(lab, node).is_ok_and(|(port, leg)| port == "forwarding" && leg == "in")
    };
    control::PROGRAMS.iter().all(|program| runs(program, None))
        && lab.nodes.iter().all(|node| {
            forwards(&node.name)
                && node::PROGRAMS
                    .iter()
                    .all(|program| runs(program, Some(&node.name)))
        })
        && ready_nodes(lab) == lab.nodes.len()
}

/// The nodes have directories of their own in these places and would not find the cluster's.
fn ensure_place(dir: &Path) -> anyhow::Result<()> {
    for hidden in ["/run", "/var/run", "/var/lib", "/var/log", "/sys", "/proc"] {
        ensure!(
            !dir.starts_with(hidden),
            "the state directory {} cannot lie in {hidden}; set SLUICE_CLUSTER_DIR to another",
            dir.display()
        );
    }
    Ok(())
}
