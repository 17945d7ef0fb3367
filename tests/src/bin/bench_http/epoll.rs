//! The three calls of epoll, level-triggered: what the relay and the backend wait with.
//!
//! Sockets themselves are those of `std::net`; only the waiting is not there.
#![allow(
    unsafe_code,
    reason = "epoll is not in std, and a runtime in the floor would not be the floor"
)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Readable, or closed by the peer.
pub const READ: u32 = libc::EPOLLIN as u32;
/// Writable.
pub const WRITE: u32 = libc::EPOLLOUT as u32;

/// One epoll instance.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// An instance that hands out up to `batch` events at a time.
    pub fn new(batch: usize) -> io::Result<Epoll> {
        // SAFETY: no pointer is passed.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the call has just returned it, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Epoll {
            fd,
            events: vec![libc::epoll_event { events: 0, u64: 0 }; batch],
        })
    }

    /// Watches `socket` for `interest`; its events carry `token`. Closing the socket ends it.
    pub fn add(&self, socket: &impl AsRawFd, interest: u32, token: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, socket, interest, token)
    }

    /// Changes what a watched socket is watched for.
    pub fn change(&self, socket: &impl AsRawFd, interest: u32, token: usize) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, socket, interest, token)
    }

    /// Waits for events and yields their tokens.
    pub fn wait(&mut self) -> io::Result<impl Iterator<Item = usize> + use<>> {
        let max = i32::try_from(self.events.len()).unwrap_or(i32::MAX);
        // SAFETY: `events` has room for `max` entries.
        let ready = check(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.events.as_mut_ptr(), max, -1)
        });
        let ready = match ready {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            ready => usize::try_from(ready?).unwrap_or(0),
        };
        let tokens: Vec<usize> = self.events[..ready]
            .iter()
            .map(|event| event.u64 as usize)
            .collect();
        Ok(tokens.into_iter())
    }

    fn control(
        &self,
        operation: i32,
        socket: &impl AsRawFd,
        interest: u32,
        token: usize,
    ) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: interest,
            u64: token as u64,
        };
        // SAFETY: both descriptors are open for the length of the call, and `event` is a live local.
        check(unsafe {
            libc::epoll_ctl(
                self.fd.as_raw_fd(),
                operation,
                socket.as_raw_fd(),
                &raw mut event,
            )
        })?;
        Ok(())
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
