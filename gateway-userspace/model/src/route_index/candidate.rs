//! A match as it stands in the index: what a lookup needs of it, without a second memory access.

use std::cmp::Ordering;
use std::sync::Arc;

use super::lengths::Rank;
use super::matcher::CompiledMatch;
use crate::head::Head;
use crate::snapshot::CompiledRule;

/// A match in the index.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    rank: Rank,
    /// Whether the path is its only condition.
    plain: bool,
    pub rule: Arc<CompiledRule>,
    pub detail: Arc<CompiledMatch>,
}

impl Candidate {
    pub fn new(detail: &Arc<CompiledMatch>) -> Self {
        Self {
            rank: detail.order().rank,
            plain: detail.conditions.is_none(),
            rule: Arc::clone(&detail.rule),
            detail: Arc::clone(detail),
        }
    }

    pub fn rank(&self) -> &Rank {
        &self.rank
    }

    /// Whether every condition but the path's holds.
    #[inline]
    pub fn holds<H: Head>(&self, head: &H) -> bool {
        self.plain || self.detail.holds(head)
    }

    /// Which of two matches of a hostname is asked first.
    #[inline]
    pub fn order(&self, other: &Self) -> Ordering {
        self.rank
            .cmp(&other.rank)
            .then_with(|| self.detail.order().cmp(other.detail.order()))
    }
}

/// A list that almost always has one element, which is then kept in place.
#[allow(
    clippy::box_collection,
    reason = "three words would be too long beside a short element"
)]
#[derive(Clone, Debug)]
pub(crate) enum OneOrMany<T> {
    One(T),
    /// In a box, so that a list of one takes no more room than the one.
    Many(Box<Vec<T>>),
}

impl<T> Default for OneOrMany<T> {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl<T> OneOrMany<T> {
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Self::One(one) => std::slice::from_mut(one),
            Self::Many(many) => many,
        }
    }

    /// Puts an element before the first one that is greater.
    pub fn insert_by(&mut self, new: T, order: impl Fn(&T, &T) -> Ordering) {
        let at = self
            .as_slice()
            .partition_point(|old| order(old, &new).is_le());
        *self = match std::mem::take(self) {
            Self::Many(many) if many.is_empty() => Self::One(new),
            Self::One(one) => {
                let mut many = Vec::with_capacity(2);
                many.push(one);
                many.insert(at, new);
                Self::Many(Box::new(many))
            }
            Self::Many(mut many) => {
                many.insert(at, new);
                Self::Many(many)
            }
        };
    }

    /// Keeps what `keep` says.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        *self = match std::mem::take(self) {
            Self::One(one) if keep(&one) => Self::One(one),
            Self::One(_) => Self::default(),
            Self::Many(mut many) => {
                many.retain(keep);
                match many.len() {
                    1 => many.pop().map_or_else(Self::default, Self::One),
                    _ => Self::Many(many),
                }
            }
        };
    }
}
