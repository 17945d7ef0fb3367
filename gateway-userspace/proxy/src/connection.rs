//! A connection from accept to its end: TLS where the port asks for it, then whichever HTTP the
//! client speaks.

mod attempt;
mod budget;
mod client;
mod download;
mod h1;
mod h2;
mod inbound;
mod local;
mod mirror;
mod record;
mod relay;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::net::TcpStream;

use crate::buffer::Buffer;
use crate::downstream::Downstream;
use crate::h1::is_http2_preface;
use crate::stream::Stream;
use crate::tls;
use crate::worker::Worker;
use client::Client;
pub(crate) use h1::Workspaces;

/// Serves a connection in a task of its own. A panic ends that connection alone.
pub(crate) fn spawn(worker: &Rc<Worker>, downstream: Downstream, stream: TcpStream) {
    tokio::task::spawn_local(Caught {
        served: serve(downstream, stream),
        worker: Rc::clone(worker),
    });
}

pin_project! {
    /// Turns a panic into a count. Written out, because an `async` block would keep room for what it
    /// drives twice, for as long as the connection lives.
    struct Caught<F> {
        #[pin]
        served: F,
        worker: Rc<Worker>,
    }
}

impl<F: Future<Output = ()>> Future for Caught<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = catch_unwind(AssertUnwindSafe(|| this.served.poll(cx)));
        polled.unwrap_or_else(|_| {
            this.worker.counters.panics.up();
            Poll::Ready(())
        })
    }
}

async fn serve(downstream: Downstream, stream: TcpStream) {
    let tls = downstream
        .routing()
        .table()
        .is_some_and(|table| table.is_tls());
    let served = if tls {
        Box::pin(begin_tls(downstream, stream)).await
    } else {
        Box::pin(begin_clear(downstream, stream)).await
    };
    match served {
        None => {}
        Some((client, first, Spoken::Http1)) => h1::serve(client, first).await,
        Some((client, first, Spoken::Http2)) => Box::pin(h2::serve(client, first)).await,
    }
}

/// What a client speaks.
enum Spoken {
    Http1,
    Http2,
}

type Begun = Option<(Box<Client>, Option<Buffer>, Spoken)>;

/// TLS: the handshake tells what is spoken.
async fn begin_tls(mut downstream: Downstream, stream: TcpStream) -> Begun {
    let shaken = tls::handshake(&downstream, stream).await.ok()?;
    downstream.sni = shaken.sni;
    downstream.tls = true;
    downstream.tls_version = shaken.version;
    let client = Box::new(Client::new(
        downstream,
        Stream::Tls(Box::new(shaken.stream)),
    ));
    let spoken = if shaken.h2 {
        Spoken::Http2
    } else {
        Spoken::Http1
    };
    Some((client, None, spoken))
}

/// Clear text: the first bytes tell HTTP/2 with prior knowledge from HTTP/1.
async fn begin_clear(downstream: Downstream, stream: TcpStream) -> Begun {
    let limit = downstream.worker.limits().time.first_byte;
    let mut client = Box::new(Client::new(downstream, Stream::Plain(stream)));
    let mut first = client.next_bytes(limit).await?;
    loop {
        match is_http2_preface(first.filled()) {
            Some(true) => return Some((client, Some(first), Spoken::Http2)),
            Some(false) => return Some((client, Some(first), Spoken::Http1)),
            None => client.fill(&mut first).await.ok()?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of the future that such a function gives.
    fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn what_an_idle_connection_keeps_is_small() {
        // With the client's own 0.5 KiB and the socket's registration: below 4 KiB.
        assert!(size(serve) <= 1_024, "{}", size(serve));
    }

    #[test]
    fn a_panic_ends_one_connection_and_is_counted() {
        let worker = Worker::alone();
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let local = tokio::task::LocalSet::new();
        let quiet = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        local.block_on(&runtime.expect("a runtime"), async {
            let caught = |served| Caught {
                served,
                worker: Rc::clone(&worker),
            };
            let ends = |panics: bool| async move { assert!(!panics, "on purpose") };
            caught(ends(true)).await;
            caught(ends(false)).await;
        });
        std::panic::set_hook(quiet);
        assert_eq!(worker.counters.panics.read(), 1);
    }
}
