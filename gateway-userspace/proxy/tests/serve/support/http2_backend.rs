//! Backends that speak HTTP/2 with prior knowledge, stream by stream as a test's script says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A backend of HTTP/2; it ends when dropped.
pub struct Http2Backend {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    streams: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

/// One request that a script answers.
pub struct Asked {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// Which stream of the backend this is, from 0.
    pub index: usize,
}

impl Http2Backend {
    /// Runs a script for each stream.
    pub async fn start<F, R>(script: F) -> Self
    where
        F: Fn(Asked) -> R + Clone + 'static + Send,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::with(Builder::new(), script).await
    }

    /// The same with settings of the backend's own.
    pub async fn with<F, R>(builder: Builder, script: F) -> Self
    where
        F: Fn(Asked) -> R + Clone + 'static + Send,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, streams) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let counts = (Arc::clone(&connections), Arc::clone(&streams));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                counts.0.fetch_add(1, Ordering::SeqCst);
                let (builder, script, streams) =
                    (builder.clone(), script.clone(), Arc::clone(&counts.1));
                tokio::spawn(async move {
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let index = streams.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(script(Asked {
                            request,
                            respond,
                            index,
                        }));
                    }
                });
            }
        });
        Self {
            address,
            connections,
            streams,
            task,
        }
    }

    /// Answers every request with its own head as the body.
    pub async fn reflecting() -> Self {
        Self::start(|mut asked| async move {
            let text = format!("{:?}", asked.request);
            asked.answer(Response::new(()), text).await;
        })
        .await
    }

    /// How many connections have been made.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many streams have come.
    pub fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }
}

impl Drop for Http2Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Asked {
    /// A whole response.
    pub async fn answer(&mut self, head: Response<()>, body: impl Into<Bytes>) {
        if let Ok(mut stream) = self.respond.send_response(head, false) {
            let _ = stream.send_data(body.into(), true);
        }
    }

    /// The whole request body and its trailers.
    pub async fn body(&mut self) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
        let body = self.request.body_mut();
        let mut all = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            all.extend_from_slice(&data);
            body.flow_control().release_capacity(data.len())?;
        }
        Ok((all, body.trailers().await?))
    }
}
