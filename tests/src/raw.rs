//! A client that sends exactly the bytes it is given and tells exactly what came back.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::http1::{Response, Wire};
use crate::netns::{Netns, runtime};

/// How the peer left a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Closed in order.
    Closed,
    /// Reset.
    Reset,
    /// Still open when the time was up.
    Open,
}

enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// A connection whose every byte is the test's own.
pub struct Raw {
    transport: Transport,
    received: Vec<u8>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Raw with {} bytes received", self.received.len())
    }
}

impl Raw {
    /// Connects from a namespace.
    ///
    /// # Errors
    /// What `connect(2)` says.
    pub fn connect(ns: &Netns, to: SocketAddr) -> Result<Self> {
        let stream = ns.connect(to).with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            transport: Transport::Plain(stream),
            received: Vec::new(),
        })
    }

    /// Connects and does a TLS handshake for this server name.
    ///
    /// # Errors
    /// When either fails.
    pub fn connect_tls(
        ns: &Netns,
        to: SocketAddr,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> Result<Self> {
        let stream = ns.connect(to).with_context(|| format!("connect to {to}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let connection = ClientConnection::new(config, ServerName::try_from(name.to_owned())?)?;
        let mut tls = StreamOwned::new(connection, stream);
        while tls.conn.is_handshaking() {
            tls.conn
                .complete_io(&mut tls.sock)
                .context("TLS handshake")?;
        }
        Ok(Self {
            transport: Transport::Tls(Box::new(tls)),
            received: Vec::new(),
        })
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => &stream.sock,
        }
    }

    /// The TLS connection, if there is one.
    #[must_use]
    pub fn tls(&self) -> Option<&ClientConnection> {
        match &self.transport {
            Transport::Plain(_) => None,
            Transport::Tls(stream) => Some(&stream.conn),
        }
    }

    /// Sends bytes. A peer that has closed already is no error: what it said is still to be read.
    ///
    /// # Errors
    /// What `write(2)` says, besides that the peer is gone.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let sent = match &mut self.transport {
            Transport::Plain(stream) => stream.write_all(bytes),
            Transport::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        };
        match sent {
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset
                ) =>
            {
                Ok(())
            }
            other => Ok(other?),
        }
    }

    /// Sends no more, and says so.
    ///
    /// # Errors
    /// What `shutdown(2)` says.
    pub fn finish(&mut self) -> Result<()> {
        if let Transport::Tls(stream) = &mut self.transport {
            stream.conn.send_close_notify();
            stream.flush()?;
        }
        Ok(self.socket().shutdown(Shutdown::Write)?)
    }

    /// Everything received so far and not taken.
    #[must_use]
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// Forgets the first bytes of what was received.
    pub fn consume(&mut self, count: usize) {
        self.received.drain(..count.min(self.received.len()));
    }

    /// Reads what comes until `enough` says so; tells how it ended.
    ///
    /// # Errors
    /// What `read(2)` says, besides a reset or the time being up.
    pub fn read_until(&mut self, limit: Duration, enough: impl Fn(&[u8]) -> bool) -> Result<End> {
        let deadline = Instant::now() + limit;
        loop {
            if enough(&self.received) {
                return Ok(End::Open);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(End::Open);
            }
            self.socket().set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 * 1024];
            let read = match &mut self.transport {
                Transport::Plain(stream) => stream.read(&mut chunk),
                Transport::Tls(stream) => stream.read(&mut chunk),
            };
            match read {
                Ok(0) => return Ok(End::Closed),
                Ok(count) => self.received.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(End::Open),
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Ok(End::Reset),
                    ErrorKind::UnexpectedEof => return Ok(End::Closed),
                    _ => return Err(error.into()),
                },
            }
        }
    }

    /// Reads until the peer closes; tells how it ended.
    ///
    /// # Errors
    /// As [`Raw::read_until`].
    pub fn read_to_end(&mut self, limit: Duration) -> Result<End> {
        self.read_until(limit, |_| false)
    }

    /// Reads one whole response to a request of this method and takes it from what was received.
    ///
    /// # Errors
    /// When none comes within ten seconds, or it breaks off.
    pub fn response(&mut self, method: &str) -> Result<Response> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let mut ended = false;
            if let Some((response, used)) = self.parse(method, false)? {
                self.consume(used);
                return Ok(response);
            }
            let before = self.received.len();
            let left = deadline.saturating_duration_since(Instant::now());
            let end = self.read_until(left, |received| received.len() > before)?;
            if end != End::Open {
                ended = true;
                if let Some((response, used)) = self.parse(method, true)? {
                    self.consume(used);
                    return Ok(response);
                }
            }
            let text = String::from_utf8_lossy(&self.received);
            anyhow::ensure!(
                !ended,
                "connection {end:?} without a whole response: {text:?}"
            );
            anyhow::ensure!(!left.is_zero(), "no whole response in time: {text:?}");
        }
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// As [`Raw::response`].
    pub fn ask(&mut self, request: &str) -> Result<Response> {
        self.send(request.as_bytes())?;
        self.response(request.split(' ').next().unwrap_or_default())
    }

    fn parse(&self, method: &str, ended: bool) -> Result<Option<(Response, usize)>> {
        let mut wire = Wire::new(self.received.as_slice());
        let parsed = runtime()?.block_on(wire.response(method));
        let used = self.received.len() - wire.rest().len() - wire.stream.len();
        match parsed {
            // Without a length the body ends with the connection, so an early look is not the whole.
            Ok(response) => {
                let sized = response.header("content-length").is_some()
                    || response.head.has_token("transfer-encoding", "chunked")
                    || method == "HEAD"
                    || matches!(response.status, 101 | 204 | 304);
                Ok((ended || sized).then_some((response, used)))
            }
            Err(_) if !ended => Ok(None),
            Err(error) if self.received.is_empty() => Err(error),
            Err(_) => Ok(None),
        }
    }
}
