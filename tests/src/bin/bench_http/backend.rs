//! A backend that costs next to nothing: fixed answers, keep-alive, one thread, epoll.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, Socket, Type};

use super::epoll::{Epoll, READ, WRITE};

const LISTENER: usize = usize::MAX;

/// The answers: the path that asks for one, and the length of its body in bytes.
pub const BODIES: [(&str, usize); 4] = [
    ("/64", 64),
    ("/1k", 1024),
    ("/16k", 16 * 1024),
    ("/64k", 64 * 1024),
];

struct Connection {
    socket: TcpStream,
    /// The beginning of a request whose end has not come.
    head: Vec<u8>,
    /// What the peer has not taken yet.
    unsent: Vec<u8>,
}

/// Answers on `listener`, until killed.
pub fn run(listener: &TcpListener) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let answers = BODIES.map(|(path, length)| (path, answer("200 OK", length)));
    let missing = answer("404 Not Found", 0);
    let mut epoll = Epoll::new(256)?;
    epoll.add(listener, READ, LISTENER)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut buffer = vec![0; 16 * 1024];
    loop {
        for token in epoll.wait()? {
            if token == LISTENER {
                accept(listener, &epoll, &mut connections)?;
                continue;
            }
            let Some(connection) = &mut connections[token] else {
                continue;
            };
            let find = |path: &[u8]| {
                answers
                    .iter()
                    .find(|(p, _)| p.as_bytes() == path)
                    .map_or(&missing, |(_, a)| a)
            };
            if serve(connection, token, &epoll, &mut buffer, find).is_err() {
                connections[token] = None;
            }
        }
    }
}

/// A listener that hundreds of connections may reach at once (std's queue holds 128); port 0 lets the kernel choose.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn answer(status: &str, length: usize) -> Vec<u8> {
    let mut answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n"
    )
    .into_bytes();
    answer.resize(answer.len() + length, b'x');
    answer
}

fn accept(
    listener: &TcpListener,
    epoll: &Epoll,
    connections: &mut Vec<Option<Connection>>,
) -> io::Result<()> {
    loop {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let token = connections
            .iter()
            .position(Option::is_none)
            .unwrap_or_else(|| {
                connections.push(None);
                connections.len() - 1
            });
        epoll.add(&socket, READ, token)?;
        connections[token] = Some(Connection {
            socket,
            head: Vec::new(),
            unsent: Vec::new(),
        });
    }
}

fn serve<'a>(
    connection: &mut Connection,
    token: usize,
    epoll: &Epoll,
    buffer: &mut [u8],
    find: impl Fn(&[u8]) -> &'a Vec<u8>,
) -> io::Result<()> {
    if !connection.unsent.is_empty() {
        let written = write(&mut connection.socket, &connection.unsent)?;
        connection.unsent.drain(..written);
        if connection.unsent.is_empty() {
            epoll.change(&connection.socket, READ, token)?;
        }
        return Ok(());
    }
    let read = match connection.socket.read(buffer) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    };
    connection.head.extend_from_slice(&buffer[..read]);
    while let Some(end) = connection.head.windows(4).position(|w| w == b"\r\n\r\n") {
        let path = connection
            .head
            .split(|b| *b == b' ')
            .nth(1)
            .unwrap_or_default();
        let answer = find(path);
        connection.head.drain(..end + 4);
        let written = if connection.unsent.is_empty() {
            write(&mut connection.socket, answer)?
        } else {
            0
        };
        if written < answer.len() {
            connection.unsent.extend_from_slice(&answer[written..]);
            epoll.change(&connection.socket, WRITE, token)?;
        }
    }
    Ok(())
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        written => written,
    }
}
