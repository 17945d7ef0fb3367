//! Many matches of one hostname: exact paths and prefixes by hash, regular expressions in order.
//!
//! The smallest [`crate::ir::MatchOrder`] among all that match wins, whatever part it stands in, so
//! every part is asked unless a lower bound proves that it has nothing earlier.

use std::hash::Hasher;
use std::sync::Arc;

use memchr::memrchr;

use super::candidate::{Candidate, OneOrMany};
use super::hash_trie::{HashTrie, Keyed};
use super::inline_str::InlineStr;
use super::lengths::Lengths;
use super::matcher::{CompiledMatch, CompiledPath};
use super::regex_list::RegexList;
use crate::head::Head;
use crate::snapshot::Found;

/// The matches of one hostname by path.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathIndex {
    exact: HashTrie<PathEntry>,
    prefixes: HashTrie<PathEntry>,
    /// The lengths of the prefixes, and the earliest match among those up to a length.
    prefix_lengths: Lengths,
    regexes: RegexList,
}

/// All matches of one exact path, or of one prefix, in order: one cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
struct PathEntry {
    path: InlineStr<22>,
    candidates: OneOrMany<Candidate>,
}

const _: () = assert!(size_of::<Option<PathEntry>>() == 64);

impl Keyed for PathEntry {
    type Key = [u8];

    #[inline]
    fn key(&self) -> &[u8] {
        self.path.as_bytes()
    }

    #[inline]
    fn write(key: &[u8], hasher: &mut impl Hasher) {
        hasher.write(key);
    }
}

impl PathIndex {
    /// Adds a match.
    pub fn insert(&mut self, added: &Arc<CompiledMatch>) {
        let candidate = Candidate::new(added);
        match &added.path {
            CompiledPath::Exact(path) => insert(&mut self.exact, path, candidate),
            CompiledPath::Prefix(path) => {
                self.prefix_lengths.add(path.len(), *candidate.rank());
                insert(&mut self.prefixes, path, candidate);
            }
            CompiledPath::Regex(_) => self.regexes.insert(candidate),
        }
    }

    /// Puts a match in the place of one with the same conditions and order.
    pub fn replace(&mut self, old: &Arc<CompiledMatch>, new: &Arc<CompiledMatch>) {
        let (entries, path) = match &new.path {
            CompiledPath::Exact(path) => (&mut self.exact, path),
            CompiledPath::Prefix(path) => (&mut self.prefixes, path),
            CompiledPath::Regex(_) => return self.regexes.replace(old, new),
        };
        entries.update(path.as_bytes(), |entry| {
            let mut all = entry.candidates.as_mut_slice().iter_mut();
            if let Some(found) = all.find(|each| Arc::ptr_eq(&each.detail, old)) {
                *found = Candidate::new(new);
            }
            false
        });
    }

    /// Takes a match out again.
    pub fn remove(&mut self, removed: &Arc<CompiledMatch>) {
        match &removed.path {
            CompiledPath::Exact(path) => remove(&mut self.exact, path, removed),
            CompiledPath::Prefix(path) => {
                self.prefix_lengths.remove(path.len());
                remove(&mut self.prefixes, path, removed);
            }
            CompiledPath::Regex(_) => self.regexes.remove(removed),
        }
    }

    /// Prepares what a lookup is faster with.
    pub fn seal(&self) {
        self.regexes.seal();
    }

    /// Whether no match is left.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.regexes.is_empty()
    }

    /// Every match, in no particular order.
    pub fn matches(&self) -> impl Iterator<Item = &Arc<CompiledMatch>> {
        let by_path = self.exact.iter().chain(self.prefixes.iter());
        by_path
            .flat_map(|entry| entry.candidates.as_slice())
            .chain(self.regexes.iter())
            .map(|candidate| &candidate.detail)
    }

    /// The first rule that matches.
    pub fn find<H: Head>(&self, head: &H) -> Option<Found<'_>> {
        let path = head.path().as_bytes();
        let mut best = self
            .exact
            .get(path)
            .and_then(|entry| entry.first(head, None))
            .map(|candidate| (candidate, 0));
        self.find_prefix(head, path, &mut best);
        if let Some(found) = self.regexes.find(head, best.map(|(best, _)| best)) {
            best = Some((found, 0));
        }
        best.map(|(candidate, prefix_len)| Found {
            rule: &candidate.rule,
            prefix_len,
        })
    }

    /// Probes the prefixes that end at a `/` of the path or at its end, from the longest.
    fn find_prefix<'a, H: Head>(
        &'a self,
        head: &H,
        path: &[u8],
        best: &mut Option<(&'a Candidate, usize)>,
    ) {
        let Some(longest) = self.prefix_lengths.longest() else {
            return;
        };
        let mut end = if path.len() <= longest {
            Some(path.len())
        } else {
            memrchr(b'/', &path[..=longest])
        };
        while let Some(len) = end {
            if self.prefix_lengths.contains(len)
                && let Some(entry) = self.prefixes.get(&path[..len])
                && let Some(found) = entry.first(head, best.map(|(best, _)| best))
            {
                *best = Some((found, len));
            }
            if let Some((best, _)) = best
                && !self.prefix_lengths.may_precede(len, best.rank())
            {
                return;
            }
            end = memrchr(b'/', &path[..len]);
        }
    }
}

impl PathEntry {
    /// The first candidate that holds, if it comes before `best`.
    #[inline]
    fn first<H: Head>(&self, head: &H, best: Option<&Candidate>) -> Option<&Candidate> {
        self.candidates
            .as_slice()
            .iter()
            .take_while(|each| best.is_none_or(|best| each.order(best).is_lt()))
            .find(|each| each.holds(head))
    }
}

fn insert(trie: &mut HashTrie<PathEntry>, path: &str, candidate: Candidate) {
    let new = || PathEntry {
        path: InlineStr::new(path),
        candidates: OneOrMany::default(),
    };
    trie.upsert(path.as_bytes(), new, |entry| {
        entry.candidates.insert_by(candidate, Candidate::order);
    });
}

fn remove(trie: &mut HashTrie<PathEntry>, path: &str, removed: &Arc<CompiledMatch>) {
    trie.update(path.as_bytes(), |entry| {
        let candidates = &mut entry.candidates;
        candidates.retain(|each| !Arc::ptr_eq(&each.detail, removed));
        candidates.as_slice().is_empty()
    });
}
