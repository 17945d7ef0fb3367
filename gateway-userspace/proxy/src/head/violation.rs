//! What a peer can get wrong in a message, and the status each fault is answered with.

use std::fmt;
use std::ops::{Index, IndexMut};

macro_rules! violations {
    ($($(#[$doc:meta])* $violation:ident: $name:literal, $text:literal;)*) => {
        /// One broken rule. Display is for the operator; the client gets [`Violation::status`] and no more.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Violation { $($(#[$doc])* $violation,)* }

        impl Violation {
            /// Every one, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$violation,)*];

            /// What metrics call it. Dashboards and alerts hold on to it: it stays when the variant or the text changes.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$violation => $name,)* }
            }

            fn text(self) -> &'static str {
                match self { $(Self::$violation => $text,)* }
            }
        }
    };
}

violations! {
    /// The request line is not `method SP target SP version`.
    RequestLine: "request-line", "malformed request line";
    /// `CONNECT` or `TRACE`.
    MethodRefused: "method-refused", "method CONNECT or TRACE";
    /// A method longer than 32 bytes.
    MethodUnknown: "method-unknown", "method longer than 32 bytes";
    /// A well-formed version that is neither 1.0 nor 1.1.
    VersionUnsupported: "version-unsupported", "http version is neither 1.0 nor 1.1";
    /// The target is over [`crate::limits::HeadLimits::target_bytes`].
    TargetTooLong: "target-too-long", "request target over the limit";
    /// Neither origin-form nor absolute-form, nor `*` with `OPTIONS`.
    TargetForm: "target-form", "request target is not in origin or absolute form";
    /// A control, a space or a byte above 126 in the target.
    TargetByte: "target-byte", "forbidden byte in the request target";
    /// `#` in the target.
    TargetFragment: "target-fragment", "'#' in the request target";
    /// `\` in the path.
    PathBackslash: "path-backslash", "'\\' in the path";
    /// `%` without two hexadecimal digits, an escaped control, or an overlong UTF-8 sequence in the path.
    PathEscape: "path-escape", "bad percent escape in the path";
    /// `%2f` or `%5c` in the path.
    PathEscapedSlash: "path-escaped-slash", "escaped slash or backslash in the path";
    /// A dot segment with parameters, such as `..;x`.
    PathDotParameter: "path-dot-parameter", "dot segment with parameters in the path";
    /// The scheme of an absolute target or `:scheme` is neither `http` nor `https`.
    Scheme: "scheme", "scheme is neither http nor https";
    /// The head is over [`crate::limits::HeadLimits::bytes`].
    HeadTooLarge: "head-too-large", "head over the size limit";
    /// More than [`crate::limits::HeadLimits::lines`] lines.
    TooManyHeaders: "too-many-headers", "more header lines than the limit";
    /// A line does not end in CR LF.
    LineEnd: "line-end", "line does not end in CR LF";
    /// A line begins with white space (RFC 9112 §5.2 `obs-fold`).
    Folding: "folding", "folded header line";
    /// A line without colon, without name, or with white space before the colon.
    HeaderLine: "header-line", "malformed header line";
    /// A name with `_`, `.` or another character outside `[A-Za-z0-9-]`.
    HeaderName: "header-name", "header name with a character outside [A-Za-z0-9-]";
    /// A control character in a value.
    HeaderValue: "header-value", "control character in a header value";
    /// HTTP/1.1 without `Host`, or HTTP/2 without authority.
    HostMissing: "host-missing", "no host";
    /// More than one `Host`.
    HostDuplicate: "host-duplicate", "more than one host";
    /// Not `host [":" port]`: empty, user information, a path, a bad port.
    HostInvalid: "host-invalid", "invalid host";
    /// The target's authority and `Host` differ.
    HostMismatch: "host-mismatch", "host differs from the target's authority";
    /// A `Content-Length` that is not a decimal number below 2^63.
    LengthInvalid: "length-invalid", "invalid content-length";
    /// Two different `Content-Length`.
    LengthConflict: "length-conflict", "different content-length lines";
    /// Both `Content-Length` and `Transfer-Encoding`.
    LengthAndCoding: "length-and-coding", "content-length with transfer-encoding";
    /// `Transfer-Encoding` that is malformed, repeated, or in HTTP/1.0.
    CodingMalformed: "coding-malformed", "malformed transfer-encoding";
    /// A transfer coding other than `chunked`.
    CodingUnsupported: "coding-unsupported", "unsupported transfer coding";
    /// `Connection` nominates a field that is end-to-end.
    ConnectionNomination: "connection-nomination", "connection nominates an end-to-end field";
    /// A field that concerns a connection in HTTP/2 (RFC 9113 §8.2.2).
    ConnectionField: "connection-field", "connection-specific field in http/2";
    /// What the HTTP/2 layer refuses before a head is read: malformed fields, a head that decodes to more than
    /// [`crate::limits::HeadLimits::bytes`], a stream too many.
    Http2Head: "http2-head", "malformed or too large http/2 head, or more streams than allowed";
    /// `Expect` other than `100-continue`.
    Expectation: "expectation", "unknown expectation";
    /// A WebSocket handshake that breaks RFC 6455 §4.1.
    WebSocketHandshake: "websocket-handshake", "invalid websocket handshake";
    /// A chunk size, extension or line end that is not RFC 9112 §7.1.
    Chunk: "chunk", "malformed chunk";
    /// A trailer line that is malformed, forbidden, or over the limits.
    Trailer: "trailer", "malformed or forbidden trailer";
    /// The connection ended before the message did.
    Truncated: "truncated", "message ended early";
    /// The status line is not `HTTP/1.x SP 3DIGIT`.
    StatusLine: "status-line", "malformed status line";
    /// A status that does not belong here: 101 without an upgrade, or below 100.
    StatusUnexpected: "status-unexpected", "unexpected status";
    /// An informational response that says it has a body.
    InformationalBody: "informational-body", "informational response with a body";
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

    /// Whether only a response can break it.
    #[must_use]
    pub fn is_of_responses(self) -> bool {
        matches!(
            self,
            Self::StatusLine | Self::StatusUnexpected | Self::InformationalBody
        )
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Violation {}

/// One value for each violation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByViolation<T>([T; Violation::ALL.len()]);

impl<T: Default> Default for ByViolation<T> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| T::default()))
    }
}

impl<T> Index<Violation> for ByViolation<T> {
    type Output = T;

    fn index(&self, violation: Violation) -> &T {
        &self.0[violation as usize]
    }
}

impl<T> IndexMut<Violation> for ByViolation<T> {
    fn index_mut(&mut self, violation: Violation) -> &mut T {
        &mut self.0[violation as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_violation_has_a_name_of_its_own_that_a_label_can_bear() {
        let mut names = BTreeSet::new();
        for violation in Violation::ALL {
            let name = violation.name();
            let is_kebab = name.split('-').all(|word| {
                !word.is_empty() && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'))
            });
            assert!(is_kebab, "{name}");
            assert!(names.insert(name), "{name} again");
        }
    }

    #[test]
    fn every_violation_has_a_value_of_its_own() {
        let mut values = ByViolation::<usize>::default();
        for (at, &violation) in Violation::ALL.iter().enumerate() {
            values[violation] = at;
        }
        for (at, &violation) in Violation::ALL.iter().enumerate() {
            assert_eq!(values[violation], at, "{violation:?}");
        }
    }
}
