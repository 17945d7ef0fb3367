//! The header lines of a head: spans, and what they say about framing and the connection.

use super::lines::Lines;
use super::span::Span;
use crate::head::bytes::{self, TCHAR};
use crate::head::{Known, Violation};
use crate::limits::HeadLimits;

/// The line is not forwarded: hop-by-hop, nominated by `Connection`, or a repetition.
pub(crate) const DROP: u8 = 1;
/// The line says where the request came from.
pub(crate) const FORWARDING: u8 = 2;
/// The line is `Host`.
pub(crate) const HOST: u8 = 4;
/// The line is not `name: value` to the byte and is written anew.
pub(crate) const RESPELL: u8 = 8;

/// The line is `Content-Length`.
pub(crate) const LENGTH: u8 = 16;

/// The line is `Date`.
pub(crate) const DATE: u8 = 32;

/// One header line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    /// The name; its start is the start of the line.
    pub name: Span,
    /// The value without outer white space.
    pub value: Span,
    /// What the name means here.
    pub known: Known,
    /// [`DROP`] and the others.
    pub flags: u8,
}

/// What a message says about its coding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Coding {
    /// No `Transfer-Encoding`.
    #[default]
    None,
    /// Exactly one `chunked`.
    Chunked,
}

/// All header lines of one head and the facts gathered from them.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    /// The lines in order.
    pub list: Vec<Field>,
    /// Where the first line begins.
    pub start: usize,
    /// Where the empty line begins.
    pub end: usize,
    /// All flags of all lines.
    pub flags: u8,
    /// `Content-Length`, if there is one.
    pub length: Option<u64>,
    /// Whether `Content-Length` is written by us because the sent digits were not canonical.
    pub own_length: bool,
    /// `Transfer-Encoding`.
    pub coding: Coding,
    /// `Connection: close`.
    pub close: bool,
    /// `Connection: keep-alive`.
    pub keep_alive: bool,
    /// `Connection: upgrade`.
    pub upgrade: bool,
    connections: bool,
}

/// How many fields `Connection` may nominate.
const MAX_NOMINATIONS: usize = 32;

impl Fields {
    /// Forgets the last head and keeps the storage.
    pub(crate) fn reset(&mut self) {
        let mut list = std::mem::take(&mut self.list);
        list.clear();
        *self = Self {
            list,
            ..Self::default()
        };
    }

    /// Reads header lines until the empty one; true when it was reached. `note` sees every line.
    /// `NAMES` is the class of bytes that names are made of.
    pub(crate) fn read<const NAMES: u8>(
        &mut self,
        lines: &mut Lines,
        buf: &[u8],
        limits: &HeadLimits,
        mut note: impl FnMut(usize, Field, &[u8]) -> Result<u8, Violation>,
    ) -> Result<bool, Violation> {
        let buf = lines.visible(buf, limits);
        if !lines.has_more(buf) {
            return lines.wait(buf, limits);
        }
        loop {
            let at = lines.at;
            match buf.get(at..).unwrap_or_default() {
                [b'\r', b'\n', ..] => {
                    lines.at = at + 2;
                    self.end = at;
                    self.nominate(buf)?;
                    return Ok(true);
                }
                [] | [b'\r'] => return lines.wait(buf, limits),
                _ if self.list.len() >= limits.lines => return Err(Violation::TooManyHeaders),
                rest => match parse_line::<NAMES>(rest, at) {
                    Ok((mut field, len)) => {
                        let value = field.value.of(buf);
                        field.flags |=
                            self.facts(&field, value)? | note(self.list.len(), field, value)?;
                        self.flags |= field.flags;
                        self.list.push(field);
                        lines.at = at + len;
                    }
                    // A line is judged when it is whole, so that it is judged the same however it arrives.
                    Err(violation) if memchr::memchr(b'\n', rest).is_some() => {
                        return Err(violation);
                    }
                    Err(_) => return lines.wait(buf, limits),
                },
            }
        }
    }

    /// The values of the lines of a name, in order.
    pub(crate) fn values<'a, 'n>(
        &'a self,
        buf: &'a [u8],
        name: &'n [u8],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.list
            .iter()
            .filter(move |field| field.name.of(buf).eq_ignore_ascii_case(name))
            .map(move |field| field.value.of(buf))
    }

    /// The first value of a known field.
    pub(crate) fn known<'a>(&self, buf: &'a [u8], known: Known) -> Option<&'a [u8]> {
        let field = self.list.iter().find(|field| field.known == known)?;
        Some(field.value.of(buf))
    }

    /// Where a line ends, its CR LF included.
    #[inline]
    pub(crate) fn line_end(&self, index: usize) -> usize {
        self.list
            .get(index + 1)
            .map_or(self.end, |next| next.name.start())
    }

    /// Keeps the facts that requests and responses share; gives the flags of the line.
    #[inline]
    fn facts(&mut self, field: &Field, value: &[u8]) -> Result<u8, Violation> {
        match field.known {
            Known::Other | Known::Accept => Ok(0),
            Known::ContentLength => self.length(value),
            Known::TransferEncoding => self.coding(value).map(|()| DROP),
            Known::Connection => {
                self.connection(value);
                Ok(DROP)
            }
            Known::Host => Ok(HOST),
            Known::Date => Ok(DATE),
            known if known.is_hop_by_hop() => Ok(DROP),
            known if known.is_forwarding() => Ok(FORWARDING),
            _ => Ok(0),
        }
    }

    /// Most say one thing; what says more waits until all lines are known.
    fn connection(&mut self, value: &[u8]) {
        match value.len() {
            10 if value.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
            5 if value.eq_ignore_ascii_case(b"close") => self.close = true,
            _ => self.connections = true,
        }
    }

    fn length(&mut self, value: &[u8]) -> Result<u8, Violation> {
        let length = bytes::decimal(value).ok_or(Violation::LengthInvalid)?;
        match self.length.replace(length) {
            Some(first) if first != length => Err(Violation::LengthConflict),
            Some(_) => Ok(DROP),
            None if value.len() > 1 && value[0] == b'0' => {
                self.own_length = true;
                Ok(DROP)
            }
            None => Ok(LENGTH),
        }
    }

    fn coding(&mut self, value: &[u8]) -> Result<(), Violation> {
        if value.eq_ignore_ascii_case(b"chunked") {
            if self.coding == Coding::Chunked {
                return Err(Violation::CodingMalformed);
            }
            self.coding = Coding::Chunked;
            return Ok(());
        }
        let tokens =
            bytes::list(value).all(|coding| !coding.is_empty() && bytes::all(coding, TCHAR));
        let foreign = bytes::list(value).any(|coding| !coding.eq_ignore_ascii_case(b"chunked"));
        Err(if tokens && foreign {
            Violation::CodingUnsupported
        } else {
            Violation::CodingMalformed
        })
    }

    /// Obeys `Connection` once all lines are known: options, and fields that go no further.
    fn nominate(&mut self, buf: &[u8]) -> Result<(), Violation> {
        if !self.connections {
            return Ok(());
        }
        let mut nominations = 0;
        for index in 0..self.list.len() {
            let field = self.list[index];
            if field.known != Known::Connection {
                continue;
            }
            for option in bytes::list(field.value.of(buf)) {
                nominations += 1;
                if nominations > MAX_NOMINATIONS {
                    return Err(Violation::ConnectionNomination);
                }
                self.option(option, buf)?;
            }
        }
        Ok(())
    }

    fn option(&mut self, option: &[u8], buf: &[u8]) -> Result<(), Violation> {
        if option.eq_ignore_ascii_case(b"keep-alive") {
            self.keep_alive = true;
        } else if option.eq_ignore_ascii_case(b"close") {
            self.close = true;
        } else if option.eq_ignore_ascii_case(b"upgrade") {
            self.upgrade = true;
        } else if !bytes::all(option, TCHAR) || Known::of(option).is_end_to_end() {
            return Err(Violation::ConnectionNomination);
        } else {
            for field in &mut self.list {
                if field.name.of(buf).eq_ignore_ascii_case(option) {
                    field.flags |= DROP;
                    self.flags |= DROP;
                }
            }
        }
        Ok(())
    }
}

/// Parses the line `name: value` that begins the text and stands at `offset` of the head; gives its
/// length too. What is not whole yet fails like what is malformed.
#[inline(always)]
fn parse_line<const NAMES: u8>(text: &[u8], offset: usize) -> Result<(Field, usize), Violation> {
    let colon = bytes::run(text, NAMES);
    if text.get(colon) != Some(&b':') || colon == 0 {
        return Err(malformed(text, colon));
    }
    let mut start = colon + 1;
    while let Some(b' ' | b'\t') = text.get(start) {
        start += 1;
    }
    let end = start + bytes::value_len(&text[start..]);
    if text.get(end..end + 2) != Some(b"\r\n") {
        return Err(match text.get(end) {
            Some(b'\n') => Violation::LineEnd,
            _ => Violation::HeaderValue,
        });
    }
    let value_len = bytes::trim_end(&text[start..end]).len();
    let canonical = match start - colon {
        1 => true,
        2 => text[colon + 1] == b' ',
        _ => false,
    };
    let flags = if canonical && start + value_len == end {
        0
    } else {
        RESPELL
    };
    let field = Field {
        name: Span::new(offset..offset + colon),
        value: Span::new(offset + start..offset + start + value_len),
        known: match text.first_chunk() {
            Some(first) => Known::of_first(*first, &text[..colon]),
            None => Known::of(&text[..colon]),
        },
        flags,
    };
    Ok((field, end + 2))
}

#[cold]
fn malformed(text: &[u8], at: usize) -> Violation {
    match text.get(at) {
        Some(b'\n') => Violation::LineEnd,
        Some(b' ' | b'\t') if at == 0 => Violation::Folding,
        None | Some(b':' | b' ' | b'\t' | b'\r') => Violation::HeaderLine,
        Some(_) => Violation::HeaderName,
    }
}
