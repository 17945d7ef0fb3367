//! All sessions of one worker, and who has to go when there are too many.
//!
//! A source address is a claim: whoever forges them opens as many sessions as it sends datagrams. So a
//! session counts as *proven* only when its client has spoken again after an answer, and a place for a
//! new one is taken from the oldest that is not. Proven sessions go by their idle time alone.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use foldhash::fast::RandomState;

use super::session::{End, Session};
use super::socket::Peers;
use crate::limits::DatagramLimits;

/// The sessions of one worker.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    open: HashMap<Peers, Rc<Session>, RandomState>,
    all: Group,
    by_listener: HashMap<SocketAddr, Group, RandomState>,
    by_source: HashMap<IpAddr, Group, RandomState>,
}

/// Sessions that share a limit.
#[derive(Debug, Default)]
struct Group {
    open: usize,
    /// Those that were not proven when they were opened, oldest first; some have ended or been proven since.
    unproven: VecDeque<Ticket>,
}

/// A session by name.
#[derive(Clone, Copy, Debug)]
struct Ticket {
    peers: Peers,
    id: u64,
}

/// How many sessions one worker may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    all: usize,
    per_listener: usize,
    per_source: usize,
}

impl Shares {
    /// One worker's part: the kernel spreads clients evenly.
    pub(super) fn new(limits: &DatagramLimits, workers: usize) -> Self {
        let share = |limit: usize| limit.div_ceil(workers).max(1);
        Self {
            all: share(limits.sessions),
            per_listener: share(limits.per_listener),
            per_source: share(limits.per_source),
        }
    }
}

impl Sessions {
    pub(super) fn get(&self, peers: &Peers) -> Option<&Rc<Session>> {
        self.open.get(peers)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Rc<Session>> {
        self.open.values()
    }

    /// Makes room for one more session, if there is room or somebody to take it from. Says how many had to go.
    pub(super) fn make_room(
        &mut self,
        listener: SocketAddr,
        source: IpAddr,
        shares: Shares,
    ) -> Option<u64> {
        let mut gone = 0;
        loop {
            let of_source = self.by_source.entry(source).or_default();
            let of_listener = self.by_listener.entry(listener).or_default();
            let full = [
                (of_source, shares.per_source),
                (of_listener, shares.per_listener),
                (&mut self.all, shares.all),
            ];
            let full = full.into_iter().find(|(group, share)| group.open >= *share);
            let Some((group, _)) = full else {
                return Some(gone);
            };
            let Some(oldest) = group.oldest(&self.open) else {
                self.forget_empty(listener, source);
                return None;
            };
            self.remove(&oldest);
            oldest.end(End::Evicted);
            gone += 1;
        }
    }

    /// Adds a session for which there is room.
    pub(super) fn insert(&mut self, session: &Rc<Session>) {
        let ticket = Ticket {
            peers: session.peers,
            id: session.id,
        };
        let open = &self.open;
        self.all.enter(ticket, open);
        let of_listener = self.by_listener.entry(session.listener);
        of_listener.or_default().enter(ticket, open);
        let of_source = self.by_source.entry(session.peers.client.ip());
        of_source.or_default().enter(ticket, open);
        self.open.insert(session.peers, Rc::clone(session));
    }

    /// Takes a session out, unless that has happened already.
    pub(super) fn remove(&mut self, session: &Rc<Session>) {
        let known = self.open.get(&session.peers);
        if !known.is_some_and(|known| Rc::ptr_eq(known, session)) {
            return;
        }
        self.open.remove(&session.peers);
        let (listener, source) = (session.listener, session.peers.client.ip());
        self.all.open -= 1;
        leave(&mut self.by_listener, &listener);
        leave(&mut self.by_source, &source);
        self.forget_empty(listener, source);
    }

    fn forget_empty(&mut self, listener: SocketAddr, source: IpAddr) {
        forget_if_empty(&mut self.by_listener, &listener);
        forget_if_empty(&mut self.by_source, &source);
    }
}

type Groups<K> = HashMap<K, Group, RandomState>;

fn leave<K: Eq + Hash>(groups: &mut Groups<K>, key: &K) {
    if let Some(group) = groups.get_mut(key) {
        group.open -= 1;
    }
}

fn forget_if_empty<K: Eq + Hash>(groups: &mut Groups<K>, key: &K) {
    if groups.get(key).is_some_and(|group| group.open == 0) {
        groups.remove(key);
    }
}

type Open = HashMap<Peers, Rc<Session>, RandomState>;

impl Group {
    fn enter(&mut self, ticket: Ticket, open: &Open) {
        self.open += 1;
        // What has ended meanwhile must not add up.
        if self.unproven.len() > 2 * self.open + 16 {
            self.unproven
                .retain(|ticket| ticket.unproven(open).is_some());
        }
        self.unproven.push_back(ticket);
    }

    /// The oldest session that is not proven.
    fn oldest(&mut self, open: &Open) -> Option<Rc<Session>> {
        while let Some(ticket) = self.unproven.pop_front() {
            if let Some(session) = ticket.unproven(open) {
                return Some(Rc::clone(session));
            }
        }
        None
    }
}

impl Ticket {
    fn unproven<'a>(&self, open: &'a Open) -> Option<&'a Rc<Session>> {
        let session = open.get(&self.peers);
        session.filter(|session| session.id == self.id && !session.is_proven())
    }
}
