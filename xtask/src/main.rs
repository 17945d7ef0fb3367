//! `cargo xtask`: everything about Sluice that is not Sluice itself.

mod bench;
mod ci;
mod cluster;
mod conformance;
mod demo;
mod deploy;
mod ebpf;
mod image;
mod profile;
mod setup;
mod test;
mod tidy;
mod workspace;

use clap::{Parser, Subcommand};

/// Sluice's own tooling.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find or install what building and testing need, and say what was done
    Setup(setup::Args),
    /// Build the eBPF object
    BuildEbpf(ebpf::Args),
    /// Build the container image, without a container daemon
    Image(image::Args),
    /// Build everything and show the whole path on this machine
    Demo(demo::Args),
    /// Run every test, set-up included
    Test(test::Args),
    /// A real Kubernetes cluster on this machine: up, down, kubectl, load, partition, stop
    Cluster(cluster::Args),
    /// Run the public conformance suite of the Gateway API against Sluice in that cluster
    Conformance(conformance::Args),
    /// Measure Sluice against its peers
    Bench(bench::Args),
    /// Make anew what release builds know of where Sluice spends its time
    Profile(profile::Args),
    /// Check module edges, file sizes, headers and skipped tests
    Tidy(tidy::Args),
    /// What CI runs: tidy, clippy, deny, rustdoc and every test
    Ci(ci::Args),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Setup(args) => setup::run(&args),
        Command::BuildEbpf(args) => ebpf::run(&args),
        Command::Image(args) => image::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Cluster(args) => cluster::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Tidy(args) => tidy::run(&args),
        Command::Ci(args) => ci::run(&args),
    }
}
