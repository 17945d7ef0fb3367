//! `cargo xtask conformance`: the public conformance suite of the Gateway API against Sluice as it is deployed.
//!
//! A real cluster, the shipped image, the shipped chart; the suite runs where clients are, whole, in five
//! profiles with every feature that has a test, and what comes out is compared with a ledger.

mod ledger;
mod outcome;
mod suite;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use self::outcome::Outcome;
use self::suite::{Suite, Wanted};
use crate::cluster::{self, lab::Lab};
use crate::deploy;
use crate::image::Profile;
use crate::workspace::{root, succeed, target, xtask};

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// Only this test; may be given several times
    #[arg(long, value_name = "TEST")]
    run: Vec<String>,
    /// Leave the cluster and Sluice running at the end
    #[arg(long)]
    keep: bool,
    /// Run it twice in the one cluster
    #[arg(long)]
    again: bool,
    /// Run it once more while a node is cut off and comes back
    #[arg(long)]
    partition: bool,
    /// Test what is deployed in the cluster that is up, without building anything of Sluice
    #[arg(long)]
    deployed: bool,
    /// Leave the official report as it is
    #[arg(long)]
    check: bool,
    /// How Sluice is built
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
}

/// The name of the official report: channel, version, mode.
const REPORT: &str = concat!(
    "standard-v",
    env!("CARGO_PKG_VERSION"),
    "-default-report.yaml"
);
/// How many tests have ended when the node is cut off, and how many when it comes back.
const CUT_OFF: std::ops::Range<usize> = 20..60;

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    deploy::ensure_root("a cluster, for the suite,")?;
    let suite = Suite::build()?;
    if !args.deployed {
        cluster::helm()?;
    }
    let was_up = Lab::read().is_ok();
    let lab = match args.deployed {
        true => Lab::read()?,
        false => deploy::cluster()?,
    };
    let mut outcome = deployed(args, &suite, &lab);
    if !args.keep && !was_up {
        // Before the cluster goes: what a release leaves behind shows here.
        let gone = deploy::uninstall(&lab);
        outcome = outcome.and(gone);
        let mut down = xtask("cluster")?;
        down.arg("down");
        succeed(down)?;
    }
    outcome
}

fn deployed(args: &Args, suite: &Suite, lab: &Lab) -> anyhow::Result<()> {
    if !args.deployed {
        deploy::sluice(lab, args.profile, deploy::By::Helm)?;
    }
    let mut verdicts = vec![once(args, suite, lab, "1")];
    if args.again {
        verdicts.push(once(args, suite, lab, "2"));
    }
    if args.partition {
        verdicts.push(partitioned(args, suite, lab));
    }
    verdicts.into_iter().collect()
}

/// One run, judged.
fn once(args: &Args, suite: &Suite, lab: &Lab, name: &str) -> anyhow::Result<()> {
    let mut nothing = |_: usize| Ok(());
    let started = Instant::now();
    let outcomes = suite.run(lab, &wanted(args, name), &mut nothing)?;
    judge(args, suite, &outcomes, started.elapsed())
}

/// One run in which a node is cut off and comes back. The suite's own Pods are kept off that node: no gateway can
/// answer for a backend that is cut off.
fn partitioned(args: &Args, suite: &Suite, lab: &Lab) -> anyhow::Result<()> {
    ensure!(
        lab.nodes.len() > 1,
        "one node cannot be cut off from the others"
    );
    let node = lab.nodes[lab.nodes.len() - 1].name.clone();
    let cluster = |verb: &str| -> anyhow::Result<()> {
        println!("conformance: {verb} {node}");
        let mut command = xtask("cluster")?;
        command.args([verb, &node]);
        succeed(command)
    };
    let (mut is_cut, mut is_healed) = (false, false);
    let mut at = |ended: usize| {
        if !is_cut && ended >= CUT_OFF.start {
            is_cut = true;
            cluster("partition")?;
        }
        if is_cut && !is_healed && ended >= CUT_OFF.end {
            is_healed = true;
            cluster("heal")?;
        }
        Ok(())
    };
    succeed(deploy::kubectl(lab, &["cordon", &node]))?;
    let started = Instant::now();
    let outcomes = suite.run(lab, &wanted(args, "partition"), &mut at);
    if is_cut && !is_healed {
        cluster("heal")?;
    }
    succeed(deploy::kubectl(lab, &["uncordon", &node]))?;
    ensure!(is_cut, "too few tests ran for a node to be cut off");
    judge(args, suite, &outcomes?, started.elapsed())
}

fn wanted(args: &Args, name: &str) -> Wanted {
    let directory = target().join("conformance");
    let is_official = args.run.is_empty() && !args.check && name == "1";
    let report: PathBuf = match is_official {
        true => root().join("tests/conformance/reports").join(REPORT),
        false => directory.join(format!("report-{name}.yaml")),
    };
    Wanted {
        only: args.run.clone(),
        report,
        log: directory.join(format!("run-{name}.log")),
    }
}

/// Prints what failed, and compares with the ledger.
fn judge(
    args: &Args,
    suite: &Suite,
    outcomes: &BTreeMap<String, Outcome>,
    took: Duration,
) -> anyhow::Result<()> {
    let expected: Vec<String> = match args.run.is_empty() {
        true => suite.plan.tests.clone(),
        false => args.run.clone(),
    };
    let ledger = ledger::read(&root().join("tests/conformance/ledger.yaml"))?;
    let findings = ledger::compare(&expected, outcomes, &ledger);
    for (name, outcome) in outcomes.iter().filter(|(_, outcome)| outcome.is_failed()) {
        println!("\n── {name} failed; its last lines:");
        outcome.tail.iter().for_each(|line| println!("    {line}"));
    }
    let passed = outcomes
        .values()
        .filter(|outcome| outcome.is_passed())
        .count();
    println!(
        "\nconformance: {passed} of {} tests passed in {} s",
        expected.len(),
        took.as_secs()
    );
    findings
        .iter()
        .for_each(|finding| println!("conformance: {finding}"));
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} tests did not end as the ledger says"),
    }
}
