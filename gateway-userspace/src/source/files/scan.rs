//! Which files of a directory tree are manifests, and whether one may have changed.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::document::Syntax;

/// A file larger than this is refused rather than read.
pub const MAX_FILE_BYTES: u64 = 256 * 1024 * 1024;

/// A file younger than this when it was read may change again without its stamp showing it.
const RACY: Duration = Duration::from_secs(1);

/// What a file looked like when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified_ns: i128,
    changed_ns: i128,
    racy: bool,
}

impl Stamp {
    /// The stamp of a file that is read now.
    pub fn of(metadata: &Metadata) -> Self {
        let ns = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        let age = metadata
            .modified()
            .ok()
            .and_then(|t| SystemTime::now().duration_since(t).ok());
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            changed_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
            racy: age.is_none_or(|age| age < RACY),
        }
    }

    /// Whether a file that looked like this then and like `now` now is surely the same.
    pub fn is_same(&self, now: &Self) -> bool {
        !self.racy
            && Self {
                racy: false,
                ..*now
            } == *self
    }
}

/// A directory tree as it stands on the disk.
#[derive(Debug, Default)]
pub struct Listing {
    /// Every directory, links to directories included, by the path it was reached on.
    pub directories: Vec<PathBuf>,
    /// Every manifest, and whether it is a link.
    pub files: BTreeMap<PathBuf, bool>,
    /// What could not be listed.
    pub errors: Vec<(PathBuf, io::Error)>,
}

/// Whether a name is looked at at all. Names with a dot in front are not: editors and Kubernetes
/// keep their own business there.
pub fn is_visible(name: &std::ffi::OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".")
}

/// How a file is written, by its extension; nothing for what is no manifest. Kustomize's own file, which stands
/// among manifests, is none.
pub fn syntax(path: &Path) -> Option<Syntax> {
    if path.file_stem()? == "kustomization" {
        return None;
    }
    match path.extension()?.to_str()? {
        "yaml" | "yml" => Some(Syntax::Yaml),
        "json" => Some(Syntax::Json),
        _ => None,
    }
}

/// Lists a directory tree, or a single file. `entered` is called before a directory is read, so
/// that a watch can be set first and nothing falls between.
///
/// # Errors
/// Only if `root` itself cannot be looked at; what is wrong below is in the listing.
pub fn list(root: &Path, entered: &mut dyn FnMut(&Path)) -> io::Result<Listing> {
    let mut listing = Listing::default();
    let metadata = std::fs::metadata(root)?;
    if metadata.is_dir() {
        directory(root, &metadata, &mut Vec::new(), &mut listing, entered)?;
    } else {
        listing
            .files
            .insert(root.to_owned(), std::fs::read_link(root).is_ok());
    }
    Ok(listing)
}

fn directory(
    path: &Path,
    metadata: &Metadata,
    above: &mut Vec<(u64, u64)>,
    listing: &mut Listing,
    entered: &mut dyn FnMut(&Path),
) -> io::Result<()> {
    let identity = (metadata.dev(), metadata.ino());
    if above.contains(&identity) {
        return Ok(());
    }
    entered(path);
    let entries = std::fs::read_dir(path)?;
    listing.directories.push(path.to_owned());
    above.push(identity);
    for entry in entries {
        let entry = entry?;
        if is_visible(&entry.file_name()) {
            visit(&entry, above, listing, entered);
        }
    }
    above.pop();
    Ok(())
}

fn visit(
    entry: &std::fs::DirEntry,
    above: &mut Vec<(u64, u64)>,
    listing: &mut Listing,
    entered: &mut dyn FnMut(&Path),
) {
    let path = entry.path();
    let Ok(kind) = entry.file_type() else { return };
    if kind.is_file() && syntax(&path).is_some() {
        listing.files.insert(path, false);
        return;
    }
    if !kind.is_dir() && !kind.is_symlink() {
        return;
    }
    match std::fs::metadata(&path) {
        Ok(target) if target.is_dir() => {
            if let Err(error) = directory(&path, &target, above, listing, entered) {
                listing.errors.push((path, error));
            }
        }
        // A dangling link is listed too: it is an error to report, and its target may appear.
        _ if syntax(&path).is_some() => {
            listing.files.insert(path, kind.is_symlink());
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_tree_is_listed_with_links_and_without_hidden_names() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path();
        for sub in ["a/b", ".git", "..v1"] {
            std::fs::create_dir_all(root.join(sub)).expect("mkdir");
        }
        for file in [
            "x.yaml",
            "a/y.yml",
            "a/b/z.json",
            "a/notes.txt",
            ".git/q.yaml",
            ".x.yaml.swp",
            "..v1/w.yaml",
        ] {
            std::fs::write(root.join(file), "").expect("write");
        }
        symlink("..v1/w.yaml", root.join("w.yaml")).expect("symlink");
        symlink("..", root.join("a/loop")).expect("symlink");
        let mut entered = Vec::new();
        let listing = list(root, &mut |path| entered.push(path.to_owned())).expect("listing");
        let files: Vec<_> = listing
            .files
            .iter()
            .map(|(p, l)| (p.strip_prefix(root).expect("below"), *l))
            .collect();
        let path = Path::new;
        assert_eq!(
            files,
            [
                (path("a/b/z.json"), false),
                (path("a/y.yml"), false),
                (path("w.yaml"), true),
                (path("x.yaml"), false)
            ]
        );
        assert_eq!(entered, listing.directories);
        assert_eq!(entered.len(), 3);
    }

    #[test]
    fn a_young_stamp_proves_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("x.yaml");
        std::fs::write(&path, "a").expect("write");
        let young = Stamp::of(&std::fs::metadata(&path).expect("stat"));
        assert!(!young.is_same(&young));
        let file = std::fs::File::options()
            .write(true)
            .open(&path)
            .expect("open");
        file.set_modified(SystemTime::now() - Duration::from_secs(60))
            .expect("touch");
        let old = Stamp::of(&std::fs::metadata(&path).expect("stat"));
        assert!(old.is_same(&old));
        assert!(!old.is_same(&young));
    }
}
