//! Why a request or a connection failed: on which side, how, and because of what.

use std::error::Error;
use std::fmt;

use h2::Reason;

use crate::head::Violation;

/// An error code of HTTP/2 (RFC 9113 §7) in one byte, for errors are parts of every request's future: codes that
/// are not known there are [`Reason::INTERNAL_ERROR`], as which they may be treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResetCode(u8);

impl From<Reason> for ResetCode {
    fn from(reason: Reason) -> Self {
        let known = u8::try_from(u32::from(reason)).ok();
        let highest = u32::from(Reason::HTTP_1_1_REQUIRED);
        let known = known.filter(|&code| u32::from(code) <= highest);
        Self(known.unwrap_or(INTERNAL_ERROR))
    }
}

impl From<ResetCode> for Reason {
    fn from(code: ResetCode) -> Self {
        u32::from(code.0).into()
    }
}

const INTERNAL_ERROR: u8 = 2;

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who dialled us.
    Downstream,
    /// Whom we dialled.
    Upstream,
    /// Sluice itself, its configuration or its limits.
    Gateway,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Downstream => "downstream",
            Self::Upstream => "upstream",
            Self::Gateway => "gateway",
        })
    }
}

/// How it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rule of HTTP was broken.
    Protocol(Violation),
    /// The connection ended in the middle of a message.
    Closed,
    /// Reading or writing failed.
    Io,
    /// The endpoint says that it has not processed the request.
    Declined,
    /// The endpoint reset the request's stream, for this reason.
    Reset(ResetCode),
    /// The protocol that the endpoint speaks has no form for the request.
    Inexpressible,
    /// No connection could be made.
    Connect,
    /// No connection was made in time.
    ConnectTimeout,
    /// The head did not arrive in time.
    HeadTimeout,
    /// The body stopped, or crawled.
    BodyTimeout,
    /// The peer took nothing for too long.
    WriteTimeout,
    /// Gateway API v1 `HTTPRoute.spec.rules.timeouts.request` ran out.
    RequestTimeout,
    /// Gateway API v1 `HTTPRoute.spec.rules.timeouts.backendRequest` ran out.
    BackendTimeout,
    /// The source address may not connect.
    SourceDenied,
    /// The host belongs to another listener than the TLS handshake chose.
    Misdirected,
    /// No listener or rule matches.
    NoRoute,
    /// The rule answers by itself, or its backend does not resolve: this status.
    Refused(u16),
    /// The backend has no endpoint.
    NoEndpoint,
    /// A limit of connections or memory is reached.
    Overloaded,
    /// Something that should not happen.
    Internal,
}

/// A failure with its cause. Display prints its own level only.
#[derive(Debug)]
pub struct ProxyError {
    /// Who is to blame.
    pub side: Side,
    /// How it failed.
    pub kind: Kind,
    /// Because of what; for the log only.
    pub source: Option<Box<dyn Error + Send + Sync>>,
}

impl ProxyError {
    /// A failure without further cause.
    #[must_use]
    pub fn new(side: Side, kind: Kind) -> Self {
        Self {
            side,
            kind,
            source: None,
        }
    }

    /// The client broke a rule.
    #[must_use]
    pub fn downstream(violation: Violation) -> Self {
        Self::new(Side::Downstream, Kind::Protocol(violation))
    }

    /// The upstream broke a rule.
    #[must_use]
    pub fn upstream(violation: Violation) -> Self {
        Self::new(Side::Upstream, Kind::Protocol(violation))
    }

    /// The same with a cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The status for the client; nothing if the client has gone and none can be sent.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        Some(match (self.side, self.kind) {
            (Side::Downstream, Kind::Closed | Kind::Io | Kind::WriteTimeout) => return None,
            (Side::Upstream, Kind::Protocol(_)) => 502,
            (_, Kind::Protocol(violation)) => violation.status(),
            (Side::Downstream, Kind::HeadTimeout | Kind::BodyTimeout) => 408,
            (_, Kind::SourceDenied) => 403,
            (_, Kind::NoRoute) => 404,
            (_, Kind::Misdirected) => 421,
            (_, Kind::Refused(status)) => status,
            (_, Kind::Closed | Kind::Io | Kind::Connect) => 502,
            (_, Kind::Declined | Kind::Reset(_) | Kind::Inexpressible) => 502,
            (_, Kind::NoEndpoint | Kind::Overloaded) => 503,
            (
                _,
                Kind::ConnectTimeout
                | Kind::HeadTimeout
                | Kind::BodyTimeout
                | Kind::WriteTimeout
                | Kind::RequestTimeout
                | Kind::BackendTimeout,
            ) => 504,
            (_, Kind::Internal) => 500,
        })
    }

    /// Whether the HTTP/1.1 connection that the request came by must be closed after the answer,
    /// for it is no longer known where the next request begins or whether there should be one.
    /// A request body that was not read to its end closes it too; that is the caller's to know.
    #[must_use]
    pub fn closes_downstream(&self) -> bool {
        match self.kind {
            Kind::SourceDenied | Kind::Overloaded | Kind::Internal | Kind::Misdirected => true,
            _ => self.side == Side::Downstream,
        }
    }

    /// The flag of the access log: two to four letters, Envoy's where it has one.
    #[must_use]
    pub fn flag(&self) -> &'static str {
        match (self.side, self.kind) {
            (Side::Upstream, Kind::Protocol(_)) => "UPE",
            (_, Kind::Protocol(_)) => "DPE",
            (Side::Upstream, Kind::Closed | Kind::Io) => "UC",
            (_, Kind::Closed | Kind::Io) => "DC",
            (_, Kind::Declined | Kind::Reset(_)) => "UR",
            (_, Kind::Connect) => "UF",
            (_, Kind::ConnectTimeout) => "UF,UT",
            (Side::Downstream, _) => "DT",
            (_, Kind::HeadTimeout | Kind::BodyTimeout | Kind::WriteTimeout) => "UT",
            (_, Kind::RequestTimeout | Kind::BackendTimeout) => "UT",
            (_, Kind::SourceDenied) => "RBAC",
            (_, Kind::Misdirected) => "MR",
            (_, Kind::NoRoute) => "NR",
            (_, Kind::Refused(_) | Kind::Inexpressible) => "NC",
            (_, Kind::NoEndpoint) => "UH",
            (_, Kind::Overloaded) => "OM",
            (_, Kind::Internal) => "IE",
        }
    }

    /// The whole chain on one line, for the log: this level, then each cause behind a colon.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.side)?;
        match self.kind {
            Kind::Protocol(violation) => violation.fmt(f),
            Kind::Refused(status) => write!(f, "refused with status {status}"),
            kind => f.write_str(kind.text()),
        }
    }
}

impl Error for ProxyError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Protocol(_) => "protocol violation",
            Self::Closed => "connection closed early",
            Self::Io => "read or write failed",
            Self::Declined => "request declined",
            Self::Reset(_) => "stream reset",
            Self::Inexpressible => "no form for the request",
            Self::Connect => "connect failed",
            Self::ConnectTimeout => "connect timed out",
            Self::HeadTimeout => "head timed out",
            Self::BodyTimeout => "body timed out",
            Self::WriteTimeout => "peer stopped reading",
            Self::RequestTimeout => "request timeout",
            Self::BackendTimeout => "backend request timeout",
            Self::SourceDenied => "source address is not allowed",
            Self::Misdirected => "host belongs to another listener",
            Self::NoRoute => "no route",
            Self::Refused(_) => "refused",
            Self::NoEndpoint => "backend has no endpoint",
            Self::Overloaded => "over a limit",
            Self::Internal => "internal error",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_fault_is_the_clients_400_and_the_upstreams_502() {
        let violation = Violation::LengthAndCoding;
        assert_eq!(ProxyError::downstream(violation).status(), Some(400));
        assert_eq!(ProxyError::upstream(violation).status(), Some(502));
        assert!(ProxyError::downstream(violation).closes_downstream());
        assert!(!ProxyError::upstream(violation).closes_downstream());
    }

    #[test]
    fn nothing_is_said_to_a_client_that_is_gone() {
        assert_eq!(
            ProxyError::new(Side::Downstream, Kind::Closed).status(),
            None
        );
        assert_eq!(
            ProxyError::new(Side::Upstream, Kind::Closed).status(),
            Some(502)
        );
    }

    #[test]
    fn the_log_gets_the_whole_chain() {
        let error = ProxyError::new(Side::Upstream, Kind::Connect)
            .because(std::io::Error::other("refused by 10.0.0.1:80"));
        assert_eq!(
            error.chain(),
            "upstream: connect failed: refused by 10.0.0.1:80"
        );
    }
}
