//! Bytes from one side of a connection to the other, until the sender ends: what upgraded connections
//! and streams are made of. What the receiver does not take is not read, so that the sender feels it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::buffer::Buffer;
use crate::stream::Truncate;

/// One way. Holds a buffer only while there is something in it.
pub(super) struct Direction {
    held: Option<Buffer>,
    /// Bytes that the receiver has taken.
    pub(super) bytes: u64,
    ended: bool,
    done: bool,
    flushed: bool,
    moved: bool,
    /// The sender ended without saying so: TLS without `close_notify`. The receiver is not told
    /// otherwise.
    pub(super) is_cut: bool,
    /// Which end failed and how; nothing moves any more.
    pub(super) failure: Option<Failure>,
}

/// The end of a direction that failed.
#[derive(Debug)]
pub(super) enum Failure {
    Sender(io::Error),
    Receiver(io::Error),
}

impl Direction {
    /// Begins with what has been read already.
    pub(super) fn new(first: Option<Buffer>) -> Self {
        Self {
            held: first.filter(|first| !first.is_empty()),
            bytes: 0,
            ended: false,
            done: false,
            flushed: true,
            moved: false,
            is_cut: false,
            failure: None,
        }
    }

    /// Whether bytes have moved since this was last asked.
    pub(super) fn take_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Ready when the sender has ended and the receiver has been told, or when one of them failed.
    pub(super) fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        sender: &mut R,
        receiver: &mut W,
    ) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Truncate + Unpin,
    {
        if !self.done {
            let copied = ready!(self.poll_copy(cx, sender, receiver));
            self.failure = copied.err();
            self.done = true;
        }
        Poll::Ready(())
    }

    fn poll_copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        sender: &mut R,
        receiver: &mut W,
    ) -> Poll<Result<(), Failure>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Truncate + Unpin,
    {
        loop {
            ready!(self.poll_deliver(cx, receiver)).map_err(Failure::Receiver)?;
            if self.ended {
                let shut = match self.is_cut {
                    // RFC 8446 §6.1: both "must share knowledge that the connection is ending in
                    // order to avoid a truncation attack".
                    true => receiver.poll_truncate(cx),
                    false => Pin::new(receiver).poll_shutdown(cx),
                };
                return Poll::Ready(ready!(shut).map_err(Failure::Receiver));
            }
            let mut buffer = Buffer::lend_large();
            match ready!(buffer.poll_fill(cx, Pin::new(&mut *sender))) {
                Ok(0) => self.ended = true,
                Ok(_) => self.held = Some(buffer),
                // What came before is whole as far as TCP goes, and is not thrown away.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    (self.ended, self.is_cut) = (true, true);
                }
                Err(e) => return Poll::Ready(Err(Failure::Sender(e))),
            }
        }
    }

    /// Ready when nothing is held and all is flushed.
    fn poll_deliver<W>(&mut self, cx: &mut Context<'_>, receiver: &mut W) -> Poll<io::Result<()>>
    where
        W: AsyncWrite + Unpin,
    {
        while let Some(buffer) = &mut self.held {
            let n = ready!(Pin::new(&mut *receiver).poll_write(cx, buffer.filled()))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            buffer.consume(n);
            self.bytes += n as u64;
            (self.moved, self.flushed) = (true, false);
            if buffer.is_empty() {
                self.held = None;
            }
        }
        if !self.flushed {
            ready!(Pin::new(receiver).poll_flush(cx))?;
            self.flushed = true;
        }
        Poll::Ready(Ok(()))
    }
}
