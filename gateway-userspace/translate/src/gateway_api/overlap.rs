//! Which TLS listeners of one port share hostnames: found by name, not by comparing all with all.

use std::collections::BTreeMap;

use gateway_model::names::Hostname;

/// Hostnames by number, in the order in which they were given; none means every one.
#[derive(Debug, Default)]
pub(super) struct Overlaps {
    count: usize,
    of_every_host: Vec<usize>,
    /// By [`key`].
    of_name: BTreeMap<String, Vec<usize>>,
}

impl Overlaps {
    /// Adds the next one.
    pub(super) fn push(&mut self, hostname: Option<&Hostname>) {
        match hostname {
            None => self.of_every_host.push(self.count),
            Some(name) => self.of_name.entry(key(name)).or_default().push(self.count),
        }
        self.count += 1;
    }

    /// Those that share a host with this one, itself included, by number.
    pub(super) fn with(&self, hostname: Option<&Hostname>) -> Vec<usize> {
        let Some(hostname) = hostname else {
            return (0..self.count).collect();
        };
        let mut found: Vec<_> = self.named(hostname).copied().collect();
        found.extend(&self.of_every_host);
        found.sort_unstable();
        found
    }

    /// Those with a name, in no order. Looks at no other.
    fn named(&self, hostname: &Hostname) -> impl Iterator<Item = &usize> {
        let own = key(hostname);
        let ends = own.match_indices('.').map(|(dot, _)| dot + 1);
        let above: Vec<&Vec<usize>> = ends
            .filter(|end| *end < own.len())
            .filter_map(|end| self.of_name.get(&own[..end]))
            .collect();
        let is_wildcard = hostname.wildcard_suffix().is_some();
        let below = self.of_name.range(own.clone()..);
        let below = below.take_while(move |(name, _)| match is_wildcard {
            true => name.starts_with(&own),
            false => **name == own,
        });
        let below = below.map(|(_, numbers)| numbers);
        above.into_iter().chain(below).flatten()
    }
}

/// A name backwards, a wildcard without its asterisk: what a wildcard covers, other wildcards
/// included, begins with its key, and only such keys end in a dot.
fn key(hostname: &Hostname) -> String {
    let name = hostname.wildcard_suffix().unwrap_or(hostname.as_str());
    name.chars().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(names: &[&str]) -> (Vec<Option<Hostname>>, Overlaps) {
        let parse = |name: &&str| (!name.is_empty()).then(|| Hostname::parse(name).expect("one"));
        let names: Vec<_> = names.iter().map(parse).collect();
        let mut overlaps = Overlaps::default();
        for name in &names {
            overlaps.push(name.as_ref());
        }
        (names, overlaps)
    }

    #[test]
    fn what_is_found_is_what_comparing_all_with_all_finds() {
        let (names, overlaps) = index(&[
            "a.example.com",
            "*.example.com",
            "b.a.example.com",
            "*.a.example.com",
            "",
            "example.com",
            "badexample.com",
            "*.com",
            "a.example.org",
            "a.example.com",
            "*.example.com",
            "",
        ]);
        for one in &names {
            let all = names
                .iter()
                .enumerate()
                .filter(|(_, other)| match (one, other) {
                    (Some(a), Some(b)) => a.intersects(b),
                    _ => true,
                });
            let all: Vec<_> = all.map(|(number, _)| number).collect();
            assert_eq!(overlaps.with(one.as_ref()), all, "{one:?}");
        }
    }

    #[test]
    fn what_does_not_overlap_is_not_looked_at() {
        let many: Vec<String> = (0..5_000).map(|n| format!("n{n}.example.com")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        many.push("*.example.com");
        let (names, overlaps) = index(&many);
        let looked_at = |name: &Option<Hostname>| overlaps.named(name.as_ref()?).count().into();
        let counts: Vec<usize> = names.iter().filter_map(looked_at).collect();
        assert!(
            counts[..5_000].iter().all(|count| *count == 2),
            "itself and the wildcard"
        );
        assert_eq!(counts[5_000], 5_001);
    }
}
