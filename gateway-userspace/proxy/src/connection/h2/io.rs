//! The client's stream as the h2 crate wants it: what was read before comes first, and a client that
//! takes nothing for too long ends its connection.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frames::Frames;
use super::outbox::Outbox;
use crate::buffer::Buffer;
use crate::stream::Stream;
use crate::timers::Deadline;

/// A client's stream under watch.
#[derive(Debug)]
pub(super) struct WatchedIo {
    stream: Stream,
    first: Option<Buffer>,
    stall: Deadline,
    limit: Duration,
    /// Whether the last write found no room.
    blocked: bool,
    reads: Rc<Reads>,
    outbox: Rc<Outbox>,
}

/// What is known of a connection's reads outside of it.
#[derive(Debug, Default)]
pub(super) struct Reads {
    count: Cell<u64>,
    /// Whether nothing more is there to read, as far as the task has heard.
    dry: Cell<bool>,
    frames: RefCell<Frames>,
}

impl Reads {
    /// How often something was read.
    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    /// Whether all that has come was read.
    pub(super) fn is_dry(&self) -> bool {
        self.dry.get()
    }

    /// The number of the header block that has begun and is not complete.
    pub(super) fn open_block(&self) -> Option<u64> {
        self.frames.borrow().open_block()
    }

    /// How many requests' heads have come, whatever became of them.
    pub(super) fn heads(&self) -> u64 {
        self.frames.borrow().heads()
    }

    /// The task has been woken: there may be something to read again.
    ///
    /// The h2 crate reads before it gives each stream that has come. Until the task is woken once more, which
    /// whatever else arrives sees to, each of these reads would go down to the socket to find nothing.
    pub(super) fn may_have_come(&self) {
        self.dry.set(false);
    }
}

impl Reads {
    /// This has been read from the socket.
    fn note(&self, bytes: &[u8]) {
        self.count.set(self.count.get() + 1);
        self.frames.borrow_mut().pass(bytes);
    }
}

impl WatchedIo {
    pub(super) fn new(
        stream: Stream,
        first: Option<Buffer>,
        stall: Deadline,
        limit: Duration,
    ) -> Self {
        Self {
            stream,
            first,
            stall,
            limit,
            blocked: false,
            reads: Rc::default(),
            outbox: Rc::default(),
        }
    }

    /// What is known of its reads.
    pub(super) fn reads(&self) -> Rc<Reads> {
        Rc::clone(&self.reads)
    }

    /// What is known of its writes.
    pub(super) fn outbox(&self) -> Rc<Outbox> {
        Rc::clone(&self.outbox)
    }

    /// Passes a write's outcome on, unless it has been blocked for too long.
    fn watch<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        self.outbox.note(written.is_pending());
        if written.is_ready() {
            if std::mem::take(&mut self.blocked) {
                self.stall.clear();
            }
            return written;
        }
        if !std::mem::replace(&mut self.blocked, true) {
            self.stall.register(cx);
            self.stall.set(self.limit);
        }
        if self.stall.is_expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }
}

impl AsyncRead for WatchedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let Some(first) = &mut self.first else {
            if self.reads.dry.get() {
                return Poll::Pending;
            }
            let read = Pin::new(&mut self.stream).poll_read(cx, buf);
            match read.is_ready() {
                true => self.reads.note(&buf.filled()[before..]),
                false => self.reads.dry.set(true),
            }
            return read;
        };
        let n = first.len().min(buf.remaining());
        buf.put_slice(&first.filled()[..n]);
        first.consume(n);
        if first.is_empty() {
            self.first = None;
        }
        self.reads.frames.borrow_mut().pass(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for WatchedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}
