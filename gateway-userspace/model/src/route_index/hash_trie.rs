//! A persistent hash table: a clone shares everything, and a change copies one path from the root.
//!
//! Inner nodes have 64 children, chosen by six bits of the hash from the top. Leaves are small
//! open-addressed tables that hold the entries themselves, at most four fifths full. Beside each leaf
//! stand 64 bits that say which hashes it may hold, and seeds, chosen so that every entry stands in
//! the first place that a lookup tries: a lookup waits for memory once, where the entry is, and
//! mostly not at all if there is none. At 100 000 entries there are two levels of inner nodes, and
//! they stay in the cache. Entries should be as long as a cache line and aligned to it.

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use foldhash::quality::RandomState;

const BITS: u32 = 6;
const FAN_OUT: usize = 1 << BITS;
/// A leaf with more entries is split.
const LEAF_MAX: usize = 48;
/// So many groups of a leaf's entries have a seed of their own: what fits beside a node's kind.
const GROUPS: usize = 7;
/// A branch with so few entries becomes a leaf again; far below `LEAF_MAX`, so that a table does
/// not split and merge in turn.
const MERGE_AT: usize = 16;
/// Below this many unused bits a leaf is not split any more: so many equal bits are equal hashes.
const LAST_SHIFT: u32 = 48;

/// The places of a leaf with so many entries: at least one is free.
const fn places_for(entries: usize) -> usize {
    entries + entries / 4 + 1
}

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
    /// With at least one entry. `seen` has the bit of every entry's hash: [`bit`].
    Leaf {
        seeds: Seeds,
        seen: u64,
        places: Arc<[Option<T>]>,
    },
    Branch(Arc<Branch<T>>),
}

const _: () = assert!(size_of::<Node<u64>>() == 32);

/// What decides over the first places of a leaf's entries, one for each [`group`].
type Seeds = [u8; GROUPS];

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
            Node::Leaf {
                seeds,
                seen,
                places,
            } if seen & bit(hash) != 0 => places[position(seeds, places, hash, key)?].as_ref(),
            _ => None,
        }
    }

    /// Every entry, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let mut stack = vec![&self.root];
        let mut places: std::slice::Iter<'_, Option<T>> = [].iter();
        let all = std::iter::from_fn(move || {
            loop {
                if let Some(place) = places.next() {
                    return Some(place);
                }
                match stack.pop()? {
                    Node::Empty => {}
                    Node::Leaf { places: leaf, .. } => places = leaf.iter(),
                    Node::Branch(branch) => stack.extend(&branch.children),
                }
            }
        });
        all.flatten()
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

#[inline]
fn hash<T: Keyed>(hasher: &RandomState, key: &T::Key) -> u64 {
    let mut hasher = hasher.build_hasher();
    T::write(key, &mut hasher);
    hasher.finish()
}

fn child(hash: u64, shift: u32) -> usize {
    (hash << shift >> (u64::BITS - BITS)) as usize
}

/// One of 64 bits, by the lowest ones of the hash: neither the levels nor the places depend on them.
fn bit(hash: u64) -> u64 {
    1 << (hash & 63)
}

/// Which of a leaf's seeds is for that hash, by bits that no level down to the last uses.
#[inline]
fn group(hash: u64) -> usize {
    ((hash >> 6 & 0xFF) as usize * GROUPS) >> 8
}

/// The place where a lookup begins.
#[inline]
fn first_place(seeds: &Seeds, hash: u64, places: usize) -> usize {
    let seeded = hash ^ u64::from(seeds[group(hash)]) << 24;
    let bits = seeded.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    ((bits * places as u64) >> 32) as usize
}

#[inline]
fn position<T: Keyed>(
    seeds: &Seeds,
    places: &[Option<T>],
    hash: u64,
    key: &T::Key,
) -> Option<usize> {
    let mut at = first_place(seeds, hash, places.len());
    // There are free places, so this ends.
    while let Some(entry) = &places[at] {
        if entry.key() == key {
            return Some(at);
        }
        at = if at + 1 < places.len() { at + 1 } else { 0 };
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
    if let Node::Leaf { seeds, places, .. } = node
        && let Some(at) = position(seeds, places, hash, key)
    {
        Arc::make_mut(places)[at].as_mut().map(edit);
        return false;
    }
    let mut entry = new();
    edit(&mut entry);
    let len = entries(node);
    match node {
        Node::Leaf {
            seeds,
            seen,
            places,
        } if places_for(len + 1) <= places.len()
            && places[first_place(seeds, hash, places.len())].is_none() =>
        {
            *seen |= bit(hash);
            place(seeds, Arc::make_mut(places), hash, entry);
        }
        _ => {
            let mut all = Vec::with_capacity(len + 1);
            gather(std::mem::replace(node, Node::Empty), hasher, &mut all);
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
        Node::Leaf { seeds, places, .. } => position(seeds, places, hash, key).is_some_and(|at| {
            let place = &mut Arc::make_mut(places)[at];
            let dropped = place.as_mut().is_some_and(edit);
            if dropped {
                *place = None;
            }
            dropped
        }),
    };
    if dropped && is_sparse(node) {
        let mut all = Vec::new();
        gather(std::mem::replace(node, Node::Empty), hasher, &mut all);
        *node = build(all, shift);
    }
    dropped
}

/// Whether a node that lost an entry is built anew. A leaf is, for entries that stood behind the
/// lost one would not be found any more.
fn is_sparse<T>(node: &Node<T>) -> bool {
    match node {
        Node::Empty => false,
        Node::Branch(branch) => branch.len <= MERGE_AT,
        Node::Leaf { .. } => true,
    }
}

fn entries<T>(node: &Node<T>) -> usize {
    match node {
        Node::Empty => 0,
        Node::Leaf { places, .. } => places.iter().flatten().count(),
        Node::Branch(branch) => branch.len,
    }
}

/// Every entry with its hash, moved out of what nobody else sees.
fn gather<T: Keyed + Clone>(node: Node<T>, hasher: &RandomState, all: &mut Vec<(u64, T)>) {
    match node {
        Node::Empty => {}
        Node::Leaf { mut places, .. } => {
            let mut add = |entry: T| all.push((hash::<T>(hasher, entry.key()), entry));
            match Arc::get_mut(&mut places) {
                Some(own) => own.iter_mut().filter_map(Option::take).for_each(add),
                None => places.iter().flatten().cloned().for_each(&mut add),
            }
        }
        Node::Branch(branch) => {
            let branch = Arc::unwrap_or_clone(branch);
            branch
                .children
                .into_iter()
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
    // Room for the next few, so that not each of them builds the leaf anew.
    let mut places: Vec<Option<T>> = (0..places_for(len + 2)).map(|_| None).collect();
    let seeds = choose_seeds(all.iter().map(|(hash, _)| *hash), places.len());
    let mut seen = 0;
    for (hash, entry) in all {
        seen |= bit(hash);
        place(&seeds, &mut places, hash, entry);
    }
    Node::Leaf {
        seeds,
        seen,
        places: places.into(),
    }
}

/// Seeds with which every hash has a first place of its own; groups that have none, which is rare,
/// share places.
fn choose_seeds(hashes: impl Iterator<Item = u64>, places: usize) -> Seeds {
    let mut groups = [const { Vec::new() }; GROUPS];
    hashes.for_each(|hash| groups[group(hash)].push(hash));
    let mut order: [usize; GROUPS] = std::array::from_fn(|at| at);
    order.sort_by_key(|&at| std::cmp::Reverse(groups[at].len()));
    let mut seeds = [0; GROUPS];
    let mut taken = vec![false; places];
    let mut own = Vec::new();
    for at in order {
        for seed in 0..=u8::MAX {
            seeds[at] = seed;
            own.clear();
            let fits = groups[at].iter().all(|&hash| {
                let place = first_place(&seeds, hash, places);
                let is_free = !std::mem::replace(&mut taken[place], true);
                own.extend(is_free.then_some(place));
                is_free
            });
            if fits {
                break;
            }
            own.iter().for_each(|&place| taken[place] = false);
        }
    }
    seeds
}

/// Puts an entry into the first free place from its own. There is one.
fn place<T>(seeds: &Seeds, places: &mut [Option<T>], hash: u64, entry: T) {
    let first = first_place(seeds, hash, places.len());
    let (before, from) = places.split_at_mut(first);
    let free = from.iter_mut().chain(before).find(|place| place.is_none());
    if let Some(free) = free {
        *free = Some(entry);
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
    fn almost_all_entries_stand_where_a_lookup_begins() {
        // Leaves are fullest with the first number, and almost as full as they get.
        for entries in [2_700, 20_000] {
            let mut trie = HashTrie::default();
            for key in 0..entries {
                set(&mut trie, key, 0);
            }
            let (mut first, mut stack) = (0, vec![&trie.root]);
            while let Some(node) = stack.pop() {
                match node {
                    Node::Empty => {}
                    Node::Branch(branch) => stack.extend(&branch.children),
                    Node::Leaf { seeds, places, .. } => {
                        let is_first = |(at, place): &(usize, &Option<Pair>)| {
                            place.as_ref().is_some_and(|pair| {
                                let hash = hash::<Pair>(&trie.hasher, pair.key());
                                first_place(seeds, hash, places.len()) == *at
                            })
                        };
                        first += places.iter().enumerate().filter(is_first).count();
                    }
                }
            }
            let wanted = usize::from(entries) * 19 / 20;
            assert!(first > wanted, "only {first} of {entries}");
        }
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
        let Node::Leaf { seeds, places, .. } = node else {
            panic!("somewhere is a leaf")
        };
        let is_there = |key: &[u8]| position(seeds, places, 7, key).is_some();
        assert!((0..200u16).all(|key| is_there(&key.to_be_bytes())));
        assert!(!is_there(b"absent"));
    }
}
