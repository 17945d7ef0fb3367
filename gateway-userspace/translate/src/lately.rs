//! What was made lately, so that equal things share one allocation.

use std::borrow::Borrow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// Remembers one value for each of so many hashes.
pub(crate) struct Lately<T: ?Sized, const PLACES: usize>(Vec<Option<Arc<T>>>);

impl<T: Eq + Hash + ?Sized, const PLACES: usize> Lately<T, PLACES> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// This value, or an equal one that stands elsewhere.
    pub(crate) fn shared(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        let mut hasher = DefaultHasher::new();
        value.borrow().hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % PLACES as u64).unwrap_or_default();
        self.0.resize(PLACES, None);
        match &self.0[at] {
            Some(equal) if **equal == *value.borrow() => Arc::clone(equal),
            _ => Arc::clone(self.0[at].insert(value.into())),
        }
    }
}
