//! The nodes as the status writer sees them: who lives, how far each is, what fails where.
//!
//! Nobody is judged by what could not be seen. While the API server is away time stands still here,
//! and whoever is seen again, or by a new writer for the first time, has the whole of its Lease
//! to give a sign of life. After the API server was away nodes come back one after the other, for the
//! way to it leads over kube-proxy, which tries again after a minute at most: until then a node that
//! is silent is late, not gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use gateway_model::failure::Failure;
use gateway_model::names::ListenerKey;

use super::lease::{Lease, Sighting};
use super::node::{NodeReport, Pace, REPORT};
use crate::source::Position;

/// How long after the API server came back a node's silence says nothing. Client-go, and so
/// kube-proxy, waits 30 s and as much again at random between two tries.
pub const EXCUSED: Duration = Duration::from_mins(1);
/// Nodes that a message names.
const NAMED: usize = 5;

/// Every other node that reports. The own one needs no Lease: what it has applied is known here.
#[derive(Debug, Default)]
pub struct Fleet {
    own: String,
    nodes: BTreeMap<String, Node>,
    /// Since when they are followed without a break; none while they are not.
    followed_since: Option<Instant>,
    /// Up to when it is known what happened: a little longer than something was heard, for if
    /// anything had happened it would have been heard.
    known_until: Option<Instant>,
    /// Until when nobody is gone for being silent.
    excused_until: Option<Instant>,
}

#[derive(Debug)]
struct Node {
    sighting: Sighting,
    report: NodeReport,
}

impl Node {
    fn name(&self) -> &str {
        match self.sighting.lease.holder.as_str() {
            "" => &self.sighting.lease.name,
            holder => holder,
        }
    }
}

impl Fleet {
    /// Knows nobody yet. `own` is the name of the own Lease.
    pub fn new(own: String) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    /// These are all Leases of nodes. What was seen of them before the list is long ago.
    pub fn replace(&mut self, leases: Vec<Lease>, now: Instant) {
        let names: BTreeSet<_> = leases.iter().map(|lease| lease.name.clone()).collect();
        self.nodes.retain(|name, _| names.contains(name));
        for node in self.nodes.values_mut() {
            node.sighting.at = now;
        }
        for lease in leases {
            self.see(lease, now);
        }
        self.followed_since.get_or_insert(now);
        self.heard(now);
    }

    /// Something was heard of the Leases, be it only that nothing has changed.
    pub fn heard(&mut self, now: Instant) {
        if self.followed_since.is_some() {
            // Live nodes, this one among them, are heard of more often than that.
            self.known_until = Some(now + self.pace(now).renewal() * 3 / 2);
        }
    }

    /// Nothing can be heard until all of them are listed again.
    pub fn lost(&mut self, now: Instant) {
        self.followed_since = None;
        self.known_until = Some(self.clock(now));
    }

    /// One Lease is new or changed.
    pub fn see(&mut self, lease: Lease, now: Instant) {
        if lease.name == self.own {
            return;
        }
        match self.nodes.get_mut(&lease.name) {
            Some(node) if node.sighting.lease == lease => {}
            Some(node) => {
                if node.sighting.lease.annotation(REPORT) != lease.annotation(REPORT) {
                    node.report = report(&lease);
                }
                node.sighting = Sighting { lease, at: now };
            }
            None => {
                let node = Node {
                    report: report(&lease),
                    sighting: Sighting { lease, at: now },
                };
                self.nodes.insert(node.sighting.lease.name.clone(), node);
            }
        }
    }

    /// One Lease is gone: its Pod is.
    pub fn gone(&mut self, name: &str) {
        self.nodes.remove(name);
    }

    /// Until that moment a silent node is late, not gone.
    pub fn excuse(&mut self, until: Option<Instant>) {
        self.excused_until = until;
    }

    /// Whether all of them are known; before that nothing is confirmed.
    pub fn is_followed(&self) -> bool {
        self.followed_since.is_some()
    }

    /// The latest moment that anybody can be judged by.
    pub fn clock(&self, now: Instant) -> Instant {
        self.known_until.map_or(now, |until| until.min(now))
    }

    /// When a node that has not confirmed a change since then lags, as far as that can be known
    /// without hearing more.
    pub fn patience_ends(&self, since: Instant, now: Instant) -> Option<Instant> {
        let pace = self.pace(now);
        let settled = self.followed_since? + pace.lease();
        let ends = settled.max(since + pace.patience());
        self.known_until
            .is_none_or(|until| ends <= until)
            .then_some(ends)
    }

    /// How often they may speak: the own node is one of them.
    pub fn pace(&self, now: Instant) -> Pace {
        Pace::of(self.live(now).count() + 1)
    }

    /// When the next node will be stale, if no more is heard.
    pub fn stale_next(&self, now: Instant) -> Option<Instant> {
        let next = self.live(now).map(|node| self.gone_at(node));
        next.min()
            .filter(|at| self.known_until.is_none_or(|until| *at <= until))
    }

    /// Nodes that live, and nodes that do not but have not been taken away.
    pub fn counts(&self, now: Instant) -> (usize, usize) {
        let live = self.live(now).count();
        (live + 1, self.nodes.len() - live)
    }

    /// The live nodes that have not come so far, as a message names them; none if all have.
    pub fn lagging(&self, needed: &Position, now: Instant) -> Option<String> {
        let lagging: BTreeSet<_> = self
            .live(now)
            .filter(|node| !node.report.position.reaches(needed))
            .map(Node::name)
            .collect();
        if lagging.is_empty() {
            return None;
        }
        let named: Vec<_> = lagging.iter().take(NAMED).copied().collect();
        let rest = match lagging.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!("{}{rest}", named.join(", ")))
    }

    /// Whether every live node has come so far.
    pub fn has_reached(&self, needed: &Position, now: Instant) -> bool {
        self.live(now)
            .all(|node| node.report.position.reaches(needed))
    }

    /// What fails on any live node, in words: `own` is what fails here, on the node of that name. That a
    /// node does not have an address says nothing of the others.
    pub fn failures(
        &self,
        own: &BTreeMap<ListenerKey, Failure>,
        own_node: &str,
        now: Instant,
    ) -> BTreeMap<ListenerKey, Failure> {
        let texts_of_own = own.iter().map(|(key, failure)| (key, failure.to_string()));
        let texts_of_own: Vec<_> = texts_of_own.collect();
        let mut by_reason: BTreeMap<&ListenerKey, BTreeMap<&str, BTreeSet<&str>>> = BTreeMap::new();
        let theirs = self.live(now).flat_map(|node| {
            let failures = node.report.failures.iter();
            failures.map(|failure| (&failure.listener, failure.reason.as_str(), node.name()))
        });
        let ours = texts_of_own.iter();
        let ours = ours.map(|(listener, reason)| (*listener, reason.as_str(), own_node));
        for (listener, reason, node) in theirs.chain(ours) {
            let reasons = by_reason.entry(listener).or_default();
            reasons.entry(reason).or_default().insert(node);
        }
        let text = |reasons: BTreeMap<&str, BTreeSet<&str>>| {
            let each = reasons.into_iter().map(|(reason, nodes)| {
                let nodes: Vec<_> = nodes.into_iter().take(NAMED).collect();
                format!("on {}: {reason}", nodes.join(", "))
            });
            each.collect::<Vec<_>>().join("; ")
        };
        let texts = by_reason.into_iter();
        texts
            .map(|(listener, reasons)| (listener.clone(), Failure::of_all(text(reasons))))
            .collect()
    }

    fn live(&self, now: Instant) -> impl Iterator<Item = &Node> {
        let now = self.clock(now);
        let nodes = self.nodes.values();
        nodes.filter(move |node| now < self.gone_at(node))
    }

    fn gone_at(&self, node: &Node) -> Instant {
        let stale = node.sighting.stale_at();
        self.excused_until.map_or(stale, |until| until.max(stale))
    }
}

fn report(lease: &Lease) -> NodeReport {
    let annotation = lease.annotation(REPORT);
    annotation.map(NodeReport::parse).unwrap_or_default()
}

#[cfg(test)]
mod tests;
