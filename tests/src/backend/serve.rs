//! The backend's connections: read a request, remember it, answer as asked.

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use anyhow::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{Behaviour, Recorded, Seen, Shared, body_hash, pattern, pause};
use crate::http1::{Framing, Head, Wire};

pub(super) fn bind(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

pub(super) async fn accept(
    listener: std::net::TcpListener,
    shared: Arc<Shared>,
    mut stopped: watch::Receiver<bool>,
) {
    let listener = TcpListener::from_std(listener).expect("a listening socket");
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, peer)) = accepted else { continue };
                connections.spawn(serve(stream, peer, Arc::clone(&shared)));
            }
            Some(_) = connections.join_next() => {}
            _ = stopped.changed() => break,
        }
    }
    // Closing it is not enough: a process that another thread begins has a copy until it is another program.
    drop(socket2::SockRef::from(&listener).shutdown(Shutdown::Both));
}

async fn serve(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>) {
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    shared.open.fetch_add(1, Ordering::Relaxed);
    drop(stream.set_nodelay(true));
    let peer = peer.ip().to_canonical().to_string();
    let mut connection = Connection {
        wire: Wire::new(stream),
        shared: &shared,
        peer,
        number,
        requests: 0,
    };
    // An error here is the peer's doing, and the test's to judge by what was recorded.
    drop(connection.requests().await);
    let rest = connection.wire.rest().to_vec();
    if !rest.is_empty() && shared.record {
        shared
            .stray
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(rest);
    }
    shared.open.fetch_sub(1, Ordering::Relaxed);
}

struct Connection<'a> {
    wire: Wire<TcpStream>,
    shared: &'a Shared,
    peer: String,
    number: u64,
    requests: u64,
}

impl Connection<'_> {
    async fn requests(&mut self) -> Result<()> {
        while let Some(head) = self.wire.head().await? {
            self.requests += 1;
            self.shared.requests.fetch_add(1, Ordering::Relaxed);
            let wants = Behaviour::of(&head);
            if head.has_token("upgrade", "websocket") {
                self.record(&head, &[], &[], true);
                return self.websocket(&head).await;
            }
            if !self.request(&head, &wants).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// One request and its answer; whether another one may follow.
    async fn request(&mut self, head: &Head, wants: &Behaviour) -> Result<bool> {
        if wants.has("early") {
            let goes_on = self.answer(head, wants, &[], Vec::new()).await?;
            if !goes_on {
                return Ok(false);
            }
        }
        if head.has_token("expect", "100-continue") && !wants.has("early") {
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        pause(wants.pause("slow-read-ms")).await;
        let framing = Framing::of_request(head)?;
        let (body, trailers) = match self.wire.body(framing).await {
            Ok(read) => read,
            Err(error) => {
                self.record(head, self.wire.rest(), &[], false);
                return Err(error);
            }
        };
        self.record(head, &body, &trailers, true);
        if !wants.has("early") {
            return self.answer(head, wants, &body, trailers).await;
        }
        Ok(!wants.has("close"))
    }

    fn seen(&self, head: &Head, body: &[u8], trailers: &[(String, String)]) -> Seen {
        Seen {
            backend: self.shared.name.clone(),
            method: head.word(0).to_owned(),
            target: head.word(1).to_owned(),
            version: head.word(2).to_owned(),
            headers: head.headers.clone(),
            body_bytes: body.len(),
            body_hash: body_hash(body),
            trailers: trailers.to_vec(),
            peer: self.peer.clone(),
            connection: self.number,
            request: self.requests,
        }
    }

    fn record(&self, head: &Head, body: &[u8], trailers: &[(String, String)], complete: bool) {
        if !self.shared.record {
            return;
        }
        let seen = self.seen(head, body, trailers);
        let (raw_head, body) = (head.raw.clone(), body.to_vec());
        self.shared.recorded().push(Recorded {
            seen,
            raw_head,
            body,
            complete,
        });
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.wire.stream.write_all(bytes).await?)
    }

    async fn answer(
        &mut self,
        head: &Head,
        wants: &Behaviour,
        body: &[u8],
        trailers: Vec<(String, String)>,
    ) -> Result<bool> {
        pause(wants.pause("delay-ms")).await;
        if wants.has("silent") {
            std::future::pending::<()>().await;
        }
        if wants.has("reset") {
            crate::sys::reset_on_close(&self.wire.stream)?;
            return Ok(false);
        }
        if let Some(bytes) = wants.raw() {
            self.send(&bytes).await?;
            return Ok(!wants.has("close"));
        }
        if let Some(status) = wants.number("interim") {
            self.send(format!("HTTP/1.1 {status} Interim\r\nX-Interim: yes\r\n\r\n").as_bytes())
                .await?;
        }
        let payload = match wants.number("bytes") {
            Some(length) => pattern(length),
            None => serde_json::to_vec(&self.seen(head, body, &trailers))?,
        };
        self.respond(head, wants, &payload).await?;
        let closes = head.has_token("connection", "close")
            || head.word(2) == "HTTP/1.0"
            || ["close", "http10", "cut"]
                .iter()
                .any(|word| wants.has(word));
        Ok(!closes)
    }

    async fn respond(&mut self, head: &Head, wants: &Behaviour, payload: &[u8]) -> Result<()> {
        let status = wants.number("status").unwrap_or(200);
        let version = if wants.has("http10") {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        };
        let bodiless = head.word(0) == "HEAD" || matches!(status, 204 | 304);
        let chunked = wants.has("chunked") || wants.has("chunks");
        let mut text = format!(
            "{version} {status} Echo\r\nX-Backend: {}\r\n",
            self.shared.name
        );
        for (name, value) in wants.lines("header") {
            text += &format!("{name}: {value}\r\n");
        }
        if wants.number("bytes").is_none() && !bodiless {
            text += "Content-Type: application/json\r\n";
        }
        if status != 204 && !wants.has("http10") {
            text += &match chunked {
                true => "Transfer-Encoding: chunked\r\n".to_owned(),
                false => format!("Content-Length: {}\r\n", payload.len()),
            };
        }
        if wants.has("close") || wants.has("http10") {
            text += "Connection: close\r\n";
        }
        let mut bytes = (text + "\r\n").into_bytes();
        if bodiless {
            return self.send(&bytes).await;
        }
        if chunked {
            return self.chunks(wants, &bytes, payload).await;
        }
        let end = wants
            .number("cut")
            .unwrap_or(payload.len())
            .min(payload.len());
        bytes.extend_from_slice(&payload[..end]);
        if wants.has("extra") {
            bytes.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nextra");
        }
        self.send(&bytes).await
    }

    async fn chunks(&mut self, wants: &Behaviour, head: &[u8], payload: &[u8]) -> Result<()> {
        self.send(head).await?;
        for _ in 0..wants.number("chunks").unwrap_or(1) {
            let mut chunk = format!("{:x}\r\n", payload.len()).into_bytes();
            chunk.extend_from_slice(payload);
            chunk.extend_from_slice(b"\r\n");
            self.send(&chunk).await?;
            pause(wants.pause("pause-ms")).await;
        }
        if wants.has("cut") {
            return Ok(());
        }
        let trailers: String = wants
            .lines("trailer")
            .map(|(n, v)| format!("{n}: {v}\r\n"))
            .collect();
        self.send(format!("0\r\n{trailers}\r\n").as_bytes()).await
    }

    /// Accepts the upgrade and sends every message back until the peer closes.
    async fn websocket(&mut self, head: &Head) -> Result<()> {
        use futures_util::{SinkExt, StreamExt};
        let key = derive_accept_key(
            head.header("sec-websocket-key")
                .unwrap_or_default()
                .as_bytes(),
        );
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {key}\r\nX-Backend: {}\r\n\r\n",
            self.shared.name
        );
        self.send(answer.as_bytes()).await?;
        let early = self.wire.rest().to_vec();
        let stream = &mut self.wire.stream;
        let mut socket =
            WebSocketStream::from_partially_read(stream, early, Role::Server, None).await;
        while let Some(message) = socket.next().await {
            let message = message?;
            if message.is_text() || message.is_binary() {
                socket.send(message).await?;
            }
        }
        Ok(())
    }
}
