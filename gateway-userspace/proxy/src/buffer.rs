//! Read buffers, lent by a worker to a connection for as long as it has bytes in hand.

use std::cell::RefCell;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::{fmt, io};

use tokio::io::{AsyncRead, ReadBuf};

/// What one read may bring: a TLS record and the usual request or response whole.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;

/// Free buffers of one worker. Holds at most what was once lent at the same time, bounded.
#[derive(Default)]
pub(crate) struct Buffers {
    free: RefCell<Vec<Box<[u8]>>>,
}

/// Buffers kept free; 4 MiB a worker.
const KEPT: usize = 256;

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").finish_non_exhaustive()
    }
}

impl Buffers {
    /// Lends an empty buffer.
    pub(crate) fn lend(self: &Rc<Self>) -> Buffer {
        let bytes = self.free.borrow_mut().pop();
        Buffer {
            bytes: bytes.unwrap_or_else(|| vec![0; BUFFER_BYTES].into_boxed_slice()),
            filled: 0..0,
            home: Rc::clone(self),
        }
    }

    fn take_back(&self, bytes: Box<[u8]>) {
        let mut free = self.free.borrow_mut();
        if bytes.len() == BUFFER_BYTES && free.len() < KEPT {
            free.push(bytes);
        }
    }
}

/// A buffer that is filled at its end and consumed at its start.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    filled: Range<usize>,
    home: Rc<Buffers>,
}

impl Buffer {
    /// What was read and not consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.filled.clone()]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.filled.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.filled.len()
    }

    /// Whether a read would find no room without [`Buffer::grow`].
    pub(crate) fn is_full(&self) -> bool {
        self.filled.len() == self.bytes.len()
    }

    /// Forgets the first `n` bytes.
    pub(crate) fn consume(&mut self, n: usize) {
        self.filled.start += n;
        if self.filled.is_empty() {
            self.filled = 0..0;
        }
    }

    /// Forgets all but the first `n` bytes.
    pub(crate) fn truncate(&mut self, n: usize) {
        self.filled.end = self.filled.start + n;
        if n == 0 {
            self.filled = 0..0;
        }
    }

    /// Doubles the room, up to `limit` bytes; false if it is that large already.
    pub(crate) fn grow(&mut self, limit: usize) -> bool {
        let len = (self.bytes.len() * 2).min(limit.max(BUFFER_BYTES));
        if len <= self.bytes.len() {
            return false;
        }
        let mut bytes = vec![0; len].into_boxed_slice();
        bytes[..self.filled.len()].copy_from_slice(self.filled());
        self.filled = 0..self.filled.len();
        let small = std::mem::replace(&mut self.bytes, bytes);
        self.home.take_back(small);
        true
    }

    /// Reads once into the free room, of which there must be some; 0 is the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<usize>> {
        self.make_room();
        let mut room = ReadBuf::new(&mut self.bytes[self.filled.end..]);
        std::task::ready!(stream.poll_read(cx, &mut room))?;
        let n = room.filled().len();
        self.filled.end += n;
        Poll::Ready(Ok(n))
    }

    /// Moves what is filled to the front when the rest of the buffer is too short to be worth a read.
    fn make_room(&mut self) {
        let tail = self.bytes.len() - self.filled.end;
        if self.filled.start > 0 && tail < self.bytes.len() / 2 {
            self.bytes.copy_within(self.filled.clone(), 0);
            self.filled = 0..self.filled.len();
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.home.take_back(std::mem::take(&mut self.bytes));
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer")
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(buffer: &mut Buffer, mut bytes: &[u8]) -> usize {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match buffer.poll_fill(&mut cx, Pin::new(&mut bytes)) {
            Poll::Ready(Ok(n)) => n,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_across_compaction_and_growth() {
        let buffers = Rc::new(Buffers::default());
        let mut buffer = buffers.lend();
        assert_eq!(fill(&mut buffer, &[1; BUFFER_BYTES - 3]), BUFFER_BYTES - 3);
        buffer.consume(BUFFER_BYTES - 5);
        assert_eq!(fill(&mut buffer, &[2; 10]), 10);
        assert_eq!(buffer.filled(), [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert!(buffer.grow(BUFFER_BYTES * 4));
        assert_eq!(buffer.filled()[..3], [1, 1, 2]);
        assert!(buffer.grow(BUFFER_BYTES * 4) && !buffer.grow(BUFFER_BYTES * 4));
    }

    #[test]
    fn a_buffer_returned_is_lent_again_unless_it_grew() {
        let buffers = Rc::new(Buffers::default());
        let mut grown = buffers.lend();
        grown.grow(BUFFER_BYTES * 2);
        drop(grown);
        assert_eq!(
            buffers.free.borrow().len(),
            1,
            "only the small one it replaced"
        );
        drop(buffers.lend());
        assert_eq!(buffers.free.borrow().len(), 1);
    }
}
