//! How a process leaves its datagram sockets to another one, with no client losing its session: the sockets go
//! on existing, so what decides is who reads what the kernel has put where.
//!
//! Every worker stops to read, then gives each of its sessions a socket connected to the client. What had been put
//! into the shared sockets before is looked for until nothing is found. Some of it may be a colleague's: a new socket
//! gets anybody's datagrams between being bound and connected, if it is bound to one address and the shared ones to
//! all. So what a worker does not know it shows to the others, in one order, and the last of them alone opens
//! sessions.

use std::net::SocketAddr;
use std::rc::Rc;

use super::Datagrams;
use super::inlet::{Inlet, Reader};
use super::socket::Peers;
use crate::worker::{Command, Worker};

/// The steps of leaving; each begins when all workers have done the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// Read no more.
    Stop,
    /// Give each session a socket of its own.
    Pin,
    /// Take what has been queued before.
    Look,
    /// Close the sockets.
    Close,
}

/// How often is looked at most until nothing is found.
pub(crate) const LOOKS: usize = 4;

/// A datagram that arrived at a worker that has no session for it.
#[derive(Debug)]
pub(crate) struct Stray {
    bound: SocketAddr,
    peers: Peers,
    bytes: Vec<u8>,
}

/// Waits until every datagram is queued for which the kernel had chosen a socket before this was called: it chooses
/// and queues within one RCU read-side section (linux v6.1 net/ipv4/udp.c `__udp4_lib_rcv`).
pub(crate) async fn settle() {
    let barrier = || {
        let command = rustix::thread::MembarrierCommand::Global;
        // Where the kernel has none, the looks that follow are as good as one gets.
        let _ = rustix::thread::membarrier(command);
    };
    let _ = tokio::task::spawn_blocking(barrier).await;
}

/// The sockets that one worker leaves.
#[derive(Debug, Default)]
pub(crate) struct Left(Vec<Rc<Inlet>>);

impl Left {
    /// Stops to read.
    pub(crate) async fn stop(&mut self, readers: impl Iterator<Item = Reader>) {
        for reader in readers {
            self.0.push(reader.stop().await);
        }
    }

    /// Goes on with another step; says how many datagrams of others, or of new clients, were found.
    pub(crate) fn go_on(&self, worker: &Rc<Worker>, step: Leaving) -> usize {
        let inlets = self.0.iter();
        match step {
            Leaving::Stop => {}
            Leaving::Pin => inlets.for_each(|inlet| worker.datagrams.pin_all(worker, inlet)),
            Leaving::Look => return inlets.map(|inlet| look(worker, inlet)).sum(),
            Leaving::Close => inlets.for_each(|inlet| inlet.close()),
        }
        0
    }

    /// Takes a datagram that a colleague does not know, or shows it to the next one.
    pub(crate) fn take(&self, worker: &Rc<Worker>, stray: Stray) {
        let Some(inlet) = self.0.iter().find(|inlet| inlet.bound() == stray.bound) else {
            return worker.counters.datagrams_dropped.up();
        };
        if inlet.take_known(worker, stray.peers, &stray.bytes) {
            return;
        }
        match worker.index.index.checked_sub(1) {
            Some(next) => worker.shared.tell(next, Command::Stray(stray)),
            None => inlet.take_new(worker, stray.peers, &stray.bytes),
        }
    }
}

/// Shows a datagram that arrived here to all workers.
pub(super) fn show(worker: &Rc<Worker>, inlet: &Rc<Inlet>, peers: Peers, bytes: &[u8]) {
    let stray = Stray {
        bound: inlet.bound(),
        peers,
        bytes: bytes.to_vec(),
    };
    let last = worker.index.count.saturating_sub(1);
    worker.shared.tell(last, Command::Stray(stray));
}

fn look(worker: &Rc<Worker>, inlet: &Rc<Inlet>) -> usize {
    let sessions = worker.datagrams.of(inlet);
    let strays: usize = sessions.iter().map(|session| session.look()).sum();
    strays + inlet.drain(worker)
}

impl Datagrams {
    /// Gives the sessions of an inlet sockets of their own, those that moved last first. What is over the limit
    /// ends: the kernel looks through all of them for each datagram.
    fn pin_all(&self, worker: &Worker, inlet: &Inlet) {
        let mut sessions = self.of(inlet);
        sessions.sort_by_key(|session| std::cmp::Reverse(session.moved_ms()));
        let limit = worker.limits().datagram.pinned;
        let limit = limit.div_ceil(worker.index.count.into());
        for (n, session) in sessions.iter().enumerate() {
            if n >= limit || session.pin().is_err() {
                session.end(super::End::Evicted);
            }
        }
    }
}
