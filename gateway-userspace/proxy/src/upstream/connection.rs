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

impl From<h2::Error> for ConnectError {
    fn from(error: h2::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// Silence after which the kernel asks whether the peer of a shared connection is there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long it waits for an answer.
const KEEP_ALIVE_RETRY: Duration = Duration::from_secs(10);

/// How often it asks.
const KEEP_ALIVE_RETRIES: u32 = 3;

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
        .with_retries(KEEP_ALIVE_RETRIES);
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&asked)?;
    // It does not ask while something is unacknowledged (linux v6.1 net/ipv4/tcp_timer.c,
    // tcp_keepalive_timer), and what is sent again is so for a quarter of an hour.
    let silence = KEEP_ALIVE + KEEP_ALIVE_RETRY * KEEP_ALIVE_RETRIES;
    socket.set_tcp_user_timeout(Some(silence))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_peer_is_given_up_whether_or_not_something_is_on_its_way() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let stream = dial(address).await.expect("a connection");
        keep_alive(&stream).expect("options");
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().expect("SO_KEEPALIVE"));
        assert_eq!(
            socket.tcp_keepalive_time().expect("TCP_KEEPIDLE"),
            KEEP_ALIVE
        );
        let unacknowledged = socket.tcp_user_timeout().expect("TCP_USER_TIMEOUT");
        assert_eq!(unacknowledged, Some(Duration::from_secs(60)));
    }
}
