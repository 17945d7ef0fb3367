//! The client's stream as the h2 crate wants it: what was read before comes first, and a client that
//! takes nothing for too long ends its connection.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

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
    reads: Rc<Cell<u64>>,
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
        }
    }

    /// Counts how often something was read.
    pub(super) fn reads(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.reads)
    }

    /// Passes a write's outcome on, unless it has been blocked for too long.
    fn watch<T>(&mut self, cx: &Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
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
        let Some(first) = &mut self.first else {
            let read = Pin::new(&mut self.stream).poll_read(cx, buf);
            if read.is_ready() {
                self.reads.set(self.reads.get() + 1);
            }
            return read;
        };
        let n = first.len().min(buf.remaining());
        buf.put_slice(&first.filled()[..n]);
        first.consume(n);
        if first.is_empty() {
            self.first = None;
        }
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
