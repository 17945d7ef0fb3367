//! One connection to an endpoint.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

/// A connection to an endpoint, in use or idle.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    pub(crate) stream: TcpStream,
    /// When it was made, on the worker's coarse clock.
    pub(crate) made_ms: u64,
    /// When it last became idle.
    pub(crate) idle_since_ms: u64,
    /// Whether it has served a request, and the endpoint may since have closed it.
    pub(crate) used: bool,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("no connection within the time limit")]
    TimedOut,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl UpstreamConnection {
    /// Dials an address.
    pub(crate) async fn connect(
        address: SocketAddr,
        limit: Duration,
        now_ms: u64,
    ) -> Result<Self, ConnectError> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        socket.set_nodelay(true)?;
        let connected = tokio::time::timeout(limit, socket.connect(address)).await;
        Ok(Self {
            stream: connected.map_err(|_| ConnectError::TimedOut)??,
            made_ms: now_ms,
            idle_since_ms: now_ms,
            used: false,
        })
    }

    /// Whether nothing has arrived while it was idle: neither an end nor bytes nobody asked for.
    /// Costs a system call only when something has.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut byte = [0];
        matches!(self.stream.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// The same, asked of the kernel instead of what it has told so far. For requests that cannot be
    /// repeated: a connection that the endpoint has closed a moment ago is found out.
    pub(crate) fn is_quiet_now(&self) -> bool {
        let mut byte = [MaybeUninit::uninit()];
        let seen = SockRef::from(&self.stream).peek(&mut byte);
        matches!(seen, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }
}
