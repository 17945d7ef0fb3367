//! From a plan to table entries: pure, so that it is tested without a kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;

use gateway_common::frontend::{ANY_ADDRESS, ANY_PORT, Address, MODE_PROXY, NO_POLICY, mapped};
use gateway_common::maps::{FRONTEND_SLOTS, POLICIES_MAX};
use gateway_common::policy::POLICY_FIXED_BITS;
use gateway_common::{FrontendKey, FrontendValue, PolicyKey, Reason};
use gateway_model::ir::SourcePolicy;
use gateway_model::l4_plan::{Frontend, L4Plan, Transport};

use crate::L4Error;
use crate::policy;

/// The content of one half of the tables; `half` is 0 in every key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub frontends: BTreeMap<FrontendKey, FrontendValue>,
    pub policies: BTreeMap<(u32, PolicyKey), u32>,
}

impl Tables {
    /// Builds the tables of a plan. Frontends that `before` has keep their slots. `whole` are the
    /// addresses that nothing but Sluice answers on, for which fragments without ports can be judged, as far as there
    /// is room. `dials` are the ports that the kernel chooses for connections of the node's own.
    pub fn build(
        plan: &L4Plan,
        whole: &BTreeSet<IpAddr>,
        dials: &RangeInclusive<u16>,
        before: &Self,
    ) -> Result<Self, L4Error> {
        let mut wanted: BTreeMap<FrontendKey, Entry> = BTreeMap::new();
        for (frontend, policies) in &plan.frontends {
            let key = key(frontend);
            let entry = wanted.entry(key).or_default();
            entry.add(policies);
            // The kernel does not choose an address that is Sluice's alone, nor a port that a UDP socket has.
            entry.dials = key.address == ANY_ADDRESS
                && frontend.transport == Transport::Tcp
                && dials.contains(&frontend.port);
        }
        check_limit("frontends", wanted.len(), FRONTEND_SLOTS as usize)?;
        // They spare work, and take no room from what is asked for.
        let room = FRONTEND_SLOTS as usize - wanted.len();
        let whole = whole_addresses(plan, whole).into_iter().take(room);
        let with_whole = wanted.clone().into_iter().chain(whole).collect();
        Self::assemble(with_whole, before).or_else(|_| Self::assemble(wanted, before))
    }

    fn assemble(wanted: BTreeMap<FrontendKey, Entry>, before: &Self) -> Result<Self, L4Error> {
        let mut slots = Slots::kept(before, &wanted);
        let mut tables = Self::default();
        for (key, entry) in wanted {
            tables.add(key, slots.of(&key), &entry);
        }
        check_limit(
            "source prefixes",
            tables.policies.len(),
            POLICIES_MAX as usize / 2,
        )?;
        Ok(tables)
    }

    fn add(&mut self, key: FrontendKey, slot: u32, entry: &Entry) {
        let compiled = policy::compile(&entry.policies);
        let policy = if compiled.prefixes.is_empty() {
            NO_POLICY
        } else {
            slot + 1
        };
        for (prefix, reason) in compiled.prefixes {
            let key = PolicyKey {
                half: 0,
                policy,
                source: words(prefix.address),
            };
            let reason = entry.reason(reason);
            self.policies
                .insert((POLICY_FIXED_BITS + prefix.bits, key), reason.0);
        }
        let value = FrontendValue {
            slot,
            policy,
            default_reason: entry.reason(compiled.otherwise).0,
            mode: MODE_PROXY,
            dials: u8::from(entry.dials),
            reserved: [0; 2],
        };
        self.frontends.insert(key, value);
    }
}

/// The frontend that a key stands for; none for an entry of a whole address.
pub fn frontend(key: &FrontendKey) -> Option<Frontend> {
    let port = u16::from_be(key.port);
    (port != ANY_PORT).then(|| Frontend {
        address: (key.address != ANY_ADDRESS).then(|| ip(key.address)),
        port,
        transport: if key.protocol == UDP {
            Transport::Udp
        } else {
            Transport::Tcp
        },
    })
}

/// An address in the form of the maps.
pub fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => mapped(u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => words(v6.to_bits()),
    }
}

/// The address that a form of the maps stands for.
pub fn ip(address: Address) -> IpAddr {
    let octets: [u8; 16] = bytemuck::cast(address);
    IpAddr::from(octets).to_canonical()
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What is wanted of one entry.
#[derive(Clone, Debug, Default)]
struct Entry {
    policies: Vec<SourcePolicy>,
    whole_address: bool,
    /// Whether the node may dial from this port.
    dials: bool,
}

impl Entry {
    fn add(&mut self, policies: &[SourcePolicy]) {
        if policies.is_empty() {
            self.policies.push(SourcePolicy::default());
        }
        self.policies.extend_from_slice(policies);
    }

    /// The reason that stands in the maps.
    fn reason(&self, outcome: policy::Outcome) -> Reason {
        match (self.whole_address, outcome) {
            (true, policy::Outcome::Denied) => Reason::DENIED_FRAGMENT,
            (true, _) => Reason::LATER_FRAGMENT,
            (false, policy::Outcome::Denied) => Reason::DENIED,
            (false, policy::Outcome::NotAllowed) => Reason::NOT_ALLOWED,
            (false, policy::Outcome::Permitted) if policy::is_open(&self.policies) => Reason::OPEN,
            (false, policy::Outcome::Permitted) => Reason::PERMITTED,
        }
    }
}

/// The entries of whole addresses. They deny what every frontend that answers there by this protocol denies, also
/// those of every address; allow lists do not count, for they say nothing about the address. Nobody but Sluice has
/// such an address, so a server of the node's own that listens on every address is not asked for.
fn whole_addresses(plan: &L4Plan, whole: &BTreeSet<IpAddr>) -> BTreeMap<FrontendKey, Entry> {
    let mut entries: BTreeMap<FrontendKey, Entry> = BTreeMap::new();
    let mut everywhere = Vec::new();
    for (frontend, policies) in &plan.frontends {
        let key = key(frontend);
        if key.address == ANY_ADDRESS {
            everywhere.push((key, deny_lists(policies)));
        } else if whole.contains(&ip(key.address)) {
            let key = FrontendKey {
                port: ANY_PORT,
                ..key
            };
            let entry = entries.entry(key).or_default();
            entry.whole_address = true;
            entry.add(&deny_lists(policies));
        }
    }
    let own: BTreeSet<FrontendKey> = plan.frontends.keys().map(key).collect();
    for (of_address, entry) in &mut entries {
        for (of_port, deny_lists) in &everywhere {
            let address = of_address.address;
            let is_own = own.contains(&FrontendKey {
                address,
                ..*of_port
            });
            if of_port.protocol == of_address.protocol && !is_own {
                entry.add(deny_lists);
            }
        }
    }
    entries.retain(|_, entry| !policy::is_open(&entry.policies));
    entries
}

fn deny_lists(policies: &[SourcePolicy]) -> Vec<SourcePolicy> {
    let deny = |policy: &SourcePolicy| SourcePolicy {
        allow: Vec::new(),
        deny: policy.deny.clone(),
    };
    policies.iter().map(deny).collect()
}

fn key(frontend: &Frontend) -> FrontendKey {
    let specific = frontend.address.filter(|address| !address.is_unspecified());
    FrontendKey {
        address: specific.map_or(ANY_ADDRESS, |ip| address(ip.to_canonical())),
        port: frontend.port.to_be(),
        protocol: match frontend.transport {
            Transport::Tcp => TCP,
            Transport::Udp => UDP,
        },
        half: 0,
    }
}

fn words(bits: u128) -> Address {
    bytemuck::cast(bits.to_be_bytes())
}

fn check_limit(what: &'static str, needed: usize, limit: usize) -> Result<(), L4Error> {
    if needed > limit {
        return Err(L4Error::TooMany {
            what,
            needed,
            limit,
        });
    }
    Ok(())
}

/// Slots for counters: kept over revisions, the lowest free one for a newcomer.
struct Slots {
    kept: BTreeMap<FrontendKey, u32>,
    used: BTreeSet<u32>,
    next: u32,
}

impl Slots {
    fn kept(before: &Tables, wanted: &BTreeMap<FrontendKey, Entry>) -> Self {
        let kept: BTreeMap<_, _> = before
            .frontends
            .iter()
            .filter(|(key, _)| wanted.contains_key(key))
            .map(|(key, value)| (*key, value.slot))
            .collect();
        let used = kept.values().copied().collect();
        Self {
            kept,
            used,
            next: 0,
        }
    }

    fn of(&mut self, key: &FrontendKey) -> u32 {
        if let Some(slot) = self.kept.get(key) {
            return *slot;
        }
        while !self.used.insert(self.next) {
            self.next += 1;
        }
        self.next
    }
}

#[cfg(test)]
mod tests;
