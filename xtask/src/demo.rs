//! `cargo xtask demo`: builds everything and runs the demo binary, which does the showing.

use std::os::unix::process::CommandExt;

use crate::profile;
use crate::test::shipped_binary;
use crate::workspace::{cargo, is_root, succeed, target, xtask};

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// Leave it running at the end, and print commands to play with
    #[arg(long)]
    keep: bool,
    /// Show it on ordinary sockets and loopback, as without root
    #[arg(long)]
    sockets: bool,
}

/// Runs it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    if is_root() && !args.sockets {
        succeed(xtask("setup")?)?;
        succeed(xtask("build-ebpf")?)?;
    } else {
        eprintln!("demo: on ordinary sockets and loopback; as root it also shows the packet path");
    }
    succeed(shipped_binary())?;
    let mut build = cargo(&["build", "--locked", "--release"]);
    build.args(["--package", "gateway-tests", "--bin", "demo"]);
    profile::apply(&mut build);
    succeed(build)?;
    let mut demo = std::process::Command::new(target().join("release/demo"));
    demo.env("SLUICE_BIN", target().join("release/sluice"));
    demo.args(args.keep.then_some("--keep"))
        .args(args.sockets.then_some("--sockets"));
    // In this process's place, so that Ctrl-C comes back only when all is cleaned up.
    Err(demo.exec().into())
}
