//! Field names that the proxy itself gives a meaning to.

/// A field name the proxy acts on; everything else is [`Known::Other`] and passes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Known {
    /// No meaning here.
    #[default]
    Other,
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
    /// `Cookie`, `Set-Cookie`.
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
        let Some(first) = name.first() else {
            return Self::Other;
        };
        match first | 0x20 {
            b'a' => exact(name, b"authorization", Self::Authorization),
            b'c' => starting_c(name),
            b'd' => exact(name, b"date", Self::Date),
            b'e' => exact(name, b"expect", Self::Expect),
            b'f' => exact(name, b"forwarded", Self::Forwarded),
            b'h' => match name.len() {
                4 => exact(name, b"host", Self::Host),
                14 => exact(name, b"http2-settings", Self::Http2Settings),
                _ => Self::Other,
            },
            b'k' => exact(name, b"keep-alive", Self::KeepAlive),
            // `Proxy` itself turns into HTTP_PROXY in a CGI program (CVE-2016-5385).
            b'p' if name.len() == 5 => exact(name, b"proxy", Self::Proxy),
            b'p' => prefix(name, b"proxy-", Self::Proxy),
            b's' => match name.len() {
                10 => exact(name, b"set-cookie", Self::Cookie),
                17 => exact(name, b"sec-websocket-key", Self::WebSocketKey),
                21 => exact(name, b"sec-websocket-version", Self::WebSocketVersion),
                _ => Self::Other,
            },
            b't' => match name.len() {
                2 => exact(name, b"te", Self::Te),
                7 => exact(name, b"trailer", Self::Trailer),
                17 => exact(name, b"transfer-encoding", Self::TransferEncoding),
                _ => Self::Other,
            },
            b'u' => exact(name, b"upgrade", Self::Upgrade),
            b'x' => starting_x(name),
            _ => Self::Other,
        }
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

#[inline]
fn exact(name: &[u8], expected: &[u8], known: Known) -> Known {
    if name.eq_ignore_ascii_case(expected) {
        known
    } else {
        Known::Other
    }
}

#[inline]
fn prefix(name: &[u8], expected: &[u8], known: Known) -> Known {
    match name.get(..expected.len()) {
        Some(start) if start.eq_ignore_ascii_case(expected) => known,
        _ => Known::Other,
    }
}

fn starting_c(name: &[u8]) -> Known {
    match name.len() {
        6 => exact(name, b"cookie", Known::Cookie),
        10 => exact(name, b"connection", Known::Connection),
        12 if name.eq_ignore_ascii_case(b"content-type") => Known::ContentType,
        14 if name.eq_ignore_ascii_case(b"content-length") => Known::ContentLength,
        // RFC 9530 §2: a digest may come as a trailer, when it is known at last.
        14 if name.eq_ignore_ascii_case(b"content-digest") => Known::Other,
        _ => prefix(name, b"content-", Known::ContentOther),
    }
}

fn starting_x(name: &[u8]) -> Known {
    match name.len() {
        9 if name.eq_ignore_ascii_case(b"x-real-ip") => Known::XRealIp,
        12 if name.eq_ignore_ascii_case(b"x-request-id") => Known::XRequestId,
        15 if name.eq_ignore_ascii_case(b"x-forwarded-for") => Known::XForwardedFor,
        16 if name.eq_ignore_ascii_case(b"x-forwarded-host") => Known::XForwardedHost,
        16 if name.eq_ignore_ascii_case(b"x-forwarded-port") => Known::XForwardedPort,
        17 if name.eq_ignore_ascii_case(b"x-forwarded-proto") => Known::XForwardedProto,
        _ => match prefix(name, b"x-forwarded-", Known::XForwardedOther) {
            Known::Other => prefix(name, b"x-envoy-", Known::XForwardedOther),
            known => known,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_classified_without_case() {
        for (name, known) in [
            ("HOST", Known::Host),
            ("Transfer-Encoding", Known::TransferEncoding),
            ("te", Known::Te),
            ("Proxy-Whatever", Known::Proxy),
            ("X-Forwarded-Client-Cert", Known::XForwardedOther),
            ("x-envoy-internal", Known::XForwardedOther),
            ("content-range", Known::ContentOther),
            ("hosts", Known::Other),
            ("X-Forwarded", Known::Other),
            ("", Known::Other),
        ] {
            assert_eq!(Known::of(name.as_bytes()), known, "{name}");
        }
    }
}
