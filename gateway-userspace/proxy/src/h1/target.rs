//! The request target: origin-form, absolute-form, or `*` with `OPTIONS` (RFC 9112 §3.2).

use std::ops::Range;

use super::span::Piece;
use crate::head::Violation;
use crate::head::authority::Authority;
use crate::head::bytes::{self, PATH, QUERY};
use crate::head::path;

/// A parsed target; offsets are those of the head.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Target {
    /// The normalised path, or `*`.
    pub path: Piece,
    /// The query without `?`.
    pub query: Option<Piece>,
    /// The authority of an absolute-form target and its scheme's default port.
    pub absolute: Option<(Piece, Authority, u16)>,
    /// `*`.
    pub asterisk: bool,
}

impl Target {
    /// Parses the target at `at` of `buf`.
    #[inline]
    pub(crate) fn parse(
        buf: &[u8],
        at: Range<usize>,
        options: bool,
        scratch: &mut Vec<u8>,
    ) -> Result<Self, Violation> {
        let mut target = Self::default();
        match &buf[at.clone()] {
            [b'/', ..] => target.path_and_query(buf, at, scratch)?,
            b"*" if options => {
                target.asterisk = true;
                target.path = Piece::sent(at);
            }
            _ => target.absolute(buf, at, scratch)?,
        }
        Ok(target)
    }

    #[inline]
    fn path_and_query(
        &mut self,
        buf: &[u8],
        at: Range<usize>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let raw = &buf[at.clone()];
        let (len, normal) = scan_path(raw);
        self.path = if normal {
            Piece::sent(at.start..at.start + len)
        } else {
            match path::normalise(&raw[..len], scratch)? {
                path::Normal::AsSent => Piece::sent(at.start..at.start + len),
                path::Normal::Written(range) => Piece::rewritten(range),
            }
        };
        if len < raw.len() {
            let query = &raw[len + 1..];
            if !bytes::all(query, QUERY) {
                return Err(bad_byte(query));
            }
            self.query = Some(Piece::sent(at.start + len + 1..at.end));
        }
        Ok(())
    }

    #[cold]
    fn absolute(
        &mut self,
        buf: &[u8],
        at: Range<usize>,
        scratch: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let raw = &buf[at.clone()];
        let (scheme_len, default_port) = scheme(raw)?;
        let rest = &raw[scheme_len..];
        let len = rest
            .iter()
            .position(|b| matches!(b, b'/' | b'?' | b'#'))
            .unwrap_or(rest.len());
        let authority = Authority::parse(&rest[..len])?;
        let start = at.start + scheme_len;
        self.absolute = Some((Piece::sent(start..start + len), authority, default_port));
        let remains = start + len..at.end;
        if rest.get(len) == Some(&b'/') {
            return self.path_and_query(buf, remains, scratch);
        }
        let slash = scratch.len();
        scratch.push(b'/');
        self.path = Piece::rewritten(slash..slash + 1);
        if remains.is_empty() {
            return Ok(());
        }
        let query = &buf[remains.start + 1..remains.end];
        if buf[remains.start] == b'#' || !bytes::all(query, QUERY) {
            return Err(bad_byte(&buf[remains]));
        }
        self.query = Some(Piece::sent(remains.start + 1..remains.end));
        Ok(())
    }
}

/// The length of the path before `?`, and whether it is certainly normal.
#[inline]
fn scan_path(raw: &[u8]) -> (usize, bool) {
    let mut after_slash = true;
    for (at, &b) in raw.iter().enumerate().skip(1) {
        if bytes::is(b, PATH) {
            after_slash = false;
        } else if b == b'/' && !after_slash {
            after_slash = true;
        } else if b == b'?' {
            return (at, true);
        } else if b != b'.' || after_slash {
            return (memchr::memchr(b'?', raw).unwrap_or(raw.len()), false);
        }
    }
    (raw.len(), true)
}

fn scheme(raw: &[u8]) -> Result<(usize, u16), Violation> {
    let colon = bytes::run(raw, bytes::TCHAR);
    if !raw[colon..].starts_with(b"://") {
        return Err(match raw.first() {
            Some(b) if !b.is_ascii_graphic() => Violation::TargetByte,
            _ => Violation::TargetForm,
        });
    }
    match &raw[..colon] {
        scheme if scheme.eq_ignore_ascii_case(b"http") => Ok((colon + 3, 80)),
        scheme if scheme.eq_ignore_ascii_case(b"https") => Ok((colon + 3, 443)),
        _ => Err(Violation::Scheme),
    }
}

#[cold]
fn bad_byte(text: &[u8]) -> Violation {
    match text.iter().find(|&&b| !bytes::is(b, QUERY)) {
        Some(b'#') => Violation::TargetFragment,
        _ => Violation::TargetByte,
    }
}
