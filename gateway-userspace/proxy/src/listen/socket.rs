//! Opening, binding and adopting listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Sockets with the number of the worker (modulo the workers) that takes each, and duplicates.
pub(super) type Opened = (Vec<(usize, TcpListener)>, Vec<OwnedFd>);

/// Binds a worker's steering socket of one address family.
pub(super) fn bind_steering(v6: bool, backlog: u32) -> io::Result<TcpListener> {
    let ip: IpAddr = if v6 {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    };
    bind(SocketAddr::new(ip, 0), backlog, false)
}

/// Opens every worker's socket of one address: those of a predecessor first, new ones for the rest.
pub(super) fn open(
    address: SocketAddr,
    adopted: Vec<OwnedFd>,
    workers: usize,
    backlog: u32,
) -> io::Result<Opened> {
    let mut sockets = Vec::new();
    let mut duplicates = Vec::new();
    let taken = adopted.len();
    let adopted = adopted.into_iter().map(adopt);
    let bound = (taken..workers).map(|_| bind(address, backlog, true));
    for (index, socket) in adopted.chain(bound).enumerate() {
        let socket = socket?;
        duplicates.push(socket.as_fd().try_clone_to_owned()?);
        sockets.push((index, socket));
    }
    Ok((sockets, duplicates))
}

/// Whether this system lacks the address family altogether.
pub(super) fn is_family_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

fn adopt(fd: OwnedFd) -> io::Result<TcpListener> {
    let socket = TcpListener::from(fd);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind(address: SocketAddr, backlog: u32, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets inherit it: one system call less for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
