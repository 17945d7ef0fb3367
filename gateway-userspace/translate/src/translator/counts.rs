//! How many refer to a thing; what nobody refers to is not kept.

use std::collections::{BTreeMap, BTreeSet};

use gateway_model::names::{ObjectRef, UpstreamKey, UpstreamUse};

use super::packed;

/// Counts by key.
#[derive(Clone, Debug)]
pub(super) struct Counts<K>(BTreeMap<K, u32>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Counts<K> {
    /// Gives back room that is not used.
    pub(super) fn pack(&mut self) {
        packed(&mut self.0);
    }

    /// How many refer to it.
    pub(super) fn of(&self, key: &K) -> u32 {
        self.0.get(key).copied().unwrap_or(0)
    }

    /// Replaces what one of them refers to; returns the keys whose count changed.
    pub(super) fn replace<'a>(
        &mut self,
        old: impl IntoIterator<Item = &'a K>,
        new: impl IntoIterator<Item = &'a K>,
    ) -> Vec<K>
    where
        K: 'a,
    {
        let old: BTreeSet<_> = old.into_iter().collect();
        let new: BTreeSet<_> = new.into_iter().collect();
        let mut changed = Vec::new();
        for key in old.difference(&new) {
            if let Some(count) = self.0.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.0.remove(key);
                }
            }
            changed.push((*key).clone());
        }
        for key in new.difference(&old) {
            match self.0.get_mut(key) {
                Some(count) => *count += 1,
                None => {
                    self.0.insert((*key).clone(), 1);
                }
            }
            changed.push((*key).clone());
        }
        changed
    }
}

impl Counts<UpstreamKey> {
    /// The ports of a Service that somebody refers to.
    pub(super) fn range(&self, service: &ObjectRef) -> impl Iterator<Item = &UpstreamKey> {
        let key = |port, usage| UpstreamKey {
            backend: service.clone(),
            port,
            usage,
        };
        let all = key(0, UpstreamUse::Http)..=key(u16::MAX, UpstreamUse::Datagram);
        self.0.range(all).map(|(key, _)| key)
    }
}
