//! The same load over HTTP/2: one request at a time on each connection, by hyper's client.

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::TokioIo;

use super::{Load, Shared, Stream};
use crate::http1::{Head, Response};

/// A connection that takes requests.
pub(super) type Connection = SendRequest<Empty<Bytes>>;

/// Runs a connection's task on the load's own thread.
#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local
where
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

async fn open(stream: Box<dyn Stream>) -> Result<Connection> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(Local, TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

/// One `GET` on the kept connection or a new one. A connection that takes no more requests is
/// replaced before one is sent; hyper says so late, by giving a request back that it has not sent.
pub(super) async fn exchange(
    load: &Load,
    shared: &Shared,
    kept: &mut Option<Connection>,
    target: &str,
) -> Result<Response> {
    loop {
        let usable = match kept.take() {
            Some(mut connection) => connection.ready().await.is_ok().then_some(connection),
            None => None,
        };
        let mut connection = match usable {
            Some(connection) => connection,
            None => {
                shared.note(|report| report.connections += 1);
                open(super::dial(load).await?).await?
            }
        };
        connection.ready().await?;
        let scheme = if load.tls.is_some() { "https" } else { "http" };
        let uri = format!("{scheme}://{}{target}", load.host);
        let request = http::Request::get(uri).body(Empty::new())?;
        match connection.try_send_request(request).await {
            Ok(response) => {
                let response = whole(response).await?;
                if load.keep_alive {
                    *kept = Some(connection);
                }
                return Ok(response);
            }
            Err(refused) if refused.message().is_some() => {}
            Err(refused) => return Err(refused.into_error()).context("request"),
        }
    }
}

async fn whole(response: http::Response<hyper::body::Incoming>) -> Result<Response> {
    let (parts, body) = response.into_parts();
    let status = parts.status.as_u16();
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (
            name.to_string(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    };
    let head = Head {
        start: format!("HTTP/2 {status}"),
        headers: parts.headers.iter().map(header).collect(),
        raw: Vec::new(),
    };
    let body = body
        .collect()
        .await
        .context("body breaks off")?
        .to_bytes()
        .to_vec();
    Ok(Response {
        head,
        status,
        body,
        trailers: Vec::new(),
    })
}
