//! The whole compiled state as data, without private keys.

use std::net::{IpAddr, SocketAddr};

use gateway_model::ir::{Endpoints, UpstreamProtocol};
use gateway_model::l4_plan::Transport;
use gateway_model::names::Revision;
use serde::Serialize;

use super::listeners::{CertificateView, ListenerView, certificates, listeners};
use super::routes::{RouteView, routes};
use crate::world::World;

/// Everything that is served.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotView {
    /// Its number.
    pub revision: Revision,
    /// Where connections are accepted.
    pub listeners: Vec<ListenerView>,
    /// What is done with requests.
    pub routes: Vec<RouteView>,
    /// Where requests go.
    pub upstreams: Vec<UpstreamView>,
    /// What TLS is terminated with.
    pub certificates: Vec<CertificateView>,
    /// What the packet path does.
    pub frontends: Vec<FrontendView>,
    /// Addresses that the node accepts packets for.
    pub addresses: Vec<IpAddr>,
}

/// One backend's addresses.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamView {
    /// `namespace/name:port`.
    pub upstream: String,
    /// `http1` or `h2c`.
    pub protocol: &'static str,
    /// Its addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<SocketAddr>,
    /// The name it is found by.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<String>,
}

/// One address and port that packets are taken for.
#[derive(Clone, Debug, Serialize)]
pub struct FrontendView {
    /// The address; none means every address of the node.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub transport: &'static str,
}

/// The whole state.
pub fn snapshot(world: &World) -> SnapshotView {
    let snapshot = &world.snapshot;
    let upstream = |upstream: &gateway_model::ir::Upstream| {
        let (endpoints, dns) = match &upstream.endpoints {
            Endpoints::Addresses(list) => (list.iter().map(|e| e.address).collect(), None),
            Endpoints::Dns { host, port } => (Vec::new(), Some(format!("{host}:{port}"))),
        };
        UpstreamView {
            upstream: upstream.key.to_string(),
            protocol: match upstream.protocol {
                UpstreamProtocol::Http1 => "http1",
                UpstreamProtocol::Http2 => "http2",
                UpstreamProtocol::Negotiated => "by ALPN",
                UpstreamProtocol::Opaque => "opaque",
            },
            endpoints,
            dns,
        }
    };
    let plan = snapshot.l4_plan();
    let frontends = plan.frontends.keys().map(|frontend| FrontendView {
        address: frontend.address,
        port: frontend.port,
        transport: match frontend.transport {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
        },
    });
    SnapshotView {
        revision: snapshot.revision(),
        listeners: listeners(world),
        routes: routes(world),
        upstreams: snapshot
            .ir()
            .upstreams
            .values()
            .map(|u| upstream(u))
            .collect(),
        certificates: certificates(world),
        frontends: frontends.collect(),
        addresses: plan.addresses.iter().copied().collect(),
    }
}
