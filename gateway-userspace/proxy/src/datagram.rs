//! Datagrams: UDP listeners. Each client of each address has a session with a socket of its own to one
//! endpoint, so that the endpoint's answers find their way back by that socket alone.
//!
//! A worker reads sockets of its own, which share their address with those of the other workers; the kernel
//! gives all datagrams of a client to the same one (`spread`). At an upgrade the sockets themselves go to the new process, so
//! that no datagram is lost in a queue, and the old one keeps the clients that it has by sockets connected to them,
//! which the kernel prefers (`handover`).

mod handover;
mod inlet;
mod record;
mod session;
mod sessions;
mod socket;
mod spread;

use std::cell::{Cell, RefCell, RefMut};
use std::net::SocketAddr;
use std::rc::Rc;

pub(crate) use handover::{LOOKS, Leaving, Left, Stray, settle};
pub(crate) use inlet::Reader;
use inlet::{Inlet, Refused};
use session::{End, Session};
use sessions::{Sessions, Shares};
use socket::Peers;
pub(crate) use socket::bind;
pub(crate) use spread::over as spread_over;

use crate::worker::Worker;

/// What one worker has to do with datagrams.
#[derive(Debug)]
pub(crate) struct Datagrams {
    sessions: RefCell<Sessions>,
    next_id: Cell<u64>,
    buffer: RefCell<Box<[u8]>>,
    /// From this time on no session is opened.
    closes_ms: Cell<u64>,
}

/// The largest datagram there can be.
const DATAGRAM_BYTES: usize = 65_535;

impl Default for Datagrams {
    fn default() -> Self {
        Self {
            sessions: RefCell::default(),
            next_id: Cell::new(0),
            buffer: RefCell::default(),
            closes_ms: Cell::new(u64::MAX),
        }
    }
}

impl Datagrams {
    /// No session is opened from a time of [`crate::timers::Timers::at`] on.
    pub(crate) fn close_at(&self, at_ms: u64) {
        self.closes_ms.set(at_ms);
    }

    fn is_closed(&self, worker: &Worker) -> bool {
        worker.timers.now_ms() >= self.closes_ms.get()
    }

    /// Room for one datagram; nobody keeps it across a wait.
    fn buffer(&self) -> RefMut<'_, Box<[u8]>> {
        let mut buffer = self.buffer.borrow_mut();
        if buffer.is_empty() {
            *buffer = vec![0; DATAGRAM_BYTES].into_boxed_slice();
        }
        buffer
    }

    fn session(&self, peers: &Peers) -> Option<Rc<Session>> {
        self.sessions.borrow().get(peers).cloned()
    }

    /// A number for a new session, if there is room for one.
    fn admit(&self, worker: &Worker, bound: SocketAddr, peers: Peers) -> Result<u64, Refused> {
        let limits = &worker.limits().datagram;
        let shares = Shares::new(limits, worker.index.count.into());
        let mut sessions = self.sessions.borrow_mut();
        let room = sessions.make_room(bound, peers.client.ip(), shares);
        let evicted = room.ok_or(Refused::OverLimit)?;
        worker.counters.datagram_sessions_evicted.add(evicted);
        self.next_id.set(self.next_id.get() + 1);
        Ok(self.next_id.get())
    }

    fn insert(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().insert(session);
    }

    fn remove(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().remove(session);
    }

    fn of(&self, inlet: &Inlet) -> Vec<Rc<Session>> {
        let sessions = self.sessions.borrow();
        let of_inlet = sessions.iter().filter(|s| s.listener == inlet.bound());
        of_inlet.cloned().collect()
    }

    fn end_all(&self, inlet: &Inlet, end: impl Fn() -> End) {
        self.of(inlet).iter().for_each(|session| session.end(end()));
    }
}
