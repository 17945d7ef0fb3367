//! A client's byte stream, in clear text or through TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use crate::delegate::delegate_io;

/// A client's byte stream.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Makes the end of the stream a reset, so that its peer cannot take it for an orderly one.
    /// Through TLS the missing `close_notify` says as much, to who listens.
    pub(crate) fn reset_on_drop(&self) {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        };
        // A socket that refuses is gone already.
        let _ = tcp.set_zero_linger();
    }
}

/// What can end as one that was cut off does.
pub(crate) trait Truncate {
    /// Ends writing, through TLS without `close_notify`; what was flushed before still arrives. In clear
    /// text it is an end like any other, for a reset would take back what is on its way.
    fn poll_truncate(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

impl Truncate for Stream {
    fn poll_truncate(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let tcp = match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_mut().0,
        };
        Pin::new(tcp).poll_shutdown(cx)
    }
}

delegate_io!(Stream: Plain, Tls);
