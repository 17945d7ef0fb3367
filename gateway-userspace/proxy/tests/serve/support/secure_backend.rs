//! A backend of TLS that answers every request with what it saw of the handshake.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::Response;
use rustls::{HandshakeKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A backend of TLS; it ends when dropped.
pub struct SecureBackend {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl SecureBackend {
    /// Speaks HTTP/2 where that is agreed on, HTTP/1.1 where that is or nothing; agrees to upgrades
    /// and sends back what comes then.
    pub async fn start(config: Arc<ServerConfig>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&config));
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        count.fetch_add(1, Ordering::SeqCst);
                        serve(stream).await;
                    }
                });
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    /// How many handshakes have succeeded.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for SecureBackend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TlsStream<TcpStream>) {
    let (_, session) = stream.get_ref();
    let protocol = session.alpn_protocol().map(<[u8]>::to_vec);
    let protocol = String::from_utf8(protocol.unwrap_or_default()).unwrap();
    let resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
    let shown = session.peer_certificates().is_some();
    let name = session.server_name().unwrap_or_default();
    let seen = format!("{protocol} sni={name} shown={shown} resumed={resumed}");
    if protocol == "h2" {
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let seen = format!("{seen} scheme={}", request.uri().scheme_str().unwrap());
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(Bytes::from(seen), true).unwrap();
        }
        return;
    }
    let mut read = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut read).await {
        if head.to_ascii_lowercase().contains("upgrade: websocket") {
            let agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n";
            stream.write_all(agreed.as_bytes()).await.unwrap();
            stream.write_all(seen.as_bytes()).await.unwrap();
            let (mut from, mut to) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut from, &mut to).await;
            return;
        }
        let length = seen.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{seen}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn next_head(stream: &mut TlsStream<TcpStream>, read: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = read.split_off(at + 4);
            let head = std::mem::replace(read, rest);
            return Some(String::from_utf8(head).unwrap());
        }
        if stream.read_buf(read).await.ok()? == 0 {
            return None;
        }
    }
}
