//! Waiting for files, for a request or for a time, whichever is first.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use super::watch::Watch;

/// Wakes the thread of a source.
#[derive(Debug)]
pub struct Wake {
    event: OwnedFd,
    rescan: AtomicBool,
    stop: AtomicBool,
}

/// What the thread was woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Files or the time.
    Nothing,
    /// To look at everything.
    Rescan,
    /// To end.
    Stop,
}

impl Wake {
    /// Nothing is asked yet.
    ///
    /// # Errors
    /// File descriptors run out.
    pub fn new() -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self {
            event,
            rescan: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        })
    }

    /// Asks for a look at everything.
    pub fn rescan(&self) {
        self.rescan.store(true, Ordering::Release);
        self.ring();
    }

    /// Asks to end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }

    /// Waits until files changed, something is asked, or the deadline has passed.
    pub fn wait(&self, watch: Option<&Watch>, deadline: Option<Instant>) -> Asked {
        let timeout = deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs().cast_signed(),
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        let mut fds = vec![PollFd::new(&self.event, PollFlags::IN)];
        fds.extend(watch.map(|watch| PollFd::from_borrowed_fd(watch.as_fd(), PollFlags::IN)));
        // Whatever ends the wait, the caller looks at everything that may have ended it.
        let _ = poll(&mut fds, timeout.as_ref());
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.event, &mut count);
        if self.stop.load(Ordering::Acquire) {
            Asked::Stop
        } else if self.rescan.swap(false, Ordering::AcqRel) {
            Asked::Rescan
        } else {
            Asked::Nothing
        }
    }

    fn ring(&self) {
        // It fails only when it is rung already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }
}
