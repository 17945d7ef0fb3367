//! Source policies as prefixes: any number of allow and deny lists, in any overlap, become a set of
//! prefixes of which the longest that covers a source tells the outcome.
//!
//! Every prefix that a list names is a boundary. Whatever lists cover a source also cover the longest boundary
//! that does, so the outcome at that boundary is the outcome for the source.

use std::collections::BTreeMap;

use gateway_model::ir::SourcePolicy;
use ipnet::IpNet;

/// What becomes of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Some policy permits it.
    Permitted,
    /// None does, and one denies it.
    Denied,
    /// None does, and it is on no allow list.
    NotAllowed,
}

/// A prefix of addresses; IPv4 stands in its IPv4-mapped form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// The first address, from the most significant bit on.
    pub address: u128,
    /// 0-128.
    pub bits: u32,
}

/// Compiled policies.
#[derive(Debug)]
pub struct Compiled {
    /// The outcome by the longest prefix.
    pub prefixes: Vec<(Prefix, Outcome)>,
    /// The outcome where none covers.
    pub otherwise: Outcome,
}

/// All of IPv4 in its mapped form.
const IPV4: Prefix = Prefix {
    address: 0xffff_0000_0000,
    bits: 96,
};

impl Prefix {
    fn of(net: IpNet) -> Self {
        match net.trunc() {
            IpNet::V4(v4) => Self {
                address: v4.network().to_ipv6_mapped().to_bits(),
                bits: 96 + u32::from(v4.prefix_len()),
            },
            IpNet::V6(v6) => Self {
                address: v6.network().to_bits(),
                bits: u32::from(v6.prefix_len()),
            },
        }
    }

    fn covers(self, other: Self) -> bool {
        let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
        self.bits <= other.bits && other.address & mask == self.address
    }
}

/// Whether everyone is permitted: there is no policy, or one without lists.
pub fn is_open(policies: &[SourcePolicy]) -> bool {
    policies.is_empty()
        || policies
            .iter()
            .any(|p| p.allow.is_empty() && p.deny.is_empty())
}

/// Compiles policies; a source is permitted if one of them permits it.
pub fn compile(policies: &[SourcePolicy]) -> Compiled {
    if is_open(policies) {
        return Compiled {
            prefixes: Vec::new(),
            otherwise: Outcome::Permitted,
        };
    }
    let mut boundaries: BTreeMap<Prefix, Vec<Mark>> = BTreeMap::new();
    for (policy, source) in policies.iter().enumerate() {
        for (nets, denies) in [(&source.deny, true), (&source.allow, false)] {
            for net in nets {
                boundaries
                    .entry(Prefix::of(*net))
                    .or_default()
                    .push(Mark { policy, denies });
            }
        }
    }
    // A list of IPv6 prefixes says nothing about IPv4, in whose mapped form ::/0 would cover it.
    boundaries.entry(IPV4).or_default();
    let empty = Tally::new(policies);
    let otherwise = empty.outcome();
    Compiled {
        prefixes: sweep(&boundaries, &empty),
        otherwise,
    }
}

/// A list of one policy names this prefix.
struct Mark {
    policy: usize,
    denies: bool,
}

/// For each policy, whether what was seen on the way from the root denies or allows.
#[derive(Clone)]
struct Tally(Vec<Seen>);

#[derive(Clone)]
struct Seen {
    denied: bool,
    allowed: bool,
}

impl Tally {
    fn new(policies: &[SourcePolicy]) -> Self {
        let seen = |policy: &SourcePolicy| Seen {
            denied: false,
            allowed: policy.allow.is_empty(),
        };
        Self(policies.iter().map(seen).collect())
    }

    fn with(&self, marks: &[Mark]) -> Self {
        let mut tally = self.clone();
        for mark in marks {
            let seen = &mut tally.0[mark.policy];
            if mark.denies {
                seen.denied = true;
            } else {
                seen.allowed = true;
            }
        }
        tally
    }

    fn outcome(&self) -> Outcome {
        if self.0.iter().any(|seen| seen.allowed && !seen.denied) {
            Outcome::Permitted
        } else if self.0.iter().any(|seen| seen.denied) {
            Outcome::Denied
        } else {
            Outcome::NotAllowed
        }
    }
}

/// Walks the boundaries in order, parents before children, with the stack of those that cover the next one.
fn sweep(boundaries: &BTreeMap<Prefix, Vec<Mark>>, empty: &Tally) -> Vec<(Prefix, Outcome)> {
    let mut stack: Vec<(Prefix, Tally)> = Vec::new();
    let mut compiled = Vec::with_capacity(boundaries.len());
    for (prefix, marks) in boundaries {
        while stack
            .last()
            .is_some_and(|(parent, _)| !parent.covers(*prefix))
        {
            stack.pop();
        }
        let inherited = match stack.last() {
            Some((_, tally)) if *prefix != IPV4 => tally,
            _ => empty,
        };
        let tally = inherited.with(marks);
        compiled.push((*prefix, tally.outcome()));
        stack.push((*prefix, tally));
    }
    compiled
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn policy(allow: &[&str], deny: &[&str]) -> SourcePolicy {
        let nets = |texts: &[&str]| {
            texts
                .iter()
                .map(|t| t.parse().expect("a network"))
                .collect()
        };
        SourcePolicy {
            allow: nets(allow),
            deny: nets(deny),
        }
    }

    fn outcome(compiled: &Compiled, source: IpAddr) -> Outcome {
        let address = match source {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
            IpAddr::V6(v6) => v6.to_bits(),
        };
        let source = Prefix { address, bits: 128 };
        let covering = compiled
            .prefixes
            .iter()
            .filter(|(prefix, _)| prefix.covers(source));
        covering
            .max_by_key(|(prefix, _)| prefix.bits)
            .map_or(compiled.otherwise, |(_, outcome)| *outcome)
    }

    /// Every combination of a few nested networks, against the definition.
    #[test]
    fn longest_prefix_agrees_with_the_lists() {
        let nets = [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "10.1.0.0/16",
            "10.1.2.3/32",
            "::/0",
            "2001:db8::/32",
            "2001:db8:1::/48",
        ];
        let sources = [
            "10.1.2.3",
            "10.1.2.4",
            "10.2.0.1",
            "192.0.2.1",
            "2001:db8:1::1",
            "2001:db8::1",
            "2001::1",
            "::1",
        ];
        let subsets: Vec<Vec<&str>> = (0..1_u32 << nets.len())
            .step_by(3)
            .map(|mask| {
                nets.iter()
                    .enumerate()
                    .filter(|(i, _)| mask & (1 << i) != 0)
                    .map(|(_, n)| *n)
                    .collect()
            })
            .collect();
        for allow in &subsets {
            for deny in &subsets {
                let policies = [policy(allow, deny), policy(deny, &["10.1.2.3/32", "::/1"])];
                let compiled = compile(&policies);
                for source in sources {
                    let source: IpAddr = source.parse().expect("an address");
                    let permitted = policies.iter().any(|p| p.permits(source));
                    let said = outcome(&compiled, source) == Outcome::Permitted;
                    assert_eq!(said, permitted, "{source} with {policies:?}");
                }
            }
        }
    }

    #[test]
    fn a_deny_list_is_told_from_a_missing_permission() {
        let compiled = compile(&[policy(&["10.0.0.0/8"], &["10.9.0.0/16"])]);
        let of = |source: &str| outcome(&compiled, source.parse().expect("an address"));
        assert_eq!(of("10.1.1.1"), Outcome::Permitted);
        assert_eq!(of("10.9.1.1"), Outcome::Denied);
        assert_eq!(of("192.0.2.1"), Outcome::NotAllowed);
        assert_eq!(of("2001:db8::1"), Outcome::NotAllowed);
    }

    #[test]
    fn a_mapped_prefix_is_an_ipv4_prefix() {
        let compiled = compile(&[policy(&[], &["::ffff:10.0.0.0/104"])]);
        assert_eq!(
            outcome(&compiled, "10.1.1.1".parse().expect("an address")),
            Outcome::Denied
        );
    }
}
