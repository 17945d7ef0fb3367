//! The regular expressions of one hostname, in the order of matches, asked many at a time.
//!
//! The list is cut into chunks, and a chunk of some length is also compiled as one set: a search
//! gives the first of its expressions that matches, in one pass over the path. A change makes one
//! chunk's set anew.

use std::sync::{Arc, OnceLock};

use regex_automata::meta;
use regex_automata::nfa::thompson::WhichCaptures;
use regex_automata::{Anchored, Input};

use super::candidate::Candidate;
use super::matcher::CompiledMatch;
use crate::head::Head;
use crate::ir::PathMatch;
use crate::pattern;

/// A longer chunk is cut in two.
const CHUNK_MAX: usize = 64;
/// A shorter chunk is asked one by one.
const SET_MIN: usize = 3;

/// Matches whose path condition is a regular expression.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegexList {
    /// None is empty.
    chunks: Vec<Arc<Chunk>>,
}

#[derive(Debug)]
struct Chunk {
    candidates: Vec<Candidate>,
    /// None inside if the chunk is short, or too large as a set; filled by [`RegexList::seal`].
    set: OnceLock<Option<meta::Regex>>,
}

impl RegexList {
    /// Adds a match.
    pub fn insert(&mut self, new: Candidate) {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.candidates[0].order(&new).is_lt());
        let at = after.saturating_sub(1);
        let Some(chunk) = self.chunks.get(at) else {
            self.chunks.push(Chunk::new(vec![new]));
            return;
        };
        let mut candidates = chunk.candidates.clone();
        let place = candidates.partition_point(|old| old.order(&new).is_lt());
        candidates.insert(place, new);
        if candidates.len() > CHUNK_MAX {
            let second = candidates.split_off(CHUNK_MAX / 2);
            self.chunks.insert(at + 1, Chunk::new(second));
        }
        self.chunks[at] = Chunk::new(candidates);
    }

    /// Puts a match in the place of one with the same conditions and order.
    pub fn replace(&mut self, old: &Arc<CompiledMatch>, new: &Arc<CompiledMatch>) {
        let Some((at, place)) = self.place(old) else {
            return;
        };
        let chunk = &self.chunks[at];
        let mut candidates = chunk.candidates.clone();
        candidates[place] = Candidate::new(new);
        self.chunks[at] = Arc::new(Chunk {
            candidates,
            set: chunk.set.clone(),
        });
    }

    /// Takes a match out again.
    pub fn remove(&mut self, removed: &Arc<CompiledMatch>) {
        let Some((at, place)) = self.place(removed) else {
            return;
        };
        let mut candidates = self.chunks[at].candidates.clone();
        candidates.remove(place);
        if candidates.is_empty() {
            self.chunks.remove(at);
        } else {
            self.chunks[at] = Chunk::new(candidates);
        }
    }

    fn place(&self, of: &Arc<CompiledMatch>) -> Option<(usize, usize)> {
        self.chunks.iter().enumerate().find_map(|(at, chunk)| {
            let mut candidates = chunk.candidates.iter();
            let place = candidates.position(|each| Arc::ptr_eq(&each.detail, of))?;
            Some((at, place))
        })
    }

    /// Whether no match is left.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Every match, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Candidate> {
        self.chunks.iter().flat_map(|chunk| &chunk.candidates)
    }

    /// Compiles the sets that are not there yet. Without it lookups are right but slower.
    pub fn seal(&self) {
        for chunk in &self.chunks {
            chunk.set.get_or_init(|| set_of(&chunk.candidates));
        }
    }

    /// The first match that holds, if it comes before `best`.
    pub fn find<H: Head>(&self, head: &H, best: Option<&Candidate>) -> Option<&Candidate> {
        let comes_too_late = |each: &Candidate| best.is_some_and(|best| best.order(each).is_lt());
        for chunk in &self.chunks {
            let mut candidates = &chunk.candidates[..];
            if comes_too_late(&candidates[0]) {
                return None;
            }
            if let Some(Some(set)) = chunk.set.get() {
                let path = Input::new(head.path()).anchored(Anchored::Yes);
                match set.search_half(&path) {
                    Some(found) => candidates = &candidates[found.pattern().as_usize()..],
                    None => continue,
                }
            }
            for each in candidates {
                if comes_too_late(each) {
                    return None;
                }
                if each.detail.path.covers(head.path()).is_some() && each.holds(head) {
                    return Some(each);
                }
            }
        }
        None
    }
}

impl Chunk {
    fn new(candidates: Vec<Candidate>) -> Arc<Self> {
        Arc::new(Self {
            candidates,
            set: OnceLock::new(),
        })
    }
}

fn set_of(candidates: &[Candidate]) -> Option<meta::Regex> {
    if candidates.len() < SET_MIN {
        return None;
    }
    let patterns: Vec<String> = candidates
        .iter()
        .filter_map(|each| match &each.detail.source().conditions.path {
            PathMatch::Regex(pattern) => Some(pattern::whole(pattern)),
            PathMatch::Exact(_) | PathMatch::Prefix(_) => None,
        })
        .collect();
    // Numbers of patterns are positions in the chunk.
    if patterns.len() != candidates.len() {
        return None;
    }
    let config = meta::Config::new()
        .nfa_size_limit(Some(CHUNK_MAX * pattern::SIZE_LIMIT))
        .hybrid_cache_capacity(pattern::CACHE_LIMIT)
        // Without implicit captures some of the engines do not say which expression matched.
        .which_captures(WhichCaptures::Implicit)
        .utf8_empty(false);
    meta::Builder::new()
        .configure(config)
        .build_many(&patterns)
        .ok()
}
