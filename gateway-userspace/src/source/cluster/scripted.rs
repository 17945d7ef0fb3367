//! An HTTP server that answers what a test tells it to: for faults that a real API server cannot be
//! made to show.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use kube::Client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One answer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// A whole one.
    Status(u16, String),
    /// The beginning of a body without end, and what follows.
    Stream(String, Then),
    /// None.
    Silence,
}

/// What follows a beginning.
#[derive(Clone, Copy, Debug)]
pub enum Then {
    /// The end of the body.
    Close,
    /// The end of the connection.
    Abort,
    /// Nothing.
    Hang,
}

/// A server; dropping it ends it and everything it holds open.
#[derive(Debug)]
pub struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Answers with these, one after the other, and then with silence.
    pub async fn start(replies: Vec<Reply>) -> Self {
        let mut replies = VecDeque::from(replies);
        let script = move |_: &str| replies.pop_front().unwrap_or(Reply::Silence);
        Self::answering("127.0.0.1:0".parse().expect("an address"), script).await
    }

    /// Answers each request target as `script` says.
    pub async fn answering(
        address: SocketAddr,
        mut script: impl FnMut(&str) -> Reply + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).await.expect("bind");
        let address = listener.local_addr().expect("address");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let theirs = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(target) = target(&mut stream).await else {
                    continue;
                };
                theirs.lock().expect("lock").push(target.clone());
                connections.spawn(answer(stream, script(&target)));
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What was asked for so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("lock").clone()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        client(self.address)
    }
}

/// A client of whoever is at an address.
pub fn client(address: SocketAddr) -> Client {
    let url = format!("http://{address}").parse().expect("a URL");
    super::connect::client(kube::Config::new(url)).expect("a client")
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads a request's head.
async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?;
    Some(head.split(' ').nth(1)?.to_owned())
}

async fn answer(mut stream: TcpStream, reply: Reply) {
    let (text, then) = match reply {
        Reply::Silence => return std::future::pending().await,
        Reply::Status(status, body) => {
            let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
            (
                format!("{head}Connection: close\r\n\r\n{body}"),
                Then::Close,
            )
        }
        Reply::Stream(body, then) => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
            let chunk = match body.len() {
                0 => String::new(),
                len => format!("{len:x}\r\n{body}\r\n"),
            };
            let end = if matches!(then, Then::Close) {
                "0\r\n\r\n"
            } else {
                ""
            };
            (format!("{head}{chunk}{end}"), then)
        }
    };
    let _ = stream.write_all(text.as_bytes()).await;
    if matches!(then, Then::Hang) {
        std::future::pending::<()>().await;
    }
}
