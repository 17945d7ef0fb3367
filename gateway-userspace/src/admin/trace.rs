//! The packet trace as an endless answer.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use gateway_l4::TraceFilter;
use http_body_util::BodyExt as _;
use hyper::body::Frame;
use hyper::{Response, StatusCode};
use tokio::sync::mpsc;

use super::AdminState;
use super::answer::{Body, plain, unavailable};

/// Lines as they come.
struct Lines(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0
            .poll_recv(cx)
            .map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// Switches the trace on until the client goes away.
pub async fn trace(state: &AdminState, parameters: &[(String, String)]) -> Response<Body> {
    let filter = match filter(parameters) {
        Ok(filter) => filter,
        Err(error) => return plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let started = match state.l4.lock().await.as_mut() {
        None => {
            return unavailable(
                "there is no packet path: connections arrive on ordinary sockets\n",
            );
        }
        Some(l4) => l4.trace(filter).await,
    };
    let mut trace = match started {
        Ok(trace) => trace,
        Err(error) => return unavailable(&format!("{}\n", crate::telemetry::chain(&error))),
    };
    let (sender, receiver) = mpsc::channel(64);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                line = trace.next() => match line {
                    Some(line) => {
                        if sender.send(Bytes::from(line + "\n")).await.is_err() {
                            return;
                        }
                    }
                    None => return,
                },
                () = sender.closed() => return,
            }
        }
    });
    Response::new(Lines(receiver).boxed())
}

fn filter(parameters: &[(String, String)]) -> anyhow::Result<TraceFilter> {
    let mut filter = TraceFilter::default();
    for (name, value) in parameters {
        match name.as_str() {
            "peer" => filter.peer = Some(value.parse()?),
            "port" => filter.port = Some(value.parse()?),
            other => anyhow::bail!("unknown parameter {other:?}; there are peer and port"),
        }
    }
    Ok(filter)
}
