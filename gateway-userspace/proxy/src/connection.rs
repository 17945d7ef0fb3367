//! A connection from accept to its end: TLS where the port asks for it, then whichever HTTP the
//! client speaks, or a stream of bytes to a backend.

mod attempt;
mod budget;
mod call_time;
mod client;
mod download;
mod h1;
mod h2;
mod inbound;
mod informational;
mod local;
mod mirror;
mod pipe;
mod record;
mod relay;
mod retries;
mod stream;
mod trailers;

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use gateway_model::ir::{ListenerProtocol, PortKind};
use gateway_model::snapshot::CompiledListener;
use pin_project_lite::pin_project;
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::buffer::Buffer;
use crate::downstream::Downstream;
use crate::h1::is_http2_preface;
use crate::stats::Counters;
use crate::stream::Stream;
use crate::tls;
use crate::tls::alert::UNRECOGNIZED_NAME;
use crate::worker::Worker;
use client::Client;
pub(crate) use h1::Workspaces;
pub(crate) use h2::IdleTasks;
use stream::Inbound;

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
    let kind = downstream.routing().table().map(|table| table.kind);
    let begun = match kind {
        Some(PortKind::Tls) => Box::pin(begin_tls(downstream, stream)).await,
        Some(PortKind::Tcp) => begin_tcp(downstream, stream),
        _ => Box::pin(begin_clear(downstream, stream)).await,
    };
    match begun {
        Begun::Nothing => {}
        Begun::Http(client, first, Spoken::Http1) => h1::serve(client, first).await,
        Begun::Http(client, first, Spoken::Http2) => Box::pin(h2::serve(client, first)).await,
        Begun::Stream(inbound) => Box::pin(stream::serve(inbound)).await,
    }
}

/// What a client speaks.
enum Spoken {
    Http1,
    Http2,
}

/// What a connection turned out to be.
enum Begun {
    /// Over.
    Nothing,
    /// HTTP, and what has been read of it.
    Http(Box<Client>, Option<Buffer>, Spoken),
    /// Bytes for a backend.
    Stream(Box<Inbound>),
}

/// TCP: there is one listener.
fn begin_tcp(downstream: Downstream, stream: TcpStream) -> Begun {
    let routing = downstream.routing();
    let listener = routing.table().and_then(|table| table.listeners.first());
    match listener {
        Some(listener) => Begun::Stream(Inbound::new(
            downstream,
            listener,
            &routing,
            Stream::Plain(stream),
            None,
        )),
        None => Begun::Nothing,
    }
}

/// TLS: the name in the ClientHello chooses the listener, and the listener what becomes of it.
async fn begin_tls(mut downstream: Downstream, mut stream: TcpStream) -> Begun {
    let until = Instant::now() + downstream.worker.limits().tls.handshake;
    let worker = Rc::clone(&downstream.worker);
    let _active = ActiveHandshake::begin(&worker.counters);
    let Ok(hello) = tls::greet(&downstream, &mut stream, until).await else {
        return Begun::Nothing;
    };
    downstream.sni = hello.server_name.clone();
    let routing = downstream.routing();
    let name = hello.server_name.as_deref().unwrap_or_default();
    let table = routing.table();
    let Some(listener) = table.and_then(|table| table.listener_for(name)) else {
        if table.is_none_or(|table| table.listeners.iter().all(|own| is_https(own))) {
            tls::alert::send(&mut stream, UNRECOGNIZED_NAME).await;
        }
        let error = io::Error::other("no listener covers the server name");
        tls::failed(&downstream, &error);
        return Begun::Nothing;
    };
    let policy = &listener.listener.source_policy;
    if !policy.permits(downstream.peer.ip()) {
        worker.counters.connections_denied.up();
        tls::failed(&downstream, &io::ErrorKind::PermissionDenied.into());
        return Begun::Nothing;
    }
    let is_stream = !is_https(listener);
    if is_stream && listener.find_stream(name).is_none() {
        let inbound = Inbound::new(downstream, listener, &routing, Stream::Plain(stream), None);
        return Begun::Stream(inbound.told());
    }
    if let ListenerProtocol::TlsPassthrough = listener.protocol() {
        let (plain, first) = (Stream::Plain(stream), Some(hello.bytes));
        return Begun::Stream(Inbound::new(downstream, listener, &routing, plain, first));
    }
    let tables = &routing.serving().tls;
    let shaken = tls::handshake(&downstream, stream, hello, tables, listener, until).await;
    let Ok(shaken) = shaken else {
        return Begun::Nothing;
    };
    downstream.tls = true;
    downstream.tls_version = shaken.version;
    let termination = listener.protocol().termination();
    downstream.client_validation = termination.and_then(|tls| tls.client_validation.clone());
    let stream = Stream::Tls(Box::new(shaken.stream));
    if is_stream {
        return Begun::Stream(Inbound::new(downstream, listener, &routing, stream, None));
    }
    let spoken = if shaken.h2 {
        Spoken::Http2
    } else {
        Spoken::Http1
    };
    Begun::Http(Box::new(Client::new(downstream, stream)), None, spoken)
}

/// Whether it is our TLS that ends here. Where it is a backend's, a name that nobody wants is refused by closing the
/// connection: an alert would be ours in the backend's stead. Gateway API's conformance tests ask for that too.
fn is_https(listener: &CompiledListener) -> bool {
    matches!(listener.protocol(), ListenerProtocol::Https(_))
}

/// A handshake under way, as far as the gauge goes.
struct ActiveHandshake<'a>(&'a Counters);

impl<'a> ActiveHandshake<'a> {
    fn begin(counters: &'a Counters) -> Self {
        counters.tls_handshakes_active.up();
        Self(counters)
    }
}

impl Drop for ActiveHandshake<'_> {
    fn drop(&mut self) {
        self.0.tls_handshakes_active.down();
    }
}

/// Clear text: the first bytes tell HTTP/2 with prior knowledge from HTTP/1.
async fn begin_clear(downstream: Downstream, stream: TcpStream) -> Begun {
    let limit = downstream.worker.limits().time.first_byte;
    let mut client = Box::new(Client::new(downstream, Stream::Plain(stream)));
    let Some(mut first) = client.next_bytes(limit).await else {
        return Begun::Nothing;
    };
    loop {
        match is_http2_preface(first.filled()) {
            Some(true) => return Begun::Http(client, Some(first), Spoken::Http2),
            Some(false) => return Begun::Http(client, Some(first), Spoken::Http1),
            None if client.fill(&mut first).await.is_err() => return Begun::Nothing,
            None => {}
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
