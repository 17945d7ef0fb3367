//! Listening sockets: how a worker comes to connections.

mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use gateway_model::snapshot::{PortTable, Snapshot};

use crate::limits::Limits;
use crate::proxy::Failures;

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
    Sockets {
        workers: usize,
        backlog: u32,
        inherited: BTreeMap<SocketAddr, Vec<OwnedFd>>,
        /// Duplicates of what the workers listen on.
        open: BTreeMap<SocketAddr, Vec<OwnedFd>>,
    },
}

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
    ///
    /// # Errors
    /// The worker whose socket could not be opened, with the system's reason.
    pub(crate) fn new(
        mode: ListenMode,
        workers: usize,
        limits: &Limits,
    ) -> Result<(Self, Vec<Vec<TcpListener>>), (usize, io::Error)> {
        let backlog = limits.connections.backlog;
        match mode {
            ListenMode::Steered => Self::steered(workers, backlog),
            ListenMode::Sockets { inherited } => {
                let mut by_address: BTreeMap<_, Vec<_>> = BTreeMap::new();
                for (address, fd) in inherited {
                    by_address.entry(address).or_default().push(fd);
                }
                let listening = Self::Sockets {
                    workers,
                    backlog,
                    inherited: by_address,
                    open: BTreeMap::new(),
                };
                Ok((listening, Vec::new()))
            }
        }
    }

    fn steered(
        workers: usize,
        backlog: u32,
    ) -> Result<(Self, Vec<Vec<TcpListener>>), (usize, io::Error)> {
        let mut duplicates = Vec::new();
        let mut sockets = Vec::new();
        for worker in 0..workers {
            let mut of_worker = Vec::new();
            for v6 in [false, true] {
                let open = || {
                    let socket = socket::bind_steering(v6, backlog)?;
                    let fd = socket.as_fd().try_clone_to_owned()?;
                    Ok((socket, fd))
                };
                match open() {
                    Ok((socket, fd)) => {
                        of_worker.push(socket);
                        duplicates.push(SteeringSocket { worker, v6, fd });
                    }
                    Err(e) if v6 && socket::is_family_missing(&e) => {}
                    Err(e) => return Err((worker, e)),
                }
            }
            sockets.push(of_worker);
        }
        Ok((Self::Steered(duplicates), sockets))
    }

    /// Opens the sockets that this snapshot asks for and names those that it does not.
    pub(crate) fn change(&mut self, snapshot: &Snapshot, failures: &mut Failures) -> Change {
        let Self::Sockets {
            workers,
            backlog,
            inherited,
            open,
        } = self
        else {
            return Change::default();
        };
        let mut change = Change {
            add: (0..*workers).map(|_| Vec::new()).collect(),
            remove: Vec::new(),
        };
        let mut wanted = BTreeSet::new();
        for table in snapshot.port_tables() {
            let mut served = false;
            let mut reasons = Vec::new();
            for address in addresses_of(table) {
                wanted.insert(address);
                if open.contains_key(&address) {
                    served = true;
                    continue;
                }
                let adopted = inherited.remove(&address).unwrap_or_default();
                match socket::open(address, adopted, *workers, *backlog) {
                    Ok((sockets, duplicates)) => {
                        for (index, socket) in sockets {
                            change.add[index % *workers].push((address, socket));
                        }
                        open.insert(address, duplicates);
                        served = true;
                    }
                    Err(e) if table.address.is_none() && socket::is_family_missing(&e) => {}
                    Err(e) => reasons.push(bind_failure(address, &e)),
                }
            }
            if !served || !reasons.is_empty() {
                let reason = reasons.join("; ");
                for listener in &table.listeners {
                    failures.add(listener.key(), || reason.clone());
                }
            }
        }
        inherited.clear();
        change.remove = open
            .keys()
            .filter(|address| !wanted.contains(address))
            .copied()
            .collect();
        change.remove.iter().for_each(|address| {
            open.remove(address);
        });
        change
    }

    /// Duplicates of the steered sockets.
    pub(crate) fn steering_sockets(&self) -> io::Result<Vec<SteeringSocket>> {
        let Self::Steered(sockets) = self else {
            return Ok(Vec::new());
        };
        sockets
            .iter()
            .map(|socket| {
                Ok(SteeringSocket {
                    worker: socket.worker,
                    v6: socket.v6,
                    fd: socket.fd.try_clone()?,
                })
            })
            .collect()
    }

    /// Duplicates of the bound sockets.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let Self::Sockets { open, .. } = self else {
            return Ok(Vec::new());
        };
        open.iter()
            .flat_map(|(address, fds)| fds.iter().map(|fd| Ok((*address, fd.try_clone()?))))
            .collect()
    }

    /// Gives up the duplicates, so that a socket closes as soon as its worker closes it.
    pub(crate) fn release(&mut self) {
        match self {
            Self::Steered(sockets) => sockets.clear(),
            Self::Sockets { open, .. } => open.clear(),
        }
    }
}

fn addresses_of(table: &PortTable) -> Vec<SocketAddr> {
    let ips: &[IpAddr] = match &table.address {
        Some(ip) => std::slice::from_ref(ip),
        None => &[
            IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ],
    };
    ips.iter()
        .map(|ip| SocketAddr::new(*ip, table.port))
        .collect()
}

fn bind_failure(address: SocketAddr, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::AddrInUse => ": another process listens there",
        io::ErrorKind::AddrNotAvailable => ": no interface of this node has that address",
        io::ErrorKind::PermissionDenied => {
            ": ports below 1024 need CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start"
        }
        _ => return format!("cannot listen on {address}: {error}"),
    };
    format!("cannot listen on {address}{cause}")
}
