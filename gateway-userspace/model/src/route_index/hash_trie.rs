//! A persistent hash table: a clone shares everything, and a change copies one path from the root.
//!
//! Inner nodes have 64 children, chosen by six bits of the hash from the top; leaves hold up to
//! 64 entries sorted by hash, so that an entry's place can be computed instead of searched. At
//! 100 000 entries a lookup reads two inner nodes that stay in the cache, one or two lines of a
//! leaf, and the entry.

use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::Arc;

use foldhash::quality::RandomState;

const BITS: u32 = 6;
const FAN_OUT: usize = 1 << BITS;
const LEAF_MAX: usize = 64;
/// A branch with so few entries becomes a leaf again; far below `LEAF_MAX`, so that a table does
/// not split and merge in turn.
const MERGE_AT: usize = 16;
/// Below this many unused bits a leaf is not split any more.
const LAST_SHIFT: u32 = 60;

/// What has a key that it is found by.
pub(crate) trait Keyed {
    /// The key.
    fn key(&self) -> &[u8];
}

/// A persistent hash table of entries that carry their key.
#[derive(Clone, Debug)]
pub(crate) struct HashTrie<T> {
    root: Node<T>,
    hasher: RandomState,
}

#[derive(Clone, Debug)]
enum Node<T> {
    Empty,
    /// Sorted by hash, never empty.
    Leaf(Arc<[Slot<T>]>),
    Branch(Arc<Branch<T>>),
}

#[derive(Clone, Debug)]
struct Slot<T> {
    hash: u64,
    entry: T,
}

#[derive(Clone, Debug)]
struct Branch<T> {
    len: usize,
    children: [Node<T>; FAN_OUT],
}

impl<T> Default for HashTrie<T> {
    fn default() -> Self {
        Self {
            root: Node::Empty,
            hasher: RandomState::default(),
        }
    }
}

impl<T: Keyed> HashTrie<T> {
    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        matches!(self.root, Node::Empty)
    }

    /// The entry of that key.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Option<&T> {
        let mut node = &self.root;
        if let Node::Empty = node {
            return None;
        }
        let hash = self.hash(key);
        let mut shift = 0;
        while let Node::Branch(branch) = node {
            node = &branch.children[child(hash, shift)];
            shift += BITS;
        }
        match node {
            Node::Leaf(slots) => slots[first_at_least(slots, hash, shift)..]
                .iter()
                .take_while(|slot| slot.hash == hash)
                .map(|slot| &slot.entry)
                .find(|entry| entry.key() == key),
            _ => None,
        }
    }

    /// Every entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let mut stack = vec![&self.root];
        let mut slots: std::slice::Iter<'_, Slot<T>> = [].iter();
        std::iter::from_fn(move || {
            loop {
                if let Some(slot) = slots.next() {
                    return Some(&slot.entry);
                }
                match stack.pop()? {
                    Node::Empty => {}
                    Node::Leaf(leaf) => slots = leaf.iter(),
                    Node::Branch(branch) => stack.extend(&branch.children),
                }
            }
        })
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }
}

impl<T: Keyed + Clone> HashTrie<T> {
    /// Changes the entry of that key, which `new` makes if there is none.
    pub fn upsert(&mut self, key: &[u8], new: impl FnOnce() -> T, edit: impl FnOnce(&mut T)) {
        let hash = self.hash(key);
        upsert(&mut self.root, 0, (hash, key), new, edit);
    }

    /// Changes the entry of that key, if there is one, and drops it if `edit` says that it is empty.
    pub fn update(&mut self, key: &[u8], edit: impl FnOnce(&mut T) -> bool) {
        let hash = self.hash(key);
        if self.get(key).is_some() {
            update(&mut self.root, 0, (hash, key), edit);
        }
    }
}

fn child(hash: u64, shift: u32) -> usize {
    (hash << shift >> (u64::BITS - BITS)) as usize
}

/// The position of the first slot whose hash is not less. All slots share the top `shift` bits, and
/// the rest is even: the estimate is off by one or two.
#[inline]
fn first_at_least<T>(slots: &[Slot<T>], hash: u64, shift: u32) -> usize {
    let estimate = (u128::from(hash << shift) * slots.len() as u128) >> u64::BITS;
    let mut at = estimate as usize;
    while at > 0 && slots[at - 1].hash >= hash {
        at -= 1;
    }
    while at < slots.len() && slots[at].hash < hash {
        at += 1;
    }
    at
}

fn position<T: Keyed>(slots: &[Slot<T>], shift: u32, (hash, key): (u64, &[u8])) -> Option<usize> {
    let first = first_at_least(slots, hash, shift);
    slots[first..]
        .iter()
        .take_while(|slot| slot.hash == hash)
        .position(|slot| slot.entry.key() == key)
        .map(|offset| first + offset)
}

/// Says whether an entry was added.
fn upsert<T: Keyed + Clone>(
    node: &mut Node<T>,
    shift: u32,
    (hash, key): (u64, &[u8]),
    new: impl FnOnce() -> T,
    edit: impl FnOnce(&mut T),
) -> bool {
    match node {
        Node::Empty => {
            *node = Node::Leaf(Arc::new([slot(hash, new, edit)]));
            true
        }
        Node::Branch(branch) => {
            let branch = Arc::make_mut(branch);
            let below = &mut branch.children[child(hash, shift)];
            let added = upsert(below, shift + BITS, (hash, key), new, edit);
            branch.len += usize::from(added);
            added
        }
        Node::Leaf(slots) => {
            if let Some(at) = position(slots, shift, (hash, key)) {
                edit(&mut Arc::make_mut(slots)[at].entry);
                return false;
            }
            let at = first_at_least(slots, hash, shift);
            let made = slot(hash, new, edit);
            let (before, after) = slots.split_at(at);
            let all = before
                .iter()
                .cloned()
                .chain([made])
                .chain(after.iter().cloned());
            *slots = all.collect();
            if slots.len() > LEAF_MAX && shift < LAST_SHIFT {
                *node = split(slots, shift);
            }
            true
        }
    }
}

fn slot<T>(hash: u64, new: impl FnOnce() -> T, edit: impl FnOnce(&mut T)) -> Slot<T> {
    let mut entry = new();
    edit(&mut entry);
    Slot { hash, entry }
}

fn split<T: Clone>(slots: &[Slot<T>], shift: u32) -> Node<T> {
    let mut children = [const { Node::Empty }; FAN_OUT];
    for run in slots.chunk_by(|a, b| child(a.hash, shift) == child(b.hash, shift)) {
        children[child(run[0].hash, shift)] = Node::Leaf(run.into());
    }
    Node::Branch(Arc::new(Branch {
        len: slots.len(),
        children,
    }))
}

/// Says whether the entry was dropped. The key is there.
fn update<T: Keyed + Clone>(
    node: &mut Node<T>,
    shift: u32,
    (hash, key): (u64, &[u8]),
    edit: impl FnOnce(&mut T) -> bool,
) -> bool {
    match node {
        Node::Empty => false,
        Node::Branch(shared) => {
            let branch = Arc::make_mut(shared);
            let below = &mut branch.children[child(hash, shift)];
            let dropped = update(below, shift + BITS, (hash, key), edit);
            branch.len -= usize::from(dropped);
            if dropped && branch.len <= MERGE_AT {
                let merged = merge(branch);
                *node = Node::Leaf(merged);
            }
            dropped
        }
        Node::Leaf(slots) => {
            let Some(at) = position(slots, shift, (hash, key)) else {
                return false;
            };
            let dropped = edit(&mut Arc::make_mut(slots)[at].entry);
            if dropped {
                *node = without(slots, at..at + 1);
            }
            dropped
        }
    }
}

fn without<T: Clone>(slots: &[Slot<T>], gone: Range<usize>) -> Node<T> {
    if gone.len() == slots.len() {
        return Node::Empty;
    }
    let (before, after) = (&slots[..gone.start], &slots[gone.end..]);
    Node::Leaf(before.iter().chain(after).cloned().collect())
}

/// The entries of all children; they stand in the order of their hashes.
fn merge<T: Clone>(branch: &Branch<T>) -> Arc<[Slot<T>]> {
    fn gather<T: Clone>(node: &Node<T>, into: &mut Vec<Slot<T>>) {
        match node {
            Node::Empty => {}
            Node::Leaf(slots) => into.extend_from_slice(slots),
            Node::Branch(branch) => branch.children.iter().for_each(|each| gather(each, into)),
        }
    }
    let mut all = Vec::with_capacity(branch.len);
    branch
        .children
        .iter()
        .for_each(|each| gather(each, &mut all));
    all.into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Pair(Vec<u8>, u32);

    impl Keyed for Pair {
        fn key(&self) -> &[u8] {
            &self.0
        }
    }

    fn set(trie: &mut HashTrie<Pair>, key: u16, value: u32) {
        let key = key.to_be_bytes();
        trie.upsert(&key, || Pair(key.to_vec(), 0), |pair| pair.1 = value);
    }

    fn contents(trie: &HashTrie<Pair>) -> BTreeMap<Vec<u8>, u32> {
        trie.iter().map(|pair| (pair.0.clone(), pair.1)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(50))]

        #[test]
        fn it_agrees_with_an_ordered_map_and_older_versions_stay(
            steps in prop::collection::vec((0u16..600, any::<u32>(), 0u8..3), 1..1500),
        ) {
            let mut trie = HashTrie::default();
            let mut model = BTreeMap::new();
            let mut older = None;
            for (i, (key, value, kind)) in steps.iter().enumerate() {
                if i == steps.len() / 2 {
                    older = Some((trie.clone(), model.clone()));
                }
                let bytes = key.to_be_bytes();
                if *kind == 0 {
                    trie.update(&bytes, |_| true);
                    model.remove(&bytes[..]);
                } else {
                    set(&mut trie, *key, *value);
                    model.insert(bytes.to_vec(), *value);
                }
            }
            prop_assert_eq!(contents(&trie), model.clone());
            for (key, value) in &model {
                prop_assert_eq!(trie.get(key).map(|pair| pair.1), Some(*value));
            }
            prop_assert!(trie.get(b"absent").is_none());
            let (trie, model) = older.expect("half-way");
            prop_assert_eq!(contents(&trie), model);
        }
    }

    #[test]
    fn it_is_empty_again_after_many_splits() {
        let mut trie = HashTrie::default();
        for key in 0..20_000 {
            set(&mut trie, key, u32::from(key));
        }
        assert!((0..20_000u16).all(|key| trie.get(&key.to_be_bytes()).is_some()));
        for key in 0..20_000u16 {
            trie.update(&key.to_be_bytes(), |_| true);
        }
        assert!(trie.is_empty());
    }

    #[test]
    fn equal_hashes_stay_in_one_leaf() {
        let mut node = Node::Empty;
        for key in 0..200u16 {
            let key = key.to_be_bytes();
            upsert(&mut node, 0, (7, &key), || Pair(key.to_vec(), 0), |_| {});
        }
        let trie = HashTrie {
            root: node,
            hasher: RandomState::default(),
        };
        assert_eq!(trie.iter().count(), 200);
    }
}
