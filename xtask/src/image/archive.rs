//! An image as one file: an OCI image layout in a tar, with the `manifest.json` that `docker load` reads beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::tar::Tree;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image of one layer.
#[derive(Clone, Debug)]
pub struct Image {
    /// The files.
    pub tree: Tree,
    /// What is run.
    pub entrypoint: Vec<String>,
    /// Its arguments, unless others are given.
    pub command: Vec<String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
}

/// A blob of the layout, found by its digest.
struct Blob {
    media_type: &'static str,
    hex: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        let hex = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Self {
            media_type,
            hex,
            bytes,
        }
    }

    fn digest(&self) -> String {
        format!("sha256:{}", self.hex)
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.hex)
    }

    fn descriptor(&self) -> serde_json::Value {
        json!({ "mediaType": self.media_type, "digest": self.digest(), "size": self.bytes.len() })
    }
}

impl Image {
    /// Writes the archive under a name such as `sluice:dev`; gives the digest of its manifest.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, name: &str, output: &Path) -> anyhow::Result<String> {
        let (tree, id) = self.layout(name)?;
        if let Some(directory) = output.parent() {
            fs::create_dir_all(directory)?;
        }
        let mut bytes = Vec::new();
        tree.write(&mut bytes)?;
        fs::write(output, bytes).with_context(|| output.display().to_string())?;
        Ok(id)
    }

    /// The files of the archive, and the manifest's digest.
    fn layout(&self, name: &str) -> anyhow::Result<(Tree, String)> {
        let mut layer = Vec::new();
        self.tree.write(&mut layer)?;
        let layer = Blob::new(LAYER, layer);
        let config = Blob::new(CONFIG, serde_json::to_vec(&self.config(&layer))?);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(),
            "layers": [layer.descriptor()],
        });
        let manifest = Blob::new(MANIFEST, serde_json::to_vec(&manifest)?);
        let mut entry = manifest.descriptor();
        entry["annotations"] = json!({
            "io.containerd.image.name": full_name(name),
            "org.opencontainers.image.ref.name": name.rsplit_once(':').map_or("latest", |(_, tag)| tag),
        });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        let docker = json!([{
            "Config": config.path(),
            "RepoTags": [name],
            "Layers": [layer.path()],
        }]);
        let id = manifest.digest();
        let mut tree = Tree::default();
        tree.directory("blobs/sha256");
        tree.file(
            "oci-layout",
            0o644,
            br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec(),
        );
        tree.file("index.json", 0o644, serde_json::to_vec(&index)?);
        tree.file("manifest.json", 0o644, serde_json::to_vec(&docker)?);
        for blob in [layer, config, manifest] {
            tree.file(&blob.path(), 0o644, blob.bytes);
        }
        Ok((tree, id))
    }

    fn config(&self, layer: &Blob) -> serde_json::Value {
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "Labels": self.labels,
            },
            "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
        })
    }
}

/// The machine's name as images spell it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What a container runtime makes of a short name.
fn full_name(name: &str) -> String {
    let first = name.split('/').next().unwrap_or_default();
    match name.contains('/') {
        true if first.contains(['.', ':']) => name.to_owned(),
        true => format!("docker.io/{name}"),
        false => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_files_make_the_same_archive() {
        let image = || {
            let mut tree = Tree::default();
            tree.file("/program", 0o755, b"text".to_vec());
            Image {
                tree,
                entrypoint: vec!["/program".to_owned()],
                command: Vec::new(),
                labels: BTreeMap::new(),
            }
        };
        let bytes = |image: Image| {
            let (tree, id) = image.layout("a:b").expect("layout");
            let mut bytes = Vec::new();
            tree.write(&mut bytes).expect("written");
            (bytes, id)
        };
        assert_eq!(bytes(image()), bytes(image()));
        let mut other = image();
        other.tree.file("/program", 0o700, b"text".to_vec());
        assert_ne!(bytes(image()).1, bytes(other).1);
    }

    #[test]
    fn a_short_name_is_what_a_kubelet_looks_for() {
        assert_eq!(full_name("sluice:dev"), "docker.io/library/sluice:dev");
        assert_eq!(full_name("a/b:1"), "docker.io/a/b:1");
        assert_eq!(full_name("example.com/b:1"), "example.com/b:1");
    }
}
