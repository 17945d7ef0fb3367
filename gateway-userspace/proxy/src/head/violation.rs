//! What a peer can get wrong in a message, and the status each fault is answered with.

use std::fmt;

/// One broken rule. Display is for the operator; the client gets [`Violation::status`] and no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Violation {
    /// The request line is not `method SP target SP version`.
    RequestLine,
    /// `CONNECT` or `TRACE`.
    MethodRefused,
    /// A method longer than 32 bytes.
    MethodUnknown,
    /// A well-formed version that is neither 1.0 nor 1.1.
    VersionUnsupported,
    /// The target is over [`crate::limits::HeadLimits::target_bytes`].
    TargetTooLong,
    /// Neither origin-form nor absolute-form, nor `*` with `OPTIONS`.
    TargetForm,
    /// A control, a space or a byte above 126 in the target.
    TargetByte,
    /// `#` in the target.
    TargetFragment,
    /// `\` in the path.
    PathBackslash,
    /// `%` without two hexadecimal digits, an escaped control, or an overlong UTF-8 sequence in the path.
    PathEscape,
    /// `%2f` or `%5c` in the path.
    PathEscapedSlash,
    /// A dot segment with parameters, such as `..;x`.
    PathDotParameter,
    /// The scheme of an absolute target or `:scheme` is neither `http` nor `https`.
    Scheme,
    /// The head is over [`crate::limits::HeadLimits::bytes`].
    HeadTooLarge,
    /// More than [`crate::limits::HeadLimits::lines`] lines.
    TooManyHeaders,
    /// A line does not end in CR LF.
    LineEnd,
    /// A line begins with white space (RFC 9112 §5.2 `obs-fold`).
    Folding,
    /// A line without colon, without name, or with white space before the colon.
    HeaderLine,
    /// A name with `_`, `.` or another character outside `[A-Za-z0-9-]`.
    HeaderName,
    /// A control character in a value.
    HeaderValue,
    /// HTTP/1.1 without `Host`, or HTTP/2 without authority.
    HostMissing,
    /// More than one `Host`.
    HostDuplicate,
    /// Not `host [":" port]`: empty, user information, a path, a bad port.
    HostInvalid,
    /// The target's authority and `Host` differ.
    HostMismatch,
    /// A `Content-Length` that is not a decimal number below 2^63.
    LengthInvalid,
    /// Two different `Content-Length`.
    LengthConflict,
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding,
    /// `Transfer-Encoding` that is malformed, repeated, or in HTTP/1.0.
    CodingMalformed,
    /// A transfer coding other than `chunked`.
    CodingUnsupported,
    /// `Connection` nominates a field that is end-to-end.
    ConnectionNomination,
    /// A field that concerns a connection in HTTP/2 (RFC 9113 §8.2.2).
    ConnectionField,
    /// `Expect` other than `100-continue`.
    Expectation,
    /// A WebSocket handshake that breaks RFC 6455 §4.1.
    WebSocketHandshake,
    /// A chunk size, extension or line end that is not RFC 9112 §7.1.
    Chunk,
    /// A trailer line that is malformed, forbidden, or over the limits.
    Trailer,
    /// The connection ended before the message did.
    Truncated,
    /// The status line is not `HTTP/1.x SP 3DIGIT`.
    StatusLine,
    /// A status that does not belong here: 101 without an upgrade, or below 100.
    StatusUnexpected,
    /// An informational response that says it has a body.
    InformationalBody,
}

impl Violation {
    /// The status for a client that sent it; an upstream's faults all become 502.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::MethodRefused => 405,
            Self::TargetTooLong => 414,
            Self::Expectation => 417,
            Self::HeadTooLarge | Self::TooManyHeaders => 431,
            Self::MethodUnknown | Self::CodingUnsupported => 501,
            Self::VersionUnsupported => 505,
            _ => 400,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::RequestLine => "malformed request line",
            Self::MethodRefused => "method CONNECT or TRACE",
            Self::MethodUnknown => "method longer than 32 bytes",
            Self::VersionUnsupported => "http version is neither 1.0 nor 1.1",
            Self::TargetTooLong => "request target over the limit",
            Self::TargetForm => "request target is not in origin or absolute form",
            Self::TargetByte => "forbidden byte in the request target",
            Self::TargetFragment => "'#' in the request target",
            Self::PathBackslash => "'\\' in the path",
            Self::PathEscape => "bad percent escape in the path",
            Self::PathEscapedSlash => "escaped slash or backslash in the path",
            Self::PathDotParameter => "dot segment with parameters in the path",
            Self::Scheme => "scheme is neither http nor https",
            Self::HeadTooLarge => "head over the size limit",
            Self::TooManyHeaders => "more header lines than the limit",
            Self::LineEnd => "line does not end in CR LF",
            Self::Folding => "folded header line",
            Self::HeaderLine => "malformed header line",
            Self::HeaderName => "header name with a character outside [A-Za-z0-9-]",
            Self::HeaderValue => "control character in a header value",
            Self::HostMissing => "no host",
            Self::HostDuplicate => "more than one host",
            Self::HostInvalid => "invalid host",
            Self::HostMismatch => "host differs from the target's authority",
            Self::LengthInvalid => "invalid content-length",
            Self::LengthConflict => "different content-length lines",
            Self::LengthAndCoding => "content-length with transfer-encoding",
            Self::CodingMalformed => "malformed transfer-encoding",
            Self::CodingUnsupported => "unsupported transfer coding",
            Self::ConnectionNomination => "connection nominates an end-to-end field",
            Self::ConnectionField => "connection-specific field in http/2",
            Self::Expectation => "unknown expectation",
            Self::WebSocketHandshake => "invalid websocket handshake",
            Self::Chunk => "malformed chunk",
            Self::Trailer => "malformed or forbidden trailer",
            Self::Truncated => "message ended early",
            Self::StatusLine => "malformed status line",
            Self::StatusUnexpected => "unexpected status",
            Self::InformationalBody => "informational response with a body",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Violation {}
