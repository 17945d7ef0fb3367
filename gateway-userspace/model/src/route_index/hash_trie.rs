//! A persistent hash table: a clone shares everything, and a change copies one path from the root.
//!
//! Inner nodes have 64 children, chosen by six bits of the hash from the top. Leaves are small
//! tables of cache lines: seven entries and a byte of each one's hash, so that a lookup reads one
//! line of a leaf and then the entry. At 100 000 entries there are two levels of inner nodes, and
//! they stay in the cache.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;

const BITS: u32 = 6;
const FAN_OUT: usize = 1 << BITS;
/// A leaf with more entries is split.
const LEAF_MAX: usize = 64;
/// A branch with so few entries becomes a leaf again; far below `LEAF_MAX`, so that a table does
/// not split and merge in turn.
const MERGE_AT: usize = 16;
/// Below this many unused bits a leaf is not split any more: so many equal bits are equal hashes.
const LAST_SHIFT: u32 = 48;
/// Entries of a group; with their tags they fill a cache line.
const GROUP: usize = 7;
/// Entries for which a leaf has one more group, so that few groups overflow.
const GROUP_LOAD: usize = 5;

/// What has a key that it is found by.
pub(crate) trait Keyed {
    /// The key's type.
    type Key: Eq + ?Sized;

    /// The key.
    fn key(&self) -> &Self::Key;

    /// Feeds a key to a hasher, all of its bytes.
    fn write(key: &Self::Key, hasher: &mut impl Hasher);
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
    /// With at least one entry.
    Leaf(Arc<[Group<T>]>),
    Branch(Arc<Branch<T>>),
}

#[derive(Clone, Debug)]
struct Branch<T> {
    len: usize,
    children: [Node<T>; FAN_OUT],
}

#[derive(Clone, Debug)]
#[repr(align(64))]
struct Group<T> {
    /// A byte of each entry's hash, 0 where there is none; the last one is not 0 if an entry that
    /// belongs here may be in the next group.
    tags: [u8; GROUP + 1],
    entries: [Option<T>; GROUP],
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
    pub fn get(&self, key: &T::Key) -> Option<&T> {
        let mut node = &self.root;
        if let Node::Empty = node {
            return None;
        }
        let hash = hash::<T>(&self.hasher, key);
        let mut shift = 0;
        while let Node::Branch(branch) = node {
            node = &branch.children[child(hash, shift)];
            shift += BITS;
        }
        match node {
            Node::Leaf(groups) => {
                let (group, at) = position(groups, hash, key)?;
                groups[group].entries[at].as_ref()
            }
            _ => None,
        }
    }

    /// Every entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let mut stack = vec![&self.root];
        let mut groups: std::slice::Iter<'_, Group<T>> = [].iter();
        let per_group = std::iter::from_fn(move || {
            loop {
                if let Some(group) = groups.next() {
                    return Some(group);
                }
                match stack.pop()? {
                    Node::Empty => {}
                    Node::Leaf(leaf) => groups = leaf.iter(),
                    Node::Branch(branch) => stack.extend(&branch.children),
                }
            }
        });
        per_group.flat_map(|group| group.entries.iter().flatten())
    }
}

impl<T: Keyed + Clone> HashTrie<T> {
    /// Changes the entry of that key, which `new` makes if there is none.
    pub fn upsert(&mut self, key: &T::Key, new: impl FnOnce() -> T, edit: impl FnOnce(&mut T)) {
        let hash = hash::<T>(&self.hasher, key);
        upsert(&mut self.root, 0, (hash, key), &self.hasher, new, edit);
    }

    /// Changes the entry of that key, if there is one, and drops it if `edit` says that it is empty.
    pub fn update(&mut self, key: &T::Key, edit: impl FnOnce(&mut T) -> bool) {
        let hash = hash::<T>(&self.hasher, key);
        if self.get(key).is_some() {
            update(&mut self.root, 0, (hash, key), &self.hasher, edit);
        }
    }
}

impl<T> Default for Group<T> {
    fn default() -> Self {
        Self {
            tags: [0; GROUP + 1],
            entries: [const { None }; GROUP],
        }
    }
}

impl<T: Keyed> Group<T> {
    /// Where the entry of that key is.
    #[inline]
    fn position(&self, tag: u8, key: &T::Key) -> Option<usize> {
        // The bytes of `differences` that are 0 get their top bit; a byte above such a one may get
        // it too, and its key then says no.
        let differences = u64::from_le_bytes(self.tags) ^ (u64::from(tag) * LOW_BITS);
        let mut hits = differences.wrapping_sub(LOW_BITS) & !differences & (TOP_BITS >> 8);
        while hits != 0 {
            let at = (hits.trailing_zeros() / 8) as usize;
            if let Some(entry) = &self.entries[at]
                && entry.key() == key
            {
                return Some(at);
            }
            hits &= hits - 1;
        }
        None
    }
}

impl<T> Group<T> {
    fn overflows(&self) -> bool {
        self.tags[GROUP] != 0
    }

    fn len(&self) -> usize {
        self.entries.iter().flatten().count()
    }

    /// Puts the entry into a free place, or gives it back.
    fn put(&mut self, tag: u8, entry: T) -> Result<(), T> {
        match self.entries.iter().position(Option::is_none) {
            Some(at) => {
                self.tags[at] = tag;
                self.entries[at] = Some(entry);
                Ok(())
            }
            None => {
                self.tags[GROUP] = 1;
                Err(entry)
            }
        }
    }
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const TOP_BITS: u64 = LOW_BITS << 7;

#[inline]
fn hash<T: Keyed>(hasher: &RandomState, key: &T::Key) -> u64 {
    let mut hasher = hasher.build_hasher();
    T::write(key, &mut hasher);
    hasher.finish()
}

fn child(hash: u64, shift: u32) -> usize {
    (hash << shift >> (u64::BITS - BITS)) as usize
}

fn tag(hash: u64) -> u8 {
    (hash as u8).max(1)
}

/// Spreads 32 bits of the hash, which neither the tag nor the first levels use, over the groups.
fn first_group(hash: u64, groups: usize) -> usize {
    let bits = (hash >> 8) & 0xFFFF_FFFF;
    ((bits * groups as u64) >> 32) as usize
}

#[inline]
fn position<T: Keyed>(groups: &[Group<T>], hash: u64, key: &T::Key) -> Option<(usize, usize)> {
    let mut group = first_group(hash, groups.len());
    for _ in 0..groups.len() {
        if let Some(at) = groups[group].position(tag(hash), key) {
            return Some((group, at));
        }
        if !groups[group].overflows() {
            return None;
        }
        group = if group + 1 < groups.len() {
            group + 1
        } else {
            0
        };
    }
    None
}

/// Says whether an entry was added.
fn upsert<T: Keyed + Clone>(
    node: &mut Node<T>,
    shift: u32,
    (hash, key): (u64, &T::Key),
    hasher: &RandomState,
    new: impl FnOnce() -> T,
    edit: impl FnOnce(&mut T),
) -> bool {
    if let Node::Branch(branch) = node {
        let branch = Arc::make_mut(branch);
        let below = &mut branch.children[child(hash, shift)];
        let added = upsert(below, shift + BITS, (hash, key), hasher, new, edit);
        branch.len += usize::from(added);
        return added;
    }
    if let Node::Leaf(groups) = node
        && let Some((group, at)) = position(groups, hash, key)
    {
        Arc::make_mut(groups)[group].entries[at].as_mut().map(edit);
        return false;
    }
    let mut entry = new();
    edit(&mut entry);
    let len = entries(node);
    match node {
        Node::Leaf(groups) if len < groups.len() * GROUP_LOAD => {
            place(Arc::make_mut(groups), hash, entry);
        }
        _ => {
            let mut all = Vec::with_capacity(len + 1);
            gather(node, hasher, &mut all);
            all.push((hash, entry));
            *node = build(all, shift);
        }
    }
    true
}

/// Says whether the entry was dropped. The key is there.
fn update<T: Keyed + Clone>(
    node: &mut Node<T>,
    shift: u32,
    (hash, key): (u64, &T::Key),
    hasher: &RandomState,
    edit: impl FnOnce(&mut T) -> bool,
) -> bool {
    let dropped = match node {
        Node::Empty => false,
        Node::Branch(branch) => {
            let branch = Arc::make_mut(branch);
            let below = &mut branch.children[child(hash, shift)];
            let dropped = update(below, shift + BITS, (hash, key), hasher, edit);
            branch.len -= usize::from(dropped);
            dropped
        }
        Node::Leaf(groups) => position(groups, hash, key).is_some_and(|(group, at)| {
            let group = &mut Arc::make_mut(groups)[group];
            let dropped = group.entries[at].as_mut().is_some_and(edit);
            if dropped {
                group.entries[at] = None;
                group.tags[at] = 0;
            }
            dropped
        }),
    };
    if dropped && is_sparse(node) {
        let mut all = Vec::new();
        gather(node, hasher, &mut all);
        *node = build(all, shift);
    }
    dropped
}

fn is_sparse<T>(node: &Node<T>) -> bool {
    match node {
        Node::Empty => false,
        Node::Branch(branch) => branch.len <= MERGE_AT,
        Node::Leaf(groups) => {
            let len = entries(node);
            len == 0 || (groups.len() > 1 && len * 4 <= groups.len() * GROUP_LOAD)
        }
    }
}

fn entries<T>(node: &Node<T>) -> usize {
    match node {
        Node::Empty => 0,
        Node::Leaf(groups) => groups.iter().map(Group::len).sum(),
        Node::Branch(branch) => branch.len,
    }
}

fn gather<T: Keyed + Clone>(node: &Node<T>, hasher: &RandomState, all: &mut Vec<(u64, T)>) {
    match node {
        Node::Empty => {}
        Node::Leaf(groups) => {
            let each = groups
                .iter()
                .flat_map(|group| group.entries.iter().flatten());
            all.extend(each.map(|entry| (hash::<T>(hasher, entry.key()), entry.clone())));
        }
        Node::Branch(branch) => {
            branch
                .children
                .iter()
                .for_each(|each| gather(each, hasher, all));
        }
    }
}

fn build<T>(all: Vec<(u64, T)>, shift: u32) -> Node<T> {
    if all.is_empty() {
        return Node::Empty;
    }
    let len = all.len();
    if len > LEAF_MAX && shift < LAST_SHIFT {
        let mut parts = [const { Vec::new() }; FAN_OUT];
        for (hash, entry) in all {
            parts[child(hash, shift)].push((hash, entry));
        }
        let children = parts.map(|part| build(part, shift + BITS));
        return Node::Branch(Arc::new(Branch { len, children }));
    }
    let groups = len.div_ceil(GROUP_LOAD);
    let mut leaf: Vec<Group<T>> = (0..groups).map(|_| Group::default()).collect();
    for (hash, entry) in all {
        place(&mut leaf, hash, entry);
    }
    Node::Leaf(leaf.into())
}

/// Puts an entry into the first group from its own that has a free place. There is one.
fn place<T>(groups: &mut [Group<T>], hash: u64, mut entry: T) {
    let first = first_group(hash, groups.len());
    for group in (first..groups.len()).chain(0..first) {
        match groups[group].put(tag(hash), entry) {
            Ok(()) => return,
            Err(back) => entry = back,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Pair(Vec<u8>, u32);

    impl Keyed for Pair {
        type Key = [u8];

        fn key(&self) -> &[u8] {
            &self.0
        }

        fn write(key: &[u8], hasher: &mut impl Hasher) {
            hasher.write(key);
        }
    }

    fn set(trie: &mut HashTrie<Pair>, key: u16, value: u32) {
        let key = key.to_be_bytes();
        trie.upsert(&key[..], || Pair(key.to_vec(), 0), |pair| pair.1 = value);
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
                    trie.update(&bytes[..], |_| true);
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
        assert!((0..20_000u16).all(|key| trie.get(&key.to_be_bytes()[..]).is_some()));
        for key in 0..20_000u16 {
            trie.update(&key.to_be_bytes()[..], |_| true);
        }
        assert!(trie.is_empty());
    }

    #[test]
    fn equal_hashes_stay_in_one_leaf() {
        let mut all = Vec::new();
        for key in 0..200u16 {
            let key = key.to_be_bytes();
            all.push((7, Pair(key.to_vec(), 0)));
        }
        let Node::Branch(branch) = build(all, 0) else {
            panic!("more than one leaf holds")
        };
        assert_eq!(branch.len, 200);
        let mut node = &branch.children[0];
        while let Node::Branch(branch) = node {
            node = &branch.children[0];
        }
        let Node::Leaf(groups) = node else {
            panic!("somewhere is a leaf")
        };
        assert!((0..200u16).all(|key| position(groups, 7, &key.to_be_bytes()[..]).is_some()));
        assert!(position(groups, 7, b"absent").is_none());
    }
}
