//! Read buffers, lent by a worker's thread to a connection for as long as it has bytes in hand.

use std::cell::RefCell;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::{fmt, io};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

/// What one read may bring: a TLS record and the usual request or response whole.
pub(crate) const BUFFER_BYTES: usize = 16 * 1024;

/// What one read of a body may bring: as much as the kernel hands over at once, and a head before it.
pub(crate) const LARGE_BUFFER_BYTES: usize = 4 * BUFFER_BYTES + 4 * 1024;

/// From here on bytes that are to outlive their buffer keep it, instead of being copied: what is kept
/// besides them is at most as much again.
const SHARED_BYTES: usize = LARGE_BUFFER_BYTES / 2;

/// How large the storage is that a buffer takes when there is something to read.
#[derive(Clone, Copy, Debug)]
enum Size {
    Usual,
    Large,
}

impl Size {
    const fn bytes(self) -> usize {
        match self {
            Self::Usual => BUFFER_BYTES,
            Self::Large => LARGE_BUFFER_BYTES,
        }
    }

    /// How many are kept free: 4 MiB a worker in small ones, 2 MiB in large ones.
    const fn kept(self) -> usize {
        match self {
            Self::Usual => 256,
            Self::Large => 32,
        }
    }
}

thread_local! {
    /// What is free on this thread, by size. Holds at most what was once lent at the same time, bounded.
    static FREE: [RefCell<Vec<Box<[u8]>>>; 2] = const { [const { RefCell::new(Vec::new()) }; 2] };
}

fn take_free(size: Size) -> Box<[u8]> {
    let free = FREE.with(|free| free[size as usize].borrow_mut().pop());
    free.unwrap_or_else(|| vec![0; size.bytes()].into_boxed_slice())
}

fn give_back(bytes: Box<[u8]>) {
    let of_len = |size: &Size| size.bytes() == bytes.len();
    let Some(size) = [Size::Usual, Size::Large].into_iter().find(of_len) else {
        return;
    };
    // A thread that ends keeps nothing.
    let _ = FREE.try_with(|free| {
        let mut free = free[size as usize].borrow_mut();
        if free.len() < size.kept() {
            free.push(bytes);
        }
    });
}

/// A buffer that is filled at its end and consumed at its start. Has storage only while there is
/// something in it.
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    filled: Range<usize>,
    size: Size,
}

impl Buffer {
    /// An empty buffer of [`BUFFER_BYTES`].
    pub(crate) fn lend() -> Self {
        Self::of(Size::Usual)
    }

    /// An empty buffer of [`LARGE_BUFFER_BYTES`].
    pub(crate) fn lend_large() -> Self {
        Self::of(Size::Large)
    }

    fn of(size: Size) -> Self {
        Self {
            bytes: Box::default(),
            filled: 0..0,
            size,
        }
    }

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

    /// Whether a read has to make room, which [`Buffer::grow`] does up to a limit.
    pub(crate) fn is_full(&self) -> bool {
        self.filled.len() == self.bytes.len() && !self.bytes.is_empty()
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
        self.move_to(vec![0; len].into_boxed_slice());
        true
    }

    /// Makes it a large one, so that there is much room besides what is filled.
    pub(crate) fn enlarge(&mut self) {
        self.size = Size::Large;
        let large = match self.len() {
            0..=BUFFER_BYTES => LARGE_BUFFER_BYTES,
            long => long + LARGE_BUFFER_BYTES,
        };
        if !self.bytes.is_empty() && self.bytes.len() < large {
            self.move_to(match large {
                LARGE_BUFFER_BYTES => take_free(Size::Large),
                _ => vec![0; large].into_boxed_slice(),
            });
        }
    }

    fn move_to(&mut self, mut bytes: Box<[u8]>) {
        bytes[..self.filled.len()].copy_from_slice(self.filled());
        self.filled = 0..self.filled.len();
        give_back(std::mem::replace(&mut self.bytes, bytes));
    }

    /// Reads once into the free room, which is made if there is none; 0 is the end of the stream.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: Pin<&mut impl AsyncRead>,
    ) -> Poll<io::Result<usize>> {
        match self.bytes.is_empty() {
            true => self.bytes = take_free(self.size),
            // A read into no room would look like the end of the stream.
            false if self.is_full() => self.enlarge(),
            false => self.make_room(),
        }
        let mut room = ReadBuf::new(&mut self.bytes[self.filled.end..]);
        let read = stream.poll_read(cx, &mut room);
        let n = room.filled().len();
        self.filled.end += n;
        if self.filled.is_empty() {
            give_back(std::mem::take(&mut self.bytes));
        }
        ready!(read)?;
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

    /// Forgets the first `n` bytes but for those that `part` says of them. Few are copied; many take the
    /// storage with them when nothing else is left in it.
    pub(crate) fn take(&mut self, part: Range<usize>, n: usize) -> Bytes {
        if part.len() < SHARED_BYTES || n < self.len() {
            let bytes = Bytes::copy_from_slice(&self.filled()[part]);
            self.consume(n);
            return bytes;
        }
        let at = std::mem::take(&mut self.filled).start;
        let bytes = Bytes::from_owner(Lent(std::mem::take(&mut self.bytes)));
        bytes.slice(at + part.start..at + part.end)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.bytes));
    }
}

/// A buffer's storage that others read from.
struct Lent(Box<[u8]>);

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        give_back(std::mem::take(&mut self.0));
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

    fn poll(buffer: &mut Buffer, stream: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        buffer.poll_fill(&mut cx, Pin::new(stream))
    }

    fn fill(buffer: &mut Buffer, mut bytes: &[u8]) -> usize {
        match poll(buffer, &mut bytes) {
            Poll::Ready(Ok(n)) => n,
            other => panic!("{other:?}"),
        }
    }

    /// How many are free, of both sizes. Every test has a thread of its own.
    fn free() -> [usize; 2] {
        FREE.with(|free| free.each_ref().map(|free| free.borrow().len()))
    }

    #[test]
    fn bytes_leave_in_the_order_they_came_across_compaction_and_growth() {
        let mut buffer = Buffer::lend();
        assert_eq!(fill(&mut buffer, &[1; BUFFER_BYTES - 3]), BUFFER_BYTES - 3);
        buffer.consume(BUFFER_BYTES - 5);
        assert_eq!(fill(&mut buffer, &[2; 10]), 10);
        assert_eq!(buffer.filled(), [1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert!(buffer.grow(BUFFER_BYTES * 4));
        assert_eq!(buffer.filled()[..3], [1, 1, 2]);
        assert!(buffer.grow(BUFFER_BYTES * 4) && !buffer.grow(BUFFER_BYTES * 4));
        buffer.enlarge();
        assert_eq!(buffer.filled()[..3], [1, 1, 2]);
        assert_eq!(buffer.bytes.len(), LARGE_BUFFER_BYTES);
    }

    #[test]
    fn a_long_head_has_a_large_buffer_besides_it() {
        let mut buffer = Buffer::lend();
        fill(&mut buffer, &[1; BUFFER_BYTES]);
        buffer.grow(BUFFER_BYTES * 4);
        fill(&mut buffer, &[2; BUFFER_BYTES]);
        buffer.enlarge();
        let n = fill(&mut buffer, &[3; BUFFER_BYTES * 8]);
        assert_eq!(n, LARGE_BUFFER_BYTES);
        assert_eq!(buffer.filled()[BUFFER_BYTES * 2 - 1..][..2], [2, 3]);
        buffer.truncate(BUFFER_BYTES * 2);
        buffer.enlarge();
        assert_eq!(buffer.bytes.len(), BUFFER_BYTES * 2 + LARGE_BUFFER_BYTES);
    }

    #[test]
    fn only_the_end_of_a_stream_reads_as_one() {
        let mut buffer = Buffer::lend();
        for bytes in [BUFFER_BYTES, LARGE_BUFFER_BYTES - BUFFER_BYTES] {
            assert_eq!(fill(&mut buffer, &vec![1; bytes]), bytes);
            assert!(buffer.is_full());
        }
        assert_eq!(fill(&mut buffer, b"more"), 4);
        assert_eq!(buffer.filled()[LARGE_BUFFER_BYTES - 1..], *b"\x01more");
        assert_eq!(fill(&mut buffer, b""), 0);
    }

    #[test]
    fn a_buffer_returned_is_lent_again_unless_it_grew() {
        let mut grown = Buffer::lend();
        fill(&mut grown, b"x");
        grown.grow(BUFFER_BYTES * 2);
        assert_eq!(free(), [1, 0], "the small one it replaced");
        drop(grown);
        assert_eq!(free(), [1, 0]);
        let mut large = Buffer::lend_large();
        fill(&mut large, b"x");
        drop(large);
        assert_eq!(free(), [1, 1]);
    }

    #[test]
    fn a_buffer_that_waits_with_nothing_in_it_has_no_storage() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        let mut buffer = Buffer::lend_large();
        assert!(poll(&mut buffer, &mut ours).is_pending());
        assert_eq!((free(), buffer.bytes.len()), ([0, 1], 0));
        assert!(!buffer.is_full() && buffer.is_empty());
        fill(&mut buffer, b"ab");
        assert_eq!(free(), [0, 0]);
        buffer.consume(1);
        assert!(poll(&mut buffer, &mut ours).is_pending());
        assert_eq!((free(), buffer.filled()), ([0, 0], &b"b"[..]));
        buffer.consume(1);
        assert!(poll(&mut buffer, &mut ours).is_pending());
        assert_eq!(free(), [0, 1]);
        drop(theirs);
    }

    #[test]
    fn bytes_that_outlive_their_buffer_keep_it_only_when_they_fill_it() {
        let mut buffer = Buffer::lend_large();
        fill(&mut buffer, &[1; SHARED_BYTES + 3]);
        let copied = buffer.take(1..SHARED_BYTES + 1, SHARED_BYTES + 2);
        assert_eq!((copied.len(), buffer.filled()), (SHARED_BYTES, &[1][..]));
        let few = buffer.take(0..1, 1);
        assert_eq!(&few[..], [1]);
        drop(buffer);
        assert_eq!(free(), [0, 1], "nobody keeps it");

        let mut buffer = Buffer::lend_large();
        fill(&mut buffer, &[2; SHARED_BYTES + 3]);
        buffer.consume(1);
        let kept = buffer.take(1..SHARED_BYTES + 1, SHARED_BYTES + 2);
        assert!(kept.len() == SHARED_BYTES && kept.iter().all(|&byte| byte == 2));
        assert!(buffer.is_empty() && !buffer.is_full());
        assert_eq!(fill(&mut buffer, b"again"), 5);
        drop(buffer);
        assert_eq!(free(), [0, 1], "its second storage");
        drop(kept);
        assert_eq!(free(), [0, 2]);
    }
}
