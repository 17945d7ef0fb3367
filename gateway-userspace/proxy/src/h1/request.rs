//! The request head: parsed line by line over the read buffer, checked whole, seen as spans.

use std::ops::Range;

use gateway_model::head::Head;
use gateway_model::ir::HeaderName;

use super::Progress;
use super::body::BodyKind;
use super::fields::{Coding, DROP, Field, Fields};
use super::lines::Lines;
use super::span::{Piece, Span};
use super::target::Target;
use crate::head::authority::Authority;
use crate::head::bytes::{self, NAME, TCHAR};
use crate::head::{Known, Violation, websocket};
use crate::limits::HeadLimits;

/// Methods that the proxy treats apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    #[default]
    Get,
    /// `HEAD`: its response has no body.
    Head,
    /// `POST`.
    Post,
    /// `OPTIONS`: may be a CORS preflight, may have the target `*`.
    Options,
    /// Another one.
    Other,
}

impl Method {
    /// Classifies a method; case counts.
    #[must_use]
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    RequestLine,
    Fields,
    Done(usize),
    Failed(Violation),
}

/// Storage for one request head at a time; keep it with the connection and [`RequestHead::reset`] it.
#[derive(Debug, Default)]
pub struct RequestHead {
    stage: Stage,
    lines: Lines,
    pub(crate) fields: Fields,
    scratch: Vec<u8>,
    method: Method,
    method_name: Span,
    target: Target,
    pub(crate) authority: Piece,
    host_len: usize,
    pub(crate) facts: Facts,
}

/// What the head says beyond its lines.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    /// HTTP/1.0.
    pub http10: bool,
    host: Option<usize>,
    expect: bool,
    websocket: bool,
    pub upgrade_seen: bool,
}

impl RequestHead {
    /// Forgets the last request and keeps the storage.
    pub fn reset(&mut self) {
        self.stage = Stage::RequestLine;
        self.lines = Lines::default();
        self.fields.reset();
        self.scratch.clear();
        self.facts = Facts::default();
    }

    /// Reads on. `buf` begins with the first byte of the request and holds all bytes that have
    /// arrived, those of earlier calls included. A further call after the end says the same again.
    ///
    /// # Errors
    /// The first rule that the head breaks; the connection must be closed after the answer.
    pub fn parse(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Progress, Violation> {
        match self.stage {
            Stage::Done(len) => return Ok(Progress::Complete(len)),
            Stage::Failed(violation) => return Err(violation),
            Stage::RequestLine | Stage::Fields => {}
        }
        let progress = self.read(buf, limits);
        match progress {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete(len)) => self.stage = Stage::Done(len),
            Err(violation) => self.stage = Stage::Failed(violation),
        }
        progress
    }

    /// Bytes of the head once it is complete.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.stage {
            Stage::Done(len) => len,
            _ => 0,
        }
    }

    /// Whether nothing complete has been parsed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The request as matching and forwarding see it. `buf` is the one that was parsed.
    #[must_use]
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> RequestView<'a> {
        RequestView { head: self, buf }
    }

    /// The method's class.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// What follows the head.
    #[must_use]
    pub fn body(&self) -> BodyKind {
        match (self.fields.coding, self.fields.length) {
            (Coding::Chunked, _) => BodyKind::Chunked,
            (Coding::None, Some(length)) if length > 0 => BodyKind::Length(length),
            _ => BodyKind::None,
        }
    }

    /// Whether the client wants the connection kept (RFC 9112 §9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        !self.fields.close && (!self.facts.http10 || self.fields.keep_alive)
    }

    /// Whether the client speaks HTTP/1.0: no chunked coding towards it, `Connection: keep-alive` said aloud.
    #[must_use]
    pub fn is_http10(&self) -> bool {
        self.facts.http10
    }

    /// Whether the client waits for `100 Continue` before it sends the body.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        self.facts.expect && !self.facts.http10
    }

    /// Whether this is a valid WebSocket handshake (RFC 6455 §4.1). Any other upgrade is ignored.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.facts.websocket
    }

    /// Whether the target is `*` (`OPTIONS *`), which asks about the server and no resource.
    #[must_use]
    pub fn is_asterisk(&self) -> bool {
        self.target.asterisk
    }

    /// Whether the request line and the path can be forwarded as they were sent.
    pub(crate) fn line_is_normal(&self) -> bool {
        !self.target.path.is_rewritten() && self.target.absolute.is_none() && !self.facts.http10
    }

    /// Whether `Host` can be forwarded as it was sent.
    pub(crate) fn host_is_normal(&self) -> bool {
        self.facts.host.is_some() && !self.authority.is_rewritten()
    }

    /// Where the request line begins.
    pub(crate) fn start(&self) -> usize {
        self.method_name.start()
    }

    fn read(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Progress, Violation> {
        if self.stage == Stage::RequestLine && !self.read_request_line(buf, limits)? {
            return Ok(Progress::Partial);
        }
        let facts = &mut self.facts;
        let note = |index, field, value: &[u8]| facts.note(index, field, value);
        if !self.fields.read(&mut self.lines, buf, limits, NAME, note)? {
            return Ok(Progress::Partial);
        }
        self.finish(buf)?;
        Ok(Progress::Complete(self.lines.at))
    }

    fn read_request_line(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<bool, Violation> {
        if self.lines.at == 0 {
            // RFC 9112 §2.2: "SHOULD ignore at least one empty line (CRLF) received prior to the request-line"
            match buf {
                [b'\r', b'\n', ..] => self.lines.at = 2,
                [] | [b'\r'] => return Ok(false),
                _ => {}
            }
        }
        match buf.get(self.lines.at) {
            None => return Ok(false),
            Some(&b) if !bytes::is(b, TCHAR) => return Err(Violation::RequestLine),
            Some(_) => {}
        }
        let start = self.lines.at;
        let longest = limits.target_bytes + MAX_METHOD + b"  HTTP/1.1".len();
        let line = self
            .lines
            .next(buf, limits)
            .map_err(|violation| match violation {
                Violation::HeadTooLarge => Violation::TargetTooLong,
                other => other,
            })?;
        let seen = line.as_ref().map_or(buf.len() - start - 1, Range::len);
        if seen > longest {
            return Err(Violation::TargetTooLong);
        }
        let Some(line) = line else {
            return Ok(false);
        };
        self.parse_request_line(buf, line, limits)?;
        self.fields.start = self.lines.at;
        self.stage = Stage::Fields;
        Ok(true)
    }

    fn parse_request_line(
        &mut self,
        buf: &[u8],
        line: Range<usize>,
        limits: &HeadLimits,
    ) -> Result<(), Violation> {
        let text = &buf[line.clone()];
        let method_len = bytes::run(text, TCHAR);
        let version_at = text.len().saturating_sub(VERSION_LEN + 1);
        if text.get(method_len) != Some(&b' ') || version_at <= method_len {
            return Err(Violation::RequestLine);
        }
        self.facts.http10 = parse_version(&text[version_at..])?;
        let method = &text[..method_len];
        match method {
            b"CONNECT" | b"TRACE" => return Err(Violation::MethodRefused),
            _ if method_len > MAX_METHOD => return Err(Violation::MethodUnknown),
            _ => self.method = Method::of(method),
        }
        self.method_name = Span::new(line.start..line.start + method_len);
        let target = line.start + method_len + 1..line.start + version_at;
        if target.len() > limits.target_bytes {
            return Err(Violation::TargetTooLong);
        }
        let options = self.method == Method::Options;
        self.target = Target::parse(buf, target, options, &mut self.scratch)?;
        Ok(())
    }

    /// What only the whole head can tell: host, framing, upgrade.
    fn finish(&mut self, buf: &[u8]) -> Result<(), Violation> {
        self.settle_host(buf)?;
        let fields = &mut self.fields;
        if fields.coding == Coding::Chunked {
            if fields.length.is_some() {
                return Err(Violation::LengthAndCoding);
            }
            if self.facts.http10 {
                return Err(Violation::CodingMalformed);
            }
        }
        if self.facts.upgrade_seen && fields.upgrade && !self.facts.http10 {
            self.settle_upgrade(buf)?;
        }
        Ok(())
    }

    fn settle_host(&mut self, buf: &[u8]) -> Result<(), Violation> {
        let host = match self.facts.host {
            Some(index) => {
                let span = self.fields.list[index].value;
                let authority = Authority::parse(span.of(buf))?;
                Some((Piece::sent(span.start()..span.end()), authority))
            }
            None if self.facts.http10 => None,
            None => return Err(Violation::HostMissing),
        };
        let (piece, authority) = match (self.target.absolute, host) {
            (None, None) => {
                self.authority = Piece::default();
                self.host_len = 0;
                return Ok(());
            }
            (None, Some(host)) => host,
            (Some((piece, authority, _)), None) => (piece, authority),
            (Some((piece, authority, port)), Some((sent, host))) => {
                let (a, b) = (piece.of(buf, &[]), sent.of(buf, &[]));
                if !authority.same(a, host, b, port) {
                    return Err(Violation::HostMismatch);
                }
                (piece, authority)
            }
        };
        if authority.normal {
            self.authority = piece;
            self.host_len = authority.host_len;
        } else {
            let start = self.scratch.len();
            self.host_len = authority.push_normal(piece.of(buf, &[]), &mut self.scratch);
            self.authority = Piece::rewritten(start..self.scratch.len());
        }
        Ok(())
    }

    #[cold]
    fn settle_upgrade(&mut self, buf: &[u8]) -> Result<(), Violation> {
        let mut protocols = self.fields.values(buf, b"upgrade");
        let websocket = match (protocols.next(), protocols.next()) {
            (Some(protocol), None) => protocol.eq_ignore_ascii_case(b"websocket"),
            _ => false,
        };
        drop(protocols);
        if websocket {
            let key = self.single(buf, Known::WebSocketKey)?;
            let version = self.single(buf, Known::WebSocketVersion)?;
            let body = self.body() != BodyKind::None;
            if self.method != Method::Get || body || !websocket::is_handshake(key, version) {
                return Err(Violation::WebSocketHandshake);
            }
            self.facts.websocket = true;
        }
        Ok(())
    }

    /// The value of a field that must stand in the head once.
    fn single<'a>(&self, buf: &'a [u8], known: Known) -> Result<&'a [u8], Violation> {
        let mut found = self.fields.list.iter().filter(|field| field.known == known);
        match (found.next(), found.next()) {
            (Some(field), None) => Ok(field.value.of(buf)),
            _ => Err(Violation::WebSocketHandshake),
        }
    }
}

impl Facts {
    /// Keeps what only requests say; gives flags for the line.
    #[inline]
    fn note(&mut self, index: usize, field: Field, value: &[u8]) -> Result<u8, Violation> {
        match field.known {
            Known::Host => match self.host.replace(index) {
                None => Ok(0),
                Some(_) => Err(Violation::HostDuplicate),
            },
            Known::Expect if value.eq_ignore_ascii_case(b"100-continue") => {
                self.expect = true;
                Ok(DROP)
            }
            Known::Expect => Err(Violation::Expectation),
            Known::Upgrade => {
                self.upgrade_seen = true;
                Ok(0)
            }
            _ => Ok(0),
        }
    }
}

/// A complete request head over its buffer.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    pub(crate) head: &'a RequestHead,
    pub(crate) buf: &'a [u8],
}

impl<'a> RequestView<'a> {
    /// The first value of a known field.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&'a [u8]> {
        self.head.fields.known(self.buf, known)
    }

    /// `host [":" port]` in normal form; empty if an HTTP/1.0 request has none.
    #[must_use]
    pub fn authority(&self) -> &'a str {
        bytes::ascii(self.authority_bytes())
    }

    /// The parsed head.
    #[must_use]
    pub fn head(&self) -> &'a RequestHead {
        self.head
    }

    fn authority_bytes(&self) -> &'a [u8] {
        self.head.authority.of(self.buf, &self.head.scratch)
    }
}

impl Head for RequestView<'_> {
    fn method(&self) -> &str {
        match self.head.method {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Options => "OPTIONS",
            Method::Other => bytes::ascii(self.head.method_name.of(self.buf)),
        }
    }

    fn path(&self) -> &str {
        bytes::ascii(self.head.target.path.of(self.buf, &self.head.scratch))
    }

    fn query(&self) -> Option<&str> {
        let query = self.head.target.query?;
        Some(bytes::ascii(query.of(self.buf, &self.head.scratch)))
    }

    fn host(&self) -> &str {
        let host = self.authority_bytes().get(..self.head.host_len);
        bytes::ascii(host.unwrap_or_default())
    }

    fn header_values<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        self.head.fields.values(self.buf, name.as_str().as_bytes())
    }
}

const MAX_METHOD: usize = 32;
const VERSION_LEN: usize = b"HTTP/1.1".len();

/// Whether ` HTTP/1.x` says 1.0.
#[inline]
fn parse_version(text: &[u8]) -> Result<bool, Violation> {
    match text {
        b" HTTP/1.1" => Ok(false),
        b" HTTP/1.0" => Ok(true),
        [b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Violation::VersionUnsupported)
        }
        _ => Err(Violation::RequestLine),
    }
}
