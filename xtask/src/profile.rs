//! `cargo xtask profile`: tells the compiler where the shipped binary spends its time.
//!
//! A profile of the release build stands in the repository, and every release build of this tool uses it: functions that
//! traffic passes through are laid out for it and stand together, what is there for errors stands apart. Whoever has
//! changed much of the request path makes it anew. A function that has changed since is built as without a profile, and so
//! is one that the load does not reach; so is everything with another compiler, and with plain `cargo build --release`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};

use crate::test::shipped_binary;
use crate::workspace::{root, succeed, target};
use crate::{bench, setup};

/// Where profiles are, each named for the compiler whose symbols it speaks of.
const DIRECTORY: &str = "gateway-userspace/profile";

/// Between the flags in cargo's `CARGO_ENCODED_RUSTFLAGS`.
const SEPARATOR: &str = "\x1f";

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {}

/// Makes it anew.
pub fn run(_: &Args) -> anyhow::Result<()> {
    let work = target().join("profile");
    let raw = work.join("raw");
    // What an earlier run has counted is of another build.
    if raw.exists() {
        fs::remove_dir_all(&raw).context("target/profile/raw")?;
    }
    fs::create_dir_all(&raw).context("target/profile/raw")?;
    let mut instrumented = shipped_binary();
    let generate = format!("-Cprofile-generate={}", work.display());
    set_flags(&mut instrumented, &[generate]);
    // What a build script counts is of no use.
    instrumented.env("LLVM_PROFILE_FILE", "/dev/null");
    instrumented.env("CARGO_TARGET_DIR", &work);
    succeed(instrumented)?;
    let counted = raw.join("sluice-%p.profraw");
    let mut load = bench::load(&work.join("release/sluice"))?;
    load.env("LLVM_PROFILE_FILE", counted);
    succeed(load)?;
    let file = file(&compiler()?);
    fs::create_dir_all(root().join(DIRECTORY)).context(DIRECTORY)?;
    merge(&raw, &file)?;
    let kib = fs::metadata(&file)?.len() / 1024;
    println!("profile: {} ({kib} KiB)", file.display());
    Ok(())
}

/// Has a release build use the profile, if there is one for this compiler.
pub fn apply(command: &mut Command) {
    let Ok(release) = compiler() else {
        return;
    };
    let profile = file(&release);
    if !profile.is_file() {
        eprintln!(
            "profile: none is here for rustc {release}: what is built is slower by a tenth, until `cargo xtask profile` has made one"
        );
        return;
    }
    let profile = format!("-Cprofile-use={}", profile.display());
    // A function that has changed since is no news.
    let quiet = "-Cllvm-args=-no-pgo-warn-mismatch".to_owned();
    set_flags(command, &[profile, quiet]);
}

/// Adds to the flags that the caller of this program has set in the environment; flags of cargo's configuration files
/// give way to both, as cargo has it. A path may hold spaces.
fn set_flags(command: &mut Command, added: &[String]) {
    let encoded = std::env::var("CARGO_ENCODED_RUSTFLAGS");
    let given: Vec<String> = match &encoded {
        Ok(flags) => flags.split(SEPARATOR).map(str::to_owned).collect(),
        Err(_) => std::env::var("RUSTFLAGS")
            .unwrap_or_default()
            .split_whitespace()
            .map(str::to_owned)
            .collect(),
    };
    let flags: Vec<String> = given
        .into_iter()
        .filter(|flag| !flag.is_empty())
        .chain(added.iter().cloned())
        .collect();
    command.env("CARGO_ENCODED_RUSTFLAGS", flags.join(SEPARATOR));
}

fn file(release: &str) -> PathBuf {
    root()
        .join(DIRECTORY)
        .join(format!("rustc-{release}.profdata"))
}

/// The release of the compiler that builds Sluice.
fn compiler() -> anyhow::Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc)
        .current_dir(root())
        .arg("-vV")
        .output()
        .context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    release
        .map(str::to_owned)
        .context("rustc -vV names no release")
}

/// Merges what was counted, without the functions that were never reached: those are then built as ever.
fn merge(raw: &Path, into: &Path) -> anyhow::Result<()> {
    let counts: Vec<PathBuf> = fs::read_dir(raw)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    ensure!(!counts.is_empty(), "no process has written what it counted");
    let mut merge = Command::new(setup::llvm("bin/llvm-profdata"));
    merge
        .args(["merge", "--sparse", "--output"])
        .arg(into)
        .args(counts);
    succeed(merge).context("LLVM's tools: run `cargo xtask setup`")
}
