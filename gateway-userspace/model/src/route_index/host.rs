//! All matches of one hostname: a short list, or an index by path once the list is not short.

use std::hash::Hasher;
use std::sync::Arc;

use super::candidate::OneOrMany;
use super::hash_trie::Keyed;
use super::inline_str::InlineStr;
use super::matcher::{CompiledMatch, CompiledPath, covers_prefix};
use super::path_index::PathIndex;
use crate::head::Head;
use crate::snapshot::{CompiledRule, Found};

/// A list with more matches becomes an index.
const LIST_MAX: usize = 8;

/// The matches of one hostname: one cache line, which is all that a lookup reads where there is one
/// match with a short path.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct HostRules {
    /// The exact name, or a wildcard without its `*`.
    name: InlineStr<38>,
    matches: Matches,
}

#[derive(Clone, Debug)]
enum Matches {
    /// In the order of matches.
    List(OneOrMany<Listed>),
    Index(Box<PathIndex>),
}

const _: () = assert!(size_of::<Option<HostRules>>() == 64);

/// A match with what a lookup needs of it beside it.
#[derive(Clone, Debug)]
struct Listed {
    rule: Arc<CompiledRule>,
    detail: Arc<CompiledMatch>,
    path: ShortPath,
    /// Whether the path is its only condition.
    plain: bool,
}

/// A path condition, kept in place if it is short.
#[derive(Clone, Copy, Debug)]
enum ShortPath {
    Exact(u8, [u8; SHORT]),
    Prefix(u8, [u8; SHORT]),
    /// In [`CompiledMatch::path`].
    InDetail,
}

const SHORT: usize = 5;

impl Keyed for HostRules {
    type Key = [u8];

    #[inline]
    fn key(&self) -> &[u8] {
        self.name.as_bytes()
    }

    #[inline]
    fn write(key: &[u8], hasher: &mut impl Hasher) {
        hasher.write(key);
    }
}

impl HostRules {
    pub fn new(name: &str) -> Self {
        Self {
            name: InlineStr::new(name),
            matches: Matches::List(OneOrMany::default()),
        }
    }

    /// Adds a match.
    pub fn insert(&mut self, added: &Arc<CompiledMatch>) {
        match &mut self.matches {
            Matches::Index(index) => index.insert(added),
            Matches::List(list) if list.as_slice().len() < LIST_MAX => {
                list.insert_by(Listed::new(added), |a, b| {
                    a.detail.order().cmp(b.detail.order())
                });
            }
            Matches::List(list) => {
                let mut index = PathIndex::default();
                for listed in list.as_slice() {
                    index.insert(&listed.detail);
                }
                index.insert(added);
                self.matches = Matches::Index(Box::new(index));
            }
        }
    }

    /// Puts a match in the place of one with the same conditions and order.
    pub fn replace(&mut self, old: &Arc<CompiledMatch>, new: &Arc<CompiledMatch>) {
        match &mut self.matches {
            Matches::Index(index) => index.replace(old, new),
            Matches::List(list) => {
                let mut all = list.as_mut_slice().iter_mut();
                if let Some(found) = all.find(|listed| Arc::ptr_eq(&listed.detail, old)) {
                    *found = Listed::new(new);
                }
            }
        }
    }

    /// Takes a match out again.
    pub fn remove(&mut self, removed: &Arc<CompiledMatch>) {
        match &mut self.matches {
            Matches::List(list) => {
                list.retain(|listed| !Arc::ptr_eq(&listed.detail, removed));
            }
            Matches::Index(index) => index.remove(removed),
        }
    }

    /// Prepares what a lookup is faster with.
    pub fn seal(&self) {
        if let Matches::Index(index) = &self.matches {
            index.seal();
        }
    }

    /// Whether no match is left.
    pub fn is_empty(&self) -> bool {
        match &self.matches {
            Matches::List(list) => list.as_slice().is_empty(),
            Matches::Index(index) => index.is_empty(),
        }
    }

    /// The first rule that matches.
    #[inline]
    pub fn find<H: Head>(&self, head: &H) -> Option<Found<'_>> {
        match &self.matches {
            Matches::List(list) => list.as_slice().iter().find_map(|listed| {
                let prefix_len = listed.covers(head.path())?;
                let holds = listed.plain || listed.detail.holds(head);
                holds.then_some(Found {
                    rule: &listed.rule,
                    prefix_len,
                })
            }),
            Matches::Index(index) => index.find(head),
        }
    }

    /// The hostname as routes write it; `*` if it stands for every host.
    pub fn hostname(&self) -> String {
        let name = String::from_utf8_lossy(self.name.as_bytes());
        match name.starts_with('.') || name.is_empty() {
            true => format!("*{name}"),
            false => name.into_owned(),
        }
    }

    /// Every match, in order.
    pub fn matches(&self) -> Vec<&Arc<CompiledMatch>> {
        let mut all: Vec<_> = match &self.matches {
            Matches::List(list) => list.as_slice().iter().map(|l| &l.detail).collect(),
            Matches::Index(index) => index.matches().collect(),
        };
        all.sort_by(|a, b| a.order().cmp(b.order()));
        all
    }
}

impl Listed {
    fn new(source: &Arc<CompiledMatch>) -> Self {
        Self {
            path: ShortPath::new(&source.path),
            plain: source.conditions.is_none(),
            rule: Arc::clone(&source.rule),
            detail: Arc::clone(source),
        }
    }

    #[inline]
    fn covers(&self, path: &str) -> Option<usize> {
        match &self.path {
            ShortPath::Exact(len, bytes) => {
                (bytes[..usize::from(*len)] == *path.as_bytes()).then_some(0)
            }
            ShortPath::Prefix(len, bytes) => {
                let own = &bytes[..usize::from(*len)];
                covers_prefix(own, path.as_bytes()).then_some(own.len())
            }
            ShortPath::InDetail => self.detail.path.covers(path),
        }
    }
}

impl ShortPath {
    fn new(path: &CompiledPath) -> Self {
        let short = |text: &str| {
            let mut bytes = [0; SHORT];
            bytes
                .get_mut(..text.len())?
                .copy_from_slice(text.as_bytes());
            Some((u8::try_from(text.len()).ok()?, bytes))
        };
        match path {
            CompiledPath::Exact(text) => short(text).map(|(len, bytes)| Self::Exact(len, bytes)),
            CompiledPath::Prefix(text) => short(text).map(|(len, bytes)| Self::Prefix(len, bytes)),
            CompiledPath::Regex(_) => None,
        }
        .unwrap_or(Self::InDetail)
    }
}
