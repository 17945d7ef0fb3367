//! Reads and judges a request head.

use std::ops::Range;

use super::{Facts, Method, RequestHead, Stage};
use crate::h1::Progress;
use crate::h1::body::BodyKind;
use crate::h1::fields::{Coding, DROP, Field};
use crate::h1::span::{Piece, Span};
use crate::h1::target::Target;
use crate::head::authority::Authority;
use crate::head::bytes::{self, NAME, TCHAR};
use crate::head::{Known, Violation, websocket};
use crate::limits::HeadLimits;

impl RequestHead {
    pub(super) fn read(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Progress, Violation> {
        if self.stage == Stage::RequestLine && !self.read_request_line(buf, limits)? {
            return Ok(Progress::Partial);
        }
        let facts = &mut self.facts;
        let note = |index, field, value: &[u8]| facts.note(index, field, value);
        if !self
            .fields
            .read::<NAME>(&mut self.lines, buf, limits, note)?
        {
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
