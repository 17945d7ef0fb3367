//! Cuts a head into lines as its bytes arrive.

use crate::head::Violation;
use crate::limits::HeadLimits;
use std::ops::Range;

/// How far a head has been cut; offsets are relative to its first byte.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    /// Where the next line begins.
    pub at: usize,
    /// Up to where no line end is.
    searched: usize,
}

impl Lines {
    /// The next whole line without its CR LF; nothing while its end has not arrived.
    ///
    /// # Errors
    /// A line end other than CR LF, or a head over the limit.
    #[inline]
    pub(crate) fn next(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<Range<usize>>, Violation> {
        let max = limits.bytes.min(usize::from(u16::MAX));
        let from = self.searched.max(self.at);
        let Some(offset) = memchr::memchr(b'\n', buf.get(from..).unwrap_or_default()) else {
            self.searched = buf.len();
            return if buf.len() >= max {
                Err(Violation::HeadTooLarge)
            } else {
                Ok(None)
            };
        };
        let feed = from + offset;
        if feed >= max {
            return Err(Violation::HeadTooLarge);
        }
        if feed == self.at || buf[feed - 1] != b'\r' {
            return Err(Violation::LineEnd);
        }
        let line = self.at..feed - 1;
        self.at = feed + 1;
        Ok(Some(line))
    }
}
