//! Clients of HTTP/2, and bodies for their requests.

use bytes::Bytes;
use http::Request;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::World;

/// A request's body.
pub type Body = BoxBody<Bytes, std::io::Error>;

pub fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed()
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into())
        .map_err(|never| match never {})
        .boxed()
}

/// A body in the test's hands, frame by frame; it ends when the sender is dropped.
pub fn streamed() -> (UnboundedSender<Frame<Bytes>>, Body) {
    let (sender, frames) = unbounded_channel();
    let stream = futures_util::stream::unfold(frames, |mut frames| async move {
        let frame = frames.recv().await?;
        Some((Ok(frame), frames))
    });
    (sender, StreamBody::new(stream).boxed())
}

/// A request without a body.
pub fn get(path: &str) -> Request<Body> {
    let uri = format!("http://shop.example{path}");
    Request::get(uri).body(empty()).unwrap()
}

/// An HTTP/2 client over an established stream.
pub async fn http2_over<S>(stream: S) -> SendRequest<Body>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (send, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    send
}

impl World {
    /// An HTTP/2 client with prior knowledge.
    pub async fn http2(&self) -> SendRequest<Body> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        http2_over(stream).await
    }
}
