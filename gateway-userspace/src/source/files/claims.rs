//! Which file may speak for an object, and what therefore changes.
//!
//! An object may stand in several places; the first by path, then by position, is in force and
//! the others are reported. A file with a broken document keeps what it said before
//! ([`Claims::replace`]), so that a typing error takes no route away. The cost of a change
//! follows the number of changed documents, and one pointer per document of the same file.

mod claimant;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use gateway_model::names::ObjectRef;
use gateway_translate::Event;

use super::document::{Decoded, Document};
use claimant::Claimant;

/// A document and the line of its file that it starts on.
#[derive(Clone, Debug)]
pub struct Placed {
    /// From 1.
    pub line: u32,
    /// The document.
    pub document: Arc<Document>,
}

/// All files' claims.
#[derive(Debug, Default)]
pub struct Claims {
    files: BTreeMap<Arc<Path>, Claimant>,
    /// The files that say an object, sorted.
    by_object: HashMap<ObjectRef, Vec<Arc<Path>>>,
    contested: BTreeSet<ObjectRef>,
    /// Files with a broken document or with objects of an earlier life.
    damaged: BTreeSet<Arc<Path>>,
    /// Files with fields that nobody reads.
    doubtful: BTreeSet<Arc<Path>>,
    /// Files with something that runs Pods.
    running: BTreeSet<Arc<Path>>,
    in_force: HashMap<ObjectRef, Arc<Decoded>>,
    /// Of objects that are held, the copies that were ignored before.
    ignored: HashMap<ObjectRef, Vec<Arc<Decoded>>>,
    touched: BTreeSet<ObjectRef>,
}

/// Where an object stands: a file and a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// From 1.
    pub line: u32,
}

/// One object written twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// The object.
    pub object: ObjectRef,
    /// The place in force.
    pub winner: Place,
    /// A place that is ignored.
    pub loser: Place,
}

impl Claims {
    /// Takes a file's documents in place of those it had.
    ///
    /// An object that the file had and has no more is held if the file now has a broken document
    /// that may be the one it stood in: the one that names it, or any that names nothing.
    pub fn replace(&mut self, path: &Arc<Path>, documents: Vec<Placed>) {
        let claimant = self.files.entry(Arc::clone(path)).or_default();
        let changed = claimant.replace(documents);
        for (files, is_one) in [
            (&mut self.damaged, claimant.is_broken()),
            (&mut self.doubtful, claimant.is_doubtful()),
            (&mut self.running, claimant.runs_pods()),
        ] {
            if is_one {
                files.insert(Arc::clone(path));
            } else {
                files.remove(path);
            }
        }
        let held: Vec<_> = claimant.held().map(Arc::clone).collect();
        self.index(path, changed);
        held.iter().for_each(|held| self.pass_over(held));
    }

    /// These objects may be said by another number of documents of this file.
    fn index(&mut self, path: &Arc<Path>, changed: Vec<ObjectRef>) {
        let claimant = &self.files[path];
        for object in changed {
            let count = claimant.count(&object);
            let paths = self
                .by_object
                .entry(object.clone())
                .or_insert_with(|| Vec::with_capacity(1));
            match (paths.binary_search(path), count) {
                (Ok(at), 0) => drop(paths.remove(at)),
                (Err(at), 1..) => paths.insert(at, Arc::clone(path)),
                _ => {}
            }
            if count > 1 || paths.len() > 1 {
                self.contested.insert(object.clone());
            }
            if paths.is_empty() {
                self.by_object.remove(&object);
            }
            self.touched.insert(object);
        }
    }

    /// An object is held from now on: no copy that was ignored so far comes into force for that.
    fn pass_over(&mut self, held: &Arc<Decoded>) {
        if self.is_in_force(held) && !self.ignored.contains_key(&held.object) {
            let paths = self.by_object.get(&held.object).into_iter().flatten();
            let copies = paths.filter_map(|path| self.files[path].first(&held.object));
            let copies = copies.map(Arc::clone).collect();
            self.ignored.insert(held.object.clone(), copies);
        }
    }

    /// A file is gone for good.
    pub fn remove(&mut self, path: &Arc<Path>) {
        self.replace(path, Vec::new());
        self.files.remove(path);
    }

    /// A file is not there at the moment: until [`Claims::replace`] or [`Claims::remove`] decides,
    /// it keeps its objects unless another file claims them.
    pub fn vanish(&mut self, path: &Path) {
        if let Some(claimant) = self.files.get_mut(path) {
            claimant.vanishing = true;
            self.touched.extend(claimant.objects().cloned());
        }
    }

    /// Gives a file the objects it had in an earlier life, before it is read for the first time.
    pub fn remember(&mut self, path: &Arc<Path>, objects: Vec<Arc<Decoded>>) {
        let claimant = Claimant::remembering(objects);
        self.touched
            .extend(claimant.held().map(|decoded| decoded.object.clone()));
        self.files.insert(Arc::clone(path), claimant);
        self.damaged.insert(Arc::clone(path));
    }

    /// What changed since the last call.
    pub fn take_events(&mut self) -> Vec<Event> {
        let mut touched = std::mem::take(&mut self.touched);
        touched.extend(self.contested.iter().cloned());
        let Self {
            by_object, files, ..
        } = self;
        self.contested.retain(|object| {
            let paths = by_object.get(object);
            paths.is_some_and(|p| p.len() > 1 || p.iter().any(|p| files[p].count(object) > 1))
        });
        touched
            .into_iter()
            .filter_map(|object| self.settle(object))
            .collect()
    }

    /// The number of known files.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// The known files in and below a directory, or the file itself.
    pub fn paths_below<'a>(&'a self, root: &'a Path) -> impl Iterator<Item = &'a Arc<Path>> {
        self.files
            .range::<Path, _>((std::ops::Bound::Included(root), std::ops::Bound::Unbounded))
            .map(|(path, _)| path)
            .take_while(move |path| path.starts_with(root))
    }

    /// The documents of a file.
    pub fn documents(&self, path: &Path) -> &[Placed] {
        self.files.get(path).map_or(&[], Claimant::documents)
    }

    /// Whether any document has something that runs Pods.
    pub fn has_workloads(&self) -> bool {
        !self.running.is_empty()
    }

    /// The number of objects in force.
    pub fn object_count(&self) -> usize {
        self.in_force.len()
    }

    /// The files with a broken document, or that were never read.
    pub fn broken(&self) -> impl Iterator<Item = (&Arc<Path>, &[Placed])> {
        self.damaged
            .iter()
            .map(|path| (path, self.files[path].documents()))
    }

    /// The files with fields that nobody reads.
    pub fn doubtful(&self) -> impl Iterator<Item = (&Arc<Path>, &[Placed])> {
        self.doubtful
            .iter()
            .map(|path| (path, self.files[path].documents()))
    }

    /// What is in force, and the file it came from, in the order of files.
    pub fn in_force(&self) -> impl Iterator<Item = (&Arc<Path>, &Arc<Decoded>)> {
        let all = self.files.iter().flat_map(|(path, claimant)| {
            let written = claimant
                .documents()
                .iter()
                .flat_map(|p| p.document.objects());
            written
                .chain(claimant.held())
                .map(move |decoded| (path, decoded))
        });
        all.filter(|(_, decoded)| self.is_in_force(decoded))
    }

    /// The objects that are served although their file does not say them any more.
    pub fn held(&self) -> impl Iterator<Item = (&Arc<Path>, &Arc<Decoded>)> {
        let all = self
            .damaged
            .iter()
            .flat_map(|path| self.files[path].held().map(move |d| (path, d)));
        all.filter(|(_, decoded)| self.is_in_force(decoded))
    }

    /// Every object that is written more than once, vanishing files aside.
    pub fn duplicates(&self) -> Vec<Duplicate> {
        let mut duplicates = Vec::new();
        for object in &self.contested {
            let paths = self.by_object.get(object).into_iter().flatten();
            let present = paths.filter(|path| !self.files[*path].vanishing);
            let mut places = present.flat_map(|path| {
                let lines = self.files[path].lines(object);
                lines.map(|line| Place {
                    path: Arc::clone(path),
                    line,
                })
            });
            let Some(winner) = places.next() else {
                continue;
            };
            duplicates.extend(places.map(|loser| Duplicate {
                object: object.clone(),
                winner: winner.clone(),
                loser,
            }));
        }
        duplicates
    }

    fn is_in_force(&self, decoded: &Arc<Decoded>) -> bool {
        self.in_force
            .get(&decoded.object)
            .is_some_and(|other| Arc::ptr_eq(other, decoded))
    }

    fn settle(&mut self, object: ObjectRef) -> Option<Event> {
        let winner = self.winner(&object);
        let is_written = |winner: &Arc<Decoded>| {
            let mut paths = self.by_object.get(&object).into_iter().flatten();
            paths.any(|path| {
                let first = self.files[path].first(&object);
                first.is_some_and(|first| Arc::ptr_eq(first, winner))
            })
        };
        if winner.as_ref().is_none_or(is_written) {
            self.ignored.remove(&object);
        }
        match winner {
            None => self.in_force.remove(&object).map(|_| Event::Delete(object)),
            Some(winner) => {
                let before = self.in_force.insert(object, Arc::clone(&winner));
                let same = before.is_some_and(|before| before.text == winner.text);
                (!same).then(|| Event::Apply(winner.value.clone()))
            }
        }
    }

    fn winner(&self, object: &ObjectRef) -> Option<Arc<Decoded>> {
        let claimants = || {
            self.by_object
                .get(object)
                .into_iter()
                .flatten()
                .map(|p| &self.files[p])
        };
        let claimant = claimants()
            .find(|c| !c.vanishing)
            .or_else(|| claimants().next());
        let written = claimant.and_then(|claimant| claimant.first(object));
        let held = || {
            self.damaged
                .iter()
                .find_map(|path| self.files[path].held_object(object))
        };
        let is_ignored = |copy: &&Arc<Decoded>| {
            let copies = self.ignored.get(object).into_iter().flatten();
            copies.into_iter().any(|ignored| Arc::ptr_eq(ignored, copy))
        };
        let in_force = written.filter(|copy| !is_ignored(copy)).or_else(held);
        in_force.or(written).cloned()
    }
}

#[cfg(test)]
mod tests;
