//! Certificates that clients will refuse: out of their time, or for other names than those that are served.

use std::collections::BTreeSet;

use gateway_model::ir::{Certificate, Fit, Ir, Listener, PortKind};
use gateway_model::names::Hostname;
use jiff::Timestamp;

use crate::view::listeners::certificates;
use crate::world::World;

/// Certificates that have expired, soon will have, or are not valid yet.
pub fn not_valid(world: &World, now: Timestamp) -> Vec<String> {
    certificates(world)
        .iter()
        .filter(|certificate| certificate.ends_soon(now) || certificate.not_before > now)
        .map(|certificate| {
            format!(
                "Secret {}: the certificate {}",
                certificate.secret,
                certificate.expiry(now)
            )
        })
        .collect()
}

/// Listeners that have no certificate for a name which is served there.
pub fn for_other_names(world: &World) -> Vec<String> {
    let ir = world.snapshot.ir();
    let mut found = Vec::new();
    for listener in ir.listeners.values() {
        let Some(termination) = listener.protocol.termination() else {
            continue;
        };
        let certificates = termination.certificates.iter();
        let certificates: Vec<_> = certificates
            .filter_map(|key| Some((key, ir.certificates.get(key)?)))
            .collect();
        let has_one = |name: &Hostname| certificates.iter().any(|(_, c)| is_for(c, name));
        let served = served_names(ir, listener);
        let missing: Vec<_> = served.iter().filter(|name| !has_one(name)).collect();
        if certificates.is_empty() || missing.is_empty() {
            continue;
        }
        let missing: Vec<_> = missing.iter().map(|name| name.as_str()).collect();
        let each = certificates
            .iter()
            .map(|(key, certificate)| format!("{} is {}", key.0, names_of(certificate)));
        let each: Vec<_> = each.collect();
        let not = if each.len() == 1 { "not" } else { "none" };
        found.push(format!(
            "listener {}: the certificate of {}, {not} for {}: clients that ask for it by that name refuse it",
            listener.key,
            each.join(", that of "),
            some(&missing),
        ));
    }
    found
}

/// What a certificate is for.
fn names_of(certificate: &Certificate) -> String {
    let names: Vec<_> = certificate.names.iter().map(|name| &**name).collect();
    match (names.is_empty(), certificate.has_common_name_only) {
        (true, _) => "for no name".to_owned(),
        (false, false) => format!("for {}", some(&names)),
        (false, true) => format!(
            "for no name (clients look for a subjectAltName; {} is but its common name)",
            some(&names)
        ),
    }
}

/// At most five of them.
fn some(names: &[&str]) -> String {
    match names.len().checked_sub(5) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..5].join(", ")),
    }
}

/// The names that requests come to a listener for: those of its routes as far as they fall under its own, else
/// its own. What another listener of its port takes, for its hostname is more specific, is left out. Routes for
/// every host, of a listener for every host, name none.
fn served_names(ir: &Ir, listener: &Listener) -> BTreeSet<Hostname> {
    let attachments = ir.routes.values().flat_map(|route| &route.attachments);
    let mut attachments = attachments
        .filter(|attachment| attachment.listener == listener.key)
        .peekable();
    let own = || listener.hostname.clone();
    let mut names = BTreeSet::new();
    if attachments.peek().is_none() {
        names.extend(own());
    }
    for attachment in attachments {
        if attachment.hostnames.is_empty() {
            names.extend(own());
        }
        let narrowed = |name: &Hostname| match &listener.hostname {
            Some(own) if covers(name, own) => own.clone(),
            _ => name.clone(),
        };
        names.extend(attachment.hostnames.iter().map(narrowed));
    }
    let mut others: Vec<_> = ir.listeners.values().collect();
    others.retain(|other| shares_port(other, listener) && is_more_specific(other, listener));
    let hosts: Vec<_> = others.iter().filter_map(|l| l.hostname.as_ref()).collect();
    names.retain(|name| !hosts.iter().any(|host| covers(host, name)));
    names
}

/// Whether both are asked by the server name of connections to some address.
fn shares_port(other: &Listener, listener: &Listener) -> bool {
    let (a, b) = (&other.addresses, &listener.addresses);
    other.port == listener.port
        && other.protocol.port_kind() == PortKind::Tls
        && (a.is_empty() || b.is_empty() || a.iter().any(|address| b.contains(address)))
}

/// Whether a name that both listeners take goes to the other one.
fn is_more_specific(other: &Listener, listener: &Listener) -> bool {
    let rank = |listener: &Listener| {
        let hostname = listener.hostname.as_ref();
        hostname.map(|name| (name.wildcard_suffix().is_none(), name.as_str().len()))
    };
    rank(other) > rank(listener)
}

/// Whether every host under `name` falls under `wide`.
fn covers(wide: &Hostname, name: &Hostname) -> bool {
    match (wide.wildcard_suffix(), name.wildcard_suffix()) {
        (_, None) => wide.matches(name.as_str()),
        (Some(wide), Some(name)) => name.ends_with(wide),
        (None, Some(_)) => false,
    }
}

/// Whether a certificate is for some host under this name.
fn is_for(certificate: &Certificate, name: &Hostname) -> bool {
    let mut names = certificate.names.iter();
    !certificate.has_common_name_only && names.any(|presented| fits(presented, name))
}

fn fits(presented: &str, name: &Hostname) -> bool {
    match (presented.strip_prefix("*."), name.wildcard_suffix()) {
        (_, None) => Fit::of(presented, name.as_str()) != Fit::None,
        (None, Some(_)) => name.matches(presented),
        (Some(_), Some(suffix)) => presented[1..].ends_with(suffix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Hostname {
        Hostname::parse(text).expect("a hostname")
    }

    #[test]
    fn a_wildcard_of_a_certificate_stands_for_one_label() {
        for (presented, host, expected) in [
            ("shop.example.com", "shop.example.com", true),
            ("shop.example.com", "example.com", false),
            ("shop.example.com", "*.example.com", true),
            ("*.example.com", "shop.example.com", true),
            ("*.example.com", "*.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.shop.example.com", false),
            ("*.example.com", "badexample.com", false),
            ("*.example.com", "*.shop.example.com", false),
            ("*.shop.example.com", "*.example.com", true),
            ("*.com", "*.example.com", false),
            ("*", "com", false),
            ("s*.example.com", "shop.example.com", false),
        ] {
            assert_eq!(fits(presented, &name(host)), expected, "{presented} {host}");
        }
    }

    #[test]
    fn a_wildcard_of_a_listener_stands_for_several() {
        for (wide, host, expected) in [
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "*.b.example.com", true),
            ("*.b.example.com", "*.example.com", false),
            ("a.example.com", "*.example.com", false),
            ("a.example.com", "a.example.com", true),
        ] {
            assert_eq!(covers(&name(wide), &name(host)), expected, "{wide} {host}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(some(&["a", "b", "c", "d", "e"]), "a, b, c, d, e");
        assert_eq!(
            some(&["a", "b", "c", "d", "e", "f", "g"]),
            "a, b, c, d, e and 2 more"
        );
    }
}
