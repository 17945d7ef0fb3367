//! Listening sockets: how a worker comes to connections.

mod bound;
mod socket;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use gateway_model::snapshot::Snapshot;

use crate::limits::Limits;
use crate::proxy::Failures;
use bound::Bound;

/// How connections reach the workers.
#[derive(Debug)]
pub enum ListenMode {
    /// Each worker has one socket for each address family on loopback, with a port chosen by the
    /// kernel; the packet path steers every frontend to it, and the socket's local address is the
    /// one that the client dialled.
    Steered,
    /// Each worker has one `SO_REUSEPORT` socket for each address and port of the snapshot.
    Sockets {
        /// Listening sockets of a predecessor with the address each is bound to, several for one
        /// address if it had several workers. Adopted when a snapshot asks for their address, so
        /// that no queued connection is lost; what the first snapshot does not ask for is closed.
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

/// The sockets that workers accept on, as the applying side sees them.
#[derive(Debug)]
pub(crate) enum Listening {
    /// Fixed at start.
    Steered(Vec<SteeringSocket>),
    /// They come and go with the snapshot.
    Bound(Bound),
}

/// The steered sockets of each worker.
pub(crate) type Steered = Vec<Vec<TcpListener>>;

/// A worker whose socket could not be opened, and what the system said.
pub(crate) type NotOpened = (usize, io::Error);

/// The sockets to open and to close for a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Change {
    /// For each worker.
    pub(crate) add: Vec<Vec<(SocketAddr, TcpListener)>>,
    /// For all workers.
    pub(crate) remove: Vec<SocketAddr>,
}

impl Listening {
    /// Opens what is fixed at start: the steered sockets of each worker.
    pub(crate) fn new(
        mode: ListenMode,
        workers: usize,
        limits: &Limits,
    ) -> Result<(Self, Steered), NotOpened> {
        let backlog = limits.connections.backlog;
        match mode {
            ListenMode::Steered => Self::steered(workers, backlog),
            ListenMode::Sockets { inherited } => {
                let bound = Bound::new(workers, backlog, inherited);
                Ok((Self::Bound(bound), Vec::new()))
            }
        }
    }

    fn steered(workers: usize, backlog: u32) -> Result<(Self, Steered), NotOpened> {
        let mut duplicates = Vec::new();
        let mut sockets = Vec::new();
        for worker in 0..workers {
            let mut of_worker = Vec::new();
            for v6 in [false, true] {
                match open_steered(v6, backlog) {
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
        Ok((Self::Steered(duplicates), sockets))
    }

    /// Opens the sockets that this snapshot asks for and names those that it does not.
    pub(crate) fn change(&mut self, snapshot: &Snapshot, failures: &mut Failures) -> Change {
        match self {
            Self::Steered(_) => Change::default(),
            Self::Bound(bound) => bound.change(snapshot, failures),
        }
    }

    /// Duplicates of the steered sockets.
    pub(crate) fn steering_sockets(&self) -> io::Result<Vec<SteeringSocket>> {
        let Self::Steered(sockets) = self else {
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
        match self {
            Self::Steered(_) => Ok(Vec::new()),
            Self::Bound(bound) => bound.duplicates(),
        }
    }

    /// Gives up the duplicates, so that a socket closes as soon as its worker closes it.
    pub(crate) fn release(&mut self) {
        match self {
            Self::Steered(sockets) => sockets.clear(),
            Self::Bound(bound) => bound.release(),
        }
    }
}

fn open_steered(v6: bool, backlog: u32) -> io::Result<(TcpListener, OwnedFd)> {
    let socket = socket::bind_steering(v6, backlog)?;
    let fd = socket.as_fd().try_clone_to_owned()?;
    Ok((socket, fd))
}
