//! One session: the datagrams between a client and an address of ours, and the one socket that they
//! go on from, to one endpoint.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use gateway_model::names::Revision;
use gateway_model::snapshot::{CompiledRule, ListenerLabels, UpstreamId};
use tokio::net::UdpSocket;
use tokio::sync::Notify;

use super::inlet::Inlet;
use super::socket::{self, Peers};
use crate::timers::Deadline;
use crate::upstream::{Active, Endpoint, Pool};
use crate::worker::{OpenSession, Worker};

/// Why a session ends.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing came for too long.
    Idle,
    /// It made room for another one.
    Evicted,
    /// A later revision sends its client elsewhere, or nowhere.
    Rerouted,
    /// Its endpoint refused it, or there is none.
    Upstream(io::Error),
    /// Its client refused an answer.
    Client(io::Error),
}

/// What a session was opened by.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) rule: Arc<CompiledRule>,
    pub(super) labels: ListenerLabels,
    pub(super) upstream: UpstreamId,
    /// `namespace/name:port`.
    pub(super) backend: Arc<str>,
    pub(super) revision: Revision,
}

/// A session.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: u64,
    pub(super) peers: Peers,
    /// What the socket is bound to that its client's datagrams arrive at.
    pub(super) listener: SocketAddr,
    pub(super) chosen: Chosen,
    pub(super) started: Instant,
    pub(super) endpoint: Cell<Option<SocketAddr>>,
    /// Bytes that were sent on.
    pub(super) received: Cell<u64>,
    /// Bytes sent to the client.
    pub(super) sent: Cell<u64>,
    inlet: Rc<Inlet>,
    worker: Rc<Worker>,
    pool: RefCell<Rc<Pool>>,
    upstream: RefCell<Option<Rc<Upstream>>>,
    tried: RefCell<Vec<SocketAddr>>,
    /// Datagrams that no answer has come to, to be sent again elsewhere if the endpoint refuses them.
    unanswered: RefCell<Unanswered>,
    pinned: RefCell<Option<Rc<UdpSocket>>>,
    /// The revision that it was last found right by.
    seen: Cell<Revision>,
    moved_ms: Cell<u64>,
    is_answered: Cell<bool>,
    is_proven: Cell<bool>,
    end: RefCell<Option<End>>,
    /// Whether it knows that the worker drains.
    drains: Cell<bool>,
    deadline: Deadline,
    /// Told when there is an end, or another socket.
    changed: Notify,
    _open: OpenSession,
}

/// A socket to an endpoint.
#[derive(Debug)]
struct Upstream {
    socket: UdpSocket,
    _active: Active,
}

/// The first datagrams of a session.
#[derive(Debug, Default)]
struct Unanswered {
    datagrams: Vec<Vec<u8>>,
    bytes: usize,
}

/// What is kept to be sent again: one request of the usual size.
const KEPT_BYTES: usize = 1_500;
const KEPT_DATAGRAMS: usize = 4;

/// Answers read before others have their turn.
const BURST: usize = 32;

/// What the queue of a session's own socket may hold, and more.
const QUEUED: usize = 512;

/// What became of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    /// Sent, kept for later, or lost as datagrams may be.
    Done,
    /// The session is over; it belongs to a new one.
    Over,
}

impl Session {
    pub(super) fn new(
        worker: &Rc<Worker>,
        inlet: &Rc<Inlet>,
        (id, peers): (u64, Peers),
        chosen: Chosen,
        pool: Rc<Pool>,
    ) -> Rc<Self> {
        Rc::new(Self {
            id,
            peers,
            listener: inlet.bound(),
            started: Instant::now(),
            endpoint: Cell::new(None),
            received: Cell::new(0),
            sent: Cell::new(0),
            inlet: Rc::clone(inlet),
            worker: Rc::clone(worker),
            pool: RefCell::new(pool),
            upstream: RefCell::default(),
            tried: RefCell::default(),
            unanswered: RefCell::default(),
            pinned: RefCell::default(),
            seen: Cell::new(chosen.revision),
            chosen,
            moved_ms: Cell::new(worker.timers.now_ms()),
            is_answered: Cell::new(false),
            is_proven: Cell::new(false),
            end: RefCell::default(),
            drains: Cell::new(worker.is_draining()),
            deadline: worker.timers.deadline(),
            changed: Notify::new(),
            _open: worker.open_session(),
        })
    }

    /// Whether its client has spoken again after an answer.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven.get()
    }

    /// Whether it has been found right by this revision.
    pub(super) fn has_seen(&self, revision: Revision) -> bool {
        self.seen.get() == revision
    }

    /// It is right by this revision, where its upstream is this one.
    pub(super) fn see(&self, revision: Revision, pool: Rc<Pool>) {
        self.seen.set(revision);
        *self.pool.borrow_mut() = pool;
    }

    /// Asks its task to end it.
    pub(super) fn end(&self, end: End) {
        self.end.borrow_mut().get_or_insert(end);
        self.changed.notify_one();
    }

    /// Takes an endpoint that has not been tried yet, if there is one.
    pub(super) fn dial(&self, members: &[Rc<Endpoint>]) -> io::Result<()> {
        let attempts = self.worker.limits().upstream.connect_attempts as usize;
        let mut tried = self.tried.borrow_mut();
        let mut failure = io::Error::other("the backend has no endpoint");
        while tried.len() < attempts
            && let Some(endpoint) = self.pool.borrow().choose(members, &tried)
        {
            tried.push(endpoint.address());
            self.endpoint.set(Some(endpoint.address()));
            match socket::connect(endpoint.address()) {
                Ok(socket) => {
                    *self.upstream.borrow_mut() = Some(Rc::new(Upstream {
                        socket,
                        _active: endpoint.enter(),
                    }));
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// When something last came from either side.
    pub(super) fn moved_ms(&self) -> u64 {
        self.moved_ms.get()
    }

    /// Waits for the addresses of a backend that is a DNS name, then sends what has come meanwhile.
    pub(super) async fn resolve_if_named(&self) -> io::Result<()> {
        if self.upstream.borrow().is_some() {
            return Ok(());
        }
        let worker = &self.worker;
        let refresh = worker.limits().upstream.dns_refresh;
        let pool = Rc::clone(&self.pool.borrow());
        let members = pool.members(&worker.upstreams, &worker.timers, refresh);
        let members = members.await.map_err(io::Error::other)?;
        self.dial(&members)?;
        self.send_again()
    }

    fn send_again(&self) -> io::Result<()> {
        let upstream = self.upstream.borrow();
        let unanswered = self.unanswered.borrow();
        let Some(upstream) = &*upstream else {
            return Ok(());
        };
        let mut datagrams = unanswered.datagrams.iter();
        datagrams.try_for_each(|datagram| socket::send(&upstream.socket, datagram))
    }

    /// Sends a client's datagram on.
    pub(super) fn forward(&self, bytes: &[u8]) -> Forwarded {
        if self.end.borrow().is_some() {
            return Forwarded::Over;
        }
        self.moved_ms.set(self.worker.timers.now_ms());
        let counters = &self.worker.counters;
        counters.datagrams_received.up();
        self.received.set(self.received.get() + bytes.len() as u64);
        if self.is_answered.get() {
            self.is_proven.set(true);
        } else {
            self.unanswered.borrow_mut().keep(bytes);
        }
        let sent = match &*self.upstream.borrow() {
            Some(upstream) => socket::send(&upstream.socket, bytes),
            None => return Forwarded::Done,
        };
        match sent {
            Ok(()) => Forwarded::Done,
            Err(error) if is_refusal(&error) && !self.move_on(&error) => {
                self.end(End::Upstream(error));
                Forwarded::Over
            }
            Err(error) if is_refusal(&error) => Forwarded::Done,
            Err(_) => {
                counters.datagrams_dropped.up();
                Forwarded::Done
            }
        }
    }

    /// Tries another endpoint after one has refused, as long as none has answered.
    fn move_on(&self, error: &io::Error) -> bool {
        self.worker.counters.upstream_connect_failures.up();
        tracing::debug!(endpoint = ?self.endpoint.get(), %error, "refused");
        if self.is_answered.get() {
            return false;
        }
        let pool = Rc::clone(&self.pool.borrow());
        let Some(members) = pool.known_members() else {
            return false;
        };
        let moved = self.dial(members).is_ok() && self.send_again().is_ok();
        // Its task waits for the socket that was there before.
        self.changed.notify_one();
        moved
    }

    /// Sends an answer to the client.
    fn answer(&self, bytes: &[u8]) {
        self.moved_ms.set(self.worker.timers.now_ms());
        if !self.is_answered.replace(true) {
            *self.unanswered.borrow_mut() = Unanswered::default();
        }
        let counters = &self.worker.counters;
        let sent = match &*self.pinned.borrow() {
            Some(pinned) => socket::send(pinned, bytes),
            None => self.inlet.send(bytes, self.peers),
        };
        if sent.is_ok() {
            counters.datagrams_sent.up();
            self.sent.set(self.sent.get() + bytes.len() as u64);
        } else {
            counters.datagrams_dropped.up();
        }
    }

    /// Gives the session a socket of its own towards its client, which gets what that client sends from now on.
    pub(super) fn pin(&self) -> io::Result<()> {
        if self.pinned.borrow().is_none() {
            *self.pinned.borrow_mut() = Some(Rc::new(socket::pin(self.peers)?));
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Waits until one of its sockets has something, or until it has ended.
    pub(super) async fn wait(&self) -> Option<End> {
        let upstream = self.upstream.borrow().clone();
        let pinned = self.pinned.borrow().clone();
        let expires_ms = self.moved_ms.get() + self.patience().as_millis() as u64;
        self.deadline.set_at(expires_ms);
        let expired = poll_fn(|cx| {
            self.deadline.register(cx);
            match self.deadline.is_expired() || self.worker.is_draining() != self.drains.get() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        });
        tokio::select! {
            biased;
            () = self.changed.notified() => {}
            () = readable(upstream.as_ref().map(|upstream| &upstream.socket)) => {}
            () = readable(pinned.as_deref()) => {}
            () = expired => {
                self.drains.set(self.worker.is_draining());
                let expires_ms = self.moved_ms.get() + self.patience().as_millis() as u64;
                if self.worker.timers.now_ms() >= expires_ms {
                    return Some(End::Idle);
                }
            }
        }
        self.end.borrow_mut().take()
    }

    /// How long it may be silent. One question and its answer may have been all; a drain does not wait for more.
    fn patience(&self) -> Duration {
        let limits = self.worker.limits();
        match (self.is_proven.get(), self.is_answered.get()) {
            (true, _) => limits.datagram.idle,
            (false, true) if self.worker.is_draining() => limits.time.drain_grace,
            (false, _) => limits.datagram.unproven_idle,
        }
    }

    /// Carries what has arrived, in both directions.
    pub(super) fn carry(&self) -> Option<End> {
        let upstream = self.upstream.borrow().clone();
        let pinned = self.pinned.borrow().clone();
        let answered = upstream.and_then(|upstream| self.carry_answers(&upstream.socket));
        answered.or_else(|| {
            let carried = self.carry_questions(&*pinned?, BURST, socket::receive);
            carried.err().map(End::Client)
        })
    }

    /// Carries what its own socket holds now, whether the kernel has told of it or not. Says how much of that was
    /// for others.
    pub(super) fn look(&self) -> usize {
        let Some(pinned) = self.pinned.borrow().clone() else {
            return 0;
        };
        let carried = self.carry_questions(&pinned, QUEUED, socket::receive_now);
        carried.unwrap_or_else(|error| {
            self.end(End::Client(error));
            0
        })
    }

    fn carry_answers(&self, upstream: &UdpSocket) -> Option<End> {
        let mut buffer = self.worker.datagrams.buffer();
        for _ in 0..BURST {
            match socket::receive(upstream, &mut buffer) {
                Ok((length, _)) => self.answer(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if is_refusal(&error) && self.move_on(&error) => break,
                Err(error) => return Some(End::Upstream(error)),
            }
        }
        None
    }

    /// Says how many were for others.
    fn carry_questions(
        &self,
        pinned: &UdpSocket,
        limit: usize,
        receive: impl Fn(&UdpSocket, &mut [u8]) -> io::Result<(usize, Option<SocketAddr>)>,
    ) -> io::Result<usize> {
        let mut buffer = self.worker.datagrams.buffer();
        let mut strays = 0;
        for _ in 0..limit {
            match receive(pinned, &mut buffer) {
                Ok((length, client)) if client == Some(self.peers.client) => {
                    if self.forward(&buffer[..length]) == Forwarded::Over {
                        break;
                    }
                }
                // It arrived between the socket being bound and connected.
                Ok((length, Some(client))) => {
                    strays += 1;
                    let local = self.peers.local;
                    let peers = Peers { client, local };
                    self.inlet.take(&self.worker, peers, &buffer[..length]);
                }
                Ok((_, None)) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(strays)
    }
}

/// Waits until a socket has a datagram or an error; for ever without one.
async fn readable(socket: Option<&UdpSocket>) {
    match socket {
        Some(socket) if socket.ready(socket::ARRIVAL).await.is_ok() => {}
        _ => pending().await,
    }
}

impl Unanswered {
    fn keep(&mut self, bytes: &[u8]) {
        let fits = self.bytes + bytes.len() <= KEPT_BYTES;
        if fits && self.datagrams.len() < KEPT_DATAGRAMS {
            self.bytes += bytes.len();
            self.datagrams.push(bytes.to_vec());
        }
    }
}

/// Whether an endpoint, or the way to it, has said no (ICMP destination unreachable).
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, PermissionDenied};
    matches!(
        error.kind(),
        ConnectionRefused | HostUnreachable | NetworkUnreachable | PermissionDenied
    ) || matches!(error.raw_os_error(), Some(libc::EPROTO | libc::ENOPROTOOPT))
}
