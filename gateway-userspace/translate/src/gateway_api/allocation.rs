//! Addresses out of the pool: a Gateway that asks for none gets one of its own.
//!
//! Who gets which address is a function of all Gateways, their `status.addresses` included: what a
//! Gateway holds it keeps, and of two that claim one address the older wins. A new one begins to
//! search at a place that its name decides, so that Gateways which come and go do not move others
//! even where nothing is remembered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use gateway_model::names::ObjectRef;
use ipnet::IpNet;

use super::conflict::Rank;

/// What one Gateway asks of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ask {
    /// Addresses that it names; several Gateways may name the same.
    pub(super) statics: Vec<IpAddr>,
    /// The addresses that it wants, whichever they are.
    pub(super) wanted: Vec<Family>,
    /// What it was given before.
    pub(super) held: Vec<IpAddr>,
    /// Whether it may be given more than it holds.
    pub(super) may_grow: bool,
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// What one Gateway gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Addresses of its own, in the order that they were wanted, and whether it held them before.
    pub(super) given: Vec<(IpAddr, bool)>,
    /// How many it did not get.
    pub(super) missing: usize,
    /// Addresses that it names and another Gateway holds.
    pub(super) denied: BTreeMap<IpAddr, ObjectRef>,
}

/// The IP versions of a pool, in the order of its networks.
pub(super) fn families(pool: &[IpNet]) -> Vec<Family> {
    let mut families = Vec::new();
    for net in pool {
        let family = Family::of(net.addr());
        if !families.contains(&family) {
            families.push(family);
        }
    }
    families
}

/// Who gets what. `asks` are sorted by rank; no address of `reserved` is given away.
pub(crate) fn allocate(
    pool: &[IpNet],
    reserved: &BTreeSet<IpAddr>,
    asks: &BTreeMap<Rank, Ask>,
) -> BTreeMap<ObjectRef, Grant> {
    let mut taken = Taken::default();
    let mut slots = BTreeMap::new();
    for (rank, ask) in asks {
        let denied = taken.name(&rank.1, &ask.statics);
        let mut given = vec![None; ask.wanted.len()];
        for (slot, family) in given.iter_mut().zip(&ask.wanted) {
            let usable = |address: &&IpAddr| {
                Family::of(**address) == *family
                    && pool.iter().any(|net| net.contains(*address))
                    && !reserved.contains(*address)
                    && !taken.0.contains_key(*address)
            };
            if let Some(address) = ask.held.iter().find(usable).copied() {
                taken.hold(&rank.1, address);
                *slot = Some((address, true));
            }
        }
        slots.insert(rank, (denied, given));
    }
    let mut grants = BTreeMap::new();
    for (rank, ask) in asks {
        let Some((denied, mut given)) = slots.remove(rank) else {
            continue;
        };
        for (slot, family) in given.iter_mut().zip(&ask.wanted) {
            if slot.is_none() && ask.may_grow {
                let free = taken.free(pool, *family, reserved, &rank.1);
                *slot = free.map(|address| (address, false));
            }
        }
        let grant = Grant {
            missing: given.iter().filter(|slot| slot.is_none()).count(),
            given: given.into_iter().flatten().collect(),
            denied,
        };
        grants.insert(rank.1.clone(), grant);
    }
    grants
}

/// The addresses that somebody has, and who has them to themselves.
#[derive(Default)]
struct Taken(BTreeMap<IpAddr, Option<ObjectRef>>);

impl Taken {
    /// Takes addresses that others may name too; returns those that are not to be had.
    fn name(&mut self, gateway: &ObjectRef, named: &[IpAddr]) -> BTreeMap<IpAddr, ObjectRef> {
        let mut denied = BTreeMap::new();
        for address in named {
            match self.0.get(address) {
                Some(Some(owner)) if owner != gateway => {
                    denied.insert(*address, owner.clone());
                }
                Some(_) => {}
                None => {
                    self.0.insert(*address, None);
                }
            }
        }
        denied
    }

    fn hold(&mut self, gateway: &ObjectRef, address: IpAddr) {
        self.0.insert(address, Some(gateway.clone()));
    }

    /// The first free address from the place that the Gateway's name decides.
    fn free(
        &mut self,
        pool: &[IpNet],
        family: Family,
        reserved: &BTreeSet<IpAddr>,
        gateway: &ObjectRef,
    ) -> Option<IpAddr> {
        let nets = pool.iter().filter(|net| Family::of(net.addr()) == family);
        for net in nets {
            let (first, count) = hosts(*net);
            let start = u128::from(fingerprint(gateway)) % count;
            // Among one more than are taken there is a free one, if there is any.
            let tries = count.min((self.0.len() + reserved.len()) as u128 + 1);
            let candidates = (0..tries).map(|step| first + (start + step) % count);
            let mut addresses = candidates.map(|number| address(family, number));
            let free = addresses.find(|a| !self.0.contains_key(a) && !reserved.contains(a));
            if let Some(address) = free {
                self.hold(gateway, address);
                return Some(address);
            }
        }
        None
    }
}

/// The first address of a network that a host may have, as a number, and how many there are, at
/// most 2^64: not the network's own, and not IPv4's broadcast address.
fn hosts(net: IpNet) -> (u128, u128) {
    let (network, bits, lost_at_end) = match net {
        IpNet::V4(net) => (
            u128::from(u32::from(net.network())),
            32 - net.prefix_len(),
            1,
        ),
        IpNet::V6(net) => (u128::from(net.network()), 128 - net.prefix_len(), 0),
    };
    let size = 1_u128 << bits.min(64);
    if size <= 2 {
        return (network, size);
    }
    (network + 1, size - 1 - lost_at_end)
}

fn address(family: Family, number: u128) -> IpAddr {
    match family {
        Family::V4 => {
            let bits = u32::try_from(number).unwrap_or(u32::MAX);
            Ipv4Addr::from_bits(bits).into()
        }
        Family::V6 => Ipv6Addr::from_bits(number).into(),
    }
}

fn fingerprint(object: &ObjectRef) -> u64 {
    let bytes = object.namespace.bytes().chain([b'/']);
    fnv1a(bytes.chain(object.name.bytes()))
}

/// FNV-1a: the same in every process.
pub(super) fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
