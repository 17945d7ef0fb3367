//! An upgraded connection: bytes both ways until either side ends.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use super::Next;
use crate::buffer::Buffer;
use crate::connection::client::Client;
use crate::connection::record::Record;
use crate::upstream::UpstreamStream;

/// Copies bytes until both sides have ended, one fails, or nothing moves for the tunnel's limit.
/// `late` is what the client sent after its request, `early` what the upstream sent after its answer.
pub(super) async fn run(
    client: &mut Client,
    mut upstream: UpstreamStream,
    late: Buffer,
    early: Buffer,
    record: &mut Record,
) -> Next {
    let worker = client.downstream.worker.clone();
    worker.counters.tunnels.up();
    worker.counters.tunnels_open.up();
    let limit = worker.limits().time.tunnel_idle;
    client.deadline.set(limit);
    let mut up = Direction::new(late);
    let mut down = Direction::new(early);
    poll_fn(|cx| {
        let up_now = up.poll(cx, &worker, &mut client.stream, &mut upstream);
        let down_now = down.poll(cx, &worker, &mut upstream, &mut client.stream);
        if up.failed || down.failed || (up_now.is_ready() && down_now.is_ready()) {
            return Poll::Ready(());
        }
        client.deadline.register(cx);
        if std::mem::take(&mut up.moved) | std::mem::take(&mut down.moved) {
            client.deadline.set(limit);
        }
        if client.deadline.is_expired() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
    worker.counters.tunnels_open.down();
    record.bytes_received += up.bytes;
    record.bytes_sent += down.bytes;
    Next::Abort
}

/// One way. Holds a buffer only while there is something in it.
struct Direction {
    held: Option<Buffer>,
    bytes: u64,
    ended: bool,
    flushed: bool,
    moved: bool,
    failed: bool,
}

impl Direction {
    fn new(first: Buffer) -> Self {
        Self {
            held: Some(first).filter(|first| !first.is_empty()),
            bytes: 0,
            ended: false,
            flushed: true,
            moved: false,
            failed: false,
        }
    }

    /// Ready when the sender has ended and the receiver has been told.
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &crate::worker::Worker,
        source: &mut R,
        sink: &mut W,
    ) -> Poll<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.failed {
            return Poll::Ready(());
        }
        let step = self.poll_copy(cx, worker, source, sink);
        self.failed |= matches!(step, Poll::Ready(Err(_)));
        step.map(drop)
    }

    fn poll_copy<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        worker: &crate::worker::Worker,
        source: &mut R,
        sink: &mut W,
    ) -> Poll<std::io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        use std::task::ready;
        loop {
            while let Some(buffer) = &mut self.held {
                let n = ready!(Pin::new(&mut *sink).poll_write(cx, buffer.filled()))?;
                if n == 0 {
                    return Poll::Ready(Err(std::io::ErrorKind::WriteZero.into()));
                }
                buffer.consume(n);
                self.bytes += n as u64;
                (self.moved, self.flushed) = (true, false);
                if buffer.is_empty() {
                    self.held = None;
                }
            }
            if !self.flushed {
                ready!(Pin::new(&mut *sink).poll_flush(cx))?;
                self.flushed = true;
            }
            if self.ended {
                return Pin::new(sink).poll_shutdown(cx);
            }
            let mut buffer = worker.buffers.lend();
            match ready!(buffer.poll_fill(cx, Pin::new(&mut *source)))? {
                0 => self.ended = true,
                _ => self.held = Some(buffer),
            }
        }
    }
}
