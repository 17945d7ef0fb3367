//! The route table of one listener: from a request head to the first rule that matches.

pub(crate) mod matcher;

use std::sync::Arc;

use crate::head::Head;
use crate::names::Hostname;
use crate::snapshot::Found;
use matcher::CompiledMatch;

/// All matches of one listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTable {
    /// Most specific host first; within one, in the order of matches.
    hosts: Vec<(Option<Hostname>, Vec<Arc<CompiledMatch>>)>,
}

impl RouteTable {
    /// Adds a match under a hostname; none stands for every host.
    pub fn insert(&mut self, host: Option<&Hostname>, added: &Arc<CompiledMatch>) {
        let at = self
            .hosts
            .partition_point(|(h, _)| rank(h.as_ref()) < rank(host));
        if self.hosts.get(at).is_none_or(|(h, _)| h.as_ref() != host) {
            self.hosts.insert(at, (host.cloned(), Vec::new()));
        }
        let matches = &mut self.hosts[at].1;
        let at = matches.partition_point(|m| m.order() < added.order());
        matches.insert(at, Arc::clone(added));
    }

    /// Takes a match out again.
    pub fn remove(&mut self, host: Option<&Hostname>, removed: &Arc<CompiledMatch>) {
        for (name, matches) in &mut self.hosts {
            if name.as_ref() == host {
                matches.retain(|m| !Arc::ptr_eq(m, removed));
            }
        }
        self.hosts.retain(|(_, matches)| !matches.is_empty());
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The first rule that matches.
    pub fn find<H: Head>(&self, head: &H) -> Option<Found<'_>> {
        let host = head.host();
        self.hosts
            .iter()
            .filter(|(name, _)| name.as_ref().is_none_or(|name| name.matches(host)))
            .flat_map(|(_, matches)| matches)
            .find_map(|m| {
                m.covers(head).map(|prefix_len| Found {
                    rule: &m.rule,
                    prefix_len,
                })
            })
    }
}

fn rank(host: Option<&Hostname>) -> (u8, std::cmp::Reverse<usize>, &str) {
    let class = match host {
        Some(name) if name.wildcard_suffix().is_none() => 0,
        Some(_) => 1,
        None => 2,
    };
    let name = host.map_or("", Hostname::as_str);
    (class, std::cmp::Reverse(name.len()), name)
}
