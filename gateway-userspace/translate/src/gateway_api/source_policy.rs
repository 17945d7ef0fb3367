//! The annotations `sluice.dev/allow-cidrs` and `sluice.dev/deny-cidrs` of a Gateway.

use std::net::IpAddr;

use gateway_model::ir::SourcePolicy;
use ipnet::IpNet;

use super::Finding;
use crate::objects::Meta;
use crate::status::Reason;

const ALLOW: &str = "sluice.dev/allow-cidrs";
const DENY: &str = "sluice.dev/deny-cidrs";

/// Who may connect, from the Gateway's annotations.
///
/// # Errors
/// A value that cannot be read. The Gateway is then not served at all: to guess at a list of who
/// may connect would let somebody in.
pub(super) fn source_policy(meta: &Meta) -> Result<SourcePolicy, Finding> {
    Ok(SourcePolicy {
        allow: networks(meta, ALLOW)?,
        deny: networks(meta, DENY)?,
    })
}

fn networks(meta: &Meta, annotation: &str) -> Result<Vec<IpNet>, Finding> {
    let Some(text) = meta.annotation(annotation) else {
        return Ok(Vec::new());
    };
    let mut networks = Vec::new();
    for part in text.split(',').map(str::trim) {
        let network = part
            .parse::<IpNet>()
            .or_else(|_| part.parse::<IpAddr>().map(IpNet::from));
        match network {
            Ok(network) => networks.push(network.trunc()),
            Err(_) => {
                return Err(Finding::new(
                    Reason::Invalid,
                    format!(
                        "annotation {annotation}: {part:?} is not a network; write a comma-separated list, as in \"10.0.0.0/8, 2001:db8::/32\""
                    ),
                ));
            }
        }
    }
    networks.sort_unstable();
    networks.dedup();
    Ok(networks)
}
