//! Sockets bound to the addresses of the snapshot.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use gateway_model::l4_plan::Transport;
use gateway_model::snapshot::{PortTable, Snapshot};

use super::{Change, socket};
use crate::datagram;
use crate::proxy::Failures;

/// The sockets of every address that is served over one transport, each worker's own.
#[derive(Debug)]
pub(crate) struct Bound {
    kind: Kind,
    start: Instant,
    workers: usize,
    /// A predecessor's, until the first snapshot says which are wanted.
    inherited: BTreeMap<SocketAddr, Vec<OwnedFd>>,
    /// Ports that are ours, or have been: to ask whose they are would find ourselves, for workers take their time
    /// to close a socket.
    ports: BTreeSet<u16>,
    /// Duplicates of what the workers listen on.
    open: BTreeMap<SocketAddr, Vec<OwnedFd>>,
}

/// What kind of sockets they are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Stream {
        backlog: u32,
        /// How long after the start an address may still be that of a predecessor which is leaving.
        patience: Duration,
    },
    Datagram {
        /// Whether an address may be one that the node does not have yet.
        is_free: bool,
        buffer: usize,
    },
}

impl Kind {
    fn transport(self) -> Transport {
        match self {
            Self::Stream { .. } => Transport::Tcp,
            Self::Datagram { .. } => Transport::Udp,
        }
    }

    /// Whether an address is nobody else's. UDP sessions of a predecessor are bound to it too, by right.
    ///
    /// Waits, in the first moments of a process alone, for a predecessor that accepts its last connections, and that
    /// nobody can ask for its sockets any more: the successor that it gave them to has been killed.
    fn probe(self, address: SocketAddr, start: Instant) -> io::Result<()> {
        let Self::Stream { patience, .. } = self else {
            return Ok(());
        };
        loop {
            match socket::probe(address) {
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < patience =>
                {
                    std::thread::sleep(Duration::from_millis(10));
                }
                probed => return probed,
            }
        }
    }

    fn bind(self, address: SocketAddr) -> io::Result<OwnedFd> {
        match self {
            Self::Stream { backlog, .. } => socket::bind(address, backlog),
            Self::Datagram { is_free, buffer } => datagram::bind(address, is_free, buffer),
        }
    }

    /// Makes the kernel give each client's datagrams to one of these sockets, for good; connections it gives to any.
    fn spread_over(self, sockets: &[OwnedFd], address: SocketAddr) {
        if let Self::Datagram { .. } = self
            && let Err(error) = datagram::spread_over(sockets, address.is_ipv6())
        {
            tracing::warn!(%address, %error, "sessions may change workers when sockets come and go");
        }
    }
}

impl Bound {
    pub(super) fn new(kind: Kind, workers: usize, inherited: Vec<(SocketAddr, OwnedFd)>) -> Self {
        let mut by_address: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (address, fd) in inherited {
            if let Kind::Stream { .. } = kind
                && let Err(error) = socket::tune(&fd)
            {
                tracing::warn!(%address, %error, "cannot set what an inherited socket's connections need");
            }
            by_address.entry(address).or_default().push(fd);
        }
        Self {
            kind,
            start: Instant::now(),
            workers,
            ports: by_address.keys().map(SocketAddr::port).collect(),
            inherited: by_address,
            open: BTreeMap::new(),
        }
    }

    /// Whether there are sockets of a predecessor that no snapshot has been asked about.
    pub(super) fn has_inherited(&self) -> bool {
        !self.inherited.is_empty()
    }

    /// Opens the sockets that this snapshot asks for and names those that it does not.
    pub(super) fn change(&mut self, snapshot: &Snapshot, failures: &mut Failures) -> Change {
        let mut change = Change {
            add: (0..self.workers).map(|_| Vec::new()).collect(),
            remove: Vec::new(),
        };
        let mut wanted = BTreeSet::new();
        let transport = self.kind.transport();
        let tables = snapshot.port_tables();
        for table in tables.filter(|table| table.kind.transport() == transport) {
            wanted.extend(addresses_of(table));
            let Err(why) = self.open_table(table, &mut change) else {
                continue;
            };
            for listener in &table.listeners {
                match table.address {
                    Some(address) => failures.add_address(&listener.listener, address, &why),
                    None => failures.add(listener.key(), || why.reason.clone()),
                }
            }
        }
        self.inherited.clear();
        let unwanted = self.open.keys().filter(|address| !wanted.contains(address));
        change.remove = unwanted.copied().collect();
        self.open.retain(|address, _| wanted.contains(address));
        change
    }

    /// Opens what a table lacks. An address family that this system does not have is no failure of
    /// a table for every address.
    fn open_table(&mut self, table: &PortTable, change: &mut Change) -> Result<(), Refusal> {
        let mut served = false;
        let mut refusals = Vec::new();
        for address in addresses_of(table) {
            match self.open_address(address, change) {
                Ok(()) => served = true,
                Err(error) if table.address.is_none() && socket::is_family_missing(&error) => {}
                Err(error) => refusals.push(Refusal::new(address, &error)),
            }
        }
        match refusals.into_iter().reduce(|all, each| all.and(&each)) {
            Some(refusal) => Err(refusal),
            None if served => Ok(()),
            None => Err(Refusal {
                reason: format!("no address family to listen on port {} with", table.port),
                is_unusable: false,
            }),
        }
    }

    fn open_address(&mut self, address: SocketAddr, change: &mut Change) -> io::Result<()> {
        if self.open.contains_key(&address) {
            return Ok(());
        }
        let mut sockets = self.inherited.remove(&address).unwrap_or_default();
        // The kernel would give some of the datagrams of a predecessor's clients to another socket.
        let may_add = sockets.is_empty() || self.kind.transport() == Transport::Tcp;
        let is_new = sockets.is_empty();
        if is_new && !self.ports.contains(&address.port()) {
            self.kind.probe(address, self.start)?;
        }
        self.ports.insert(address.port());
        for _ in sockets.len()..if may_add { self.workers } else { 0 } {
            sockets.push(self.kind.bind(address)?);
        }
        // Those of a predecessor have been told.
        if is_new {
            self.kind.spread_over(&sockets, address);
        }
        let duplicates = sockets.iter().map(OwnedFd::try_clone);
        self.open
            .insert(address, duplicates.collect::<io::Result<_>>()?);
        for (index, socket) in sockets.into_iter().enumerate() {
            change.add[index % self.workers].push((address, socket));
        }
        Ok(())
    }

    /// Duplicates of all sockets.
    pub(super) fn duplicates(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let all = self.open.iter();
        all.flat_map(|(address, fds)| fds.iter().map(|fd| Ok((*address, fd.try_clone()?))))
            .collect()
    }

    /// Gives up the duplicates.
    pub(super) fn release(&mut self) {
        self.open.clear();
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

/// Why there is no socket on an address.
pub(crate) struct Refusal {
    /// In words.
    pub(crate) reason: String,
    /// Whether the node does not have the address at all.
    pub(crate) is_unusable: bool,
}

impl Refusal {
    fn new(address: SocketAddr, error: &io::Error) -> Self {
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => ": another process listens there",
            io::ErrorKind::AddrNotAvailable => ": no interface of this node has that address",
            io::ErrorKind::PermissionDenied => {
                ": ports below 1024 need CAP_NET_BIND_SERVICE or net.ipv4.ip_unprivileged_port_start"
            }
            _ => &format!(": {error}"),
        };
        Self {
            reason: format!("cannot listen on {address}{cause}"),
            is_unusable: error.kind() == io::ErrorKind::AddrNotAvailable,
        }
    }

    fn and(self, other: &Self) -> Self {
        Self {
            reason: format!("{}; {}", self.reason, other.reason),
            is_unusable: self.is_unusable && other.is_unusable,
        }
    }
}
