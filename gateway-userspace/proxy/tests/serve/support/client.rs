//! A client that sends what it is told and reads what comes.

use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection to the proxy, in clear text or through TLS.
pub struct Client<S = TcpStream> {
    pub stream: S,
    read: Vec<u8>,
}

/// One response. A chunked body is kept as it was sent.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    /// The body without its chunks, if it came in chunks.
    pub fn data(&self) -> String {
        if !self
            .head
            .to_ascii_lowercase()
            .contains("\r\ntransfer-encoding: chunked\r\n")
        {
            return self.body.clone();
        }
        let (mut data, mut rest) = (String::new(), &self.body[..]);
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size, 16).unwrap();
            if size == 0 {
                break;
            }
            data.push_str(&after[..size]);
            rest = &after[size + 2..];
        }
        data
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            read: Vec::new(),
        }
    }

    pub async fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn get(&mut self, host: &str, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .await;
        self.response().await
    }

    /// The next response, its body by `Content-Length`, by chunks, or else to the connection's end.
    pub async fn response(&mut self) -> Response {
        let head = self.head().await;
        let status = head[9..12].parse().unwrap();
        let lower = head.to_ascii_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let body = if (100..200).contains(&status) || status == 204 || status == 304 {
            Vec::new()
        } else if let Some(length) = length {
            self.exactly(length.parse().unwrap()).await
        } else if lower.contains("transfer-encoding: chunked") {
            self.until(b"0\r\n\r\n").await
        } else {
            self.rest().await
        };
        Response {
            status,
            head,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    }

    /// The next response's head.
    pub async fn head(&mut self) -> String {
        String::from_utf8(self.until(b"\r\n\r\n").await).unwrap()
    }

    /// Everything up to and with a mark.
    pub async fn until(&mut self, mark: &[u8]) -> Vec<u8> {
        loop {
            let found = self
                .read
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(at) = found {
                let rest = self.read.split_off(at + mark.len());
                return std::mem::replace(&mut self.read, rest);
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.more().await, "the connection ended after {so_far:?}");
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

    /// Everything to the connection's end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Asserts that the connection ends without another byte.
    pub async fn ends(&mut self) {
        let rest = self.rest().await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }

    async fn more(&mut self) -> bool {
        let mut chunk = vec![0; 64 * 1024];
        match self.stream.read(&mut chunk).await {
            Ok(n @ 1..) => {
                self.read.extend_from_slice(&chunk[..n]);
                true
            }
            _ => false,
        }
    }
}
