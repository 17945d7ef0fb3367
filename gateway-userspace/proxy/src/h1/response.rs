//! The response head of an upstream that may be hostile.

use super::Progress;
use super::body::BodyKind;
use super::fields::{Coding, DROP, Fields, LENGTH};
use super::lines::Lines;
use super::span::Span;
use crate::head::bytes::{self, TCHAR};
use crate::head::{Known, Violation};
use crate::limits::HeadLimits;

/// What the request was, as far as the response's framing depends on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// The method was `HEAD`: there is no body, whatever the head says.
    pub head: bool,
    /// A WebSocket handshake was sent: 101 is allowed.
    pub websocket: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    StatusLine,
    Fields,
    Done(usize),
    Failed(Violation),
}

/// Storage for one response head at a time.
#[derive(Debug, Default)]
pub struct ResponseHead {
    stage: Stage,
    lines: Lines,
    pub(crate) fields: Fields,
    status: u16,
    reason: Span,
    http10: bool,
    /// The status line says `HTTP/1.1` and holds a reason, if only an empty one.
    line_is_normal: bool,
    body: BodyKind,
    /// Whether the end of the stream says that there is no body, and perhaps no line does.
    pub(crate) ended: bool,
}

impl ResponseHead {
    /// Forgets the last response and keeps the storage.
    pub fn reset(&mut self) {
        self.stage = Stage::StatusLine;
        self.lines = Lines::default();
        self.ended = false;
        self.fields.reset();
    }

    /// Reads on. `buf` begins with the first byte of the response and holds all that has arrived.
    /// After an informational response (1xx but 101) drop its bytes, reset, and parse the next one.
    ///
    /// # Errors
    /// The first rule that the head breaks: 502, and the upstream connection is closed.
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
        asked: Asked,
    ) -> Result<Progress, Violation> {
        match self.stage {
            Stage::Done(len) => return Ok(Progress::Complete(len)),
            Stage::Failed(violation) => return Err(violation),
            Stage::StatusLine | Stage::Fields => {}
        }
        let progress = self.read(buf, limits, asked);
        match progress {
            Ok(Progress::Partial) => {}
            Ok(Progress::Complete(len)) => self.stage = Stage::Done(len),
            Err(violation) => self.stage = Stage::Failed(violation),
        }
        progress
    }

    /// The status, 100-599.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether this is 1xx but 101: another head follows.
    #[must_use]
    pub fn is_informational(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Whether the upstream has agreed to the WebSocket; what follows the head is the tunnel's.
    #[must_use]
    pub fn is_upgrade(&self) -> bool {
        self.status == 101
    }

    /// Whether there is no body because the stream that the response came by has ended.
    pub(crate) fn ended_with_head(&self) -> bool {
        self.ended
    }

    /// The first value of a field, named in lower case.
    pub(crate) fn first<'a>(&'a self, buf: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        self.fields.values(buf, name).next()
    }

    /// The stream that the response came by has ended: no body follows, whatever no line says.
    pub(crate) fn end_with_head(&mut self) {
        self.body = BodyKind::None;
        self.ended = true;
    }

    /// What follows the head.
    #[must_use]
    pub fn body(&self) -> BodyKind {
        self.body
    }

    /// Whether the upstream keeps the connection once the body is read; never after bytes that
    /// nobody asked for, which is the caller's to see, or that may still come: what follows a 204
    /// that speaks of a body would be the answer to somebody else's request.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        !self.fields.close
            && (!self.http10 || self.fields.keep_alive)
            && self.body != BodyKind::UntilClose
            && self.status >= 200
            && (self.status != 204 || !self.announces_body())
    }

    /// The response over the buffer that was parsed.
    #[must_use]
    pub fn view<'a>(&'a self, buf: &'a [u8]) -> ResponseView<'a> {
        ResponseView { head: self, buf }
    }

    fn read(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
        asked: Asked,
    ) -> Result<Progress, Violation> {
        if self.stage == Stage::StatusLine {
            let Some(line) = self.lines.next(buf, limits)? else {
                return Ok(Progress::Partial);
            };
            self.status_line(&buf[line.clone()], line.start)?;
            self.fields.start = self.lines.at;
            self.stage = Stage::Fields;
        }
        let note = |_, _, _: &[u8]| Ok(0);
        if !self
            .fields
            .read::<TCHAR>(&mut self.lines, buf, limits, note)?
        {
            return Ok(Progress::Partial);
        }
        self.settle(buf, asked)?;
        Ok(Progress::Complete(self.lines.at))
    }

    fn status_line(&mut self, line: &[u8], offset: usize) -> Result<(), Violation> {
        let (version, rest) = line.split_at_checked(9).ok_or(Violation::StatusLine)?;
        self.http10 = match version {
            b"HTTP/1.1 " => false,
            b"HTTP/1.0 " => true,
            _ => return Err(Violation::StatusLine),
        };
        let (code, reason) = rest.split_at_checked(3).ok_or(Violation::StatusLine)?;
        let code = bytes::decimal(code).ok_or(Violation::StatusLine)?;
        self.status = code as u16;
        if !(100..600).contains(&self.status) {
            return Err(Violation::StatusUnexpected);
        }
        self.line_is_normal = !self.http10 && !reason.is_empty();
        let start = offset + 13;
        self.reason = match reason {
            [] => Span::default(),
            [b' ', text @ ..] if bytes::is_value(text) => Span::new(start..start + text.len()),
            _ => return Err(Violation::StatusLine),
        };
        Ok(())
    }

    /// Whether a line says that a body follows, whatever the status says.
    fn announces_body(&self) -> bool {
        self.fields.coding == Coding::Chunked || self.fields.length.is_some_and(|length| length > 0)
    }

    /// RFC 9112 §6.3, less what is not safe.
    fn settle(&mut self, buf: &[u8], asked: Asked) -> Result<(), Violation> {
        let fields = &self.fields;
        let chunked = fields.coding == Coding::Chunked;
        if chunked && fields.length.is_some() {
            return Err(Violation::LengthAndCoding);
        }
        if chunked && self.http10 {
            return Err(Violation::CodingMalformed);
        }
        if self.status == 101 {
            let mut protocols = fields.values(buf, b"upgrade");
            let agreed = protocols
                .next()
                .is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"));
            if !asked.websocket || !agreed || !fields.upgrade || protocols.next().is_some() {
                return Err(Violation::StatusUnexpected);
            }
        }
        // RFC 9110 §8.6: "A server MUST NOT send a Content-Length header field in any response with a status
        // code of 1xx". If a body came, the final response would be looked for in it.
        if self.is_informational() && self.announces_body() {
            return Err(Violation::InformationalBody);
        }
        let no_body = asked.head || self.status < 200 || matches!(self.status, 204 | 304);
        self.body = match fields.length {
            _ if no_body => BodyKind::None,
            _ if chunked => BodyKind::Chunked,
            Some(0) => BodyKind::None,
            Some(length) => BodyKind::Length(length),
            None => BodyKind::UntilClose,
        };
        Ok(())
    }
}

/// A complete response head over its buffer.
#[derive(Clone, Copy, Debug)]
pub struct ResponseView<'a> {
    pub(crate) head: &'a ResponseHead,
    pub(crate) buf: &'a [u8],
}

impl<'a> ResponseView<'a> {
    /// The first value of a known field.
    #[must_use]
    pub fn known(&self, known: Known) -> Option<&'a [u8]> {
        self.head.fields.known(self.buf, known)
    }

    /// The reason phrase; may be empty.
    #[must_use]
    pub fn reason(&self) -> &'a [u8] {
        self.head.reason.of(self.buf)
    }

    /// Whether the status allows neither `Content-Length` (RFC 9110 §8.6) nor `Transfer-Encoding` (RFC 9112 §6.1).
    pub(crate) fn forbids_framing(&self) -> bool {
        self.head.status < 200 || self.head.status == 204
    }

    /// Whether the status line can be forwarded as it was sent.
    pub(crate) fn line_is_normal(&self) -> bool {
        self.head.line_is_normal
    }

    /// Flags of the lines that are not forwarded.
    pub(crate) fn skip(&self) -> u8 {
        if self.forbids_framing() {
            DROP | LENGTH
        } else {
            DROP
        }
    }

    /// The parsed head.
    #[must_use]
    pub fn head(&self) -> &'a ResponseHead {
        self.head
    }
}
