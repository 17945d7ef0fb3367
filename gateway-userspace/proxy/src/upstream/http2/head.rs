//! Heads between the engine's HTTP/1.1 and HTTP/2.

use std::fmt;

use bytes::Bytes;
use http::header::{HOST, TE};
use http::response::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};

use crate::h1::BodyKind;
use crate::head::{self, Known};
use crate::respond::is_grpc;

/// A request that HTTP/2 cannot carry: an upgrade, or what has no form there.
#[derive(Debug)]
pub(crate) struct Inexpressible;

impl fmt::Display for Inexpressible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request cannot be written as HTTP/2")
    }
}

impl std::error::Error for Inexpressible {}

/// The request that the engine has written: its own well-formed HTTP/1.1 head, empty line included.
///
/// # Errors
/// For an upgrade, or a target that is none.
pub(super) fn request(
    text: Vec<u8>,
    https: bool,
) -> Result<(Request<()>, BodyKind), Inexpressible> {
    let text = Bytes::from(text);
    let mut lines = Lines { text: &text, at: 0 };
    let line = lines.next().ok_or(Inexpressible)?;
    let first = memchr::memchr(b' ', &line).ok_or(Inexpressible)?;
    let last = memchr::memrchr(b' ', &line).filter(|last| *last > first);
    let target = line.slice(first + 1..last.ok_or(Inexpressible)?);
    let mut headers = HeaderMap::with_capacity(16);
    let mut authority = None;
    let mut body = BodyKind::None;
    for line in lines {
        let colon = memchr::memchr(b':', &line).ok_or(Inexpressible)?;
        let value = line.slice_ref(line[colon + 1..].trim_ascii());
        match Known::of(&line[..colon]) {
            // A client of HTTP/1.0 that names no host.
            Known::Host if value.is_empty() => continue,
            Known::Host => {
                authority = Some(Authority::from_maybe_shared(value).map_err(|_| Inexpressible)?);
                continue;
            }
            Known::TransferEncoding => {
                body = BodyKind::Chunked;
                continue;
            }
            Known::Upgrade => return Err(Inexpressible),
            Known::ContentLength => match head::bytes::decimal(&value) {
                Some(0) | None => {}
                Some(length) => body = BodyKind::Length(length),
            },
            known if known.is_hop_by_hop() => continue,
            _ => {}
        }
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| Inexpressible)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| Inexpressible)?;
        headers.append(name, value);
    }
    headers.remove(HOST);
    // Trailers of the response go on to the client; and servers of gRPC insist on this line.
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if https { Scheme::HTTPS } else { Scheme::HTTP });
    uri.authority = authority;
    uri.path_and_query = Some(path_and_query(&target)?);
    if uri.authority.is_none() {
        uri.authority = Some(Authority::from_static("localhost"));
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(&line[..first]).map_err(|_| Inexpressible)?;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| Inexpressible)?;
    *request.headers_mut() = headers;
    Ok((request, body))
}

/// The target as `:path`. Of the bytes that no URI is made of (RFC 3986 §2), which clients send and backends
/// of HTTP/1.1 are given as they are, some can be written here only as escapes.
fn path_and_query(target: &Bytes) -> Result<PathAndQuery, Inexpressible> {
    let as_written = PathAndQuery::from_maybe_shared(target.clone());
    as_written
        .or_else(|_| PathAndQuery::from_maybe_shared(escaped(target)))
        .map_err(|_| Inexpressible)
}

/// The target as a parser of URLs writes it (WHATWG URL §1.3, path and query percent-encode sets), as far as
/// that concerns bytes which HTTP/2 cannot carry: the same resource to whoever takes both forms.
#[cold]
fn escaped(target: &[u8]) -> Bytes {
    let path_len = memchr::memchr(b'?', target).unwrap_or(target.len());
    let mut out = Vec::with_capacity(target.len() + 16);
    for (at, &b) in target.iter().enumerate() {
        match b {
            b'"' => out.extend_from_slice(b"%22"),
            b'<' => out.extend_from_slice(b"%3C"),
            b'>' => out.extend_from_slice(b"%3E"),
            b'`' if at < path_len => out.extend_from_slice(b"%60"),
            _ => out.push(b),
        }
    }
    out.into()
}

/// The lines of a head without their ends, up to the empty one.
struct Lines<'a> {
    text: &'a Bytes,
    at: usize,
}

impl Iterator for Lines<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let rest = self.text.get(self.at..)?;
        let len = memchr::memmem::find(rest, b"\r\n")?;
        let line = self.text.slice(self.at..self.at + len);
        self.at += len + 2;
        (len > 0).then_some(line)
    }
}

/// How the engine is told where a response's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Delimited {
    /// There is none, or a header line says how long it is.
    AsIs,
    /// Chunked, for there may be trailers, or nobody knows how long it will be.
    Chunked,
}

/// Whether a response has no body, by its status or because its stream `ends` with its head.
pub(super) fn is_bodyless(response: &Parts, ends: bool) -> bool {
    ends || matches!(
        response.status,
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
    )
}

/// Appends a response's head as HTTP/1.1; `ends` says that no body follows.
pub(super) fn push_response(out: &mut Vec<u8>, response: &Parts, ends: bool) -> Delimited {
    let content_type = response.headers.get(http::header::CONTENT_TYPE);
    let grpc = content_type.is_some_and(|kind| is_grpc(kind.as_bytes()));
    let length = response.headers.contains_key(http::header::CONTENT_LENGTH) && !grpc;
    let informational = response.status.is_informational();
    let delimited = match ends || length || informational {
        true => Delimited::AsIs,
        false => Delimited::Chunked,
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(response.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(
        response
            .status
            .canonical_reason()
            .unwrap_or_default()
            .as_bytes(),
    );
    out.extend_from_slice(b"\r\n");
    for (name, value) in &response.headers {
        let known = Known::of(name.as_str().as_bytes());
        let framing = known == Known::ContentLength && !length && !ends;
        if known.is_hop_by_hop() || framing {
            continue;
        }
        push_line(out, name, value);
    }
    if delimited == Delimited::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    delimited
}

/// Appends the trailers that a chunked body may carry, as lines.
pub(super) fn push_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in trailers {
        if head::is_trailer_allowed(name.as_str()) && head::bytes::is_value(value.as_bytes()) {
            push_line(out, name, value);
        }
    }
}

fn push_line(out: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(written: &str) -> Option<String> {
        let text = format!("GET {written} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (request, _) = request(text.into_bytes(), false).ok()?;
        Some(request.uri().path_and_query()?.as_str().to_owned())
    }

    #[test]
    fn only_a_target_that_cannot_go_as_it_is_gets_escapes() {
        for (written, sent) in [
            ("/{a}|^[b]?x=`{y}'|^", "/{a}|^[b]?x=`{y}'|^"),
            ("/%3C?%3c", "/%3C?%3c"),
            ("*", "*"),
            ("/<a>`?\"b\"", "/%3Ca%3E%60?%22b%22"),
            ("/a?<`>", "/a?%3C`%3E"),
        ] {
            assert_eq!(target(written).as_deref(), Some(sent), "{written}");
        }
    }

    #[test]
    fn what_http2_cannot_carry_is_not_sent() {
        let long = format!("/{}", "a".repeat(70_000));
        assert_eq!(target(&long), None);
        let upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n";
        assert!(request(upgrade.to_vec(), false).is_err());
    }
}
