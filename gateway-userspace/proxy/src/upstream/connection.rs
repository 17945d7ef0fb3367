//! One connection to an endpoint.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};

use super::{Endpoint, UpstreamStream};
use crate::error::{Kind, ProxyError, Side};

/// A connection to an endpoint, in use or idle.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    pub(crate) stream: UpstreamStream,
    /// When it was made, on the worker's coarse clock.
    pub(crate) made_ms: u64,
    /// When it last became idle.
    pub(crate) idle_since_ms: u64,
    /// Whether it has served a request, and the endpoint may since have closed it.
    pub(crate) used: bool,
}

/// Why there is no connection. Requests that wait for one connection share the reason.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection within the time limit")]
    TimedOut,
    #[error("{0}")]
    Failed(String),
}

impl ConnectError {
    /// The failure of who wanted a connection to this endpoint.
    pub(crate) fn fault(&self, endpoint: &Endpoint) -> ProxyError {
        let kind = match self {
            Self::TimedOut => Kind::ConnectTimeout,
            Self::Failed(_) => Kind::Connect,
        };
        let reason = format!("{}: {self}", endpoint.address());
        ProxyError::new(Side::Upstream, kind).because(reason)
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Silence after which the kernel asks whether the peer of a shared connection is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long it waits for an answer, and how often it asks.
const KEEP_ALIVE_RETRY: Duration = Duration::from_secs(10);

/// Dials an address.
pub(super) async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// Lets the kernel find out that the peer is gone.
pub(super) fn keep_alive(stream: &TcpStream) -> io::Result<()> {
    let asked = TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE_RETRY)
        .with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&asked)
}

impl UpstreamConnection {
    pub(crate) fn new(stream: UpstreamStream, now_ms: u64) -> Self {
        Self {
            stream,
            made_ms: now_ms,
            idle_since_ms: now_ms,
            used: false,
        }
    }

    /// Whether nothing has arrived while it was idle: neither an end nor bytes nobody asked for.
    /// Costs a system call only when something has.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        match &mut self.stream {
            UpstreamStream::Plain(tcp) => {
                matches!(tcp.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
            }
            // What has come may be a session ticket, which TLS keeps to itself.
            UpstreamStream::Tls(tls) => {
                let mut cx = Context::from_waker(Waker::noop());
                let read = Pin::new(&mut **tls).poll_read(&mut cx, &mut ReadBuf::new(&mut byte));
                matches!(read, Poll::Pending)
            }
            UpstreamStream::Http2(_) => false,
        }
    }

    /// The same, asked of the kernel instead of what it has told so far. For requests that cannot be
    /// repeated: a connection that the endpoint has closed a moment ago is found out.
    pub(crate) fn is_quiet_now(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        self.stream.socket().is_some_and(|tcp| {
            let seen = SockRef::from(tcp).peek(&mut byte);
            matches!(seen, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
        })
    }
}
