//! A UDP socket towards clients that tells which address a datagram was sent to and answers from it.
//!
//! Sockets are bound to the addresses of the snapshot in both modes of the packet path. To steer datagrams
//! to a socket on loopback, as connections are steered, would not do: an answer leaves from the port that
//! its socket is bound to, and that has to be the frontend's.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvfrom, recvmsg, sendmsg,
    setsockopt, sockopt,
};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

/// Which datagrams belong together: those between one client and one address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Peers {
    pub(super) client: SocketAddr,
    /// The address that the client sent to, with its interface if it is a link-local one.
    pub(super) local: SocketAddr,
}

/// A bound socket, read by one worker.
#[derive(Debug)]
pub(super) struct Listening {
    socket: UdpSocket,
    /// What it is bound to, or the port alone if that is every address.
    bound: SocketAddr,
}

/// Opens a socket that others may share, not read by anybody yet. One that is `free` may have an address that
/// this node does not have yet.
pub(crate) fn bind(address: SocketAddr, is_free: bool, buffer: usize) -> io::Result<OwnedFd> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        socket.set_freebind_v6(is_free)?;
    } else {
        socket.set_freebind_v4(is_free)?;
    }
    socket.set_reuse_port(true)?;
    make_room(&socket, buffer)?;
    if address.ip().is_unspecified() {
        tell_destination(&socket, address.is_ipv6())?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Asks for a receive buffer of `bytes`; without the privilege to exceed it, the system's limit holds.
fn make_room(socket: &Socket, bytes: usize) -> io::Result<()> {
    match setsockopt(&socket.as_fd(), sockopt::RcvBufForce, &bytes) {
        Ok(()) => Ok(()),
        Err(_) => socket.set_recv_buffer_size(bytes),
    }
}

fn tell_destination(socket: &Socket, v6: bool) -> io::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

/// Opens a socket that gets the datagrams of one client alone, before every socket that is not connected.
/// Between its two steps the kernel may give it those of others.
pub(super) fn pin(peers: Peers) -> io::Result<UdpSocket> {
    let fd = bind(peers.local, true, PINNED_BUFFER)?;
    let socket = Socket::from(fd);
    socket.connect(&peers.client.into())?;
    UdpSocket::from_std(socket.into())
}

/// What one client may have on its way.
const PINNED_BUFFER: usize = 256 * 1024;

impl Listening {
    pub(super) fn new(bound: SocketAddr, fd: OwnedFd) -> io::Result<Self> {
        let socket = std::net::UdpSocket::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            bound,
        })
    }

    /// Waits until there may be a datagram.
    pub(super) async fn readable(&self) -> io::Result<()> {
        self.socket.readable().await
    }

    /// The next datagram, if the kernel has told of one: its length and whose it is.
    pub(super) fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, Peers)> {
        let socket = &self.socket;
        socket.try_io(Interest::READABLE, || self.receive_now(buffer))
    }

    /// The same, asked of the kernel whatever it has told.
    pub(super) fn receive_now(&self, buffer: &mut [u8]) -> io::Result<(usize, Peers)> {
        let mut space = cmsg_space!(libc::in6_pktinfo);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut space),
            MsgFlags::empty(),
        )?;
        let client = message.address.as_ref().and_then(address_of);
        let local = match self.bound.ip().is_unspecified() {
            false => Some(self.bound),
            true => message.cmsgs()?.find_map(|info| self.destination(&info)),
        };
        match (client, local) {
            (Some(client), Some(local)) => Ok((message.bytes, Peers { client, local })),
            _ => Err(io::Error::other("a datagram without addresses")),
        }
    }

    fn destination(&self, control: &ControlMessageOwned) -> Option<SocketAddr> {
        let port = self.bound.port();
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let ip = IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::new(ip, port))
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let ip = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                let scope = match ip.is_unicast_link_local() {
                    true => info.ipi6_ifindex,
                    false => 0,
                };
                Some(SocketAddrV6::new(ip, port, 0, scope).into())
            }
            _ => None,
        }
    }

    /// Sends a datagram to a client from the address that it had sent to.
    pub(super) fn send(&self, bytes: &[u8], peers: Peers) -> io::Result<()> {
        if !self.bound.ip().is_unspecified() {
            let to = peers.client.into();
            return SockRef::from(&self.socket).send_to(bytes, &to).map(drop);
        }
        let address = SockaddrStorage::from(peers.client);
        let (v4, v6);
        let source = match peers.local {
            SocketAddr::V4(local) => {
                v4 = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr {
                        s_addr: u32::from_ne_bytes(local.ip().octets()),
                    },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                ControlMessage::Ipv4PacketInfo(&v4)
            }
            SocketAddr::V6(local) => {
                v6 = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: local.ip().octets(),
                    },
                    ipi6_ifindex: local.scope_id(),
                };
                ControlMessage::Ipv6PacketInfo(&v6)
            }
        };
        let (fd, parts) = (self.socket.as_raw_fd(), [IoSlice::new(bytes)]);
        sendmsg(fd, &parts, &[source], MsgFlags::empty(), Some(&address))?;
        Ok(())
    }
}

/// Opens a socket towards an endpoint.
pub(super) fn connect(endpoint: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(endpoint),
        Type::DGRAM.nonblocking().cloexec(),
        Some(Protocol::UDP),
    )?;
    socket.connect(&endpoint.into())?;
    UdpSocket::from_std(socket.into())
}

/// Sends on a connected socket, whatever tokio knows of it: a new one may be written to at once.
pub(super) fn send(socket: &UdpSocket, bytes: &[u8]) -> io::Result<()> {
    SockRef::from(socket).send(bytes).map(drop)
}

/// What a connected socket is waited for: a datagram, or what ICMP says of one that was sent.
pub(super) const ARRIVAL: Interest = Interest::READABLE.add(Interest::ERROR);

/// The next datagram of a connected socket: its length, and the sender.
pub(super) fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<SocketAddr>)> {
    let mut receive = || receive_now(socket, buffer);
    // One interest at a time is all that this takes.
    match socket.try_io(Interest::READABLE, &mut receive) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.try_io(Interest::ERROR, receive)
        }
        received => received,
    }
}

/// The same, asked of the kernel whatever it has told.
pub(super) fn receive_now(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<(usize, Option<SocketAddr>)> {
    let (length, from) = recvfrom::<SockaddrStorage>(socket.as_raw_fd(), buffer)?;
    Ok((length, from.as_ref().and_then(address_of)))
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in();
    let v6 = address.as_sockaddr_in6();
    let v4 = v4.map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| v6.map(|v6| SocketAddr::V6((*v6).into())))
}
