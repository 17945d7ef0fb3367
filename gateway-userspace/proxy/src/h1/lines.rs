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
    /// What of the buffer a head may reach into; spans cannot express more.
    #[inline]
    pub(crate) fn visible<'a>(&self, buf: &'a [u8], limits: &HeadLimits) -> &'a [u8] {
        let max = limits.bytes.min(usize::from(u16::MAX));
        &buf[..buf.len().min(max)]
    }

    /// Whether a line end may have arrived since the last look.
    #[inline]
    pub(crate) fn has_more(&self, visible: &[u8]) -> bool {
        self.searched <= self.at
            || memchr::memchr(b'\n', visible.get(self.searched..).unwrap_or_default()).is_some()
    }

    /// The next line is not whole yet.
    ///
    /// # Errors
    /// There is no room for it.
    pub(crate) fn wait(&mut self, visible: &[u8], limits: &HeadLimits) -> Result<bool, Violation> {
        self.searched = visible.len();
        if visible.len() >= limits.bytes.min(usize::from(u16::MAX)) {
            return Err(Violation::HeadTooLarge);
        }
        Ok(false)
    }

    /// The next whole line without its CR LF; nothing while its end has not arrived.
    ///
    /// # Errors
    /// A line end other than CR LF, or a head over the limit.
    pub(crate) fn next(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
    ) -> Result<Option<Range<usize>>, Violation> {
        let buf = self.visible(buf, limits);
        let from = self.searched.max(self.at);
        let Some(offset) = memchr::memchr(b'\n', buf.get(from..).unwrap_or_default()) else {
            self.wait(buf, limits)?;
            return Ok(None);
        };
        let feed = from + offset;
        if feed == self.at || buf[feed - 1] != b'\r' {
            return Err(Violation::LineEnd);
        }
        let line = self.at..feed - 1;
        self.at = feed + 1;
        Ok(Some(line))
    }
}
