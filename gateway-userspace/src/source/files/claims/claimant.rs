//! What one file says, and what it said before it broke.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use gateway_model::names::ObjectRef;

use super::Placed;
use crate::source::files::document::{Decoded, Document, Item};

/// One file's documents by object.
#[derive(Debug, Default)]
pub struct Claimant {
    /// Gone from the disk, perhaps for a moment: anyone else's claim goes first.
    pub vanishing: bool,
    documents: Vec<Placed>,
    objects: HashMap<ObjectRef, Vec<Arc<Decoded>>>,
    broken_documents: usize,
    doubtful_documents: usize,
    /// Documents with something that runs Pods.
    workload_documents: usize,
    held: BTreeMap<ObjectRef, Arc<Decoded>>,
}

impl Claimant {
    /// A file that has not been read, with what it said in an earlier life.
    pub fn remembering(objects: Vec<Arc<Decoded>>) -> Self {
        let held = objects
            .into_iter()
            .map(|decoded| (decoded.object.clone(), decoded));
        Self {
            held: held.collect(),
            ..Self::default()
        }
    }

    /// Takes new documents and returns the objects that may be another's or another now.
    pub fn replace(&mut self, documents: Vec<Placed>) -> Vec<ObjectRef> {
        let mut changed = Vec::new();
        if std::mem::take(&mut self.vanishing) {
            changed.extend(self.objects.keys().cloned());
        }
        let old = std::mem::replace(&mut self.documents, documents);
        let mut missing = std::mem::take(&mut self.held);
        changed.extend(missing.keys().cloned());
        for (document, delta) in differences(&old, &self.documents) {
            if document.is_broken() {
                self.broken_documents = self.broken_documents.saturating_add_signed(delta);
            }
            if document.is_doubtful() {
                self.doubtful_documents = self.doubtful_documents.saturating_add_signed(delta);
            }
            if document.has_workload() {
                self.workload_documents = self.workload_documents.saturating_add_signed(delta);
            }
            for decoded in document.objects() {
                self.count_in(decoded, delta);
                changed.push(decoded.object.clone());
                if delta < 0 {
                    missing.insert(decoded.object.clone(), Arc::clone(decoded));
                }
            }
        }
        if self.broken_documents > 0 {
            missing.retain(|object, _| self.count(object) == 0 && self.may_hide(object));
            self.held = missing;
        }
        changed
    }

    /// How often it says an object.
    pub fn count(&self, object: &ObjectRef) -> usize {
        self.objects.get(object).map_or(0, Vec::len)
    }

    /// The first of its documents about an object.
    pub fn first(&self, object: &ObjectRef) -> Option<&Arc<Decoded>> {
        match self.objects.get(object)?.as_slice() {
            [only] => Some(only),
            _ => {
                let mut all = self
                    .documents
                    .iter()
                    .flat_map(|placed| placed.document.objects());
                all.find(|decoded| decoded.object == *object)
            }
        }
    }

    /// The lines of the documents about an object.
    pub fn lines<'a>(&'a self, object: &'a ObjectRef) -> impl Iterator<Item = u32> + 'a {
        self.documents.iter().flat_map(move |placed| {
            let same = placed
                .document
                .objects()
                .filter(move |d| d.object == *object);
            same.map(|_| placed.line)
        })
    }

    /// The objects it says.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectRef> {
        self.objects.keys()
    }

    /// What it said before it broke.
    pub fn held(&self) -> impl Iterator<Item = &Arc<Decoded>> {
        self.held.values()
    }

    /// One object that it said before it broke.
    pub fn held_object(&self, object: &ObjectRef) -> Option<&Arc<Decoded>> {
        self.held.get(object)
    }

    /// Its documents.
    pub fn documents(&self) -> &[Placed] {
        &self.documents
    }

    /// Whether a document of it is broken.
    pub fn is_broken(&self) -> bool {
        self.broken_documents > 0
    }

    /// Whether a document of it has fields that nobody reads.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful_documents > 0
    }

    /// Whether a document has something that runs Pods.
    pub fn runs_pods(&self) -> bool {
        self.workload_documents > 0
    }

    fn count_in(&mut self, decoded: &Arc<Decoded>, delta: isize) {
        let list = self
            .objects
            .entry(decoded.object.clone())
            .or_insert_with(|| Vec::with_capacity(1));
        for _ in 0..delta.unsigned_abs() {
            if delta > 0 {
                list.push(Arc::clone(decoded));
            } else if let Some(at) = list.iter().position(|other| Arc::ptr_eq(other, decoded)) {
                list.remove(at);
            }
        }
        if list.is_empty() {
            self.objects.remove(&decoded.object);
        }
    }

    fn may_hide(&self, object: &ObjectRef) -> bool {
        let items = self
            .documents
            .iter()
            .flat_map(|placed| &placed.document.items);
        items
            .filter_map(|item| match item {
                Item::Fault(fault) => Some(fault),
                Item::Object(_) | Item::Workload | Item::Foreign => None,
            })
            .any(|fault| fault.object.as_ref().is_none_or(|named| named == object))
    }
}

/// The documents of which one side has more, and how many more the new side has. What both sides
/// begin and end with is only compared.
fn differences(old: &[Placed], new: &[Placed]) -> Vec<(Arc<Document>, isize)> {
    let same = |(a, b): &(&Placed, &Placed)| Arc::ptr_eq(&a.document, &b.document);
    let before = old.iter().zip(new).take_while(same).count();
    let (old, new) = (&old[before..], &new[before..]);
    let after = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(same)
        .count();
    let mut counts: HashMap<*const Document, (isize, &Arc<Document>), foldhash::fast::FixedState> =
        HashMap::default();
    for (list, delta) in [
        (&old[..old.len() - after], -1),
        (&new[..new.len() - after], 1),
    ] {
        for placed in list {
            counts
                .entry(Arc::as_ptr(&placed.document))
                .or_insert((0, &placed.document))
                .0 += delta;
        }
    }
    let different = counts.into_values().filter(|(delta, _)| *delta != 0);
    different
        .map(|(delta, document)| (Arc::clone(document), delta))
        .collect()
}
