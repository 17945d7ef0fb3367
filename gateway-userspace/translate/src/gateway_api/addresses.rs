//! Which addresses a Gateway is served on, and which ones its status shows.

use std::net::IpAddr;

use super::Finding;
use crate::objects::{AddressType, Gateway};
use crate::settings::Settings;
use crate::status::Reason;

/// The addresses of a Gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Where its listeners answer; none means nowhere, an empty list every address of the node.
    pub(super) served: Option<Vec<IpAddr>>,
    /// What `status.addresses` shows.
    pub(super) shown: Vec<IpAddr>,
    /// Addresses that it asks for and cannot have.
    pub(super) unusable: Option<Finding>,
}

/// Gateway API v1 `Gateway.spec.addresses`.
///
/// # Errors
/// An address of a type that is not supported: the Gateway cannot be accepted.
pub(super) fn addresses(gateway: &Gateway, settings: &Settings) -> Result<Addresses, Finding> {
    let mut wanted = Vec::new();
    let mut any = gateway.addresses.is_empty();
    for address in &gateway.addresses {
        match &address.kind {
            AddressType::IpAddress(Some(address)) => wanted.push(*address),
            AddressType::IpAddress(None) => any = true,
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
    let (usable, unusable): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|a| is_usable(*a, settings));
    Ok(Addresses {
        shown: shown(&usable, any, settings),
        unusable: unusable_finding(&unusable, settings),
        served: match (any, usable.is_empty()) {
            (true, _) => Some(Vec::new()),
            (false, true) => None,
            (false, false) => Some(sorted(usable)),
        },
    })
}

fn is_usable(address: IpAddr, settings: &Settings) -> bool {
    let usable = &settings.usable_addresses;
    usable.is_empty()
        || usable.iter().any(|net| net.contains(&address))
        || settings.node_addresses.contains(&address)
}

fn shown(usable: &[IpAddr], any: bool, settings: &Settings) -> Vec<IpAddr> {
    let mut shown = usable.to_vec();
    if any {
        for address in &settings.node_addresses {
            if !shown.contains(address) {
                shown.push(*address);
            }
        }
    }
    shown.truncate(16);
    shown
}

fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn unusable_finding(unusable: &[IpAddr], settings: &Settings) -> Option<Finding> {
    if unusable.is_empty() {
        return None;
    }
    let list = |items: Vec<String>| items.join(", ");
    let unusable = list(unusable.iter().map(ToString::to_string).collect());
    let usable = list(
        settings
            .usable_addresses
            .iter()
            .map(ToString::to_string)
            .collect(),
    );
    Some(Finding::new(
        Reason::AddressNotUsable,
        format!("spec.addresses: {unusable} cannot be used here; choose from {usable}"),
    ))
}
