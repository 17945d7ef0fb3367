//! Places in a read buffer, relative to the first byte of the message.

use std::ops::Range;

/// A range of bytes within a head; heads are at most 65 535 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u16,
    end: u16,
}

impl Span {
    /// A span from offsets that the head limit keeps below 65 536.
    #[inline]
    pub(crate) fn new(range: Range<usize>) -> Self {
        Self {
            start: range.start as u16,
            end: range.end as u16,
        }
    }

    /// The offset of the first byte.
    #[inline]
    pub(crate) fn start(self) -> usize {
        self.start.into()
    }

    /// The offset behind the last byte.
    #[inline]
    pub(crate) fn end(self) -> usize {
        self.end.into()
    }

    /// The bytes; empty if the buffer is not the one that was parsed.
    #[inline]
    pub(crate) fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.start()..self.end()).unwrap_or_default()
    }
}

/// Text that is either as sent, in the read buffer, or was written anew to the scratch buffer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Piece {
    start: u32,
    end: u32,
    rewritten: bool,
}

impl Piece {
    /// Text in the read buffer.
    #[inline]
    pub(crate) fn sent(range: Range<usize>) -> Self {
        Self {
            start: range.start as u32,
            end: range.end as u32,
            rewritten: false,
        }
    }

    /// Text in the scratch buffer.
    pub(crate) fn rewritten(range: Range<usize>) -> Self {
        Self {
            rewritten: true,
            ..Self::sent(range)
        }
    }

    /// Whether it differs from what was sent.
    #[inline]
    pub(crate) fn is_rewritten(self) -> bool {
        self.rewritten
    }

    /// The bytes.
    #[inline]
    pub(crate) fn of<'a>(self, buf: &'a [u8], scratch: &'a [u8]) -> &'a [u8] {
        let from = if self.rewritten { scratch } else { buf };
        from.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}
