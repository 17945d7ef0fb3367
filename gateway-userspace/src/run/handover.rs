//! The hand-over from an old process to a new one, over STATE/handover.sock.
//!
//! A sequenced-packet socket; each message is one JSON value, descriptors travel beside it. The
//! new process asks, the old one sends what it listens on, and nothing else happens until the new
//! one says that it has taken over. What both listen on for datagrams is read by the old one until it answers
//! that it drains, and by the new one from then on. What BPF steers connections to is the new one's too, so that no
//! handshake that the kernel has begun is reset; it accepts from them once it steers. After the old one's answer the new
//! one takes the names of the sockets in STATE, and then closes the connection. So, whichever is killed, and when:
//!
//! - The new one, before the old one has answered: the old one has its names and serves on; connections that were
//!   steered away it takes back ([`Old::resume`]). Datagrams it cannot take back: if it has left them, it drains.
//! - The new one, after that: the old one drains, and whoever starts next serves without a predecessor.
//! - The old one, at any time: the new one goes on without it, unless a third one has begun to serve meanwhile:
//!   the new one ends then, to start again as its successor.
//!
//! While the new one takes the names the old one still listens, though it answers nobody any more ([`Moving`]):
//! a third process fails then, and does not believe that nobody serves.
//!
//! Only processes of the same user (or root) can ask: the socket's mode is 0600 and the kernel minds it. Credentials
//! are not looked at besides, for a process of another Pod has none here: its id is 0 in this process's
//! namespace, which rustix 1.1 takes for a failure.

mod message;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use gateway_model::names::Revision;
use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::socket_file::SocketFile;
use message::{Channel, Message, SOCKETS_PER_MESSAGE};

/// Changes when a message means something else.
const PROTOCOL: u32 = 1;

/// How long the other side may take for one message.
const PATIENCE: Duration = Duration::from_secs(10);

/// Listening sockets with the addresses they are bound to.
pub type Sockets = Vec<(SocketAddr, OwnedFd)>;

/// The process that serves now.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    /// Its process id.
    pub pid: u32,
    /// The revision it serves.
    pub revision: Revision,
    /// What it listens on; for datagrams alone if the packet path steers connections to it.
    pub sockets: Sockets,
    /// What the packet path steers connections to.
    pub steering: Vec<OwnedFd>,
}

/// What an old process tells a new one.
#[derive(Debug)]
pub struct Estate {
    /// The revision it serves.
    pub revision: Revision,
    /// What it listens on.
    pub sockets: Sockets,
    /// What the packet path steers connections to, with the address of each.
    pub steering: Sockets,
}

/// The end of an old process's service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// The successor.
    pub pid: u32,
    /// Whether the successor steers connections by BPF.
    pub l4: bool,
    /// Whether it accepts from the sockets that they are steered to here.
    pub shares: bool,
}

impl Predecessor {
    /// Asks the process that serves with this state directory for its sockets. Nothing if there is none.
    ///
    /// # Errors
    /// There is one, but it does not answer or speaks another protocol.
    pub fn connect(path: &Path) -> anyhow::Result<Option<Self>> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        match socket.connect(&SockAddr::unix(path)?) {
            Ok(()) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).context("cannot reach the running sluice"),
        }
        let channel = Channel::new(socket, PATIENCE)?;
        Self::ask(channel)
            .context("cannot take over from the running sluice")
            .map(Some)
    }

    fn ask(channel: Channel) -> anyhow::Result<Self> {
        channel.send(
            &Message::Hello {
                protocol: PROTOCOL,
                pid: std::process::id(),
            },
            &[],
        )?;
        let (welcome, _) = channel.receive()?;
        let (pid, revision, count, steering) = match welcome {
            Message::Welcome {
                protocol: PROTOCOL,
                pid,
                revision,
                sockets,
                steering,
            } => (pid, revision, sockets, steering),
            Message::Welcome { protocol, pid, .. } => {
                anyhow::bail!(
                    "process {pid} speaks hand-over protocol {protocol}, not {PROTOCOL}; stop it first"
                )
            }
            other => anyhow::bail!("unexpected answer {other:?}"),
        };
        let mut sockets = Vec::with_capacity(count.min(1024));
        while sockets.len() < count {
            let (message, fds) = channel.receive()?;
            let Message::Sockets { addresses } = message else {
                anyhow::bail!("unexpected answer {message:?}");
            };
            anyhow::ensure!(
                !addresses.is_empty() && addresses.len() == fds.len(),
                "a socket is missing"
            );
            sockets.extend(addresses.into_iter().zip(fds));
        }
        let steering = sockets.split_off(sockets.len().saturating_sub(steering));
        Ok(Self {
            channel,
            pid,
            revision,
            sockets,
            steering: steering.into_iter().map(|(_, fd)| fd).collect(),
        })
    }

    /// Whether it has ended.
    pub fn is_gone(&self) -> bool {
        self.channel.is_over()
    }

    /// Says that this process serves, and whether it `shares` the sockets that connections are steered to; the old one
    /// begins to drain. Returns when it has heard. It listens until
    /// this is dropped, which is to be done when this process has the names.
    ///
    /// # Errors
    /// The old process is gone, which changes nothing for this one.
    pub fn taken_over(&self, l4: bool, shares: bool) -> io::Result<()> {
        self.channel.send(&Message::TakenOver { l4, shares }, &[])?;
        match self.channel.receive()?.0 {
            Message::Draining => Ok(()),
            other => Err(io::Error::other(format!("unexpected answer {other:?}"))),
        }
    }
}

/// The old side: waits for successors.
#[derive(Debug)]
pub struct Server {
    socket: Socket,
}

/// What the old process does when a successor comes.
pub trait Old {
    /// What it tells it.
    ///
    /// # Errors
    /// The sockets cannot be told.
    fn estate(&self) -> io::Result<Estate>;

    /// Leaves to it what only one of the two can do.
    fn leave(&self);

    /// Takes back what it may have taken: it is gone and has not taken over.
    fn resume(&self);
}

/// A successor that serves, and takes the names of the sockets. Until it has them the old socket stays open.
#[derive(Debug)]
pub struct Moving {
    channel: Channel,
    _socket: Socket,
}

impl Server {
    /// Opens the socket, which takes the place of a predecessor's when its file is published.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn bind(path: &Path) -> io::Result<(Self, SocketFile)> {
        let (file, socket) = SocketFile::bind(path, |at| {
            let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
            socket.bind(&SockAddr::unix(at)?)?;
            socket.listen(4)?;
            Ok(socket)
        })?;
        Ok((Self { socket }, file))
    }

    /// Answers successors until one has taken over. Blocks; for a thread of its own.
    pub fn serve(self, old: &dyn Old) -> (TakenOver, Moving) {
        loop {
            let socket = match self.socket.accept() {
                Ok((socket, _)) => socket,
                Err(error) => {
                    tracing::warn!(error = %error, "cannot accept a successor");
                    std::thread::sleep(Duration::from_secs(1));
                    continue;
                }
            };
            match session(socket, old) {
                Ok(Some((taken_over, channel))) => {
                    let moving = Moving {
                        channel,
                        _socket: self.socket,
                    };
                    return (taken_over, moving);
                }
                Ok(None) => tracing::info!("successor left before it took over"),
                Err(error) => tracing::warn!(error = %error, "hand-over failed; serving on"),
            }
            old.resume();
        }
    }
}

impl Moving {
    /// Waits until the successor has its names or is gone. Blocks.
    pub fn wait(self) {
        // It says no more. Whatever comes, its turn is over.
        let _ = self.channel.receive();
    }
}

fn session(socket: Socket, old: &dyn Old) -> io::Result<Option<(TakenOver, Channel)>> {
    let channel = Channel::new(socket, PATIENCE)?;
    let (Message::Hello { protocol: _, pid }, _) = channel.receive()? else {
        return Err(io::Error::other("a successor that does not say hello"));
    };
    let Estate {
        revision,
        mut sockets,
        steering,
    } = old.estate()?;
    let steered = steering.len();
    sockets.extend(steering);
    let welcome = Message::Welcome {
        protocol: PROTOCOL,
        pid: std::process::id(),
        revision,
        sockets: sockets.len(),
        steering: steered,
    };
    channel.send(&welcome, &[])?;
    for part in sockets.chunks(SOCKETS_PER_MESSAGE) {
        let addresses = part.iter().map(|(address, _)| *address).collect();
        let fds: Vec<_> = part.iter().map(|(_, fd)| fd).collect();
        channel.send(&Message::Sockets { addresses }, &fds)?;
    }
    drop(sockets);
    tracing::info!(pid, "successor is getting ready");
    channel.set_patience(None)?;
    let (l4, shares) = match channel.receive() {
        Ok((Message::TakenOver { l4, shares }, _)) => (l4, shares),
        Ok((other, _)) => return Err(io::Error::other(format!("unexpected message {other:?}"))),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    channel.set_patience(Some(PATIENCE))?;
    if channel.is_over() {
        return Ok(None);
    }
    old.leave();
    match channel.send(&Message::Draining, &[]) {
        // Datagrams that are left cannot be taken back: who starts next gets them.
        Err(_) if !has_datagrams(&old.estate()?) => Ok(None),
        _ => Ok(Some((TakenOver { pid, l4, shares }, channel))),
    }
}

fn has_datagrams(estate: &Estate) -> bool {
    let kind = |(_, socket): &(SocketAddr, OwnedFd)| SockRef::from(socket).r#type();
    let mut kinds = estate.sockets.iter().map(kind);
    kinds.any(|kind| kind.is_ok_and(|kind| kind == Type::DGRAM))
}

#[cfg(test)]
mod tests;
