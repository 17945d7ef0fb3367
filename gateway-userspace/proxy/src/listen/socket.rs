//! Opening, binding and adopting listening sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// How much the kernel takes for a client beyond what is on its way to it. It tells of room when half of that has
/// gone; without a bound it does when a third of its buffer has, which may be of 4 MiB, and a client that reads 40 KB
/// a second looked like one that reads nothing for half a minute.
const UNSENT_BYTES: u32 = 128 * 1024;

/// Binds a worker's steering socket of one address family.
pub(super) fn bind_steering(v6: bool, backlog: u32) -> io::Result<TcpListener> {
    let ip: IpAddr = if v6 {
        Ipv6Addr::LOCALHOST.into()
    } else {
        Ipv4Addr::LOCALHOST.into()
    };
    open(SocketAddr::new(ip, 0), backlog, false)
}

/// Takes over a predecessor's steering socket; whether it is of IPv6.
pub(super) fn adopt_steering(fd: OwnedFd, backlog: u32) -> io::Result<(TcpListener, bool)> {
    tune(&fd)?;
    SockRef::from(&fd).listen(queue(backlog))?;
    let socket = TcpListener::from(fd);
    let v6 = socket.local_addr()?.is_ipv6();
    Ok((socket, v6))
}

/// Opens a listening socket that others may share.
pub(super) fn bind(address: SocketAddr, backlog: u32) -> io::Result<OwnedFd> {
    open(address, backlog, true).map(OwnedFd::from)
}

/// Whether nobody else listens on an address: sockets that several workers share would let another Sluice share
/// it too, and each would get some of the other's connections.
///
/// # Errors
/// `AddrInUse`, or that the address cannot be bound at all.
pub(super) fn probe(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Whether an inherited socket takes connections, not datagrams.
pub(super) fn is_stream(fd: &OwnedFd) -> bool {
    let kind = SockRef::from(fd).r#type();
    kind.is_ok_and(|kind| kind == Type::STREAM)
}

/// Whether this system lacks the address family altogether.
pub(super) fn is_family_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
    )
}

/// What accepted sockets inherit: system calls less for each connection. A predecessor's sockets may lack it.
pub(super) fn tune<S: AsFd>(socket: &S) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_notsent_lowat(UNSENT_BYTES)
}

fn open(address: SocketAddr, backlog: u32, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        // Whoever is steered here dials another address; loopback may get this one later.
        socket.set_freebind_v6(!shared)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    tune(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(queue(backlog))?;
    Ok(socket.into())
}

fn queue(backlog: u32) -> i32 {
    i32::try_from(backlog).unwrap_or(i32::MAX)
}
