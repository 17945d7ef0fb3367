//! One handshake: the listener is chosen by the name the client asks for, before any key is used.
//!
//! Its answer to a ClientHello is what a handshake costs, and what is limited in number; how long a
//! client takes to go on from there is limited by time alone, for it costs nothing to wait.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use gateway_model::snapshot::CompiledListener;
use rustls::server::{Accepted, Acceptor};
use rustls::{HandshakeKind, ProtocolVersion, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::server::{StartHandshake, TlsStream};

use super::hello::{self, Hello, NoHello};
use super::{TlsTables, alert};
use crate::downstream::Downstream;

/// An established TLS connection.
pub(crate) struct Handshaken {
    pub(crate) stream: TlsStream<TcpStream>,
    /// `TLSv1.3` or `TLSv1.2`.
    pub(crate) version: &'static str,
    /// Whether HTTP/2 was agreed on.
    pub(crate) h2: bool,
}

/// Reads the ClientHello. The handshake as a whole has to end at `until`.
///
/// # Errors
/// When the client is too slow, or sends something else.
pub(crate) async fn greet(
    downstream: &Downstream,
    stream: &mut TcpStream,
    until: Instant,
) -> io::Result<Hello> {
    let worker = &downstream.worker;
    let limit = worker.limits().tls.client_hello_bytes;
    let read = timeout_at(until, hello::read(stream, limit)).await;
    let read = read.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if let Err(error) = &read {
        let reason = error.get_ref().and_then(|e| e.downcast_ref::<NoHello>());
        if let Some(reason) = reason {
            alert::send(stream, reason.alert()).await;
        }
        failed(downstream, error);
    }
    read
}

/// Performs the handshake of a listener that terminates TLS, within the limits of time and number.
///
/// # Errors
/// When the client is too slow or breaks the protocol, or the listener has no certificate for it.
pub(crate) async fn handshake(
    downstream: &Downstream,
    stream: TcpStream,
    hello: Hello,
    tables: &TlsTables,
    listener: &CompiledListener,
    until: Instant,
) -> io::Result<Handshaken> {
    let counters = &downstream.worker.counters;
    let shaken = timeout_at(until, async {
        let place = turn(&downstream.worker.handshakes).await;
        shake(stream, hello, tables, listener, place).await
    });
    let shaken = shaken.await;
    let shaken = shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    match &shaken {
        Ok(done) => {
            counters.tls_handshakes.up();
            let (_, session) = done.stream.get_ref();
            if session.handshake_kind() == Some(HandshakeKind::Resumed) {
                counters.tls_resumptions.up();
            }
        }
        Err(error) => failed(downstream, error),
    }
    shaken
}

/// Counts a handshake that did not come about.
pub(crate) fn failed(downstream: &Downstream, error: &io::Error) {
    let counters = &downstream.worker.counters;
    counters.tls_handshake_failures.up();
    if error.kind() == io::ErrorKind::TimedOut {
        counters.timeouts_downstream.up();
    }
    tracing::debug!(peer = %downstream.peer, %error, "handshake failed");
}

/// A place among the handshakes that are computed next. Until then whatever else the worker has to
/// do has its turn, so that no number of clients who begin keeps those waiting who have begun.
async fn turn(places: &Semaphore) -> Option<SemaphorePermit<'_>> {
    // Nobody closes the semaphore.
    let place = places.acquire().await.ok();
    tokio::task::yield_now().await;
    place
}

/// Holds its place until the client has been answered.
async fn shake(
    mut stream: TcpStream,
    hello: Hello,
    tables: &TlsTables,
    listener: &CompiledListener,
    place: Option<SemaphorePermit<'_>>,
) -> io::Result<Handshaken> {
    let accepted = match accept(&hello) {
        Ok(accepted) => accepted,
        Err((error, alert)) => {
            // A client that has gone is not missed.
            let _ = stream.write_all(&alert).await;
            return Err(error);
        }
    };
    drop(hello);
    let config = match tables.config(listener.key(), &accepted.client_hello()) {
        Ok(config) => config,
        Err(why) => {
            alert::send(&mut stream, why.alert()).await;
            return Err(io::Error::other(why));
        }
    };
    let started = StartHandshake::from_parts(accepted, stream);
    // Computes the answer; the first poll writes it.
    let mut shaking = started.into_stream(config);
    let mut place = Some(place);
    let stream = poll_fn(|cx| {
        let shaken = Pin::new(&mut shaking).poll(cx);
        place = None;
        shaken
    });
    let stream = stream.await?;
    let (_, session) = stream.get_ref();
    let h2 = session.alpn_protocol() == Some(b"h2");
    let version = match session.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLSv1.3",
    };
    Ok(Handshaken {
        stream,
        version,
        h2,
    })
}

/// The ClientHello as rustls reads it; else the error with the alert that tells the client of it. A hello
/// in which rustls finds another name than the one that the listener was chosen by is refused.
fn accept(hello: &Hello) -> Result<Accepted, (io::Error, Vec<u8>)> {
    let mut acceptor = Acceptor::default();
    let mut rest = hello.bytes.filled();
    while !rest.is_empty() {
        match acceptor.read_tls(&mut rest) {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err((error, Vec::new())),
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) if is_named(&accepted, hello) => return Ok(accepted),
            Ok(Some(_)) => {
                let error = io::Error::other("the ClientHello can be read in two ways");
                return Err((error, alert::record(alert::ILLEGAL_PARAMETER).to_vec()));
            }
            Err((error, mut alert)) => {
                let mut record = Vec::new();
                let _ = alert.write_all(&mut record);
                let error = io::Error::new(io::ErrorKind::InvalidData, error);
                return Err((error, record));
            }
        }
    }
    Err((io::ErrorKind::UnexpectedEof.into(), Vec::new()))
}

fn is_named(accepted: &Accepted, hello: &Hello) -> bool {
    let hello_name = hello.server_name.as_deref().unwrap_or_default();
    let accepted = accepted.client_hello();
    let name = accepted.server_name().unwrap_or_default();
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case(hello_name)
}

/// A listener's configuration for one client that terminates TLS for whatever is spoken inside.
///
/// What is inside is between the client and its backend, so Sluice cannot choose among protocols; but a client
/// that offers a single one speaks that or nothing, and some insist on an answer (gRPC, PostgreSQL).
/// Of several none is agreed on, which RFC 7301 §3.2 allows, and the client uses its default.
pub(super) fn agree_on_only_offer<'a>(
    config: &Arc<ServerConfig>,
    mut offers: impl Iterator<Item = &'a [u8]>,
) -> Arc<ServerConfig> {
    match (offers.next(), offers.next()) {
        (Some(only), None) => {
            let mut config = ServerConfig::clone(config);
            config.alpn_protocols = vec![only.to_vec()];
            Arc::new(config)
        }
        _ => Arc::clone(config),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn between_two_rounds_of_handshakes_everybody_has_a_turn() {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let local = tokio::task::LocalSet::new();
        let places = Rc::new(Semaphore::new(2));
        let seen = Rc::new(RefCell::new(String::new()));
        local.block_on(&runtime.expect("a runtime"), async {
            for _ in 0..6 {
                let (places, seen) = (Rc::clone(&places), Rc::clone(&seen));
                tokio::task::spawn_local(async move {
                    let _place = turn(&places).await;
                    seen.borrow_mut().push('h');
                });
            }
            while seen.borrow().matches('h').count() < 6 {
                seen.borrow_mut().push('-');
                tokio::task::yield_now().await;
            }
        });
        let seen = seen.borrow();
        let rounds: Vec<_> = seen.split('-').filter(|round| !round.is_empty()).collect();
        assert_eq!(rounds, ["hh", "hh", "hh"], "{seen}");
    }
}
