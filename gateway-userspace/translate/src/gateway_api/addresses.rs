//! Which addresses a Gateway is served on, and which ones its status shows.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::Finding;
use super::allocation::{Ask, Grant, families};
use crate::objects::{AddressType, Gateway, GatewayAddress, LoadBalancerAddress, Objects};
use crate::settings::{Publish, Settings, SourceKind};
use crate::status::{GatewayStatusAddress, Reason};

/// Gateway API v1 `Gateway.status.addresses` holds no more.
const MAX_SHOWN: usize = 16;

/// The addresses of the nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeAddresses {
    /// Where clients reach them, at most 16.
    pub(crate) public: Vec<IpAddr>,
    /// Where they reach each other.
    pub(crate) internal: BTreeSet<IpAddr>,
    /// Every one of them.
    pub(crate) all: BTreeSet<IpAddr>,
}

impl NodeAddresses {
    /// Those of the settings; without any, those of the Node objects.
    pub(crate) fn of(objects: &Objects, settings: &Settings) -> Self {
        let given = &settings.node_addresses;
        if !given.is_empty() {
            return Self {
                public: given.iter().copied().take(MAX_SHOWN).collect(),
                internal: given.iter().copied().collect(),
                all: given.iter().copied().collect(),
            };
        }
        let mut addresses = Self::default();
        for node in objects.nodes.values() {
            addresses
                .all
                .extend(node.external.iter().chain(&node.internal));
            addresses.internal.extend(&node.internal);
            for address in node.public() {
                if addresses.public.len() < MAX_SHOWN && !addresses.public.contains(address) {
                    addresses.public.push(*address);
                }
            }
        }
        addresses
    }
}

/// Gateway API v1 `Gateway.spec.addresses`, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// Addresses that it names, in the order of the spec.
    statics: Vec<IpAddr>,
    /// How many more it asks for.
    automatic: usize,
    /// Whether it says nothing at all.
    is_open: bool,
    /// What it was given before.
    held: Vec<IpAddr>,
    /// What it asks for and nobody can have.
    unusable: Vec<Finding>,
}

impl Request {
    /// # Errors
    /// An address of a type that is not supported: the Gateway cannot be accepted.
    pub(super) fn of(gateway: &Gateway) -> Result<Self, Finding> {
        let mut request = Self {
            is_open: gateway.addresses.is_empty(),
            held: gateway.assigned.clone(),
            ..Self::default()
        };
        for address in &gateway.addresses {
            match &address.kind {
                AddressType::IpAddress(_) if address.routability.is_some() => {
                    request.unusable.extend(unroutable(address));
                }
                AddressType::IpAddress(Some(address)) => request.statics.push(*address),
                AddressType::IpAddress(None) => request.automatic += 1,
                AddressType::Other(kind) => {
                    return Err(Finding::new(
                        Reason::UnsupportedAddress,
                        format!(
                            "spec.addresses: type {kind} is not supported; give an address of type IPAddress"
                        ),
                    ));
                }
            }
        }
        Ok(request)
    }

    /// What it asks of the pool: one address of each IP version, or as many as it says.
    pub(super) fn ask(&self, pool: &[IpNet], may_grow: bool) -> Ask {
        let families = families(pool);
        let wanted = if self.is_open {
            families
        } else {
            let endless = families.into_iter().cycle();
            endless.take(self.automatic).collect()
        };
        Ask {
            statics: self.statics.clone(),
            wanted,
            held: self.held.clone(),
            may_grow,
        }
    }
}

/// Where the addresses of a Gateway come from.
pub(crate) struct Sources<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) nodes: &'a NodeAddresses,
    /// What it gets of the pool; none without a pool.
    pub(crate) grant: Option<&'a Grant>,
    /// What its LoadBalancer Service was given; none if addresses do not come from there.
    pub(crate) load_balancer: Option<&'a [LoadBalancerAddress]>,
}

/// The addresses of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Where its listeners answer; none means nowhere, an empty list every address of the node.
    pub(super) served: Option<Vec<IpAddr>>,
    /// What `status.addresses` shows.
    pub(super) shown: Vec<GatewayStatusAddress>,
    /// Addresses that it asks for and cannot have, or does not have yet.
    pub(super) fault: Option<Finding>,
}

impl Addresses {
    pub(super) fn new(request: &Request, sources: &Sources<'_>) -> Self {
        match sources.grant {
            Some(grant) => Self::of_pool(request, sources, grant),
            None => Self::without_pool(request, sources),
        }
    }

    fn of_pool(request: &Request, sources: &Sources<'_>, grant: &Grant) -> Self {
        let pool = &sources.settings.address_pool;
        let is_ours = |address: &IpAddr| {
            pool.iter().any(|net| net.contains(address)) || sources.nodes.all.contains(address)
        };
        let mut faults = request.unusable.clone();
        let mut served = Vec::new();
        for address in &request.statics {
            if !is_ours(address) {
                faults.push(Finding::new(
                    Reason::AddressNotUsable,
                    format!(
                        "spec.addresses: {address} cannot be used here; choose from {} or the addresses of the nodes",
                        list(pool)
                    ),
                ));
            } else if let Some(owner) = grant.denied.get(address) {
                faults.push(Finding::new(
                    Reason::AddressNotUsable,
                    format!("spec.addresses: {address} was given to {owner}; choose another one"),
                ));
            } else {
                served.push(*address);
            }
        }
        let mut shown = served.clone();
        let at_once = sources.settings.source == SourceKind::Files;
        for (address, is_held) in &grant.given {
            shown.push(*address);
            if at_once || *is_held {
                served.push(*address);
            } else {
                faults.push(Finding::new(
                    Reason::AddressNotAssigned,
                    format!("{address} is chosen, and served once status.addresses shows it"),
                ));
            }
        }
        let got_nothing = request.is_open && grant.given.is_empty();
        if got_nothing || (!request.is_open && grant.missing > 0) {
            faults.push(Finding::new(
                Reason::AddressNotAssigned,
                format!("no address of the pool {} is free", list(pool)),
            ));
        }
        Self {
            served: (!served.is_empty()).then(|| sorted(served)),
            shown: shown.iter().map(ip).collect(),
            fault: Finding::merge(&faults),
        }
    }

    fn without_pool(request: &Request, sources: &Sources<'_>) -> Self {
        let automatic = request.is_open || request.automatic > 0;
        let mut shown: Vec<_> = request.statics.iter().map(ip).collect();
        let mut faults = request.unusable.clone();
        if automatic {
            let more: Vec<_> = match (sources.settings.publish, sources.load_balancer) {
                (Publish::Service, Some(given)) if !given.is_empty() => {
                    given.iter().map(of_load_balancer).collect()
                }
                (Publish::Service, _) => {
                    faults.push(Finding::new(
                        Reason::AddressNotAssigned,
                        "its Service of type LoadBalancer has no address yet",
                    ));
                    Vec::new()
                }
                (Publish::Nodes, _) => sources.nodes.public.iter().map(ip).collect(),
            };
            for address in more {
                if !shown.contains(&address) {
                    shown.push(address);
                }
            }
        }
        shown.truncate(MAX_SHOWN);
        let served = if automatic {
            Some(Vec::new())
        } else {
            let statics = &request.statics;
            (!statics.is_empty()).then(|| sorted(statics.clone()))
        };
        Self {
            served,
            shown,
            fault: Finding::merge(&faults),
        }
    }
}

/// GEP-5093: a routability that cannot be met makes its address one that cannot be had.
fn unroutable(address: &GatewayAddress) -> Option<Finding> {
    let routability = address.routability.as_ref()?;
    let asked = match &*address.value {
        "" => "an address",
        value => value,
    };
    Some(Finding::new(
        Reason::AddressNotUsable,
        format!(
            "spec.addresses: {asked} cannot be given routability {routability}, which is not supported"
        ),
    ))
}

fn ip(address: &IpAddr) -> GatewayStatusAddress {
    GatewayStatusAddress {
        kind: "IPAddress",
        value: address.to_string().into(),
    }
}

fn of_load_balancer(address: &LoadBalancerAddress) -> GatewayStatusAddress {
    match address {
        LoadBalancerAddress::Ip(address) => ip(address),
        LoadBalancerAddress::Hostname(name) => GatewayStatusAddress {
            kind: "Hostname",
            value: Arc::clone(name),
        },
    }
}

fn list(nets: &[IpNet]) -> String {
    let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
    nets.join(", ")
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
