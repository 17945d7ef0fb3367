//! Upstreams as the request path sees them: dense numbers, and a table in which one change touches one chunk.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::ir::{Endpoints, Upstream, UpstreamProtocol};
use crate::names::{Revision, UpstreamKey};
use crate::route_index::hash_trie::{HashTrie, Keyed};

/// Entries per chunk: one change copies one chunk and the list of chunks.
const CHUNK: usize = 256;

/// The number of an upstream: an index into [`crate::snapshot::Snapshot::upstream`], dense from 0.
///
/// An upstream keeps its number as long as a rule or the IR names it. A number that became free
/// is given to another upstream later; [`CompiledUpstream::since`] tells the two apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UpstreamId(u32);

impl UpstreamId {
    /// The number, for tables of a worker's own.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// One upstream, ready to be dialled.
#[derive(Debug, PartialEq, Eq)]
pub struct CompiledUpstream {
    /// Its number.
    pub id: UpstreamId,
    /// The revision that gave the number to this key. State that a worker keeps by number belongs
    /// to this upstream if and only if this value is the same; a change of endpoints leaves it.
    pub since: Revision,
    /// `namespace/name:port`, for logs and metrics.
    pub label: Arc<str>,
    /// Its endpoints, protocol and key.
    pub upstream: Arc<Upstream>,
}

impl CompiledUpstream {
    /// What it speaks.
    #[must_use]
    pub fn protocol(&self) -> UpstreamProtocol {
        self.upstream.protocol
    }

    /// Where it is.
    #[must_use]
    pub fn endpoints(&self) -> &Endpoints {
        &self.upstream.endpoints
    }
}

type Chunk = [Option<Arc<CompiledUpstream>>];

/// All upstreams by number and by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct UpstreamTable {
    chunks: Arc<Vec<Arc<Chunk>>>,
    slots: HashTrie<Arc<Slot>>,
    free: Arc<Vec<u32>>,
    next: u32,
}

#[derive(Clone, Debug)]
struct Slot {
    key: UpstreamKey,
    id: UpstreamId,
    /// How many routes name it, and one for the IR itself.
    users: u32,
}

impl Keyed for Arc<Slot> {
    type Key = UpstreamKey;

    fn key(&self) -> &UpstreamKey {
        &self.key
    }

    fn write(key: &UpstreamKey, hasher: &mut impl Hasher) {
        key.hash(hasher);
    }
}

impl UpstreamTable {
    /// The upstream of that number.
    pub fn by_id(&self, id: UpstreamId) -> Option<&Arc<CompiledUpstream>> {
        self.chunks
            .get(id.index() / CHUNK)?
            .get(id.index() % CHUNK)?
            .as_ref()
    }

    /// The number of that key.
    pub fn id(&self, key: &UpstreamKey) -> Option<UpstreamId> {
        self.slots.get(key).map(|slot| slot.id)
    }

    /// The upstream of that key.
    pub fn by_key(&self, key: &UpstreamKey) -> Option<&Arc<CompiledUpstream>> {
        self.by_id(self.id(key)?)
    }

    /// Every upstream, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<CompiledUpstream>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// Counts one more user of a key; a key that the IR lacks gets an upstream without endpoints.
    pub fn acquire(&mut self, key: &UpstreamKey, revision: Revision) -> UpstreamId {
        let mut id = None;
        self.slots.update(key, |slot| {
            let slot = Arc::make_mut(slot);
            slot.users += 1;
            id = Some(slot.id);
            false
        });
        id.unwrap_or_else(|| self.add(key, revision))
    }

    /// Counts one user less; without users the number becomes free.
    pub fn release(&mut self, key: &UpstreamKey) {
        let mut vacant = None;
        self.slots.update(key, |slot| {
            let slot = Arc::make_mut(slot);
            slot.users -= 1;
            vacant = (slot.users == 0).then_some(slot.id);
            slot.users == 0
        });
        if let Some(id) = vacant {
            self.put(id, None);
            Arc::make_mut(&mut self.free).push(id.0);
        }
    }

    /// What stands behind a key that has users; nothing means that the IR no longer has it.
    pub fn set(&mut self, key: &UpstreamKey, upstream: Option<&Arc<Upstream>>) {
        let Some(old) = self.by_key(key) else {
            return;
        };
        let upstream = upstream.cloned().unwrap_or_else(|| absent(key));
        let new = compiled(old.id, old.since, Arc::clone(&old.label), upstream);
        self.put(new.id, Some(new));
    }

    fn add(&mut self, key: &UpstreamKey, revision: Revision) -> UpstreamId {
        let id = UpstreamId(self.vacant_number());
        let slot = Slot {
            key: key.clone(),
            id,
            users: 1,
        };
        self.slots.upsert(key, || Arc::new(slot), |_| {});
        let label = key.to_string().into();
        self.put(id, Some(compiled(id, revision, label, absent(key))));
        id
    }

    fn vacant_number(&mut self) -> u32 {
        if !self.free.is_empty()
            && let Some(number) = Arc::make_mut(&mut self.free).pop()
        {
            return number;
        }
        self.next += 1;
        self.next - 1
    }

    fn put(&mut self, id: UpstreamId, upstream: Option<Arc<CompiledUpstream>>) {
        let chunks = Arc::make_mut(&mut self.chunks);
        while chunks.len() <= id.index() / CHUNK {
            chunks.push(vec![None; CHUNK].into());
        }
        let chunk = Arc::make_mut(&mut chunks[id.index() / CHUNK]);
        chunk[id.index() % CHUNK] = upstream;
    }
}

/// What stands for an upstream that is named but not there.
fn absent(key: &UpstreamKey) -> Arc<Upstream> {
    Arc::new(Upstream {
        key: key.clone(),
        protocol: UpstreamProtocol::Http1,
        tls: None,
        endpoints: Endpoints::Addresses(Vec::new()),
    })
}

fn compiled(
    id: UpstreamId,
    since: Revision,
    label: Arc<str>,
    upstream: Arc<Upstream>,
) -> Arc<CompiledUpstream> {
    Arc::new(CompiledUpstream {
        id,
        since,
        label,
        upstream,
    })
}
