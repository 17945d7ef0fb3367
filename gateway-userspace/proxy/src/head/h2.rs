//! HTTP/2 heads under the same policy as HTTP/1.1 ones.
//!
//! The h2 crate has parsed them and refused what RFC 9113 calls malformed; what is left to refuse here
//! is what it lets through. One thing it hides: a fragment in `:path` is cut off before this code
//! sees it, so `/a#b` is matched and forwarded as `/a`.

use std::borrow::Cow;

use gateway_model::head::Head;
use gateway_model::ir::HeaderName;
use gateway_model::snapshot::CompiledEdits;
use http::request::Parts;

use super::authority::Authority;
use super::bytes::{self, NAME, QUERY};
use super::path::{self, Normal};
use super::{Known, Source, Violation};
use crate::h1::BodyKind;
use crate::limits::HeadLimits;

/// A request of HTTP/2 that has passed the head policy.
#[derive(Debug)]
pub struct H2Head<'a> {
    parts: &'a Parts,
    path: Cow<'a, str>,
    authority: Cow<'a, str>,
    host_len: usize,
    body: BodyKind,
    /// Which fields with a meaning there are; see [`Known::bit`].
    seen: u32,
    expects_continue: bool,
}

impl<'a> H2Head<'a> {
    /// Checks a request's head; `end_of_stream` says that no body follows.
    ///
    /// # Errors
    /// The first rule that it breaks; the stream is answered, the connection lives.
    pub fn check(
        parts: &'a Parts,
        limits: &HeadLimits,
        end_of_stream: bool,
    ) -> Result<Self, Violation> {
        check_method(parts)?;
        let path = check_target(parts, limits)?;
        let fields = check_fields(parts, limits)?;
        let (authority, host_len) = check_authority(parts, fields.seen)?;
        let body = match fields.length {
            _ if end_of_stream => BodyKind::None,
            Some(0) => BodyKind::None,
            Some(length) => BodyKind::Length(length),
            None => BodyKind::Chunked,
        };
        Ok(Self {
            parts,
            path,
            authority,
            host_len,
            body,
            seen: fields.seen,
            expects_continue: fields.expects_continue && body != BodyKind::None,
        })
    }

    /// Method and target of a head that was refused, as they were sent.
    pub(crate) fn as_sent(parts: &Parts) -> (&str, &str) {
        let uri = &parts.uri;
        // `CONNECT` has an authority and nothing else.
        let authority = || uri.authority().map_or("", http::uri::Authority::as_str);
        let path = uri.path_and_query();
        let target = path.map_or_else(authority, http::uri::PathAndQuery::as_str);
        let method = parts.method.as_str();
        (
            bytes::shown(method.as_bytes()),
            bytes::shown(target.as_bytes()),
        )
    }

    /// Whether there is such a field; most heads hold few, and none that has to be looked for.
    fn has(&self, known: Known) -> bool {
        self.seen & known.bit() != 0
    }

    /// Whether the client waits for `100 Continue` before it sends a body.
    pub(crate) fn expects_continue(&self) -> bool {
        self.expects_continue
    }

    /// Whether the method is `HEAD`.
    #[must_use]
    pub fn is_head(&self) -> bool {
        self.parts.method == http::Method::HEAD
    }

    /// Appends `Cookie` with all crumbs joined (RFC 9113 §8.2.3: "MUST be concatenated into a
    /// single octet string using the two-octet delimiter").
    fn push_cookies(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"cookie: ");
        for (index, crumb) in self
            .parts
            .headers
            .get_all(http::header::COOKIE)
            .iter()
            .enumerate()
        {
            if index > 0 {
                out.extend_from_slice(b"; ");
            }
            out.extend_from_slice(crumb.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Head for H2Head<'_> {
    fn method(&self) -> &str {
        self.parts.method.as_str()
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn query(&self) -> Option<&str> {
        self.parts.uri.query()
    }

    fn host(&self) -> &str {
        self.authority.get(..self.host_len).unwrap_or_default()
    }

    fn header_values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let values = self.parts.headers.get_all(name.as_str()).iter();
        values.map(http::HeaderValue::as_bytes)
    }
}

impl Source for H2Head<'_> {
    fn authority(&self) -> &str {
        &self.authority
    }

    fn body(&self) -> BodyKind {
        self.body
    }

    fn is_websocket(&self) -> bool {
        false
    }

    fn known_values(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let most = if self.has(known) { usize::MAX } else { 0 };
        self.parts
            .headers
            .iter()
            .take(most)
            .filter(move |(name, _)| Known::of(name.as_str().as_bytes()) == known)
            .map(|(_, value)| value.as_bytes())
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.parts
            .headers
            .get(name)
            .map(http::HeaderValue::as_bytes)
    }

    fn push_fields(&self, out: &mut Vec<u8>, edits: &CompiledEdits) {
        let edited = !edits.dropped().is_empty();
        for (name, value) in &self.parts.headers {
            let name = name.as_str().as_bytes();
            let known = Known::of(name);
            let ours = known.is_framing() || known.is_forwarding();
            if ours || known == Known::Cookie || edited && edits.drops(name) {
                continue;
            }
            out.extend_from_slice(name);
            out.extend_from_slice(b": ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if self.has(Known::Cookie) && !(edited && edits.drops(b"cookie")) {
            self.push_cookies(out);
        }
    }

    fn has_length_line(&self) -> bool {
        false
    }
}

fn check_method(parts: &Parts) -> Result<(), Violation> {
    match parts.method {
        http::Method::CONNECT | http::Method::TRACE => Err(Violation::MethodRefused),
        _ if parts.method.as_str().len() > 32 => Err(Violation::MethodUnknown),
        _ => Ok(()),
    }
}

/// Checks `:scheme` and `:path`; gives the normal path.
fn check_target<'a>(parts: &'a Parts, limits: &HeadLimits) -> Result<Cow<'a, str>, Violation> {
    if let Some(scheme) = parts.uri.scheme_str()
        && !matches!(scheme, "http" | "https")
    {
        return Err(Violation::Scheme);
    }
    let path = parts.uri.path();
    let query = parts.uri.query().unwrap_or_default();
    if path.len() + query.len() + 1 > limits.target_bytes {
        return Err(Violation::TargetTooLong);
    }
    if !bytes::all(query.as_bytes(), QUERY) {
        return Err(Violation::TargetByte);
    }
    if !path.starts_with('/') {
        return match path {
            "*" if parts.method == http::Method::OPTIONS => Ok(path.into()),
            _ => Err(Violation::TargetForm),
        };
    }
    let mut scratch = Vec::new();
    Ok(match path::normalise(path.as_bytes(), &mut scratch)? {
        Normal::AsSent => path.into(),
        Normal::Written(range) => bytes::ascii(&scratch[range]).to_owned().into(),
    })
}

struct FieldFacts {
    length: Option<u64>,
    seen: u32,
    expects_continue: bool,
}

fn check_fields(parts: &Parts, limits: &HeadLimits) -> Result<FieldFacts, Violation> {
    let mut facts = FieldFacts {
        length: None,
        seen: 0,
        expects_continue: false,
    };
    if parts.headers.len() > limits.lines {
        return Err(Violation::TooManyHeaders);
    }
    let mut size = 0;
    for (name, value) in &parts.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        size += name.len() + value.len() + b": \r\n".len();
        if !bytes::all(name, NAME) {
            return Err(Violation::HeaderName);
        }
        if !bytes::is_value(value) || bytes::trim(value).len() != value.len() {
            return Err(Violation::HeaderValue);
        }
        facts.note(Known::of(name), value)?;
    }
    if size > limits.bytes {
        return Err(Violation::HeadTooLarge);
    }
    Ok(facts)
}

impl FieldFacts {
    fn note(&mut self, known: Known, value: &[u8]) -> Result<(), Violation> {
        self.seen |= known.bit();
        match known {
            Known::Connection
            | Known::KeepAlive
            | Known::TransferEncoding
            | Known::Upgrade
            | Known::Http2Settings => Err(Violation::ConnectionField),
            Known::Te if !value.eq_ignore_ascii_case(b"trailers") => {
                Err(Violation::ConnectionField)
            }
            Known::Expect if !value.eq_ignore_ascii_case(b"100-continue") => {
                Err(Violation::Expectation)
            }
            Known::Expect => {
                self.expects_continue = true;
                Ok(())
            }
            Known::ContentLength => {
                let length = bytes::decimal(value).ok_or(Violation::LengthInvalid)?;
                match self.length.replace(length) {
                    Some(first) if first != length => Err(Violation::LengthConflict),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// `:authority` and `Host` (RFC 9113 §8.3.1): one of them, or both the same.
fn check_authority(parts: &Parts, seen: u32) -> Result<(Cow<'_, str>, usize), Violation> {
    let host = match seen & Known::Host.bit() {
        0 => None,
        _ => sent_host(parts)?,
    };
    let pseudo = parts.uri.authority().map(http::uri::Authority::as_str);
    let (text, authority) = match (pseudo, host) {
        (None, None) => return Err(Violation::HostMissing),
        (Some(text), None) => (text, Authority::parse(text.as_bytes())?),
        (None, Some(host)) => (bytes::ascii(host), Authority::parse(host)?),
        (Some(text), Some(host)) => {
            let authority = Authority::parse(text.as_bytes())?;
            let port = match parts.uri.scheme_str() {
                Some("https") => 443,
                _ => 80,
            };
            if !authority.same(text.as_bytes(), Authority::parse(host)?, host, port) {
                return Err(Violation::HostMismatch);
            }
            (text, authority)
        }
    };
    if authority.normal {
        return Ok((text.into(), authority.host_len));
    }
    let mut normal = Vec::with_capacity(text.len());
    let host_len = authority.push_normal(text.as_bytes(), &mut normal);
    Ok((bytes::ascii(&normal).to_owned().into(), host_len))
}

/// `Host`, which may stand there once.
fn sent_host(parts: &Parts) -> Result<Option<&[u8]>, Violation> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    match hosts.next() {
        Some(_) => Err(Violation::HostDuplicate),
        None => Ok(host),
    }
}

/// Whether a trailer may pass: an ordinary name, and no field that frames, routes or identifies.
#[must_use]
pub fn is_trailer_allowed(name: &str) -> bool {
    let known = Known::of(name.as_bytes());
    bytes::all(name.as_bytes(), NAME) && !known.is_end_to_end() && !known.is_hop_by_hop()
}

#[cfg(test)]
mod tests;
