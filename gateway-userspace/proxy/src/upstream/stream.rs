//! A connection's bytes, whatever carries them: a socket, TLS over one, or one stream of an HTTP/2
//! connection that takes and gives HTTP/1.1.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::http2::Http2Stream;
use crate::delegate::delegate_io;
use crate::stream::Truncate;

/// What an endpoint is spoken to through. Who writes HTTP/1.1 to it and reads HTTP/1.1 from it need
/// not know which it is.
#[derive(Debug)]
pub(crate) enum UpstreamStream {
    /// Clear text.
    Plain(TcpStream),
    /// TLS.
    Tls(Box<TlsStream<TcpStream>>),
    /// One request on a connection that others share.
    Http2(Box<Http2Stream>),
}

impl UpstreamStream {
    /// Makes the end of the connection a reset, so that its peer cannot take it for an orderly one.
    pub(crate) fn reset_on_drop(&self) {
        if let Some(tcp) = self.socket() {
            // A socket that refuses is gone already.
            let _ = tcp.set_zero_linger();
        }
    }

    /// The socket, if it belongs to this stream alone.
    pub(super) fn socket(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(tcp) => Some(tcp),
            Self::Tls(tls) => Some(tls.get_ref().0),
            Self::Http2(_) => None,
        }
    }

    /// Whether the response that has begun has no body, as its own framing says and no header line does.
    pub(crate) fn ended_with_head(&self) -> bool {
        matches!(self, Self::Http2(stream) if stream.ended_with_head())
    }

    /// The stream of an HTTP/2 connection, if it is one.
    pub(crate) fn http2(&mut self) -> Option<&mut Http2Stream> {
        match self {
            Self::Http2(stream) => Some(stream),
            _ => None,
        }
    }
}

impl Truncate for UpstreamStream {
    fn poll_truncate(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls.get_mut().0).poll_shutdown(cx),
            Self::Http2(stream) => Pin::new(&mut **stream).poll_shutdown(cx),
        }
    }
}

delegate_io!(UpstreamStream: Plain, Tls, Http2);
