//! Accepting: from a listening socket to a connection's task.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::Worker;
use crate::connection;
use crate::downstream::Downstream;
use crate::overload::Pressure;

/// How long accepting rests when the system has no file descriptor or memory left. Connections
/// wait in the kernel's queue meanwhile.
const REST: Duration = Duration::from_millis(100);

/// A task that accepts connections from one socket.
pub(super) struct Acceptor {
    finish: oneshot::Sender<End>,
    task: JoinHandle<()>,
}

/// How a task ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What is on its way is accepted first.
    LastCall,
    AtOnce,
}

impl Acceptor {
    /// Starts accepting. `bound` is the socket's address, none if connections are steered to it.
    pub(super) fn start(
        worker: &Rc<Worker>,
        bound: Option<SocketAddr>,
        socket: std::net::TcpListener,
    ) -> io::Result<Self> {
        let listener = TcpListener::from_std(socket)?;
        let (finish, finished) = oneshot::channel();
        // A socket of one address tells what the client dialled without a system call.
        let dialled = bound.filter(|address| !address.ip().is_unspecified());
        let task = tokio::task::spawn_local(run(Rc::clone(worker), listener, dialled, finished));
        Ok(Self { finish, task })
    }

    /// Accepts what is on its way, then closes the socket. The task ends when that is done.
    pub(super) fn finish(self) -> JoinHandle<()> {
        let _ = self.finish.send(End::LastCall);
        self.task
    }

    /// Accepts nothing more. The task ends when the socket is closed.
    pub(super) fn leave(self) -> JoinHandle<()> {
        let _ = self.finish.send(End::AtOnce);
        self.task
    }
}

async fn run(
    worker: Rc<Worker>,
    listener: TcpListener,
    dialled: Option<SocketAddr>,
    mut finished: oneshot::Receiver<End>,
) {
    let end = loop {
        tokio::select! {
            biased;
            end = &mut finished => break end,
            accepted = listener.accept() => take(&worker, dialled, accepted).await,
        }
    };
    if end == Ok(End::AtOnce) {
        return;
    }
    // A handshake that the kernel has begun for this socket would be reset if it closed now: the
    // last acknowledgement of such a handshake is waited for.
    let last_call = tokio::time::sleep(worker.limits().time.drain_grace);
    tokio::pin!(last_call);
    loop {
        tokio::select! {
            biased;
            accepted = listener.accept() => take(&worker, dialled, accepted).await,
            () = &mut last_call => return,
        }
    }
}

async fn take(
    worker: &Rc<Worker>,
    dialled: Option<SocketAddr>,
    accepted: io::Result<(TcpStream, SocketAddr)>,
) {
    match accepted {
        Ok((stream, peer)) => {
            if let Some(downstream) = admit(worker, dialled, &stream, peer) {
                connection::spawn(worker, downstream, stream);
            }
        }
        Err(error) if is_exhaustion(&error) => {
            worker.counters.accept_errors.up();
            tracing::warn!(%error, "cannot accept connections for now");
            tokio::time::sleep(REST).await;
        }
        // The connection ended before it was accepted; the next one may be well.
        Err(_) => worker.counters.accept_errors.up(),
    }
}

/// Whether the connection is wanted: somebody serves its address, some listener there lets the
/// client in, and no limit is reached. What is not wanted is closed by dropping it.
fn admit(
    worker: &Rc<Worker>,
    dialled: Option<SocketAddr>,
    stream: &TcpStream,
    peer: SocketAddr,
) -> Option<Downstream> {
    worker.counters.connections_accepted.up();
    let local = match dialled {
        Some(local) => local,
        None => canonical(stream.local_addr().ok()?),
    };
    let peer = canonical(peer);
    let serving = worker.serving();
    let table = serving.snapshot.port_table(local)?;
    let permits = |policy: &gateway_model::ir::SourcePolicy| policy.permits(peer.ip());
    if !table
        .listeners
        .iter()
        .any(|l| permits(&l.listener.source_policy))
    {
        worker.counters.connections_denied.up();
        return None;
    }
    if worker.pressure() >= Pressure::NoConnections {
        worker.counters.overload_refusals.up();
        return None;
    }
    let Some(permit) = worker.shared.admission.admit(local, peer.ip()) else {
        worker.counters.connections_over_limit.up();
        return None;
    };
    Some(Downstream::new(worker, &serving, local, peer, permit))
}

/// The IPv4 address of an IPv4-mapped one.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn is_exhaustion(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    )
}
