//! The images that every cluster has: what holds a Pod open, and the conformance suite's backend.
//!
//! Each is one program in one layer, in the archive format of `docker save`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::json;

use super::lab::Lab;
use super::succeed_quietly;

/// What containerd starts for every Pod.
pub const PAUSE: &str = "sluice.dev/lab/pause:1";
/// The names by which the suite's manifests ask for its backend; one program does what both of them promise.
const ECHO: [&str; 2] = [
    "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0",
    "registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0",
];

/// The archive that every node imports.
pub fn path(lab: &Lab) -> PathBuf {
    lab.dir.join("images.tar")
}

/// Writes it.
pub fn make(lab: &Lab) -> anyhow::Result<()> {
    let dir = lab.dir.join("images");
    let images = [
        image(&dir, "pause", &lab.program("pause"), &[PAUSE])?,
        image(&dir, "echo-basic", &lab.program("echo-basic"), &ECHO)?,
    ];
    fs::write(dir.join("manifest.json"), serde_json::to_vec(&images)?)?;
    tar(&dir, &path(lab))?;
    fs::remove_dir_all(&dir).context("temporary files of images")
}

/// Writes the layer and the configuration of one image into a directory, and gives its entry of `manifest.json`.
fn image(
    dir: &Path,
    name: &str,
    program: &Path,
    tags: &[&str],
) -> anyhow::Result<serde_json::Value> {
    let root = dir.join(format!("{name}.root"));
    fs::create_dir_all(&root).with_context(|| root.display().to_string())?;
    let copy = root.join(name);
    fs::copy(program, &copy).with_context(|| program.display().to_string())?;
    let layer = format!("{name}.tar");
    tar(&root, &dir.join(&layer))?;
    fs::remove_dir_all(&root)?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")]},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&dir.join(&layer))?)]},
        "history": [{"created_by": "cargo xtask cluster"}],
    });
    let file = format!("{name}.json");
    fs::write(dir.join(&file), serde_json::to_vec(&config)?)?;
    Ok(json!({"Config": file, "RepoTags": tags, "Layers": [layer]}))
}

/// The same bytes for the same files.
fn tar(dir: &Path, archive: &Path) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--mtime=@0",
        "--create",
        "--file",
    ]);
    // By name, not `.`: readers look for `manifest.json`, not for `./manifest.json`.
    let mut names: Vec<_> = fs::read_dir(dir)?
        .flatten()
        .map(|entry| entry.file_name())
        .collect();
    names.sort();
    names.retain(|name| !archive.ends_with(name));
    succeed_quietly(tar.arg(archive).arg("--directory").arg(dir).args(names)).map(drop)
}

fn sha256(file: &Path) -> anyhow::Result<String> {
    let output = succeed_quietly(Command::new("sha256sum").arg(file))?;
    let text = String::from_utf8(output)?;
    Ok(text.split(' ').next().unwrap_or_default().to_owned())
}
