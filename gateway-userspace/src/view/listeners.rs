//! Where connections are accepted.

use std::collections::HashMap;
use std::net::IpAddr;

use gateway_model::ir::{CertificateKey, ClientValidationMode, Listener, ListenerProtocol};
use gateway_model::names::ListenerKey;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text::ago;
use crate::world::World;

/// A certificate that ends sooner should have been renewed by now.
const SOON_S: i64 = 14 * 86_400;

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerView {
    /// `namespace/name` of the Gateway.
    pub gateway: String,
    /// `Gateway.spec.listeners.name`, or `namespace/set#name` if a ListenerSet declares it.
    pub listener: String,
    /// The addresses; empty means every address of the node.
    pub addresses: Vec<IpAddr>,
    /// The port.
    pub port: u16,
    /// `http` or `https`.
    pub protocol: String,
    /// The hostname; none means every host.
    pub hostname: Option<String>,
    /// What TLS is terminated with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateView>,
    /// Whether clients must show a certificate (`required`) or may (`optional`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificates: Option<String>,
    /// `namespace/name` of the Secret with the certificate that is shown to backends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_client_certificate: Option<String>,
    /// Sources that are served; empty means all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
    /// Sources that are never served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny: Vec<String>,
    /// Routes that are reachable through it.
    pub routes: usize,
    /// Why it is not served, or not on all of its addresses; none if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The addresses that it is served on if those are not all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub served: Vec<IpAddr>,
}

/// A certificate, without its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateView {
    /// `namespace/name` of the Secret.
    pub secret: String,
    /// The DNS names it is for.
    pub names: Vec<String>,
    /// When it begins to be valid.
    #[serde(default)]
    pub not_before: Timestamp,
    /// When it expires.
    pub not_after: Timestamp,
}

impl ListenerView {
    /// As it is spoken of.
    pub fn named(&self) -> String {
        if self.listener.contains('#') {
            return format!("listener {} of {}", self.listener, self.gateway);
        }
        format!("listener {}#{}", self.gateway, self.listener)
    }
}

impl CertificateView {
    /// Whether it ends so soon, or has ended, that somebody should have renewed it.
    pub fn ends_soon(&self, now: Timestamp) -> bool {
        self.not_after.as_second() - now.as_second() < SOON_S
    }

    /// `expires in 89d`, `expired 3d ago` or `is not valid before 2027-01-31T00:00:00Z`.
    pub fn expiry(&self, now: Timestamp) -> String {
        if self.not_before > now {
            return format!("is not valid before {}", self.not_before);
        }
        let days = (self.not_after.as_second() - now.as_second()) / 86_400;
        if self.not_after <= now {
            return format!("expired {} ago", ago(self.not_after, now));
        }
        match days {
            0 => format!("expires in {}", ago(now, self.not_after)),
            days => format!("expires in {days}d"),
        }
    }
}

/// Every listener, by port, then address, then name.
pub fn listeners(world: &World) -> Vec<ListenerView> {
    let ir = world.snapshot.ir();
    let mut attached: HashMap<&ListenerKey, usize> = HashMap::new();
    for attachment in ir.routes.values().flat_map(|route| &route.attachments) {
        *attached.entry(&attachment.listener).or_default() += 1;
    }
    let routes = |key: &ListenerKey| attached.get(key).copied().unwrap_or(0);
    let mut views: Vec<_> = ir
        .listeners
        .iter()
        .map(|(key, l)| listener(world, l, routes(key)))
        .collect();
    views.sort_by(|a, b| {
        (a.port, &a.addresses, &a.hostname).cmp(&(b.port, &b.addresses, &b.hostname))
    });
    views
}

/// Every certificate that a listener names.
pub fn certificates(world: &World) -> Vec<CertificateView> {
    world
        .snapshot
        .ir()
        .certificates
        .keys()
        .filter_map(|key| certificate(world, key))
        .collect()
}

fn listener(world: &World, listener: &Listener, routes: usize) -> ListenerView {
    let gateway = &listener.gateway;
    let protocol = match &listener.protocol {
        ListenerProtocol::Http => "http",
        ListenerProtocol::Https(_) => "https",
        ListenerProtocol::TlsTerminate(_) => "tls",
        ListenerProtocol::TlsPassthrough => "tls passthrough",
        ListenerProtocol::Tcp => "tcp",
        ListenerProtocol::Udp => "udp",
    };
    let termination = listener.protocol.termination();
    let certificates = termination.map_or([].as_slice(), |tls| &tls.certificates);
    let failure = world.failures.get(&listener.key);
    let nets = |nets: &[ipnet::IpNet]| nets.iter().map(ToString::to_string).collect();
    ListenerView {
        gateway: format!("{}/{}", gateway.namespace, gateway.name),
        listener: listener.label().to_string(),
        addresses: listener.addresses.clone(),
        port: listener.port,
        protocol: protocol.to_owned(),
        hostname: listener.hostname.as_ref().map(ToString::to_string),
        certificates: certificates
            .iter()
            .filter_map(|key| certificate(world, key))
            .collect(),
        client_certificates: termination
            .and_then(|tls| tls.client_validation.as_ref())
            .map(|validation| clients(validation.mode).to_owned()),
        backend_client_certificate: (listener.backend_client_certificate.as_ref())
            .map(|key| format!("{}/{}", key.0.namespace, key.0.name)),
        allow: nets(&listener.source_policy.allow),
        deny: nets(&listener.source_policy.deny),
        routes,
        failure: failure.map(ToString::to_string),
        served: failure.map_or_else(Vec::new, |failure| failure.served.clone()),
    }
}

fn clients(mode: ClientValidationMode) -> &'static str {
    match mode {
        ClientValidationMode::AllowValidOnly => "required",
        ClientValidationMode::AllowInsecureFallback => "optional",
    }
}

fn certificate(world: &World, key: &CertificateKey) -> Option<CertificateView> {
    let certificate = world.snapshot.certificate(key)?;
    Some(CertificateView {
        secret: format!("{}/{}", key.0.namespace, key.0.name),
        names: certificate.names.iter().map(ToString::to_string).collect(),
        not_before: Timestamp::from_second(certificate.not_before).unwrap_or(Timestamp::MIN),
        not_after: Timestamp::from_second(certificate.not_after).unwrap_or(Timestamp::MAX),
    })
}
