//! The request head: parsed line by line over the read buffer, checked whole, seen as spans.

mod parse;

use gateway_model::head::Head;
use gateway_model::ir::HeaderName;

use super::Progress;
use super::body::BodyKind;
use super::fields::{Coding, Fields};
use super::lines::Lines;
use super::span::{Piece, Span};
use super::target::Target;
use crate::head::bytes::{self, TCHAR};
use crate::head::{Known, Violation};
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

    /// Method and target of a head that was refused, as they were sent and as far as they are any.
    #[must_use]
    pub fn as_sent(buf: &[u8]) -> (&str, &str) {
        let text = buf.strip_prefix(b"\r\n").unwrap_or(buf);
        let line = text.split(|b| matches!(b, b'\r' | b'\n')).next();
        let mut words = line.unwrap_or_default().split(|&b| b == b' ');
        match (words.next(), words.next()) {
            (Some(method), Some(target)) if bytes::all(method, TCHAR) => {
                (bytes::shown(method), bytes::shown(target))
            }
            _ => ("", ""),
        }
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

    pub(crate) fn authority_bytes(&self) -> &'a [u8] {
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
