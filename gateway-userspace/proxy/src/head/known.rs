//! Field names that the proxy itself gives a meaning to.

/// A field name the proxy acts on; everything else is [`Known::Other`] and passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// No meaning here.
    #[default]
    Other,
    /// `Accept`.
    Accept,
    /// `Authorization`.
    Authorization,
    /// `Connection`.
    Connection,
    /// `Content-Length`.
    ContentLength,
    /// `Content-Type`.
    ContentType,
    /// Another `Content-*`.
    ContentOther,
    /// `Cookie`.
    Cookie,
    /// `Date`.
    Date,
    /// `Expect`.
    Expect,
    /// `Forwarded`.
    Forwarded,
    /// `Host`.
    Host,
    /// `HTTP2-Settings`.
    Http2Settings,
    /// `Keep-Alive`.
    KeepAlive,
    /// `Proxy`, `Proxy-Connection`, `Proxy-Authorization` and others of that beginning.
    Proxy,
    /// `Sec-WebSocket-Key`.
    WebSocketKey,
    /// `Sec-WebSocket-Version`.
    WebSocketVersion,
    /// `Set-Cookie`.
    SetCookie,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Upgrade`.
    Upgrade,
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `X-Forwarded-Host`.
    XForwardedHost,
    /// `X-Forwarded-Port`.
    XForwardedPort,
    /// `X-Forwarded-Proto`.
    XForwardedProto,
    /// Another `X-Forwarded-*`, or `X-Envoy-*`: other proxies' words for the same things.
    XForwardedOther,
    /// `X-Real-IP`.
    XRealIp,
    /// `X-Request-Id`.
    XRequestId,
}

impl Known {
    /// Classifies a name in any case.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        let mut first = [0; 8];
        for (to, from) in first.iter_mut().zip(name) {
            *to = *from;
        }
        Self::of_first(first, name)
    }

    /// Classifies a name whose first eight bytes are at hand; those behind a shorter name are
    /// whatever follows it. Cheaper than [`Known::of`]: what is not known is told by one comparison.
    #[inline]
    pub(crate) fn of_first(first: [u8; 8], name: &[u8]) -> Self {
        // Sets the case of letters and moves no other byte of a token onto a letter, a digit or '-'.
        let folded = u64::from_le_bytes(first) | 0x2020_2020_2020_2020;
        match name.len() {
            0 => Self::Other,
            len @ 1..8 => short(folded & (u64::MAX >> (64 - 8 * len))),
            _ => long(folded, name),
        }
    }

    /// Its bit in a set of them.
    #[must_use]
    #[inline]
    pub(crate) fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Fields that concern one connection only and are never forwarded as received: those of
    /// RFC 9110 §7.6.1, `HTTP2-Settings`, and `Proxy-*`.
    #[must_use]
    #[inline]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::Proxy
                | Self::Te
                | Self::Trailer
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }

    /// Fields by which a proxy says where a request came from and what it calls it; only a trusted
    /// one's count.
    #[must_use]
    #[inline]
    pub fn is_forwarding(self) -> bool {
        matches!(
            self,
            Self::Forwarded
                | Self::XForwardedFor
                | Self::XForwardedHost
                | Self::XForwardedPort
                | Self::XForwardedProto
                | Self::XForwardedOther
                | Self::XRealIp
                | Self::XRequestId
        )
    }

    /// Fields that `Connection` may not nominate, for dropping them would change what a request
    /// means, and that a trailer may not hold.
    #[must_use]
    pub fn is_end_to_end(self) -> bool {
        self.is_forwarding()
            || matches!(
                self,
                Self::Authorization
                    | Self::ContentLength
                    | Self::ContentOther
                    | Self::ContentType
                    | Self::Cookie
                    | Self::Date
                    | Self::Expect
                    | Self::Host
                    | Self::SetCookie
                    | Self::TransferEncoding
                    | Self::WebSocketKey
                    | Self::WebSocketVersion
            )
    }

    /// Fields that only the proxy's own framing and routing may write.
    #[must_use]
    pub fn is_framing(self) -> bool {
        self.is_hop_by_hop() || matches!(self, Self::ContentLength | Self::Host | Self::Expect)
    }
}

/// A set of them is 32 bits wide.
const _: () = assert!((Known::XRequestId as u32) < u32::BITS);

/// Up to eight bytes of a name in lower case, as one number.
const fn key(text: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    let mut at = 0;
    while at < text.len() && at < 8 {
        bytes[at] = text[at];
        at += 1;
    }
    u64::from_le_bytes(bytes)
}

/// Names of up to seven bytes.
#[inline]
fn short(name: u64) -> Known {
    const TE: u64 = key(b"te");
    const HOST: u64 = key(b"host");
    const DATE: u64 = key(b"date");
    // `Proxy` turns into HTTP_PROXY in a CGI program (CVE-2016-5385).
    const PROXY: u64 = key(b"proxy");
    const PROXY_DASH: u64 = key(b"proxy-");
    const ACCEPT: u64 = key(b"accept");
    const COOKIE: u64 = key(b"cookie");
    const EXPECT: u64 = key(b"expect");
    const TRAILER: u64 = key(b"trailer");
    const UPGRADE: u64 = key(b"upgrade");
    match name {
        TE => Known::Te,
        HOST => Known::Host,
        DATE => Known::Date,
        PROXY => Known::Proxy,
        ACCEPT => Known::Accept,
        COOKIE => Known::Cookie,
        EXPECT => Known::Expect,
        TRAILER => Known::Trailer,
        UPGRADE => Known::Upgrade,
        _ if name & 0xffff_ffff_ffff == PROXY_DASH => Known::Proxy,
        _ => Known::Other,
    }
}

/// Names of eight bytes and more, by their first eight in lower case; no two of what is known
/// share both those and their length, but for `x-forwarded-host` and `-port`.
#[inline]
fn long(first: u64, name: &[u8]) -> Known {
    const AUTHORIZATION: u64 = key(b"authoriz");
    const CONNECTION: u64 = key(b"connecti");
    const CONTENT: u64 = key(b"content-");
    const FORWARDED: u64 = key(b"forwarde");
    const HTTP2_SETTINGS: u64 = key(b"http2-se");
    const KEEP_ALIVE: u64 = key(b"keep-ali");
    const SET_COOKIE: u64 = key(b"set-cook");
    const TRANSFER_ENCODING: u64 = key(b"transfer");
    const WEBSOCKET: u64 = key(b"sec-webs");
    const X_ENVOY: u64 = key(b"x-envoy-");
    const X_FORWARDED: u64 = key(b"x-forwar");
    const X_REAL_IP: u64 = key(b"x-real-i");
    const X_REQUEST_ID: u64 = key(b"x-reques");
    const PROXY_DASH: u64 = key(b"proxy-");
    let rest = name.get(8..).unwrap_or_default();
    let exact = |expected: &[u8], known| {
        if rest.eq_ignore_ascii_case(expected) {
            known
        } else {
            Known::Other
        }
    };
    match first {
        CONTENT => content(rest),
        X_FORWARDED => x_forwarded(rest),
        X_ENVOY => Known::XForwardedOther,
        CONNECTION => exact(b"on", Known::Connection),
        KEEP_ALIVE => exact(b"ve", Known::KeepAlive),
        TRANSFER_ENCODING => exact(b"-encoding", Known::TransferEncoding),
        AUTHORIZATION => exact(b"ation", Known::Authorization),
        FORWARDED => exact(b"d", Known::Forwarded),
        HTTP2_SETTINGS => exact(b"ttings", Known::Http2Settings),
        SET_COOKIE => exact(b"ie", Known::SetCookie),
        X_REAL_IP => exact(b"p", Known::XRealIp),
        X_REQUEST_ID => exact(b"t-id", Known::XRequestId),
        WEBSOCKET if rest.len() == 9 => exact(b"ocket-key", Known::WebSocketKey),
        WEBSOCKET => exact(b"ocket-version", Known::WebSocketVersion),
        _ if first & 0xffff_ffff_ffff == PROXY_DASH => Known::Proxy,
        _ => Known::Other,
    }
}

/// What follows `content-`.
fn content(rest: &[u8]) -> Known {
    match rest.len() {
        4 if rest.eq_ignore_ascii_case(b"type") => Known::ContentType,
        6 if rest.eq_ignore_ascii_case(b"length") => Known::ContentLength,
        // RFC 9530 §2: a digest may come as a trailer, when it is known at last.
        6 if rest.eq_ignore_ascii_case(b"digest") => Known::Other,
        _ => Known::ContentOther,
    }
}

/// What follows `x-forwar`.
#[cold]
fn x_forwarded(rest: &[u8]) -> Known {
    let Some((start, which)) = rest.split_at_checked(4) else {
        return Known::Other;
    };
    if !start.eq_ignore_ascii_case(b"ded-") {
        return Known::Other;
    }
    match which.len() {
        3 if which.eq_ignore_ascii_case(b"for") => Known::XForwardedFor,
        4 if which.eq_ignore_ascii_case(b"host") => Known::XForwardedHost,
        4 if which.eq_ignore_ascii_case(b"port") => Known::XForwardedPort,
        5 if which.eq_ignore_ascii_case(b"proto") => Known::XForwardedProto,
        _ => Known::XForwardedOther,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [(&str, Known); 39] = [
        ("Accept", Known::Accept),
        ("accepts", Known::Other),
        ("Authorization", Known::Authorization),
        ("Connection", Known::Connection),
        ("content-digest", Known::Other),
        ("content-length", Known::ContentLength),
        ("content-range", Known::ContentOther),
        ("content-type", Known::ContentType),
        ("COOKIE", Known::Cookie),
        ("Date", Known::Date),
        ("dates", Known::Other),
        ("expect", Known::Expect),
        ("Forwarded", Known::Forwarded),
        ("HOST", Known::Host),
        ("hosts", Known::Other),
        ("HTTP2-Settings", Known::Http2Settings),
        ("Keep-Alive", Known::KeepAlive),
        ("Keep-Alives", Known::Other),
        ("proxy", Known::Proxy),
        ("proxy-", Known::Proxy),
        ("Proxy-X", Known::Proxy),
        ("Proxy-Whatever", Known::Proxy),
        ("Sec-WebSocket-Key", Known::WebSocketKey),
        ("Sec-WebSocket-Version", Known::WebSocketVersion),
        ("Set-Cookie", Known::SetCookie),
        ("te", Known::Te),
        ("trailer", Known::Trailer),
        ("Transfer-Encoding", Known::TransferEncoding),
        ("Upgrade", Known::Upgrade),
        ("X-Forwarded", Known::Other),
        ("X-Forwarded-Client-Cert", Known::XForwardedOther),
        ("X-Forwarded-For", Known::XForwardedFor),
        ("X-Forwarded-Host", Known::XForwardedHost),
        ("X-Forwarded-Port", Known::XForwardedPort),
        ("X-Forwarded-Proto", Known::XForwardedProto),
        ("x-envoy-internal", Known::XForwardedOther),
        ("X-Real-IP", Known::XRealIp),
        ("x-request-id", Known::XRequestId),
        ("", Known::Other),
    ];

    #[test]
    fn names_are_classified_without_case_whatever_follows() {
        for (name, known) in NAMES {
            for name in [name.to_owned(), name.to_lowercase(), name.to_uppercase()] {
                assert_eq!(Known::of(name.as_bytes()), known, "{name}");
                let line = format!("{name}: xxxxxxxx");
                let first = line.as_bytes().first_chunk().expect("long enough");
                assert_eq!(Known::of_first(*first, name.as_bytes()), known, "{name}");
            }
        }
    }

    #[test]
    fn one_wrong_byte_makes_a_name_unknown() {
        for (name, known) in NAMES {
            let exact = !matches!(
                known,
                Known::Other | Known::ContentOther | Known::Proxy | Known::XForwardedOther
            );
            for at in (0..name.len()).filter(|_| exact) {
                for wrong in [b'_', b'-', b'q', b'~', b'^', b'0'] {
                    let mut other = name.as_bytes().to_vec();
                    if other[at].eq_ignore_ascii_case(&wrong) {
                        continue;
                    }
                    other[at] = wrong;
                    assert_ne!(Known::of(&other), known, "{name} {at}");
                }
            }
        }
    }
}
