//! The API server over one connection, for measurements: `kubectl` takes longer to start than what is measured takes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::netns::Netns;

/// Who is written into `managedFields`.
const MANAGER: &str = "sluice-tests";

/// Where an API server is, and how to be its administrator.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Where it listens.
    pub server: SocketAddr,
    /// From where it can be reached.
    pub ns: Netns,
    /// Whom to trust, and the administrator's certificate if it is known by one.
    pub tls: Arc<rustls::ClientConfig>,
    /// The administrator's token if it is known by one.
    pub token: Option<String>,
}

/// One HTTP/2 connection to the API server, as the administrator. Clones share it.
#[derive(Clone, Debug)]
pub struct Api {
    server: SocketAddr,
    token: Option<String>,
    sender: SendRequest<Full<Bytes>>,
}

/// The events of a watch, one JSON document each.
#[derive(Debug)]
pub struct Watch {
    body: Incoming,
    buffer: BytesMut,
}

impl Api {
    /// Connects. The connection is driven by a task of the current runtime.
    ///
    /// # Errors
    /// When the API server does not answer.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self> {
        let server = endpoint.server;
        let connector = TlsConnector::from(Arc::clone(&endpoint.tls));
        let stream = endpoint.ns.connect(server).context("the API server")?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let stream = connector
            .connect(ServerName::from(server.ip()), TcpStream::from_std(stream)?)
            .await?;
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await?;
        tokio::spawn(connection);
        Ok(Self {
            server,
            token: endpoint.token.clone(),
            sender,
        })
    }

    /// Reads an object or a list.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(http::Method::GET, path, "", Bytes::new()).await
    }

    /// Reads what is not JSON, such as `/metrics`.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn text(&self, path: &str) -> Result<String> {
        let response = self.send(http::Method::GET, path, "", Bytes::new()).await?;
        ensure!(
            response.status().is_success(),
            "{path}: {}",
            response.status()
        );
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Server-side apply, as `kubectl apply --server-side --force-conflicts` does it.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn apply(&self, path: &str, object: &Value) -> Result<Value> {
        let path = format!("{path}?fieldManager={MANAGER}&force=true");
        let body = serde_json::to_vec(object)?.into();
        self.call(
            http::Method::PATCH,
            &path,
            "application/apply-patch+yaml",
            body,
        )
        .await
    }

    /// Creates an object in a collection.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn create(&self, collection: &str, object: &Value) -> Result<Value> {
        let path = format!("{collection}?fieldManager={MANAGER}");
        let body = serde_json::to_vec(object)?.into();
        self.call(http::Method::POST, &path, "application/json", body)
            .await
    }

    /// Deletes an object, or a collection with a selector.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.call(http::Method::DELETE, path, "", Bytes::new())
            .await
    }

    /// Watches a collection from a resource version on; the path may carry selectors.
    ///
    /// # Errors
    /// When the answer is not a success.
    pub async fn watch(&self, collection: &str, resource_version: &str) -> Result<Watch> {
        let joint = if collection.contains('?') { '&' } else { '?' };
        let path = format!("{collection}{joint}watch=true&resourceVersion={resource_version}");
        let response = self
            .send(http::Method::GET, &path, "", Bytes::new())
            .await?;
        ensure!(
            response.status().is_success(),
            "watch {path}: {}",
            response.status()
        );
        Ok(Watch {
            body: response.into_body(),
            buffer: BytesMut::new(),
        })
    }

    async fn call(
        &self,
        method: http::Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<Value> {
        let shown = format!("{method} {path}");
        let response = self.send(method, path, kind, body).await?;
        let status = response.status();
        let bytes = response
            .into_body()
            .collect()
            .await
            .with_context(|| shown.clone())?
            .to_bytes();
        ensure!(
            status.is_success(),
            "{shown}: {status}: {}",
            String::from_utf8_lossy(&bytes)
        );
        serde_json::from_slice(&bytes).context(shown)
    }

    async fn send(
        &self,
        method: http::Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>> {
        let mut sender = self.sender.clone();
        sender
            .ready()
            .await
            .context("the connection to the API server")?;
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("https://{}{path}", self.server))
            .header("accept", "application/json, text/plain");
        if !kind.is_empty() {
            request = request.header("content-type", kind);
        }
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Full::new(body))?).await;
        response.with_context(|| path.to_owned())
    }
}

impl Watch {
    /// The next event; none when the watch has ended.
    ///
    /// # Errors
    /// When what comes is not JSON, or is an error of the API server.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                let event: Value = serde_json::from_slice(&line)?;
                if event.get("type").and_then(Value::as_str) == Some("ERROR") {
                    bail!("watch: {event}");
                }
                return Ok(Some(event));
            }
            match self.body.frame().await.transpose()? {
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                }
                None => return Ok(None),
            }
        }
    }
}
