//! Listening sockets: how a worker comes to connections.

mod bound;
mod socket;

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use gateway_model::snapshot::Snapshot;

use crate::limits::Limits;
use crate::proxy::Failures;
pub(crate) use bound::Refusal;
use bound::{Bound, Kind};

/// How connections reach the workers.
#[derive(Debug)]
pub enum ListenMode {
    /// Each worker has one socket for each address family on loopback, with a port chosen by the
    /// kernel; the packet path steers every frontend to it, and the socket's local address is the
    /// one that the client dialled. UDP sockets are bound as in [`ListenMode::Sockets`], for an
    /// answer leaves from the port of its socket; their address need not be the node's yet.
    Steered {
        /// UDP sockets of a predecessor; see [`ListenMode::Sockets`].
        inherited: Vec<(SocketAddr, OwnedFd)>,
        /// The sockets that connections are steered to at a predecessor, in the order of its
        /// [steering sockets](crate::Proxy::steering_sockets). Adopted, so that no handshake that the kernel has begun
        /// for them is reset; accepted from once [`Proxy::accept_connections`](crate::Proxy::accept_connections) is
        /// called.
        steering: Vec<OwnedFd>,
    },
    /// Each worker has one `SO_REUSEPORT` socket for each address and port of the snapshot.
    Sockets {
        /// Listening sockets of a predecessor with the address each is bound to, several for one
        /// address if it had several workers. Adopted when a snapshot asks for their address, so
        /// that no queued connection or datagram is lost; what the first snapshot does not ask for is closed.
        inherited: Vec<(SocketAddr, OwnedFd)>,
    },
}

/// A listening socket of one worker for the packet path to steer connections to.
#[derive(Debug)]
pub struct SteeringSocket {
    /// The worker, from 0.
    pub worker: usize,
    /// Whether it takes IPv6 connections.
    pub v6: bool,
    /// A duplicate of the socket.
    pub fd: OwnedFd,
}

/// The sockets that workers accept and receive on, as the applying side sees them.
#[derive(Debug)]
pub(crate) struct Listening {
    connections: Connections,
    datagrams: Bound,
}

#[derive(Debug)]
enum Connections {
    /// Fixed at start. Whether some are `shared` with a predecessor.
    Steered {
        sockets: Vec<SteeringSocket>,
        shared: bool,
    },
    /// They come and go with the snapshot.
    Bound(Bound),
}

/// The steered sockets of each worker.
pub(crate) type Steered = Vec<Vec<TcpListener>>;

/// A worker whose socket could not be opened, and what the system said.
pub(crate) type NotOpened = (usize, io::Error);

/// The sockets to open and to close for a snapshot, of one transport.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// For each worker; empty if there is none for any.
    pub(crate) add: Vec<Vec<(SocketAddr, OwnedFd)>>,
    /// For all workers.
    pub(crate) remove: Vec<SocketAddr>,
}

impl Change {
    /// What there is to open for a worker.
    pub(crate) fn take(&mut self, worker: usize) -> Vec<(SocketAddr, OwnedFd)> {
        let added = self.add.get_mut(worker).map(std::mem::take);
        added.unwrap_or_default()
    }
}

impl Listening {
    /// Opens what is fixed at start: the steered sockets of each worker.
    pub(crate) fn new(
        mode: ListenMode,
        workers: usize,
        limits: &Limits,
    ) -> Result<(Self, Steered), NotOpened> {
        let backlog = limits.connections.backlog;
        let (inherited, steering) = match mode {
            ListenMode::Steered {
                inherited,
                steering,
            } => (inherited, Some(steering)),
            ListenMode::Sockets { inherited } => (inherited, None),
        };
        let is_steered = steering.is_some();
        let (streams, datagrams): (Vec<_>, Vec<_>) = inherited
            .into_iter()
            .partition(|(_, fd)| socket::is_stream(fd));
        let (connections, steered) = if let Some(steering) = steering {
            let shared = !steering.is_empty();
            let (sockets, steered) = open_steering(workers, backlog, steering)?;
            (Connections::Steered { sockets, shared }, steered)
        } else {
            // How long a predecessor goes on to accept that has heard of a successor which is dead now.
            let patience = limits.time.drain_grace + Duration::from_millis(500);
            let bound = Bound::new(Kind::Stream { backlog, patience }, workers, streams);
            (Connections::Bound(bound), Vec::new())
        };
        let kind = Kind::Datagram {
            is_free: is_steered,
            buffer: limits.datagram.receive_buffer,
        };
        let datagrams = Bound::new(kind, workers, datagrams);
        let listening = Self {
            connections,
            datagrams,
        };
        Ok((listening, steered))
    }

    /// Whether a predecessor still accepts from steered sockets that it has given us.
    pub(crate) fn shares_connections(&self) -> bool {
        matches!(self.connections, Connections::Steered { shared: true, .. })
    }

    /// Whether a predecessor still reads datagrams from sockets that it has given us.
    pub(crate) fn shares_datagrams(&self) -> bool {
        self.datagrams.has_inherited()
    }

    /// Opens the sockets that this snapshot asks for and names those that it does not: of connections, of datagrams.
    pub(crate) fn change(
        &mut self,
        snapshot: &Snapshot,
        failures: &mut Failures,
    ) -> (Change, Change) {
        let connections = match &mut self.connections {
            Connections::Steered { .. } => Change::default(),
            Connections::Bound(bound) => bound.change(snapshot, failures),
        };
        (connections, self.datagrams.change(snapshot, failures))
    }

    /// Duplicates of the steered sockets.
    pub(crate) fn steering_sockets(&self) -> io::Result<Vec<SteeringSocket>> {
        let Connections::Steered { sockets, .. } = &self.connections else {
            return Ok(Vec::new());
        };
        let duplicate = |socket: &SteeringSocket| {
            Ok(SteeringSocket {
                worker: socket.worker,
                v6: socket.v6,
                fd: socket.fd.try_clone()?,
            })
        };
        sockets.iter().map(duplicate).collect()
    }

    /// Duplicates of the bound sockets.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let mut all = self.datagrams.duplicates()?;
        if let Connections::Bound(bound) = &self.connections {
            all.extend(bound.duplicates()?);
        }
        Ok(all)
    }

    /// Gives up the duplicates, so that a socket closes as soon as its worker closes it.
    pub(crate) fn release(&mut self) {
        match &mut self.connections {
            Connections::Steered { sockets, .. } => sockets.clear(),
            Connections::Bound(bound) => bound.release(),
        }
        self.datagrams.release();
    }
}

/// Opens what each worker lacks of a predecessor's sockets. If that had more workers, the others are accepted from too,
/// and nothing more is steered to them.
fn open_steering(
    workers: usize,
    backlog: u32,
    inherited: Vec<OwnedFd>,
) -> Result<(Vec<SteeringSocket>, Steered), NotOpened> {
    let mut inherited = Inherited::new(inherited, backlog);
    let mut duplicates = Vec::new();
    let mut sockets: Steered = Vec::new();
    for worker in 0..workers {
        let mut of_worker = Vec::new();
        for v6 in [false, true] {
            match inherited.next(v6).map_or_else(|| open(v6, backlog), Ok) {
                Ok((socket, fd)) => {
                    of_worker.push(socket);
                    duplicates.push(SteeringSocket { worker, v6, fd });
                }
                Err(error) if v6 && socket::is_family_missing(&error) => {}
                Err(error) => return Err((worker, error)),
            }
        }
        sockets.push(of_worker);
    }
    let left = inherited.sockets.into_iter().flatten();
    for (socket, worker) in left.zip((0..workers).cycle()) {
        sockets[worker].push(socket);
    }
    Ok((duplicates, sockets))
}

fn open(v6: bool, backlog: u32) -> io::Result<(TcpListener, OwnedFd)> {
    with_duplicate(socket::bind_steering(v6, backlog)?)
}

fn with_duplicate(socket: TcpListener) -> io::Result<(TcpListener, OwnedFd)> {
    let fd = socket.as_fd().try_clone_to_owned()?;
    Ok((socket, fd))
}

/// A predecessor's steered sockets of both families.
struct Inherited {
    sockets: [VecDeque<TcpListener>; 2],
}

impl Inherited {
    fn new(fds: Vec<OwnedFd>, backlog: u32) -> Self {
        let mut sockets = [VecDeque::new(), VecDeque::new()];
        for fd in fds {
            match socket::adopt_steering(fd, backlog) {
                Ok((socket, v6)) => sockets[usize::from(v6)].push_back(socket),
                Err(error) => {
                    tracing::warn!(%error, "a socket of the predecessor's cannot be used; what it holds is lost");
                }
            }
        }
        Self { sockets }
    }

    /// One that can be used, if there is one.
    fn next(&mut self, v6: bool) -> Option<(TcpListener, OwnedFd)> {
        let socket = self.sockets[usize::from(v6)].pop_front()?;
        with_duplicate(socket).ok()
    }
}
