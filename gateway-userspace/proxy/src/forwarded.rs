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

    /// The `X-Request-Id` of a trusted hop, if it is 1 to 128 visible characters; else the request
    /// gets one from [`RequestIds`].
    #[must_use]
    pub fn kept_request_id<'a>(&self, head: &'a impl Source) -> Option<&'a [u8]> {
        if self.trusted_hops == 0 {
            return None;
        }
        let id = head.known_values(Known::XRequestId).next()?;
        let plain = (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic);
        plain.then_some(id)
    }

    /// Appends the lines for an upstream, without those that a route's filters drop.
    pub(crate) fn push(&self, out: &mut Vec<u8>, head: &impl Source, edits: &CompiledEdits) {
        if self.trusted_hops == 0 && edits.dropped().is_empty() {
            out.extend_from_slice(&self.lines);
            out.extend_from_slice(head.authority_bytes());
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

/// Makes request ids: 32 hexadecimal digits that do not repeat within a process. Not a secret.
#[derive(Clone, Debug)]
pub struct RequestIds {
    digits: [u8; 32],
    counter: u64,
}

/// One request id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestIds {
    /// Ids that begin from this seed; give each worker a random one.
    #[must_use]
    pub fn new(seed: u128) -> Self {
        let mut digits = [0; 32];
        digits[..16].copy_from_slice(&hex((seed >> 64) as u64));
        Self {
            digits,
            counter: seed as u64,
        }
    }

    /// The next id.
    #[must_use]
    pub fn next_id(&mut self) -> RequestId {
        // A Weyl sequence through the finalizer of SplitMix64: a bijection, so no value comes
        // again before the counter does.
        self.counter = self.counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.counter;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        self.digits[16..].copy_from_slice(&hex(mixed));
        RequestId(self.digits)
    }
}

/// Sixteen hexadecimal digits, all at once.
fn hex(word: u64) -> [u8; 16] {
    const NIBBLES: u128 = u128::from_be_bytes([0x0f; 16]);
    const ONES: u128 = u128::from_be_bytes([1; 16]);
    let mut spread = u128::from(word);
    spread = (spread | spread << 32) & 0x0000_0000_ffff_ffff_0000_0000_ffff_ffff;
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff_0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff_00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & NIBBLES;
    // A nibble above 9 carries into the upper half of its byte when 6 is added.
    let letters = (spread + ONES * 6) >> 4 & ONES;
    (spread + ONES * u128::from(b'0') + letters * u128::from(b'a' - b'0' - 10)).to_be_bytes()
}

impl RequestId {
    /// The digits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h1::{Progress, RequestHead};
    use crate::limits::Limits;

    const SPOOFED: &[u8] = b"GET / HTTP/1.1\r\nHost: shop.example\r\n\
        X-Forwarded-For: 10.6.6.6, 203.0.113.7\r\nX-Forwarded-For: [2001:db8::1]:443\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Host: public.example\r\nX-Forwarded-Port: 443\r\n\
        Forwarded: for=10.6.6.6\r\nX-Real-IP: 10.6.6.6\r\nX-Request-Id: abc\r\n\r\n";

    fn with_head<T>(wire: &[u8], look: impl FnOnce(&crate::h1::RequestView<'_>) -> T) -> T {
        let mut head = RequestHead::default();
        let parsed = head.parse(wire, &Limits::default().head);
        assert!(matches!(parsed, Ok(Progress::Complete(_))), "{parsed:?}");
        look(&head.view(wire))
    }

    fn forwarding(hops: u8) -> Forwarding {
        let peer = SocketAddr::from(([192, 0, 2, 1], 40_000));
        let local = SocketAddr::from(([192, 0, 2, 9], 8080));
        Forwarding::new(peer, local, Scheme::Http, hops)
    }

    fn written(hops: u8) -> String {
        let mut out = Vec::new();
        with_head(SPOOFED, |head| {
            forwarding(hops).push(&mut out, head, &CompiledEdits::default());
        });
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn row14_without_trusted_hops_only_the_connection_counts() {
        assert_eq!(
            written(0),
            "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n\
             X-Forwarded-Port: 8080\r\nX-Forwarded-Host: shop.example\r\n"
        );
        with_head(SPOOFED, |head| {
            assert_eq!(forwarding(0).client(head), IpAddr::from([192, 0, 2, 1]));
            assert_eq!(forwarding(0).kept_request_id(head), None);
        });
    }

    #[test]
    fn row14_trusted_hops_are_continued() {
        assert_eq!(
            written(2),
            "X-Forwarded-For: 10.6.6.6, 203.0.113.7, [2001:db8::1]:443, 192.0.2.1\r\n\
             X-Real-IP: 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Port: 443\r\n\
             X-Forwarded-Host: public.example\r\nForwarded: for=10.6.6.6, for=192.0.2.1;proto=http\r\n"
        );
    }

    #[test]
    fn row14_the_client_is_the_nth_address_from_the_right() {
        with_head(SPOOFED, |head| {
            for (hops, client) in [
                (1, "2001:db8::1"),
                (2, "203.0.113.7"),
                (3, "10.6.6.6"),
                (4, "192.0.2.1"),
            ] {
                assert_eq!(forwarding(hops).client(head).to_string(), client, "{hops}");
            }
            assert_eq!(forwarding(1).kept_request_id(head), Some(&b"abc"[..]));
        });
    }

    #[test]
    fn request_ids_are_text_and_differ() {
        let mut ids = RequestIds::new(7 << 64 | 1);
        let (a, b) = (ids.next_id(), ids.next_id());
        assert_ne!(a, b);
        assert!(a.as_bytes().starts_with(b"0000000000000007"), "{a:?}");
        assert!(b.as_bytes().iter().all(u8::is_ascii_hexdigit));
        for word in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX, 0x9a00_0000_0000_00a9] {
            assert_eq!(bytes::ascii(&hex(word)), format!("{word:016x}"));
        }
    }
}
