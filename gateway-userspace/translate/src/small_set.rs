//! Sets that mostly hold one element: a tree's first node has room for eleven.

use std::collections::BTreeSet;

/// A sorted set. One element is kept in place.
#[allow(
    clippy::box_collection,
    reason = "a tree is three words, which would be too long beside a short element"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SmallSet<T> {
    One(T),
    Many(Box<BTreeSet<T>>),
}

impl<T> Default for SmallSet<T> {
    fn default() -> Self {
        Self::Many(Box::default())
    }
}

impl<T: Ord> SmallSet<T> {
    /// The set of one element.
    pub(crate) fn of(one: T) -> Self {
        Self::One(one)
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Many(many) if many.is_empty())
    }

    /// Every element, sorted.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), None),
            Self::Many(many) => (None, Some(many.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// Adds an element.
    pub(crate) fn insert(&mut self, new: T) {
        match self {
            Self::One(one) if *one == new => {}
            Self::One(_) => {
                if let Self::One(one) = std::mem::take(self) {
                    *self = Self::Many(Box::new(BTreeSet::from([one, new])));
                }
            }
            Self::Many(many) if many.is_empty() => *self = Self::One(new),
            Self::Many(many) => {
                many.insert(new);
            }
        }
    }

    /// Gives back room that is not used.
    pub(crate) fn pack(&mut self) {
        if let Self::Many(many) = self {
            **many = std::mem::take(&mut **many).into_iter().collect();
        }
    }

    /// Takes an element out, if it is there.
    pub(crate) fn remove(&mut self, gone: &T) {
        match self {
            Self::One(one) if one == gone => *self = Self::default(),
            Self::One(_) => {}
            Self::Many(many) => {
                many.remove(gone);
                if many.len() == 1
                    && let Some(one) = many.pop_first()
                {
                    *self = Self::One(one);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_set() {
        let mut set = SmallSet::default();
        let contents = |set: &SmallSet<u8>| set.iter().copied().collect::<Vec<_>>();
        assert!(set.is_empty());
        for (new, all) in [(5, &[5][..]), (5, &[5]), (2, &[2, 5]), (9, &[2, 5, 9])] {
            set.insert(new);
            assert_eq!(contents(&set), all);
        }
        for (gone, all) in [
            (7, &[2, 5, 9][..]),
            (5, &[2, 9]),
            (9, &[2]),
            (3, &[2]),
            (2, &[]),
        ] {
            set.remove(&gone);
            assert_eq!(contents(&set), all);
        }
        assert!(set.is_empty());
    }
}
