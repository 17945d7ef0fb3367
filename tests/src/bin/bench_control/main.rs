//! `cargo xtask bench control`: how soon a change of a route is served by every node, and what it costs.
//!
//! Runs against the Sluice that is deployed in the running cluster, in the manner of the public gateway-api-bench; with
//! `--processes N` against so many processes of `target/release/sluice` and an API server of their own. What
//! is measured begins when the API server's answer to a write is read, as `kubectl apply` returns then; beside it
//! stands when a watch of this program's own hears of the write, which no controller can be faster than.

mod attached;
mod ledger;
mod meter;
mod propagation;
mod report;
mod routes;
mod site;
mod traffic;
mod world;

use anyhow::{Context, bail, ensure};

use self::report::Report;
use self::site::Site;
use self::world::World;

const USAGE: &str =
    "bench_control [--processes N] [--quick] [--routes N,N,…] [--changes N] [-o json]";
/// Where the goal for memory is measured.
const MEMORY_ROUTES: usize = 5_000;

/// What was asked for.
struct Options {
    /// Numbers of routes at which propagation is measured, ascending.
    routes: Vec<usize>,
    /// Changes per measurement.
    changes: usize,
    /// Changes of a route under traffic.
    traffic_changes: usize,
    /// How many processes; none for the cluster.
    processes: Option<u8>,
    json: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let mut options = Self {
            routes: vec![1_000, 3_000, 10_000],
            changes: 200,
            traffic_changes: 200,
            processes: None,
            json: false,
        };
        let mut words = arguments.iter().map(String::as_str);
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} what?\n{USAGE}"))
            };
            match word {
                "--quick" => {
                    options.routes = vec![1_000];
                    options.changes = 30;
                    options.traffic_changes = 30;
                }
                "--routes" => {
                    options.routes = value()?
                        .split(',')
                        .map(str::parse)
                        .collect::<Result<_, _>>()?;
                }
                "--changes" => options.changes = value()?.parse()?,
                "--processes" => options.processes = Some(value()?.parse()?),
                "-o" => options.json = value()? == "json",
                _ => bail!("{USAGE}"),
            }
        }
        ensure!(options.changes > 0, "--changes 0 measures nothing");
        ensure!(options.routes.is_sorted(), "--routes has to ascend");
        Ok(options)
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let options = Options::parse(&arguments)?;
    let site = match options.processes {
        Some(nodes) => Site::own(nodes)?,
        None => Site::cluster()?,
    };
    let mut world = World::new(site)?;
    let report = measure(&mut world, &options);
    world.remove()?;
    let report = report?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        report.print();
    }
    Ok(())
}

fn measure(world: &mut World, options: &Options) -> anyhow::Result<Report> {
    let mut report = Report {
        site: world.site.name(),
        nodes: world.site.nodes.len(),
        ..Report::default()
    };
    report.memory.push(meter::memory(world, 0)?);
    say("attached routes");
    let first = options.routes.first().copied().unwrap_or(1_000);
    report.attached = Some(attached::measure(world, first)?);
    for &routes in &options.routes {
        if routes > MEMORY_ROUTES && world.routes < MEMORY_ROUTES {
            report.settled.push(world.grow_to(MEMORY_ROUTES)?);
            report.memory.push(meter::memory(world, MEMORY_ROUTES)?);
        }
        say(&format!("{routes} routes"));
        report.settled.push(world.grow_to(routes)?);
        report.memory.push(meter::memory(world, routes)?);
        for churn in [false, true] {
            report
                .propagation
                .push(propagation::measure(world, options.changes, churn)?);
        }
        if report.traffic.is_none() {
            say("changes under traffic");
            report.traffic = Some(traffic::measure(world, options.traffic_changes)?);
        }
    }
    Ok(report)
}

fn say(what: &str) {
    eprintln!("bench control: {what}");
}
