//! Backends that do what a test's script says, byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A scripted backend; it ends when dropped.
pub struct Backend {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// A connection to a backend.
pub struct Conn {
    pub stream: TcpStream,
    read: Vec<u8>,
}

impl Backend {
    /// Runs a script for each connection.
    pub async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Conn) -> R + 'static + Send,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(script(Conn {
                    stream,
                    read: Vec::new(),
                }));
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    /// Answers every request with this text, however many come.
    pub async fn answering(answer: &'static str) -> Self {
        Self::start(move |mut conn| async move {
            while conn.head().await.is_some() {
                conn.write(answer).await;
            }
        })
        .await
    }

    /// Answers every request with its own head as the body.
    pub async fn reflecting() -> Self {
        Self::start(|mut conn| async move {
            while let Some(head) = conn.head().await {
                let length = head.len();
                let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{head}");
                conn.write(&answer).await;
            }
        })
        .await
    }

    /// How many connections have been made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Conn {
    /// The next request's head; nothing when the connection has ended.
    pub async fn head(&mut self) -> Option<String> {
        self.until(b"\r\n\r\n").await
    }

    /// Everything up to and with a mark.
    pub async fn until(&mut self, mark: &[u8]) -> Option<String> {
        loop {
            let found = self
                .read
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(at) = found {
                let rest = self.read.split_off(at + mark.len());
                let text = std::mem::replace(&mut self.read, rest);
                return Some(String::from_utf8(text).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// So many bytes.
    pub async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.read.len() < n {
            assert!(self.more().await, "ended after {} of {n}", self.read.len());
        }
        let rest = self.read.split_off(n);
        std::mem::replace(&mut self.read, rest)
    }

    /// Whether the peer has ended the connection without sending more.
    pub async fn ended(&mut self) -> bool {
        self.read.is_empty() && !self.more().await
    }

    /// Whether nothing has been read that was not asked for.
    pub fn is_drained(&self) -> bool {
        self.read.is_empty()
    }

    pub async fn write(&mut self, text: &str) {
        // A proxy that has gone is the test's to notice.
        let _ = self.stream.write_all(text.as_bytes()).await;
    }

    /// Bytes that are no text.
    pub async fn write_bytes(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await;
    }

    /// The same; false once the peer takes no more.
    pub async fn try_write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).await.is_ok()
    }

    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 16 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(n @ 1..) => {
                self.read.extend_from_slice(&chunk[..n]);
                true
            }
            _ => false,
        }
    }
}
