//! A client's byte stream, in clear text or through TLS.

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

delegate_io!(Stream: Plain, Tls);
