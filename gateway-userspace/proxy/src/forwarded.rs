//! Where a request came from: what is believed of a client's word, and what the backend is told.
//!
//! With no trusted hop (the default) everything a client says in `X-Forwarded-*`, `X-Real-IP`,
//! `X-Envoy-*` and `Forwarded` is dropped and the connection's own facts are written. With `n` hops
//! in front, their `X-Forwarded-For` is continued, and the client is the n-th address from its
//! right; `X-Forwarded-Proto`, `-Host` and `-Port` pass as they wrote them. Other spellings of
//! these names (with `_` or `.`) never arrive: the head policy refuses them.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use gateway_model::ir::Scheme;
use gateway_model::snapshot::CompiledEdits;

use crate::head::{Known, Source, bytes};

/// What one connection says of its requests; the lines that are the same for all of them are
/// written once.
#[derive(Clone, Debug)]
pub struct Forwarding {
    peer: IpAddr,
    scheme: Scheme,
    port: u16,
    trusted_hops: u8,
    /// `X-Forwarded-For`, `-Proto`, `-Port` and `X-Real-IP`, without `X-Forwarded-Host: `'s value.
    lines: Vec<u8>,
}

impl Forwarding {
    /// For a connection from `peer` to `local`; the peer's address is the one that a PROXY protocol
    /// header named, if there was one.
    #[must_use]
    pub fn new(peer: SocketAddr, local: SocketAddr, scheme: Scheme, trusted_hops: u8) -> Self {
        let peer = peer.ip().to_canonical();
        let mut lines = Vec::with_capacity(128);
        let port = local.port();
        let scheme_text = scheme.as_str();
        // Writing to a vector cannot fail.
        let _ = write!(
            lines,
            "X-Forwarded-For: {peer}\r\nX-Real-IP: {peer}\r\nX-Forwarded-Proto: {scheme_text}\r\n\
             X-Forwarded-Port: {port}\r\nX-Forwarded-Host: "
        );
        Self {
            peer,
            scheme,
            port,
            trusted_hops,
            lines,
        }
    }

    /// The connection's other end.
    #[must_use]
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The scheme the connection speaks.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// The client, as far as the trusted hops tell; for logs.
    #[must_use]
    pub fn client(&self, head: &impl Source) -> IpAddr {
        if self.trusted_hops == 0 {
            return self.peer;
        }
        let addresses = head
            .known_values(Known::XForwardedFor)
            .flat_map(bytes::list)
            .collect::<Vec<_>>();
        addresses
            .len()
            .checked_sub(self.trusted_hops.into())
            .and_then(|at| addresses.get(at))
            .and_then(|text| parse_address(text))
            .unwrap_or(self.peer)
    }

    /// Whether the client's own `X-Request-Id` is kept.
    #[must_use]
    pub fn trusts_request_id(&self) -> bool {
        self.trusted_hops > 0
    }

    /// Appends the lines for an upstream, without those that a route's filters drop.
    pub(crate) fn push(&self, out: &mut Vec<u8>, head: &impl Source, edits: &CompiledEdits) {
        if self.trusted_hops == 0 && edits.dropped().is_empty() {
            out.extend_from_slice(&self.lines);
            out.extend_from_slice(head.authority().as_bytes());
            out.extend_from_slice(b"\r\n");
        } else {
            self.push_selected(out, head, edits);
        }
    }

    #[cold]
    fn push_selected(&self, out: &mut Vec<u8>, head: &impl Source, edits: &CompiledEdits) {
        let mut line = |name: &str, value: &[u8]| {
            if !edits.drops(name.as_bytes()) {
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        };
        let peer = self.peer.to_string();
        let trusted = |known| {
            let mut values = head.known_values(known).filter(|_| self.trusted_hops > 0);
            values.next().filter(|value| !value.is_empty())
        };
        let port = self.port.to_string();
        line("X-Forwarded-For", &self.continued(head, &peer));
        line("X-Real-IP", self.client(head).to_string().as_bytes());
        let proto = trusted(Known::XForwardedProto).filter(|p| matches!(*p, b"http" | b"https"));
        line(
            "X-Forwarded-Proto",
            proto.unwrap_or(self.scheme.as_str().as_bytes()),
        );
        let sent_port = trusted(Known::XForwardedPort).filter(|p| bytes::decimal(p).is_some());
        line("X-Forwarded-Port", sent_port.unwrap_or(port.as_bytes()));
        let host = trusted(Known::XForwardedHost);
        line(
            "X-Forwarded-Host",
            host.unwrap_or(head.authority().as_bytes()),
        );
        if let Some(forwarded) = self.continued_forwarded(head) {
            line("Forwarded", &forwarded);
        }
    }

    /// `X-Forwarded-For` with our peer at its end.
    fn continued(&self, head: &impl Source, peer: &str) -> Vec<u8> {
        let mut list = Vec::new();
        if self.trusted_hops > 0 {
            for value in head.known_values(Known::XForwardedFor) {
                list.extend_from_slice(value);
                list.extend_from_slice(b", ");
            }
        }
        list.extend_from_slice(peer.as_bytes());
        list
    }

    /// RFC 7239 `Forwarded` with our element at its end, if a trusted hop sent one.
    fn continued_forwarded(&self, head: &impl Source) -> Option<Vec<u8>> {
        if self.trusted_hops == 0 {
            return None;
        }
        let mut list = Vec::new();
        for value in head.known_values(Known::Forwarded) {
            list.extend_from_slice(value);
            list.extend_from_slice(b", ");
        }
        if list.is_empty() {
            return None;
        }
        let scheme = self.scheme.as_str();
        let _ = match self.peer {
            IpAddr::V4(peer) => write!(list, "for={peer};proto={scheme}"),
            IpAddr::V6(peer) => write!(list, "for=\"[{peer}]\";proto={scheme}"),
        };
        Some(list)
    }
}

/// An address as proxies write it: bare, with a port, or an IPv6 one in brackets.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?;
    let address = text.parse::<IpAddr>().ok().or_else(|| {
        let socket = text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
        socket.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())
    })?;
    Some(address.to_canonical())
}
