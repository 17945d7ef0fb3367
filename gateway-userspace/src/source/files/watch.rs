//! inotify: which files and directories something happened to.
//!
//! A watch belongs to an inode, and several paths may lead to one inode; each watch therefore
//! lists every directory of the tree that it stands for, and every name that a link of the tree
//! goes through.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use inotify::{EventMask, Inotify, WatchDescriptor, WatchMask};

use super::{links, scan};

/// What has to be looked at again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Files that were closed or moved into place, each by itself.
    pub files: BTreeSet<PathBuf>,
    /// Files that something else happened to the name of. One that is there may be half written.
    pub names: BTreeSet<PathBuf>,
    /// Directories with everything below, or links to whatever.
    pub trees: BTreeSet<PathBuf>,
    /// Everything: events were lost.
    pub all: bool,
}

/// The watches on a tree.
#[derive(Debug)]
pub struct Watch {
    inotify: Inotify,
    watched: HashMap<WatchDescriptor, Watched>,
    directories: BTreeMap<PathBuf, WatchDescriptor>,
    dependents: BTreeMap<PathBuf, BTreeSet<WatchDescriptor>>,
}

#[derive(Debug, Default)]
struct Watched {
    directories: BTreeSet<PathBuf>,
    names: HashMap<OsString, BTreeSet<PathBuf>>,
}

impl Watch {
    /// Watches nothing yet.
    ///
    /// # Errors
    /// The user's limit of inotify instances is reached.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: Inotify::init()?,
            watched: HashMap::new(),
            directories: BTreeMap::new(),
            dependents: BTreeMap::new(),
        })
    }

    /// Follows the entries of a directory of the tree.
    ///
    /// # Errors
    /// Most often the user's limit of watches.
    pub fn directory(&mut self, path: &Path) -> io::Result<()> {
        let descriptor = self.add(path)?;
        let old = self.directories.insert(path.to_owned(), descriptor.clone());
        if let Some(old) = old.filter(|old| *old != descriptor) {
            self.leave(&old, |watched| {
                watched.directories.remove(path);
            });
        }
        self.watched
            .entry(descriptor)
            .or_default()
            .directories
            .insert(path.to_owned());
        Ok(())
    }

    /// Follows whatever `path`, a link in the tree or its root, is resolved through.
    ///
    /// # Errors
    /// Most often the user's limit of watches.
    pub fn link(&mut self, path: &Path) -> io::Result<()> {
        self.forget_link(path);
        for (directory, name) in links::entries(path) {
            let descriptor = match self.add(&directory) {
                Ok(descriptor) => descriptor,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let watched = self.watched.entry(descriptor.clone()).or_default();
            watched
                .names
                .entry(name)
                .or_default()
                .insert(path.to_owned());
            self.dependents
                .entry(path.to_owned())
                .or_default()
                .insert(descriptor);
        }
        Ok(())
    }

    /// Stops following a directory that left the tree, and everything below.
    pub fn forget_below(&mut self, path: &Path) {
        let below = |candidate: &&PathBuf| candidate.starts_with(path);
        let gone: Vec<_> = self.directories.keys().filter(below).cloned().collect();
        for directory in gone {
            if let Some(descriptor) = self.directories.remove(&directory) {
                self.leave(&descriptor, |watched| {
                    watched.directories.remove(&directory);
                });
            }
        }
        let links: Vec<_> = self.dependents.keys().filter(below).cloned().collect();
        for link in links {
            self.forget_link(&link);
        }
    }

    /// Stops following a link.
    pub fn forget_link(&mut self, path: &Path) {
        for descriptor in self.dependents.remove(path).unwrap_or_default() {
            self.leave(&descriptor, |watched| {
                watched.names.retain(|_, dependents| {
                    dependents.remove(path);
                    !dependents.is_empty()
                });
            });
        }
    }

    /// What happened since the last call. Everything that the kernel has ready comes at once, so a
    /// burst is one answer.
    pub fn take(&mut self) -> Dirty {
        let mut dirty = Dirty::default();
        while let Ok(events) = read(&mut self.inotify) {
            for (descriptor, mask, name) in events {
                self.interpret(&descriptor, mask, name.as_deref(), &mut dirty);
            }
        }
        dirty
    }

    fn add(&mut self, path: &Path) -> io::Result<WatchDescriptor> {
        let mask = WatchMask::CLOSE_WRITE
            | WatchMask::MOVED_TO
            | WatchMask::MOVED_FROM
            | WatchMask::CREATE
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::DELETE_SELF
            | WatchMask::MOVE_SELF
            | WatchMask::ONLYDIR;
        self.inotify.watches().add(path, mask)
    }

    fn leave(&mut self, descriptor: &WatchDescriptor, remove: impl FnOnce(&mut Watched)) {
        let Some(watched) = self.watched.get_mut(descriptor) else {
            return;
        };
        remove(watched);
        if watched.directories.is_empty() && watched.names.is_empty() {
            self.watched.remove(descriptor);
            // The kernel has dropped the watch by itself when its directory is gone.
            let _ = self.inotify.watches().remove(descriptor.clone());
        }
    }

    fn interpret(
        &mut self,
        descriptor: &WatchDescriptor,
        mask: EventMask,
        name: Option<&OsStr>,
        dirty: &mut Dirty,
    ) {
        if mask.contains(EventMask::Q_OVERFLOW) {
            dirty.all = true;
            return;
        }
        let Some(watched) = self.watched.get(descriptor) else {
            return;
        };
        if mask.intersects(EventMask::DELETE_SELF | EventMask::MOVE_SELF) {
            dirty.trees.extend(watched.directories.iter().cloned());
            dirty
                .trees
                .extend(watched.names.values().flatten().cloned());
        }
        if let Some(name) = name {
            dirty
                .trees
                .extend(watched.names.get(name).into_iter().flatten().cloned());
            if scan::is_visible(name) {
                for directory in &watched.directories {
                    entry(directory.join(name), mask, dirty);
                }
            }
        }
        if mask.contains(EventMask::IGNORED) {
            self.drop_ignored(descriptor);
        }
    }

    fn drop_ignored(&mut self, descriptor: &WatchDescriptor) {
        let Some(watched) = self.watched.remove(descriptor) else {
            return;
        };
        for directory in watched.directories {
            if self.directories.get(&directory) == Some(descriptor) {
                self.directories.remove(&directory);
            }
        }
        for dependents in self.dependents.values_mut() {
            dependents.remove(descriptor);
        }
    }
}

fn entry(path: PathBuf, mask: EventMask, dirty: &mut Dirty) {
    let created = mask.contains(EventMask::CREATE);
    if mask.contains(EventMask::ISDIR) {
        if !mask.contains(EventMask::ATTRIB) {
            dirty.trees.insert(path);
        }
    } else if created && std::fs::read_link(&path).is_ok() {
        // Links are whole at once and are never closed.
        dirty.trees.insert(path);
    } else if created && is_fresh(&path) {
        // Whoever creates a file closes it when it is written.
    } else if scan::syntax(&path).is_some() {
        // A second link is made to what is whole.
        let whole = created || mask.intersects(EventMask::CLOSE_WRITE | EventMask::MOVED_TO);
        match whole {
            true => dirty.files.insert(path),
            false => dirty.names.insert(path),
        };
    } else if mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) {
        // It may have been a link to a directory.
        dirty.trees.insert(path);
    }
}

/// A file with one name only, and so not a hard link to something complete.
fn is_fresh(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.nlink() <= 1)
}

impl AsFd for Watch {
    /// Readable when [`Watch::take`] has something to say.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

type Event = (WatchDescriptor, EventMask, Option<OsString>);

fn read(inotify: &mut Inotify) -> io::Result<Vec<Event>> {
    let mut buffer = [0; 16 * 1024];
    let events = inotify.read_events(&mut buffer)?;
    Ok(events
        .map(|e| (e.wd, e.mask, e.name.map(OsStr::to_owned)))
        .collect())
}
