//! `cargo xtask image`: the container image, without a container daemon.
//!
//! One statically linked binary, the certificates of public authorities, and nothing else: no shell, no libc, no
//! package manager. The binary is the one that the tests run; only its debug sections are left out. The same
//! inputs make the same bytes. What is in an archive and how it is written is [`archive`]'s and [`tar`]'s.

pub mod archive;
pub mod tar;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;

use self::archive::Image;
use self::tar::Tree;
use crate::workspace::{cargo, succeed, target, xtask};

/// Authorities that `wellKnownCACertificates: System` trusts; where rustls and OpenSSL look on Debian.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// What the image is called where nothing else is said; the lab's overlay asks for it.
pub const NAME: &str = "sluice:dev";

/// Arguments of this command.
#[derive(clap::Args)]
pub struct Args {
    /// How the binary is built: as it is shipped, or quickly
    #[arg(long, value_enum, default_value_t)]
    profile: Profile,
    /// Name and tag of the image
    #[arg(long, value_name = "NAME:TAG", default_value = NAME)]
    name: String,
    /// Where the archive goes [default: target/image/sluice.tar]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write the files of the image into this directory instead
    #[arg(long, value_name = "DIR", conflicts_with = "output")]
    rootfs: Option<PathBuf>,
}

/// A profile of Cargo.toml.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// What is shipped.
    #[default]
    Release,
    /// The same without optimisation across crates: minutes less to build.
    Fast,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Fast => "fast",
        }
    }
}

/// Builds it.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let tree = build(args.profile)?;
    if let Some(directory) = &args.rootfs {
        tree.unpack(directory)?;
        println!("image: files are in {}", directory.display());
        return Ok(());
    }
    let output = args.output.clone().unwrap_or_else(default_archive);
    write(tree, &args.name, &output).map(drop)
}

/// Builds the image into the default place, and gives its digest.
pub fn build_archive(profile: Profile) -> anyhow::Result<String> {
    write(build(profile)?, NAME, &default_archive())
}

fn write(tree: Tree, name: &str, output: &Path) -> anyhow::Result<String> {
    let id = sluice(tree).write(name, output)?;
    let size = fs::metadata(output)?.len();
    let megabytes = size as f64 / 1e6;
    println!(
        "image: {name} in {}: {megabytes:.1} MB, {id}",
        output.display()
    );
    Ok(id)
}

/// Where the archive goes if nothing else is said.
pub fn default_archive() -> PathBuf {
    target().join("image/sluice.tar")
}

/// The image of these files.
fn sluice(tree: Tree) -> Image {
    let text = |text: &str| text.to_owned();
    Image {
        tree,
        entrypoint: vec![text("/sluice")],
        command: vec![text("run")],
        labels: [
            ("org.opencontainers.image.title", "sluice"),
            (
                "org.opencontainers.image.version",
                env!("CARGO_PKG_VERSION"),
            ),
            ("org.opencontainers.image.licenses", "Apache-2.0"),
        ]
        .map(|(name, value)| (text(name), text(value)))
        .into(),
    }
}

/// Builds the binary and gathers the files.
fn build(profile: Profile) -> anyhow::Result<Tree> {
    succeed(xtask("build-ebpf")?)?;
    succeed(binary(profile))?;
    let built = target().join(profile.name()).join("sluice");
    ensure_static(&built)?;
    let stripped = target().join("image").join("sluice");
    strip(&built, &stripped)?;
    let mut tree = Tree::default();
    tree.directory("/etc/ssl/certs");
    tree.file(
        AUTHORITIES,
        0o644,
        fs::read(AUTHORITIES).context(AUTHORITIES)?,
    );
    // A resolver without this file asks the network before /etc/hosts.
    tree.file("/etc/nsswitch.conf", 0o644, b"hosts: files dns\n".to_vec());
    tree.file("/sluice", 0o755, fs::read(stripped)?);
    Ok(tree)
}

/// Builds the `sluice` binary alone, so that no other package's features are in it, and linked statically, so that it
/// needs nothing of the system it runs on. glibc, not musl: its memcpy is the one that was measured, and its
/// resolver reads all of resolv.conf.
pub fn binary(profile: Profile) -> Command {
    let mut command = cargo(&["rustc", "--locked", "--profile", profile.name()]);
    command.args(["--package", "gateway-userspace", "--bin", "sluice"]);
    command.args(["--", "-C", "target-feature=+crt-static"]);
    if profile == Profile::Release {
        crate::profile::apply(&mut command);
    }
    command
}

/// A binary that asks for an interpreter cannot run where there is none.
fn ensure_static(binary: &Path) -> anyhow::Result<()> {
    let output = Command::new("readelf")
        .args(["--program-headers", "--wide"])
        .arg(binary)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run readelf: install binutils")?;
    let headers = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success() && headers.contains("LOAD"),
        "readelf cannot read {}",
        binary.display()
    );
    ensure!(
        !headers.contains("INTERP"),
        "{} is linked dynamically; the image has no libc",
        binary.display()
    );
    Ok(())
}

/// Copies a binary without what only a debugger reads. The code stays the same byte for byte.
fn strip(binary: &Path, stripped: &Path) -> anyhow::Result<()> {
    if let Some(directory) = stripped.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut strip = Command::new("strip");
    strip
        .args(["--strip-debug", "-o"])
        .arg(stripped)
        .arg(binary);
    succeed(strip).context("binutils' strip")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;

    /// The Dockerfile and this command describe one image.
    #[test]
    fn the_dockerfile_runs_what_the_archive_runs() {
        let text = fs::read_to_string(root().join("deploy/Dockerfile")).expect("deploy/Dockerfile");
        let image = sluice(Tree::default());
        let line = |key: &str, value: &[String]| {
            format!("{key} {}", serde_json::to_string(value).expect("strings"))
        };
        assert!(
            text.contains(&line("ENTRYPOINT", &image.entrypoint)),
            "{text}"
        );
        assert!(text.contains(&line("CMD", &image.command)), "{text}");
        assert!(text.contains("cargo xtask image --rootfs"), "{text}");
        for (name, value) in &image.labels {
            assert!(
                text.contains(&format!("{name}=\"{value}\"")),
                "{name}: {text}"
            );
        }
    }
}
