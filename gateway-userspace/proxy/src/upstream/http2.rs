//! HTTP/2 towards endpoints: connections that many requests share, each driven by a task of the
//! worker, and streams of them that speak HTTP/1.1 to the rest of the engine.
//!
//! So filters, mirrors, timeouts, retries and logs are written once, for the one form in which the
//! engine writes requests and reads responses. A dead peer is found out by TCP, by its keep-alive and
//! by what stays unacknowledged, and not by PING: servers of gRPC count pings and end connections that
//! send many.

mod head;
mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use tokio::io::{AsyncRead, AsyncWrite};

use super::connection::ConnectError;
use crate::limits::{Limits, UpstreamLimits};
pub(crate) use head::Inexpressible;
pub(crate) use stream::{Declined, Http2Stream};

/// RFC 9113 §6.9.1: "A sender MUST NOT allow a flow-control window to exceed 2^31-1 octets."
const MAX_WINDOW: u32 = (1 << 31) - 1;

/// An HTTP/2 connection.
pub(crate) struct Multiplexed {
    sender: SendRequest<Bytes>,
    /// Whether it is encrypted.
    https: bool,
    active: Cell<u32>,
    used: Cell<bool>,
    ended: Cell<bool>,
    made_ms: u64,
    idle_since_ms: Cell<u64>,
}

/// One request's place on a connection; ends on drop.
#[derive(Debug)]
pub(super) struct Place(Rc<Multiplexed>);

impl std::fmt::Debug for Multiplexed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Multiplexed")
            .field("active", &self.active.get())
            .finish_non_exhaustive()
    }
}

impl Multiplexed {
    /// Begins HTTP/2 on a stream, with prior knowledge or because ALPN said so, and leaves the
    /// connection to a task of its own.
    pub(super) async fn begin(
        io: impl AsyncRead + AsyncWrite + Unpin + 'static,
        https: bool,
        limits: &Limits,
        now_ms: u64,
    ) -> Result<Rc<Self>, ConnectError> {
        let upstream = &limits.upstream;
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(upstream.stream_window)
            .initial_connection_window_size(connection_window(upstream))
            .max_header_list_size(u32::try_from(limits.head.bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(limits.http2.send_buffer)
            .initial_max_send_streams(0)
            .handshake(io)
            .await?;
        settled(&mut connection).await?;
        let this = Rc::new(Self {
            sender,
            https,
            active: Cell::new(0),
            used: Cell::new(false),
            ended: Cell::new(false),
            made_ms: now_ms,
            idle_since_ms: Cell::new(now_ms),
        });
        let known = Rc::downgrade(&this);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "http/2 connection to an endpoint ended");
            }
            if let Some(this) = known.upgrade() {
                this.ended.set(true);
            }
        });
        Ok(this)
    }

    /// Whether it takes new requests: a GOAWAY ends that before it ends the connection.
    pub(super) fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !self.ended.get() && matches!(self.sender.clone().poll_ready(&mut cx), Poll::Ready(Ok(())))
    }

    /// Whether one more request finds room, of which there is as much as both sides allow.
    pub(super) fn has_room(&self, limit: u32) -> bool {
        let active = self.active.get();
        active < limit && (active as usize) < self.sender.current_max_send_streams()
    }

    /// Requests under way.
    pub(super) fn active(&self) -> u32 {
        self.active.get()
    }

    /// Whether it has served a request before this was last asked.
    pub(super) fn take_used(&self) -> bool {
        self.used.replace(true)
    }

    /// When it was made.
    pub(super) fn made_ms(&self) -> u64 {
        self.made_ms
    }

    /// Since when it has been idle, if it is; `now_ms` until it has been seen idle once.
    pub(super) fn idle_since_ms(&self, now_ms: u64) -> Option<u64> {
        if self.active.get() > 0 {
            return None;
        }
        if self.idle_since_ms.get() == 0 {
            self.idle_since_ms.set(now_ms);
        }
        Some(self.idle_since_ms.get())
    }

    /// A stream for one request.
    pub(super) fn open(self: &Rc<Self>) -> Http2Stream {
        self.active.set(self.active.get() + 1);
        Http2Stream::new(Place(Rc::clone(self)))
    }
}

/// Waits for the endpoint's SETTINGS, so that no request is sent which it then refuses: until they have
/// come there is no room for any. One that takes no streams for now is waited for too.
async fn settled<T>(connection: &mut Connection<T>) -> Result<(), ConnectError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    poll_fn(|cx| match Pin::new(&mut *connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(ConnectError::Failed("HTTP/2: it ended".into()))),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
        Poll::Pending if connection.max_concurrent_send_streams() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// The window of a connection: never less than all of its streams may have together, for a client that
/// takes nothing keeps its stream's share of it from all others.
fn connection_window(limits: &UpstreamLimits) -> u32 {
    let streams = limits
        .stream_window
        .saturating_mul(limits.streams_per_connection);
    limits.connection_window.max(streams).min(MAX_WINDOW)
}

impl Place {
    fn connection(&self) -> &Multiplexed {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.active.set(self.0.active.get() - 1);
        self.0.idle_since_ms.set(0);
    }
}
