//! Answers that Sluice makes itself: for every failure, redirect and preflight, the one place that
//! decides status, header and body.

use std::borrow::Cow;

use bytes::Bytes;
use gateway_model::snapshot::CompiledEdits;
use h2::Reason;
use http::{HeaderName, HeaderValue};

use crate::clock::HTTP_DATE_LEN;
use crate::cors::CorsLine;
use crate::error::{Kind, ProxyError};
use crate::head::bytes as text;

/// What of a request its answer depends on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asker<'a> {
    /// `Accept`: a JSON body for whom it names `application/json`, else text.
    pub accept: Option<&'a [u8]>,
    /// `Content-Type`: `application/grpc` gets a gRPC status.
    pub content_type: Option<&'a [u8]>,
    /// The method was `HEAD`: no body is sent.
    pub head: bool,
}

/// An answer of Sluice's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header lines besides `Content-Length`, `Connection` and, unless it is among them, `Date`.
    pub lines: Vec<(Cow<'static, str>, Vec<u8>)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer without body.
    #[must_use]
    pub fn empty(status: u16) -> Self {
        Self {
            status,
            lines: Vec::new(),
            body: Vec::new(),
        }
    }

    /// How many bytes of its body are sent: none to a HEAD.
    pub(crate) fn body_len(&self, to_head: bool) -> usize {
        if to_head { 0 } else { self.body.len() }
    }

    /// Adds a line.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Vec<u8>>) -> Self {
        self.lines.push((name.into(), value.into()));
        self
    }

    /// Any failure as its client may see it: a status, and no internals. Nothing if the client has
    /// gone.
    #[must_use]
    pub fn to_error(error: &ProxyError, asker: &Asker<'_>) -> Option<Self> {
        let status = error.status()?;
        // RFC 9110 §15.5.20: a client "MAY retry the request over a different connection". It is the
        // connection that is wrong, and not the call, which a status of gRPC would be about.
        let is_misdirected = error.kind == Kind::Misdirected;
        if asker.content_type.is_some_and(is_grpc) && !is_misdirected {
            return Some(Self::grpc(error, status));
        }
        let answer = Self::status(status, asker);
        Some(match status {
            405 => answer.with("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"),
            503 => answer.with("retry-after", "1"),
            _ => answer,
        })
    }

    /// A status with a few words as body.
    #[must_use]
    pub fn status(status: u16, asker: &Asker<'_>) -> Self {
        let reason = reason(status);
        if matches!(status, 204 | 304) {
            return Self::empty(status);
        }
        let wants_json = asker.accept.is_some_and(|accept| {
            memchr::memmem::find(&accept.to_ascii_lowercase(), b"application/json").is_some()
        });
        let (kind, body) = if wants_json {
            let body = format!("{{\"status\":{status},\"error\":\"{reason}\"}}\n");
            ("application/json", body)
        } else {
            ("text/plain; charset=utf-8", format!("{status} {reason}\n"))
        };
        Self {
            status,
            lines: vec![("content-type".into(), kind.into())],
            body: body.into(),
        }
    }

    /// A redirect.
    #[must_use]
    pub fn redirect(status: u16, location: Vec<u8>) -> Self {
        Self::empty(status).with("location", location)
    }

    /// What `OPTIONS *` is told.
    #[must_use]
    pub fn to_options_asterisk() -> Self {
        Self::empty(204).with("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
    }

    /// gRPC over HTTP/2 "Trailers-Only": the status stands in the header of a 200.
    fn grpc(error: &ProxyError, status: u16) -> Self {
        let code = match (error.kind, status) {
            (Kind::Reset(code), _) => grpc_code(code.into()),
            (Kind::RequestTimeout | Kind::BackendTimeout, _) => 4,
            // A backend that is not there, or not yet, may be there later.
            (Kind::Refused(500..=504), _) => 14,
            (_, 400 | 431) => 13,
            (_, 401) => 16,
            (_, 403) => 7,
            (_, 404) => 12,
            (_, 429 | 502..=504) => 14,
            _ => 2,
        };
        Self::empty(200)
            .with("content-type", "application/grpc")
            .with("grpc-status", code.to_string())
            .with("grpc-message", reason(status).replace(' ', "%20"))
    }

    /// The answer with the lines that every response of its rule bears, as a backend's is edited. What
    /// makes it an answer to a call of gRPC stays.
    #[cold]
    #[must_use]
    pub fn edited(mut self, edits: &CompiledEdits, cors: Vec<CorsLine<'_>>) -> Self {
        let is_call = self.has("grpc-status");
        let is_fixed =
            |name: &str| is_call && (name == "content-type" || name.starts_with("grpc-"));
        self.lines
            .retain(|(name, _)| is_fixed(name) || !edits.drops(name.as_bytes()));
        let cors = cors.into_iter();
        let cors = cors.map(|(name, value)| (name.into(), value.into_owned()));
        self.lines.extend(cors);
        let added = edits.appended().iter();
        let added = added.filter(|line| !is_fixed(line.name.as_str()));
        self.lines.extend(added.map(|line| {
            let name = line.name.as_str().to_owned();
            (name.into(), line.value.as_bytes().to_vec())
        }));
        self
    }

    fn has(&self, wanted: &str) -> bool {
        self.lines.iter().any(|(name, _)| name == wanted)
    }

    /// Appends the answer for an HTTP/1.x client. `keep_alive` is what the client is told.
    pub fn encode(&self, out: &mut Vec<u8>, wire: &AnswerWire<'_>) {
        out.extend_from_slice(b"HTTP/1.1 ");
        text::push_decimal(out, self.status.into());
        out.push(b' ');
        out.extend_from_slice(reason(self.status).as_bytes());
        out.extend_from_slice(b"\r\n");
        if !self.has("date") {
            out.extend_from_slice(b"Date: ");
            out.extend_from_slice(wire.date);
            out.extend_from_slice(b"\r\n");
        }
        for (name, value) in &self.lines {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        if !matches!(self.status, 204 | 304) {
            out.extend_from_slice(b"Content-Length: ");
            text::push_decimal(out, self.body.len() as u64);
            out.extend_from_slice(b"\r\n");
        }
        if !wire.keep_alive {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if wire.http10 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !wire.head {
            out.extend_from_slice(&self.body);
        }
    }

    /// The answer for an HTTP/2 client.
    #[must_use]
    pub fn into_http(self, date: &[u8; HTTP_DATE_LEN], head: bool) -> http::Response<Bytes> {
        let mut response = http::Response::new(Bytes::new());
        *response.status_mut() = http::StatusCode::from_u16(self.status).unwrap_or_default();
        let headers = response.headers_mut();
        if !self.has("date")
            && let Ok(date) = HeaderValue::from_bytes(date)
        {
            headers.insert(http::header::DATE, date);
        }
        for (name, value) in self.lines {
            let value = HeaderValue::from_maybe_shared(Bytes::from(value));
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), value) {
                headers.append(name, value);
            }
        }
        // An answer of trailers alone is nothing but its head.
        let trailers_only = headers.contains_key("grpc-status");
        if !matches!(self.status, 204 | 304) && !trailers_only {
            headers.insert(http::header::CONTENT_LENGTH, self.body.len().into());
        }
        if !head {
            *response.body_mut() = self.body.into();
        }
        response
    }
}

/// How an answer is written to one HTTP/1.x connection.
#[derive(Clone, Copy, Debug)]
pub struct AnswerWire<'a> {
    /// [`crate::clock::http_date`] of now.
    pub date: &'a [u8; HTTP_DATE_LEN],
    /// Whether the connection stays.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0.
    pub http10: bool,
    /// The request was `HEAD`.
    pub head: bool,
}

/// Whether a content type is gRPC's.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    let Some((kind, rest)) = content_type.split_at_checked(b"application/grpc".len()) else {
        return false;
    };
    kind.eq_ignore_ascii_case(b"application/grpc") && matches!(rest, [] | [b'+' | b';', ..])
}

/// The status of a call whose stream was reset (gRPC over HTTP/2, "Errors").
fn grpc_code(reason: Reason) -> u32 {
    match reason {
        Reason::CANCEL => 1,
        Reason::INADEQUATE_SECURITY => 7,
        Reason::ENHANCE_YOUR_CALM => 8,
        Reason::REFUSED_STREAM => 14,
        _ => 13,
    }
}

/// The reason phrase of a status.
fn reason(status: u16) -> &'static str {
    http::StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::http_date;
    use crate::error::Side;
    use crate::head::Violation;

    fn wire(answer: &Answer, keep_alive: bool, head: bool) -> String {
        let mut out = Vec::new();
        let wire = AnswerWire {
            date: &http_date(784_111_777),
            keep_alive,
            http10: false,
            head,
        };
        answer.encode(&mut out, &wire);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn a_failure_says_its_status_and_nothing_of_the_inside() {
        let error = ProxyError::new(Side::Upstream, Kind::Connect)
            .because(std::io::Error::other("10.0.0.1:80"));
        let answer = Answer::to_error(&error, &Asker::default()).expect("an answer");
        assert_eq!(
            wire(&answer, true, false),
            "HTTP/1.1 502 Bad Gateway\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             content-type: text/plain; charset=utf-8\r\nContent-Length: 16\r\n\r\n502 Bad Gateway\n"
        );
        let json = Asker {
            accept: Some(b"text/html, Application/JSON;q=0.9"),
            ..Asker::default()
        };
        let answer = Answer::to_error(&error, &json).expect("an answer");
        assert_eq!(answer.body, b"{\"status\":502,\"error\":\"Bad Gateway\"}\n");
    }

    #[test]
    fn head_gets_the_length_and_no_body() {
        let error = ProxyError::downstream(Violation::HostMissing);
        let answer = Answer::to_error(&error, &Asker::default()).expect("an answer");
        let text = wire(&answer, false, true);
        assert!(
            text.contains("Content-Length: 16\r\nConnection: close\r\n"),
            "{text}"
        );
        assert!(text.ends_with("\r\n\r\n"), "{text}");
    }

    #[test]
    fn grpc_gets_a_grpc_status() {
        let asker = Asker {
            content_type: Some(b"application/grpc+proto"),
            ..Asker::default()
        };
        for (kind, code) in [
            (Kind::NoRoute, "12"),
            (Kind::NoEndpoint, "14"),
            (Kind::RequestTimeout, "4"),
            (Kind::SourceDenied, "7"),
        ] {
            let error = ProxyError::new(Side::Gateway, kind);
            let answer = Answer::to_error(&error, &asker).expect("an answer");
            assert_eq!(answer.status, 200);
            assert!(
                answer.lines.contains(&("grpc-status".into(), code.into())),
                "{kind:?}"
            );
        }
        assert!(!is_grpc(b"application/grpcweb"));
    }

    #[test]
    fn a_call_on_the_wrong_connection_is_told_so_by_http() {
        let error = ProxyError::new(Side::Gateway, Kind::Misdirected);
        let asker = Asker {
            content_type: Some(b"application/grpc"),
            ..Asker::default()
        };
        let answer = Answer::to_error(&error, &asker).expect("an answer");
        assert_eq!(answer.status, 421);
        assert!(answer.lines.iter().all(|(name, _)| *name != "grpc-status"));
    }

    #[test]
    fn every_status_becomes_an_http2_response() {
        for status in [204, 304, 400, 404, 405, 421, 431, 500, 502, 503, 504] {
            let response =
                Answer::status(status, &Asker::default()).into_http(&http_date(0), false);
            assert_eq!(response.status(), status);
        }
    }
}
