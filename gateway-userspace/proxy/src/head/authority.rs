//! `host [":" port]`: the grammar, and the form that matching sees.

use std::net::Ipv6Addr;

use super::Violation;
use super::bytes::{self, HOST};

/// A parsed authority. Lengths are offsets into the text it was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Authority {
    /// Bytes of the host, without port and trailing dot; brackets of an IPv6 literal included.
    pub host_len: usize,
    /// The port, if one is written.
    pub port: Option<u16>,
    /// Whether the text is in normal form: lower case, no trailing dot.
    pub normal: bool,
}

impl Authority {
    /// Parses `host [":" port]`.
    ///
    /// # Errors
    /// [`Violation::HostInvalid`]: empty, user information, a path, a bad label, an empty or bad port.
    #[inline]
    pub(crate) fn parse(text: &[u8]) -> Result<Self, Violation> {
        Self::parse_some(text).ok_or(Violation::HostInvalid)
    }

    fn parse_some(text: &[u8]) -> Option<Self> {
        if let [b'[', ..] = text {
            return Self::parse_ipv6(text);
        }
        let lower = bytes::run(text, HOST);
        let end = match text.get(lower) {
            None | Some(b':') => lower,
            Some(b) if b.is_ascii_uppercase() => text
                .iter()
                .position(|b| !bytes::is(b.to_ascii_lowercase(), HOST))
                .unwrap_or(text.len()),
            Some(_) => return None,
        };
        let name = &text[..end];
        let host = name.strip_suffix(b".").unwrap_or(name);
        if !has_good_labels(host) {
            return None;
        }
        Some(Self {
            host_len: host.len(),
            port: port(&text[end..])?,
            normal: end == lower && host.len() == end,
        })
    }

    fn parse_ipv6(text: &[u8]) -> Option<Self> {
        let close = text.iter().position(|&b| b == b']')?;
        let inner = bytes::ascii(&text[1..close]);
        inner.parse::<Ipv6Addr>().ok()?;
        Some(Self {
            host_len: close + 1,
            port: port(&text[close + 1..])?,
            normal: !inner.bytes().any(|b| b.is_ascii_uppercase()),
        })
    }

    /// Appends the normal form: lower case, no trailing dot, the port as written. Gives the
    /// length of the host in it.
    pub(crate) fn push_normal(self, text: &[u8], out: &mut Vec<u8>) -> usize {
        out.extend(text[..self.host_len].iter().map(u8::to_ascii_lowercase));
        if let Some(port) = self.port {
            out.push(b':');
            bytes::push_decimal(out, port.into());
        }
        self.host_len
    }

    /// Whether two authorities name the same host and, with the scheme's default port, the same port.
    pub(crate) fn same(
        self,
        text: &[u8],
        other: Self,
        other_text: &[u8],
        default_port: u16,
    ) -> bool {
        text[..self.host_len].eq_ignore_ascii_case(&other_text[..other.host_len])
            && self.port.unwrap_or(default_port) == other.port.unwrap_or(default_port)
    }
}

/// No empty label, and at most 253 bytes (RFC 1035 §2.3.4).
fn has_good_labels(host: &[u8]) -> bool {
    let mut after_dot = true;
    for &b in host {
        if b == b'.' && after_dot {
            return false;
        }
        after_dot = b == b'.';
    }
    !after_dot && host.len() <= 253
}

/// What follows the host: nothing, or `:` and 1-65535 without leading zeros.
fn port(text: &[u8]) -> Option<Option<u16>> {
    match text {
        [] => Some(None),
        [b':', b'1'..=b'9', rest @ ..] if rest.len() < 5 => {
            let number = bytes::decimal(&text[1..])?;
            u16::try_from(number).ok().map(Some)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> Option<(String, usize, bool)> {
        let authority = Authority::parse(text.as_bytes()).ok()?;
        let mut out = Vec::new();
        let host_len = authority.push_normal(text.as_bytes(), &mut out);
        Some((bytes::ascii(&out).to_owned(), host_len, authority.normal))
    }

    #[test]
    fn row11_hosts_have_one_form() {
        for (text, expected, host_len, as_sent) in [
            ("example.com", "example.com", 11, true),
            ("example.com:8080", "example.com:8080", 11, true),
            ("Example.COM", "example.com", 11, false),
            ("example.com.", "example.com", 11, false),
            ("example.com.:80", "example.com:80", 11, false),
            ("192.0.2.1:80", "192.0.2.1:80", 9, true),
            ("[::1]:8080", "[::1]:8080", 5, true),
            ("[2001:DB8::1]", "[2001:db8::1]", 13, false),
            ("a_b", "a_b", 3, true),
        ] {
            let found = normal(text).expect(text);
            assert_eq!(found, (expected.to_owned(), host_len, as_sent), "{text}");
        }
    }

    #[test]
    fn row11_what_is_no_host_is_refused() {
        for text in [
            "",
            ".",
            "..",
            "a..b",
            ".a",
            "a b",
            "a/b",
            "a@b",
            "user:pw@host",
            "a,b",
            "a:",
            "a:0",
            "a:080",
            "a:65536",
            "a:99999",
            "a:123456",
            "a:8x",
            "a:80:80",
            "[::1",
            "[::1]x",
            "[fe80::1%eth0]",
            "[]",
            "a%41",
            "a\\b",
            "a#b",
            "a?b",
            "*",
            "é",
            "::1",
        ] {
            assert_eq!(
                Authority::parse(text.as_bytes()),
                Err(Violation::HostInvalid),
                "{text}"
            );
        }
    }
}
