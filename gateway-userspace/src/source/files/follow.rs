//! Follows a directory: keeps the claims of its files up to date and sends what changed.
//!
//! A file that was closed or moved into place is read at once. A file that disappeared, or has nothing
//! in it any more, is given [`GRACE`] to come back, for editors move the old file away, or empty it,
//! before they write the new one. Now and then everything is looked at again, for what inotify does not
//! see (NFS, lost events).

mod report;
mod run;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use gateway_translate::Event;

use super::claims::{Claims, Placed};
use super::document::{self, Document};
use super::scan::{self, Stamp};
use super::watch::{Dirty, Watch};

pub use run::run;

/// How long a file may be gone or empty before its objects are.
const GRACE: Duration = Duration::from_millis(200);

/// How long a file must have been left alone before it is read without having been closed.
const SETTLE: Duration = Duration::from_millis(20);

/// The state of one directory tree; without a watch it is a plain reader of it.
#[derive(Debug)]
pub struct Follower {
    root: PathBuf,
    watch: Option<Watch>,
    claims: Claims,
    stamps: HashMap<Arc<Path>, Stamp>,
    vanished: BTreeMap<Arc<Path>, Instant>,
    unsettled: BTreeSet<PathBuf>,
    /// Why a file or a directory cannot be read.
    unreadable: BTreeMap<PathBuf, String>,
}

/// Why a file is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// It was closed or moved into place, or nothing was read before.
    Named,
    /// It came up when its directory was listed, or something happened to its name.
    Listed,
    /// It came up when its directory was listed, and is a link: what it leads to was put in place
    /// as a whole.
    Linked,
    /// It was gone or empty, and had [`GRACE`] to come back.
    Overdue,
}

impl Follower {
    /// A reader that has read nothing; `watch` none means that nothing is followed.
    pub fn new(root: &Path, watch: Option<Watch>) -> Self {
        Self {
            root: root.to_owned(),
            watch,
            claims: Claims::default(),
            stamps: HashMap::new(),
            vanished: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            unreadable: BTreeMap::new(),
        }
    }

    /// Reads everything once and says what is there.
    pub fn read_all(&mut self) -> Vec<Event> {
        self.look_below(&self.root.clone(), Cause::Named);
        self.claims.take_events()
    }

    /// Looks at what may have changed and says what has.
    fn look(&mut self, dirty: Dirty, now: Instant) -> Vec<Event> {
        if dirty.all {
            self.look_below(&self.root.clone(), Cause::Listed);
        }
        for tree in dirty.trees {
            self.look_below(&tree, Cause::Listed);
        }
        for file in dirty.names.difference(&dirty.files) {
            self.look_at(file, Cause::Listed, now);
        }
        for file in dirty.files {
            self.look_at(&file, Cause::Named, now);
        }
        self.claims.take_events()
    }

    /// Looks at what was put off and says what changed.
    fn look_again(&mut self, now: Instant) -> Vec<Event> {
        for path in std::mem::take(&mut self.unsettled) {
            self.look_at(&path, Cause::Listed, now);
        }
        let due = |(_, deadline): &(&Arc<Path>, &Instant)| **deadline <= now;
        let due: Vec<_> = self
            .vanished
            .iter()
            .filter(due)
            .map(|(p, _)| Arc::clone(p))
            .collect();
        for path in due {
            self.vanished.remove(&path);
            self.look_at(&path, Cause::Overdue, now);
        }
        self.claims.take_events()
    }

    /// When [`Follower::look_again`] has something to do.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let settle = (!self.unsettled.is_empty()).then(|| now + SETTLE);
        self.vanished
            .values()
            .min()
            .copied()
            .into_iter()
            .chain(settle)
            .min()
    }

    fn look_below(&mut self, tree: &Path, cause: Cause) {
        let now = Instant::now();
        let mut directories = Vec::new();
        let watch = &mut self.watch;
        let listing = scan::list(tree, &mut |directory| {
            let watched = watch.as_mut().map(|watch| watch.directory(directory));
            directories.extend(
                watched
                    .and_then(Result::err)
                    .map(|e| (directory.to_owned(), e)),
            );
        });
        self.unreadable.retain(|path, _| !path.starts_with(tree));
        for (directory, error) in directories {
            self.unreadable.insert(directory, cannot_watch(&error));
        }
        let listing = match listing {
            Ok(listing) => listing,
            Err(error) => return self.lost(tree, &error, now),
        };
        self.follow_links(tree, &listing);
        let hidden: Vec<_> = listing
            .errors
            .iter()
            .map(|(path, _)| path.clone())
            .collect();
        for (path, error) in &listing.errors {
            self.unreadable
                .insert(path.clone(), format!("cannot list this directory: {error}"));
        }
        let known: Vec<_> = self.claims.paths_below(tree).map(Arc::clone).collect();
        for path in known {
            let is_there = listing.files.contains_key(&*path);
            if is_there || hidden.iter().any(|directory| path.starts_with(directory)) {
                continue;
            }
            match cause {
                Cause::Named => self.claims.remove(&path),
                _ => self.vanish(&path, now),
            }
        }
        for (path, is_link) in &listing.files {
            let linked = *is_link && cause == Cause::Listed;
            self.look_at(path, if linked { Cause::Linked } else { cause }, now);
        }
    }

    /// A tree cannot be listed. What it held stays if it is the root, for then everything would go.
    fn lost(&mut self, tree: &Path, error: &io::Error, now: Instant) {
        if tree == self.root {
            self.unreadable.insert(
                tree.to_owned(),
                format!("cannot read this directory: {error}"),
            );
            if let Some(watch) = &mut self.watch {
                let _ = watch.link(tree);
            }
            return;
        }
        if let Some(watch) = &mut self.watch {
            watch.forget_below(tree);
        }
        self.unreadable.retain(|path, _| !path.starts_with(tree));
        let known: Vec<_> = self.claims.paths_below(tree).map(Arc::clone).collect();
        for path in known {
            self.vanish(&path, now);
        }
    }

    fn follow_links(&mut self, tree: &Path, listing: &scan::Listing) {
        let Some(watch) = &mut self.watch else { return };
        let files = listing
            .files
            .iter()
            .filter(|(_, link)| **link)
            .map(|(path, _)| path.as_path());
        let directories = listing.directories.iter().map(PathBuf::as_path);
        let linked = directories.filter(|path| std::fs::read_link(path).is_ok());
        let root = (tree == self.root).then_some(tree);
        for path in files.chain(linked).chain(root) {
            if let Err(error) = watch.link(path) {
                self.unreadable
                    .insert(path.to_owned(), cannot_watch(&error));
            }
        }
    }

    fn vanish(&mut self, path: &Arc<Path>, now: Instant) {
        if !self.vanished.contains_key(path) {
            self.claims.vanish(path);
            self.vanished.insert(Arc::clone(path), now + GRACE);
        }
    }

    fn look_at(&mut self, path: &Path, cause: Cause, now: Instant) {
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) => return self.failed(path, &error, cause, now),
        };
        if !metadata.is_file() {
            return self.gone(path, cause, now);
        }
        let stamp = Stamp::of(&metadata);
        let key: Arc<Path> = path.into();
        if let Cause::Listed | Cause::Linked = cause {
            let was_read = self.stamps.get(path).is_some_and(|old| old.is_same(&stamp));
            if was_read && self.vanished.remove(path).is_none() {
                return;
            }
            if cause == Cause::Listed && age(&metadata).is_some_and(|age| age < SETTLE) {
                self.unsettled.insert(path.to_owned());
                return;
            }
        }
        match read(path, metadata.len()) {
            Ok(text) if cause != Cause::Overdue && self.is_emptied(path, &text) => {
                self.unreadable.remove(path);
                self.vanish(&key, now);
            }
            Ok(text) => {
                self.vanished.remove(path);
                self.unreadable.remove(path);
                let documents = self.documents(path, &text);
                self.claims.replace(&key, documents);
                self.stamps.insert(key, stamp);
            }
            Err(error) => self.failed(path, &error, cause, now),
        }
    }

    /// Whether a file that had documents has nothing in it.
    fn is_emptied(&self, path: &Path, text: &str) -> bool {
        text.trim_ascii().is_empty() && !self.claims.documents(path).is_empty()
    }

    /// A file cannot be read. If it is not gone its objects stay.
    fn failed(&mut self, path: &Path, error: &io::Error, cause: Cause, now: Instant) {
        let is_gone = error.kind() == io::ErrorKind::NotFound && std::fs::read_link(path).is_err();
        if is_gone {
            self.unreadable.remove(path);
            self.gone(path, cause, now);
        } else {
            self.unreadable
                .insert(path.to_owned(), format!("cannot read this file: {error}"));
        }
    }

    /// A file is gone. Its objects go too, after [`GRACE`].
    fn gone(&mut self, path: &Path, cause: Cause, now: Instant) {
        let known = self
            .claims
            .paths_below(path)
            .find(|known| &***known == path);
        let Some(known) = known.map(Arc::clone) else {
            return;
        };
        match cause {
            Cause::Overdue => {
                self.claims.remove(&known);
                self.stamps.remove(&known);
            }
            _ => self.vanish(&known, now),
        }
    }

    /// Parses what is new in a text; documents that were there before are taken over. Most of a
    /// text is where it was, before or after the change, and is only compared.
    fn documents(&self, path: &Path, text: &str) -> Vec<Placed> {
        let syntax = scan::syntax(path).unwrap_or(document::Syntax::Yaml);
        let pieces = document::split(text, syntax);
        let old = self.claims.documents(path);
        let same = |(old, new): &(&Placed, &document::Piece<'_>)| *old.document.text == *new.text;
        let before = old.iter().zip(&pieces).take_while(same).count();
        let (old, changed) = (&old[before..], &pieces[before..]);
        let after = old
            .iter()
            .rev()
            .zip(changed.iter().rev())
            .take_while(same)
            .count();
        let middle = &old[..old.len() - after];
        let known: HashMap<&str, &Arc<Document>, foldhash::fast::FixedState> = middle
            .iter()
            .map(|placed| (&*placed.document.text, &placed.document))
            .collect();
        let document = |at: usize, piece: &document::Piece<'_>| {
            if at < before {
                return Arc::clone(&self.claims.documents(path)[at].document);
            }
            if at >= pieces.len() - after {
                return Arc::clone(&old[old.len() - (pieces.len() - at)].document);
            }
            let found = known.get(piece.text).map(|document| Arc::clone(document));
            found.unwrap_or_else(|| Arc::new(document::parse(piece.text, syntax)))
        };
        let place = |(at, piece): (usize, &document::Piece<'_>)| Placed {
            line: piece.line,
            document: document(at, piece),
        };
        pieces.iter().enumerate().map(place).collect()
    }

    /// Where an object in force stands: file, line and document, the file relative to the tree.
    pub fn objects(&self) -> Vec<(Arc<Path>, Arc<document::Decoded>)> {
        let in_force = self.claims.in_force();
        in_force
            .map(|(path, decoded)| (Arc::clone(path), Arc::clone(decoded)))
            .collect()
    }
}

fn age(metadata: &std::fs::Metadata) -> Option<Duration> {
    SystemTime::now()
        .duration_since(metadata.modified().ok()?)
        .ok()
}

fn read(path: &Path, expected: u64) -> io::Result<String> {
    let too_large =
        || io::Error::other(format!("is larger than {} MiB", scan::MAX_FILE_BYTES >> 20));
    if expected > scan::MAX_FILE_BYTES {
        return Err(too_large());
    }
    let mut text = String::with_capacity(usize::try_from(expected).unwrap_or(0) + 1);
    std::fs::File::open(path)?
        .take(scan::MAX_FILE_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn cannot_watch(error: &io::Error) -> String {
    format!(
        "cannot be followed ({error}); changes are seen every 30 s; raise fs.inotify.max_user_watches"
    )
}

#[cfg(test)]
mod tests;
