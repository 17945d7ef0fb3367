//! The route table of one listener: from a request head to the first rule that matches.
//!
//! Hostnames by hash, then paths by hash ([`path_index`]). Everything is persistent: a clone of a
//! table shares all of it, and a change of one match copies what lies on the way to it.

mod candidate;
pub(crate) mod hash_trie;
pub(crate) mod host;
mod inline_str;
mod lengths;
pub(crate) mod matcher;
mod path_index;
mod regex_list;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use memchr::memchr_iter;

use crate::head::Head;
use crate::names::Hostname;
use crate::snapshot::Found;
use hash_trie::HashTrie;
use host::HostRules;
use lengths::Lengths;
use matcher::CompiledMatch;

/// All matches of one listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct RouteTable {
    /// By exact name, and by the suffix of a wildcard, which begins with a dot.
    hosts: HashTrie<HostRules>,
    /// The lengths of the wildcards' suffixes.
    wildcards: Lengths,
    /// Matches of routes without hostname.
    any: Option<Arc<HostRules>>,
}

impl RouteTable {
    /// Adds a match under a hostname; none stands for every host.
    pub fn insert(&mut self, host: Option<&Hostname>, added: &Arc<CompiledMatch>) {
        let Some(host) = host else {
            let any = self.any.get_or_insert_with(|| Arc::new(HostRules::new("")));
            Arc::make_mut(any).insert(added);
            return;
        };
        if let Some(suffix) = host.wildcard_suffix() {
            self.wildcards.add(suffix.len(), [0; 5]);
        }
        let key = key(host);
        let new = || HostRules::new(key);
        self.hosts
            .upsert(key.as_bytes(), new, |rules| rules.insert(added));
    }

    /// Puts a match in the place of one with the same conditions and order.
    pub fn replace(
        &mut self,
        host: Option<&Hostname>,
        old: &Arc<CompiledMatch>,
        new: &Arc<CompiledMatch>,
    ) {
        match (host, &mut self.any) {
            (Some(host), _) => self.hosts.update(key(host).as_bytes(), |rules| {
                rules.replace(old, new);
                false
            }),
            (None, Some(any)) => Arc::make_mut(any).replace(old, new),
            (None, None) => {}
        }
    }

    /// Takes a match out again. It must be there.
    pub fn remove(&mut self, host: Option<&Hostname>, removed: &Arc<CompiledMatch>) {
        let Some(host) = host else {
            if let Some(any) = &mut self.any {
                Arc::make_mut(any).remove(removed);
            }
            self.any.take_if(|any| any.is_empty());
            return;
        };
        if let Some(suffix) = host.wildcard_suffix() {
            self.wildcards.remove(suffix.len());
        }
        self.hosts.update(key(host).as_bytes(), |rules| {
            rules.remove(removed);
            rules.is_empty()
        });
    }

    /// Prepares what a lookup under this hostname is faster with; after all changes to it.
    pub fn seal(&self, host: Option<&Hostname>) {
        let rules = match host {
            Some(host) => self.hosts.get(key(host).as_bytes()),
            None => self.any.as_deref(),
        };
        if let Some(rules) = rules {
            rules.seal();
        }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.any.is_none()
    }

    /// The first rule that matches.
    pub fn find<H: Head>(&self, head: &H) -> Option<Found<'_>> {
        self.exact(head.host())
            .and_then(|rules| rules.find(head))
            .or_else(|| self.find_less_specific(head))
    }

    /// The hostnames that cover this host, most specific first.
    pub fn hosts_for(&self, host: &str) -> impl Iterator<Item = &HostRules> {
        self.exact(host)
            .into_iter()
            .chain(self.wildcards_for(host))
            .chain(self.any.as_deref())
    }

    fn find_less_specific<H: Head>(&self, head: &H) -> Option<Found<'_>> {
        let wildcard = match self.wildcards.longest() {
            Some(_) => self
                .wildcards_for(head.host())
                .find_map(|rules| rules.find(head)),
            None => None,
        };
        wildcard.or_else(|| self.any.as_ref()?.find(head))
    }

    #[inline]
    fn exact(&self, host: &str) -> Option<&HostRules> {
        // A name that begins with a dot is no name; it would be found as if it were a wildcard.
        match host.as_bytes() {
            [] | [b'.', ..] => None,
            host => self.hosts.get(host),
        }
    }

    fn wildcards_for(&self, host: &str) -> impl Iterator<Item = &HostRules> {
        memchr_iter(b'.', host.as_bytes())
            .filter(move |&dot| dot > 0 && self.wildcards.contains(host.len() - dot))
            .filter_map(move |dot| self.hosts.get(&host.as_bytes()[dot..]))
    }
}

fn key(host: &Hostname) -> &str {
    host.wildcard_suffix().unwrap_or(host.as_str())
}
