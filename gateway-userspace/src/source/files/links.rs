//! What a path depends on: every directory entry that is looked at to resolve it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

/// A directory entry; replacing it may change what a path means.
pub type Entry = (PathBuf, OsString);

/// Linux `MAXSYMLINKS`.
const MAX_LINKS: usize = 40;

/// The entries of symbolic links on the way to what `path` means, and the last entry itself.
/// Directories on the way that are no links are left out: who replaces one of those replaces
/// more than a configuration. What does not exist (yet) ends the walk at its own entry.
pub fn entries(path: &Path) -> BTreeSet<Entry> {
    let mut found = BTreeSet::new();
    let mut left = MAX_LINKS;
    let mut pending: Vec<OsString> = components(path);
    let mut at = if path.is_absolute() {
        PathBuf::from("/")
    } else {
        PathBuf::from(".")
    };
    while let Some(name) = pending.pop() {
        if name == ".." {
            at.push("..");
            continue;
        }
        let here = at.join(&name);
        match std::fs::read_link(&here) {
            Ok(target) => {
                found.insert((at.clone(), name));
                left -= 1;
                if left == 0 {
                    return found;
                }
                if target.is_absolute() {
                    at = PathBuf::from("/");
                }
                pending.extend(components(&target));
            }
            Err(_) => {
                if pending.is_empty() || !here.exists() {
                    found.insert((at, name));
                    return found;
                }
                at = here;
            }
        }
    }
    found
}

/// The components in reverse, `.` and the root left out.
fn components(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<_> = parts.collect();
    parts.reverse();
    parts
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_link_on_the_way_is_named() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("canonical");
        std::fs::create_dir(root.join("..v1")).expect("mkdir");
        std::fs::write(root.join("..v1/route.yaml"), "").expect("write");
        symlink("..v1", root.join("..data")).expect("symlink");
        symlink("..data/route.yaml", root.join("route.yaml")).expect("symlink");
        let expected = BTreeSet::from([
            (root.clone(), "..data".into()),
            (root.clone(), "route.yaml".into()),
            (root.join("..v1"), "route.yaml".into()),
        ]);
        assert_eq!(entries(&root.join("route.yaml")), expected);
    }

    #[test]
    fn a_loop_ends_and_what_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("tempdir");
        let root = dir.path().canonicalize().expect("canonical");
        symlink("b", root.join("a")).expect("symlink");
        symlink("a", root.join("b")).expect("symlink");
        assert_eq!(entries(&root.join("a")).len(), 2);
        let missing = BTreeSet::from([(root.clone(), "none".into())]);
        assert_eq!(entries(&root.join("none/deeper")), missing);
    }
}
