//! A WebSocket client that proves again and again that its connection still works.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::netns::{Netns, runtime};

/// Bytes in both directions, encrypted or not.
trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// An open WebSocket, driven by blocking calls.
pub struct WebSocket {
    runtime: tokio::runtime::Runtime,
    socket: WebSocketStream<Box<dyn Duplex>>,
    /// The backend that answered the upgrade.
    pub backend: String,
}

impl std::fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WebSocket to {}", self.backend)
    }
}

impl WebSocket {
    /// Opens `ws://HOST/PATH` (or `wss` with a TLS configuration) at an address, from a namespace.
    ///
    /// # Errors
    /// When the connection, TLS or the upgrade fails.
    pub fn open(
        ns: &Netns,
        address: SocketAddr,
        host: &str,
        path: &str,
        tls: Option<Arc<ClientConfig>>,
    ) -> Result<Self> {
        let stream = ns
            .connect(address)
            .with_context(|| format!("connect to {address}"))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let scheme = if tls.is_some() { "wss" } else { "ws" };
        let request = format!("{scheme}://{host}{path}").into_client_request()?;
        let name = host.split(':').next().unwrap_or(host).to_owned();
        let runtime = runtime()?;
        let (socket, response) = runtime.block_on(async {
            let stream = TcpStream::from_std(stream)?;
            let stream: Box<dyn Duplex> = match tls {
                None => Box::new(stream),
                Some(config) => {
                    let name = ServerName::try_from(name)?;
                    Box::new(TlsConnector::from(config).connect(name, stream).await?)
                }
            };
            let opened = client_async(request, stream);
            anyhow::Ok(tokio::time::timeout(Duration::from_secs(10), opened).await??)
        })?;
        let backend = response
            .headers()
            .get("x-backend")
            .and_then(|v| v.to_str().ok());
        let backend = backend.unwrap_or("?").to_owned();
        Ok(Self {
            runtime,
            socket,
            backend,
        })
    }

    /// Sends a text and waits for the same text to come back.
    ///
    /// # Errors
    /// When the connection is gone or another text comes.
    pub fn echo(&mut self, text: &str) -> Result<()> {
        let socket = &mut self.socket;
        self.runtime.block_on(async {
            let there_and_back = async {
                socket.send(Message::text(text)).await?;
                loop {
                    let message = socket.next().await.context("closed by the peer")??;
                    if message.is_text() {
                        ensure!(message.to_text()? == text, "sent {text:?}, got {message:?}");
                        return Ok(());
                    }
                    ensure!(!message.is_close(), "closed by the peer: {message:?}");
                }
            };
            tokio::time::timeout(Duration::from_secs(10), there_and_back).await?
        })
    }

    /// Waits until the peer ends the connection, in whatever way.
    ///
    /// # Errors
    /// When it is still open after `limit`.
    pub fn wait_closed(&mut self, limit: Duration) -> Result<()> {
        let socket = &mut self.socket;
        self.runtime.block_on(async {
            let drained = async { while let Some(Ok(_)) = socket.next().await {} };
            tokio::time::timeout(limit, drained)
                .await
                .context("the WebSocket is still open")
        })
    }

    /// Closes with a closing handshake.
    ///
    /// # Errors
    /// When the peer does not answer it.
    pub fn close(mut self) -> Result<()> {
        let socket = &mut self.socket;
        self.runtime.block_on(async {
            let closing = async {
                socket.close(None).await?;
                while let Some(Ok(_)) = socket.next().await {}
                anyhow::Ok(())
            };
            tokio::time::timeout(Duration::from_secs(10), closing).await?
        })
    }
}
