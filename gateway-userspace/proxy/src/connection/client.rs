//! A client's stream with its deadline: the waits that every protocol has.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::AsyncWrite;

use crate::buffer::Buffer;
use crate::downstream::Downstream;
use crate::stream::Stream;
use crate::timers::Deadline;

/// How long a client that has been told that the connection ends may send nothing before it closes its side. What it
/// sends is read and dropped, so that closing does not destroy the answer on its way (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(2);

/// How long it may go on sending.
const LINGER_TOTAL: Duration = Duration::from_secs(10);

/// How much: more than what is on its way when it learns of the answer, for it does not read while it writes into the
/// sockets' buffers, of 6 and 4 MiB by linux's defaults (`tcp_rmem`, `tcp_wmem`).
const LINGER_BYTES: usize = 32 << 20;

/// A client's connection while its task serves it.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) downstream: Downstream,
    pub(super) stream: Stream,
    pub(super) deadline: Deadline,
}

impl Client {
    pub(super) fn new(downstream: Downstream, stream: Stream) -> Self {
        let deadline = downstream.worker.timers.deadline();
        Self {
            downstream,
            stream,
            deadline,
        }
    }

    /// What the client sends next; nothing if it leaves, says nothing for `limit`, or says nothing
    /// for a grace once the worker drains. Holds no buffer while it waits.
    ///
    /// Draining ends an idle connection only after that grace: a request that was on its way when
    /// draining began is still answered. What a client sends in the very moment of the end is lost
    /// as it would be at the end of any keep-alive time, and HTTP clients repeat it (RFC 9112 §9.3.1).
    pub(super) async fn next_bytes(&mut self, limit: Duration) -> Option<Buffer> {
        self.deadline.set(limit);
        let mut in_grace = false;
        poll_fn(|cx| self.poll_next_bytes(cx, &mut in_grace)).await
    }

    fn poll_next_bytes(
        &mut self,
        cx: &mut Context<'_>,
        in_grace: &mut bool,
    ) -> Poll<Option<Buffer>> {
        let mut buffer = Buffer::lend();
        match buffer.poll_fill(cx, Pin::new(&mut self.stream)) {
            Poll::Ready(Ok(1..)) => return Poll::Ready(Some(buffer)),
            Poll::Ready(_) => return Poll::Ready(None),
            Poll::Pending => {}
        }
        self.deadline.register(cx);
        let worker = &self.downstream.worker;
        if worker.is_draining() && !std::mem::replace(in_grace, true) {
            self.deadline.set(worker.limits().time.drain_grace);
        }
        if self.deadline.is_expired() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }

    /// Reads once, within the deadline that is set.
    ///
    /// # Errors
    /// The stream's, `TimedOut`, and `UnexpectedEof` when the client ends.
    pub(super) async fn fill(&mut self, buffer: &mut Buffer) -> io::Result<()> {
        poll_fn(|cx| {
            if let Poll::Ready(read) = buffer.poll_fill(cx, Pin::new(&mut self.stream)) {
                return Poll::Ready(match read {
                    Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                    other => other.map(drop),
                });
            }
            self.poll_expired(cx)
        })
        .await
    }

    /// Writes all of it; gives up when the client takes nothing for the write-stall limit.
    ///
    /// # Errors
    /// The stream's, and `TimedOut`.
    pub(super) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let stall = self.downstream.worker.limits().time.write_stall;
        self.deadline.set(stall);
        poll_fn(|cx| {
            let mut stream = Pin::new(&mut self.stream);
            while !bytes.is_empty() {
                match stream.as_mut().poll_write(cx, bytes) {
                    Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    Poll::Ready(Ok(n)) => {
                        bytes = &bytes[n..];
                        self.deadline.set(stall);
                    }
                    Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                    Poll::Pending => return self.poll_expired(cx),
                }
            }
            match stream.poll_flush(cx) {
                Poll::Pending => self.poll_expired(cx),
                ready => ready,
            }
        })
        .await
    }

    /// Ends the connection so that what was sent last arrives: closes our side, then reads what the
    /// client still sends until it closes its own, within limits.
    pub(super) async fn close(mut self: Box<Self>) {
        self.deadline.set(LINGER);
        let shut = poll_fn(|cx| match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self.poll_expired(cx),
            ready => ready,
        });
        if shut.await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES;
        let end = self.deadline.timers().at(LINGER_TOTAL);
        poll_fn(|cx| {
            while left > 0 {
                let mut buffer = Buffer::lend();
                match buffer.poll_fill(cx, Pin::new(&mut self.stream)) {
                    Poll::Ready(Ok(n @ 1..)) => {
                        left = left.saturating_sub(n);
                        let silent = self.deadline.timers().at(LINGER);
                        self.deadline.set_at(silent.min(end));
                    }
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.poll_expired::<()>(cx).map(drop),
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Ready with `TimedOut` once the deadline has passed.
    fn poll_expired<T>(&self, cx: &Context<'_>) -> Poll<io::Result<T>> {
        self.deadline.register(cx);
        if self.deadline.is_expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Poll::Pending
    }

    /// Looks whether the client has left, while it is not its turn to speak. What it sends
    /// nevertheless is the next request and stays in the buffer.
    pub(super) fn poll_left(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<()> {
        while !buffer.is_full() {
            match ready!(buffer.poll_fill(cx, Pin::new(&mut self.stream))) {
                Ok(1..) => {}
                _ => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }
}
