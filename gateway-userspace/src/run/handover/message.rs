//! The messages of a hand-over and how they travel.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use gateway_model::names::Revision;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use socket2::Socket;

/// Linux `SCM_MAX_FD` is 253.
pub const SOCKETS_PER_MESSAGE: usize = 64;

const SPACE: usize = rustix::cmsg_space!(ScmRights(SOCKETS_PER_MESSAGE));
const MESSAGE_BYTES: usize = 16 * 1024;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// New to old: who asks.
    Hello {
        /// The version of these messages.
        protocol: u32,
        /// The new process.
        pid: u32,
    },
    /// Old to new: what follows.
    Welcome {
        /// The version of these messages.
        protocol: u32,
        /// The old process.
        pid: u32,
        /// What it serves.
        revision: Revision,
        /// How many sockets follow.
        sockets: usize,
        /// How many of them, the last ones, are those that BPF steers connections to.
        #[serde(default)]
        steering: usize,
    },
    /// Old to new: listening sockets, as descriptors beside the message in the same order.
    Sockets {
        /// What each is bound to.
        addresses: Vec<SocketAddr>,
    },
    /// New to old: it serves.
    TakenOver {
        /// Whether it steers connections by BPF.
        l4: bool,
        /// Whether it accepts from the sockets that the old one steers connections to.
        #[serde(default)]
        shares: bool,
    },
    /// Old to new: it takes no new connections.
    Draining,
}

/// One end.
#[derive(Debug)]
pub struct Channel(Socket);

impl Channel {
    /// Waits at most `patience` for each message.
    ///
    /// # Errors
    /// The socket is no socket any more.
    pub fn new(socket: Socket, patience: Duration) -> io::Result<Self> {
        socket.set_write_timeout(Some(patience))?;
        let channel = Self(socket);
        channel.set_patience(Some(patience))?;
        Ok(channel)
    }

    /// How long to wait for the next message; without a limit, for as long as the other end is there.
    ///
    /// # Errors
    /// The socket is no socket any more.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        self.0.set_read_timeout(patience)
    }

    /// Whether the other end is gone and has left nothing to receive.
    pub fn is_over(&self) -> bool {
        let mut byte = [0; 1];
        match recv(&self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, bytes)) => bytes == 0,
            Err(error) => !matches!(error, Errno::AGAIN | Errno::INTR),
        }
    }

    /// Sends a message with descriptors beside it.
    ///
    /// # Errors
    /// The other end is gone or does not read.
    pub fn send(&self, message: &Message, fds: &[&OwnedFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("too many descriptors in one message"));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )?;
        Ok(())
    }

    /// The next message with its descriptors.
    ///
    /// # Errors
    /// The other end is gone ([`io::ErrorKind::UnexpectedEof`]), silent, or does not make sense.
    pub fn receive(&self) -> io::Result<(Message, Vec<OwnedFd>)> {
        let mut bytes = vec![0; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); SPACE];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg(&self.0, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                other => break other?,
            }
        };
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        });
        let fds = fds.collect();
        if received.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_slice(&bytes[..received.bytes])?, fds))
    }
}
