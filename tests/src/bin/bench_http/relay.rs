//! The null relay: the least that a proxy can do, hence the floor of every table.
//!
//! One thread, level-triggered epoll, one upstream connection for each downstream one, 16 KiB of
//! buffer, no parsing. What does not go out at once is written by waiting for the socket, which in
//! these scenarios does not happen but for bodies larger than a socket buffer.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::backend;
use super::epoll::{Epoll, READ, WRITE};

const LISTENER: usize = usize::MAX;

/// One direction's source, and what its destination has not taken yet.
struct End {
    socket: TcpStream,
    /// Read from this end, not yet written to the other.
    held: Vec<u8>,
}

/// Relays every connection of `listen` to `upstream`, until killed.
pub fn run(listen: SocketAddr, upstream: SocketAddr) -> io::Result<()> {
    let listener = backend::listen(listen)?;
    listener.set_nonblocking(true)?;
    let mut epoll = Epoll::new(256)?;
    epoll.add(&listener, READ, LISTENER)?;
    // The ends of connection n are 2n (downstream) and 2n + 1 (upstream).
    let mut ends: Vec<Option<End>> = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        for token in epoll.wait()? {
            if token == LISTENER {
                accept(&listener, upstream, &epoll, &mut ends)?;
            } else if relay(token, &epoll, &mut ends, &mut buffer).is_err() {
                ends[token & !1] = None;
                ends[token | 1] = None;
            }
        }
    }
}

fn accept(
    listener: &TcpListener,
    upstream: SocketAddr,
    epoll: &Epoll,
    ends: &mut Vec<Option<End>>,
) -> io::Result<()> {
    loop {
        let downstream = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let upstream = TcpStream::connect(upstream)?;
        let first = match ends
            .chunks_exact(2)
            .position(|pair| pair[0].is_none() && pair[1].is_none())
        {
            Some(free) => 2 * free,
            None => {
                ends.extend([None, None]);
                ends.len() - 2
            }
        };
        for (token, socket) in [(first, downstream), (first + 1, upstream)] {
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            epoll.add(&socket, READ, token)?;
            ends[token] = Some(End {
                socket,
                held: Vec::new(),
            });
        }
    }
}

/// Moves what there is from the end `token` to its peer, and what is held for it.
fn relay(
    token: usize,
    epoll: &Epoll,
    ends: &mut [Option<End>],
    buffer: &mut [u8],
) -> io::Result<()> {
    let (low, high) = ends.split_at_mut(token | 1);
    let (Some(even), Some(odd)) = (&mut low[token & !1], &mut high[0]) else {
        return Ok(()); // Closed earlier in this batch.
    };
    let (this, peer) = if token & 1 == 0 {
        (even, odd)
    } else {
        (odd, even)
    };
    if !peer.held.is_empty() {
        drain(this, peer, epoll, token)?;
    }
    if !this.held.is_empty() {
        return Ok(()); // The peer is behind: read on when it has caught up.
    }
    let read = match this.socket.read(buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    let written = write(&mut peer.socket, &buffer[..read])?;
    if written < read {
        this.held.extend_from_slice(&buffer[written..read]);
        epoll.change(&peer.socket, READ | WRITE, token ^ 1)?;
        epoll.change(&this.socket, 0, token)?;
    }
    Ok(())
}

/// Writes to `this` what was read from `peer` before.
fn drain(this: &mut End, peer: &mut End, epoll: &Epoll, token: usize) -> io::Result<()> {
    let written = write(&mut this.socket, &peer.held)?;
    peer.held.drain(..written);
    if peer.held.is_empty() {
        epoll.change(&this.socket, READ, token)?;
        epoll.change(&peer.socket, READ, token ^ 1)?;
    }
    Ok(())
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
