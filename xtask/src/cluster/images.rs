//! The images that every cluster has: what holds a Pod open, and the conformance suite's backend.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::image::archive::Image;
use crate::image::tar::Tree;

/// What containerd starts for every Pod.
pub const PAUSE: &str = "sluice.dev/lab/pause:1";
/// Programs and the images that they become. The suite's manifests ask for its backend by two names; one program
/// does what both of them promise.
const IMAGES: [(&str, &str); 3] = [
    ("pause", PAUSE),
    (
        "echo-basic",
        "registry.k8s.io/gateway-api/conformance/echo-basic:v0.1.0",
    ),
    (
        "echo-basic",
        "registry.k8s.io/gateway-api/conformance/echo-basic:v0.2.0",
    ),
];

/// Writes the archives into `images/` of the cache, unless they are there.
pub fn make(cache: &Path) -> anyhow::Result<()> {
    let place = cache.join("images");
    if place.is_dir() {
        return Ok(());
    }
    let partial = cache.join("images.partial");
    for (number, (program, name)) in IMAGES.iter().enumerate() {
        let file = cache.join("bin").join(program);
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        let path = format!("/{program}");
        let mut tree = Tree::default();
        tree.file(&path, 0o755, bytes);
        let image = Image {
            tree,
            entrypoint: vec![path],
            command: Vec::new(),
            labels: BTreeMap::new(),
        };
        image.write(name, &partial.join(format!("{number}-{program}.tar")))?;
    }
    fs::rename(&partial, &place).with_context(|| place.display().to_string())
}

/// The archives, in the order of their import: what holds Pods open first.
pub fn archives(cache: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let place = cache.join("images");
    let entries = fs::read_dir(&place).with_context(|| place.display().to_string())?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.sort();
    Ok(found)
}
