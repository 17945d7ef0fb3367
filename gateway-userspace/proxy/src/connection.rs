//! A connection from accept to its end: TLS where the port asks for it, then whichever HTTP the
//! client speaks.

use std::future::poll_fn;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;

use futures_util::FutureExt;
use tokio::net::TcpStream;

use crate::buffer::Buffer;
use crate::downstream::Downstream;
use crate::stream::Stream;
use crate::worker::Worker;
use crate::{h1, h2, tls};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection in a task of its own. A panic ends that connection alone.
pub(crate) fn spawn(worker: &Rc<Worker>, downstream: Downstream, stream: TcpStream) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        let served = AssertUnwindSafe(serve(downstream, stream)).catch_unwind();
        if served.await.is_err() {
            worker.counters.panics.up();
        }
    });
}

async fn serve(downstream: Downstream, stream: TcpStream) {
    let routing = downstream.routing();
    let tls = routing.table().is_some_and(|table| table.tls);
    drop(routing);
    if tls {
        serve_tls(downstream, stream).await;
    } else {
        serve_clear(downstream, stream).await;
    }
}

async fn serve_tls(mut downstream: Downstream, stream: TcpStream) {
    let Ok(shaken) = Box::pin(tls::handshake(&downstream, stream)).await else {
        return;
    };
    downstream.sni = shaken.sni;
    downstream.tls = true;
    let stream = Stream::Tls(Box::new(shaken.stream));
    if shaken.h2 {
        Box::pin(h2::serve(downstream, stream, None)).await;
    } else {
        h1::serve(downstream, stream, None).await;
    }
}

/// Clear text: the first bytes tell HTTP/2 with prior knowledge from HTTP/1.
async fn serve_clear(downstream: Downstream, stream: TcpStream) {
    let mut stream = Stream::Plain(stream);
    let Ok(Some(first)) = Box::pin(first_bytes(&downstream, &mut stream)).await else {
        return;
    };
    if first.filled().starts_with(PREFACE) {
        Box::pin(h2::serve(downstream, stream, Some(first))).await;
    } else {
        h1::serve(downstream, stream, Some(first)).await;
    }
}

/// Reads until it is clear which HTTP is spoken; nothing if the client leaves before.
async fn first_bytes(downstream: &Downstream, stream: &mut Stream) -> io::Result<Option<Buffer>> {
    let worker = &downstream.worker;
    let deadline = worker.timers.deadline();
    deadline.set(worker.limits().time.first_byte);
    let mut told_to_end = false;
    poll_fn(|cx| {
        use std::task::Poll;
        deadline.register(cx);
        let mut buffer = worker.buffers.lend();
        loop {
            if buffer.len() >= PREFACE.len() || (!buffer.is_empty() && !PREFACE.starts_with(buffer.filled())) {
                return Poll::Ready(Ok(Some(buffer)));
            }
            match buffer.poll_fill(cx, Pin::new(stream)) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Ok(None)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => break,
            }
        }
        let _ = &mut told_to_end;
        Poll::Pending
    })
    .await
}
