//! All matches of one hostname: a short list, or an index by path once the list is not short.

use std::sync::Arc;

use super::candidate::{Candidate, OneOrMany};
use super::hash_trie::Keyed;
use super::inline_str::InlineStr;
use super::matcher::{CompiledMatch, CompiledPath, covers_prefix};
use super::path_index::PathIndex;
use crate::head::Head;

/// A list with more matches becomes an index.
const LIST_MAX: usize = 8;

/// The matches of one hostname.
#[derive(Clone, Debug)]
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

/// A match with its path beside it.
#[derive(Clone, Debug)]
struct Listed {
    path: ListedPath,
    candidate: Candidate,
}

#[derive(Clone, Debug)]
enum ListedPath {
    Exact(InlineStr<22>),
    Prefix(InlineStr<22>),
    /// In [`CompiledMatch::path`].
    Regex,
}

impl Keyed for Arc<HostRules> {
    #[inline]
    fn key(&self) -> &[u8] {
        self.name.as_bytes()
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
                list.insert_by(Listed::new(added), |a, b| a.candidate.order(&b.candidate));
            }
            Matches::List(list) => {
                let mut index = PathIndex::default();
                for listed in list.as_slice() {
                    index.insert(&listed.candidate.detail);
                }
                index.insert(added);
                self.matches = Matches::Index(Box::new(index));
            }
        }
    }

    /// Takes a match out again.
    pub fn remove(&mut self, removed: &Arc<CompiledMatch>) {
        match &mut self.matches {
            Matches::List(list) => {
                list.retain(|listed| !Arc::ptr_eq(&listed.candidate.detail, removed));
            }
            Matches::Index(index) => index.remove(removed),
        }
    }

    /// Whether no match is left.
    pub fn is_empty(&self) -> bool {
        match &self.matches {
            Matches::List(list) => list.as_slice().is_empty(),
            Matches::Index(index) => index.is_empty(),
        }
    }

    /// The first match that holds, and how many bytes of the path its prefix covers.
    #[inline]
    pub fn find<H: Head>(&self, head: &H) -> Option<(&Candidate, usize)> {
        match &self.matches {
            Matches::List(list) => list.as_slice().iter().find_map(|listed| {
                let prefix_len = listed.covers(head.path())?;
                let candidate = &listed.candidate;
                candidate.holds(head).then_some((candidate, prefix_len))
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
    pub fn candidates(&self) -> Vec<&Candidate> {
        let mut all: Vec<_> = match &self.matches {
            Matches::List(list) => list.as_slice().iter().map(|l| &l.candidate).collect(),
            Matches::Index(index) => index.candidates().collect(),
        };
        all.sort_by(|a, b| a.order(b));
        all
    }
}

impl Listed {
    fn new(source: &Arc<CompiledMatch>) -> Self {
        Self {
            path: match &source.path {
                CompiledPath::Exact(path) => ListedPath::Exact(InlineStr::new(path)),
                CompiledPath::Prefix(path) => ListedPath::Prefix(InlineStr::new(path)),
                CompiledPath::Regex(_) => ListedPath::Regex,
            },
            candidate: Candidate::new(source),
        }
    }

    #[inline]
    fn covers(&self, path: &str) -> Option<usize> {
        match &self.path {
            ListedPath::Exact(exact) => (exact.as_bytes() == path.as_bytes()).then_some(0),
            ListedPath::Prefix(prefix) => {
                let prefix = prefix.as_bytes();
                covers_prefix(prefix, path.as_bytes()).then_some(prefix.len())
            }
            ListedPath::Regex => self.candidate.detail.path.covers(path),
        }
    }
}
