//! The workspace that this tool stands in, and the programs that it runs there.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, bail};

/// This program with another command.
pub fn xtask(command: &str) -> anyhow::Result<Command> {
    let mut xtask = Command::new(std::env::current_exe()?);
    xtask.arg(command);
    Ok(xtask)
}

/// The cargo that runs this program, at the workspace's root.
pub fn cargo(arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(root()).args(arguments);
    command
}

/// The workspace's root: that of the checkout which cargo runs this program from, for a program that was built in another
/// one may stand in a target directory that was copied.
pub fn root() -> PathBuf {
    let run = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let xtask = run.filter(|run| run.ends_with("xtask")).unwrap_or(built);
    xtask.parent().unwrap_or(&xtask).to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into)
}

/// Runs a command with this program's output.
pub fn succeed(mut command: Command) -> anyhow::Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    match status.success() {
        true => Ok(()),
        false => bail!("{} failed with {status}", command.get_program().display()),
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}
