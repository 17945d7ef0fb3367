//! One handshake: the listener is chosen by the name the client asks for, before any key is used.

use std::io::{self, Read};
use std::rc::Rc;
use std::sync::Arc;

use rustls::server::{Accepted, Acceptor};
use rustls::{HandshakeKind, ProtocolVersion};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::downstream::Downstream;

/// An established TLS connection.
pub(crate) struct Handshaken {
    pub(crate) stream: TlsStream<TcpStream>,
    /// The name that the client asked for, in lower case.
    pub(crate) sni: Option<Box<str>>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: &'static str,
    /// Whether HTTP/2 was agreed on.
    pub(crate) h2: bool,
}

/// A TLS record that holds the fatal alert `unrecognized_name` (RFC 8446 §6, RFC 6066 §3).
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Performs a handshake within the limits of time, number and size.
///
/// # Errors
/// When the client is too slow, sends something else than TLS, asks for a name that no listener
/// covers, is not let in by the source policy of the one that does, or breaks the protocol.
pub(crate) async fn handshake(
    downstream: &Downstream,
    stream: TcpStream,
) -> io::Result<Handshaken> {
    let worker = Rc::clone(&downstream.worker);
    let counters = &worker.counters;
    counters.tls_handshakes_active.up();
    let shaken = tokio::time::timeout(worker.limits().tls.handshake, async {
        let _place = worker.handshakes.acquire().await;
        shake(downstream, stream).await
    });
    let shaken = shaken.await.unwrap_or_else(|_| {
        counters.timeouts_downstream.up();
        Err(io::ErrorKind::TimedOut.into())
    });
    counters.tls_handshakes_active.down();
    match &shaken {
        Ok(done) => {
            counters.tls_handshakes.up();
            let (_, session) = done.stream.get_ref();
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                counters.tls_resumptions.up();
            }
        }
        Err(error) => {
            counters.tls_handshake_failures.up();
            tracing::debug!(peer = %downstream.peer, %error, "handshake failed");
        }
    }
    shaken
}

async fn shake(downstream: &Downstream, mut stream: TcpStream) -> io::Result<Handshaken> {
    let limit = downstream.worker.limits().tls.client_hello_bytes;
    let accepted = client_hello(&mut stream, limit).await?;
    let sni = accepted.client_hello().server_name().map(normal);
    let routing = downstream.routing();
    let listener = routing
        .table()
        .and_then(|table| table.listener_for(sni.as_deref().unwrap_or_default()));
    let Some(listener) = listener else {
        stream.write_all(&UNRECOGNIZED_NAME).await?;
        return Err(io::Error::other("no listener covers the server name"));
    };
    if !listener
        .listener
        .source_policy
        .permits(downstream.peer.ip())
    {
        downstream.worker.counters.connections_denied.up();
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let tls = &routing.serving().tls;
    let config = tls.config(listener.key(), &accepted.client_hello());
    let Some(config) = config else {
        stream.write_all(&UNRECOGNIZED_NAME).await?;
        return Err(io::Error::other("the listener has no usable certificate"));
    };
    let started = StartHandshake::from_parts(accepted, stream);
    let stream = started.into_stream(Arc::clone(config)).await?;
    let (_, session) = stream.get_ref();
    let h2 = session.alpn_protocol() == Some(b"h2");
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    Ok(Handshaken {
        stream,
        sni,
        version,
        h2,
    })
}

/// Reads until the `ClientHello` is complete.
async fn client_hello(stream: &mut TcpStream, limit: usize) -> io::Result<Accepted> {
    let mut acceptor = Acceptor::default();
    let mut left = limit;
    loop {
        stream.readable().await?;
        let mut source = NonBlocking {
            stream,
            left: &mut left,
        };
        match acceptor.read_tls(&mut source) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) => return Err(e),
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => return Ok(accepted),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                alert.write_all(&mut bytes)?;
                stream.write_all(&bytes).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// What has arrived on a stream, up to a limit.
struct NonBlocking<'a> {
    stream: &'a TcpStream,
    left: &'a mut usize,
}

impl Read for NonBlocking<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if *self.left == 0 {
            return Err(io::Error::other("the ClientHello is too long"));
        }
        let room = buf.len().min(*self.left);
        let n = self.stream.try_read(&mut buf[..room])?;
        *self.left -= n;
        Ok(n)
    }
}

/// A server name as listeners spell theirs.
fn normal(name: &str) -> Box<str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.to_ascii_lowercase().into()
}
