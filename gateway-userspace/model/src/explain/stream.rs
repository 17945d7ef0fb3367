//! The walk of a stream or a datagram: there is no head, so the server name alone decides.

use std::net::SocketAddr;

use super::walk::{listeners, routes};
use super::{ExplainedOutcome, ExplainedRequest, Explanation};
use crate::ir::{ListenerProtocol, PortKind};
use crate::snapshot::{Snapshot, StreamHead};

/// Explains a connection, or a datagram where `kind` is that of UDP.
pub(crate) fn explain_stream(
    snapshot: &Snapshot,
    kind: PortKind,
    local: SocketAddr,
    sni: Option<&str>,
) -> Explanation {
    let (method, fate) = match kind {
        PortKind::Udp => ("UDP", "datagrams are dropped"),
        PortKind::Tls => ("TLS", "the handshake is refused"),
        PortKind::Tcp | PortKind::Http => ("TCP", "the connection is reset"),
    };
    let mut explanation = Explanation {
        revision: snapshot.revision(),
        request: ExplainedRequest {
            local: local.to_string(),
            sni: sni.map(str::to_owned),
            method: method.to_owned(),
            host: sni.map_or_else(|| local.to_string(), str::to_owned),
            path: String::new(),
            query: None,
        },
        outcome: ExplainedOutcome::NotServed,
        summary: format!("no listener has {local} for {method}"),
        listeners: Vec::new(),
        hosts: Vec::new(),
        winner: None,
    };
    let table = match kind {
        PortKind::Udp => snapshot.datagram_table(local),
        _ => snapshot.port_table(local),
    };
    let Some(table) = table.filter(|table| table.kind == kind) else {
        return explanation;
    };
    let name = sni.unwrap_or_default();
    let chosen = table.listener_for(name);
    explanation.listeners = listeners(table, name, chosen);
    let Some(listener) = chosen else {
        explanation.outcome = ExplainedOutcome::NoListener;
        explanation.summary = format!("no listener of {local} takes the name {name:?}: {fate}");
        return explanation;
    };
    if let ListenerProtocol::Https(_) = listener.protocol() {
        explanation.outcome = ExplainedOutcome::NoRule;
        explanation.summary = format!(
            "listener {} speaks HTTP inside TLS: ask with https://",
            listener.key()
        );
        return explanation;
    }
    routes(
        &mut explanation,
        snapshot,
        listener,
        &StreamHead { server_name: name },
    );
    if explanation.outcome == ExplainedOutcome::NoRule {
        explanation.summary = format!("no route of listener {} takes it: {fate}", listener.key());
    }
    explanation
}
