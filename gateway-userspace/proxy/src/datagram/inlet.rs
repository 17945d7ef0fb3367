//! Where datagrams arrive: a bound socket of one worker, and to which session each one belongs.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;

use gateway_model::snapshot::{
    CompiledAction, CompiledListener, CompiledRule, CompiledTarget, Snapshot, UpstreamId,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::session::{Chosen, End, Forwarded, Session};
use super::socket::{Listening, Peers};
use super::{handover, record};
use crate::overload::Pressure;
use crate::upstream::{Pool, Target};
use crate::worker::Worker;

/// A bound socket and its sessions' way back.
#[derive(Debug)]
pub(crate) struct Inlet {
    bound: SocketAddr,
    /// None once it is closed.
    listening: RefCell<Option<Rc<Listening>>>,
    /// Whether new sessions get a socket of their own at once, for this one will be another process's; and who is
    /// not known here may have a session at a colleague's.
    is_leaving: Cell<bool>,
    changed: Notify,
}

/// An inlet with the task that reads it.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(super) inlet: Rc<Inlet>,
    task: JoinHandle<()>,
}

/// Datagrams read before others have their turn.
const BURST: usize = 64;

impl Reader {
    /// Starts to read a socket.
    pub(crate) fn start(worker: &Rc<Worker>, bound: SocketAddr, fd: OwnedFd) -> io::Result<Self> {
        let listening = Rc::new(Listening::new(bound, fd)?);
        let inlet = Rc::new(Inlet {
            bound,
            listening: RefCell::new(Some(listening)),
            is_leaving: Cell::new(false),
            changed: Notify::new(),
        });
        let (read, worker) = (Rc::clone(&inlet), Rc::clone(worker));
        let task = tokio::task::spawn_local(async move { read.run(&worker).await });
        Ok(Self { inlet, task })
    }

    /// Closes the socket and ends its sessions.
    pub(crate) async fn close(self, worker: &Worker) {
        worker.datagrams.end_all(&self.inlet, || End::Rerouted);
        self.inlet.close();
        let _ = self.task.await;
    }

    /// Stops to read, for the socket is to be another process's.
    pub(super) async fn stop(self) -> Rc<Inlet> {
        self.inlet.is_leaving.set(true);
        self.inlet.changed.notify_one();
        let _ = self.task.await;
        self.inlet
    }
}

/// Datagrams read when the kernel is asked for all that it holds: what the largest queue holds.
const LAST_DATAGRAMS: usize = 16_384;

impl Inlet {
    /// What the socket is bound to.
    pub(super) fn bound(&self) -> SocketAddr {
        self.bound
    }

    /// Sends an answer.
    pub(super) fn send(&self, bytes: &[u8], peers: Peers) -> io::Result<()> {
        match &*self.listening.borrow() {
            Some(listening) => listening.send(bytes, peers),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    pub(super) fn close(&self) {
        self.listening.borrow_mut().take();
        self.changed.notify_one();
    }

    async fn run(self: Rc<Self>, worker: &Rc<Worker>) {
        loop {
            let listening = self.listening.borrow().clone();
            let Some(listening) = listening.filter(|_| !self.is_leaving.get()) else {
                return;
            };
            tokio::select! {
                biased;
                () = self.changed.notified() => continue,
                ready = listening.readable() => if ready.is_err() {
                    return;
                },
            }
            self.read(worker, BURST, |buffer| listening.receive(buffer));
            tokio::task::yield_now().await;
        }
    }

    /// Reads what the kernel holds now, whether it has told of it or not; says how much that was.
    pub(super) fn drain(self: &Rc<Self>, worker: &Rc<Worker>) -> usize {
        let listening = self.listening.borrow().clone();
        listening.map_or(0, |listening| {
            self.read(worker, LAST_DATAGRAMS, |buffer| {
                listening.receive_now(buffer)
            })
        })
    }

    fn read(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        limit: usize,
        mut receive: impl FnMut(&mut [u8]) -> io::Result<(usize, Peers)>,
    ) -> usize {
        let mut buffer = worker.datagrams.buffer();
        for n in 0..limit {
            match receive(&mut buffer) {
                Ok((length, peers)) => {
                    let bytes = &buffer[..length];
                    let take = AssertUnwindSafe(|| self.take(worker, peers, bytes));
                    if catch_unwind(take).is_err() {
                        worker.counters.panics.up();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return n,
                // An error of one datagram, such as what ICMP says of an answer; the next may be well.
                Err(_) => worker.counters.datagrams_dropped.up(),
            }
        }
        limit
    }

    /// Sends a datagram on, by its session or by a new one.
    pub(super) fn take(self: &Rc<Self>, worker: &Rc<Worker>, peers: Peers, bytes: &[u8]) {
        let peers = Peers {
            client: canonical(peers.client),
            local: peers.local,
        };
        if self.take_known(worker, peers, bytes) {
            return;
        }
        match self.is_leaving.get() && worker.index.count > 1 {
            true => handover::show(worker, self, peers, bytes),
            false => self.take_new(worker, peers, bytes),
        }
    }

    /// Sends it on by the session that there is, if there is one.
    pub(super) fn take_known(&self, worker: &Worker, peers: Peers, bytes: &[u8]) -> bool {
        let Some(session) = worker.datagrams.session(&peers) else {
            return false;
        };
        let is_done = confirm(worker, &session) && session.forward(bytes) == Forwarded::Done;
        if !is_done {
            worker.datagrams.remove(&session);
        }
        is_done
    }

    /// Sends it on by a new session.
    pub(super) fn take_new(self: &Rc<Self>, worker: &Rc<Worker>, peers: Peers, bytes: &[u8]) {
        if let Err(why) = self.open(worker, peers, bytes) {
            let counters = &worker.counters;
            counters.datagrams_dropped.up();
            match why {
                Refused::Unrouted => counters.datagrams_unrouted.up(),
                Refused::Denied => counters.datagrams_denied.up(),
                Refused::OverLimit => counters.datagrams_over_limit.up(),
                Refused::Unreachable => counters.upstream_connect_failures.up(),
            }
        }
    }

    fn open(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        peers: Peers,
        bytes: &[u8],
    ) -> Result<(), Refused> {
        let serving = worker.serving();
        let chosen = choose(worker, &serving.snapshot, peers)?;
        if worker.pressure() >= Pressure::NoRequests {
            worker.counters.overload_refusals.up();
            return Err(Refused::OverLimit);
        }
        if worker.datagrams.is_closed(worker) {
            return Err(Refused::OverLimit);
        }
        let pool = pool(worker, &serving.snapshot, chosen.upstream);
        let pool = pool.ok_or(Refused::Unrouted)?;
        let id = worker.datagrams.admit(worker, self.bound, peers)?;
        let session = Session::new(worker, self, (id, peers), chosen, Rc::clone(&pool));
        if let Some(members) = pool.known_members() {
            session.dial(members).map_err(|_| Refused::Unreachable)?;
        }
        if self.is_leaving.get() {
            session.pin().map_err(|_| Refused::OverLimit)?;
        }
        worker.datagrams.insert(&session);
        worker.counters.datagram_sessions.up();
        session.forward(bytes);
        tokio::task::spawn_local(drive(Rc::clone(worker), session));
        Ok(())
    }
}

/// Why a datagram is not sent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Unrouted,
    Denied,
    OverLimit,
    Unreachable,
}

/// The rule of a listener that lets the client in, and the backend that its weights choose.
fn choose(worker: &Worker, snapshot: &Snapshot, peers: Peers) -> Result<Chosen, Refused> {
    let (listener, rule) = rule(snapshot, peers)?;
    let CompiledAction::Forward(forward) = &rule.action else {
        return Err(Refused::Unrouted);
    };
    let backend = forward.pick(rule.stats.slot(worker.index).draw());
    match backend.map(|backend| &backend.target) {
        Some(CompiledTarget::Upstream { id, label }) => Ok(Chosen {
            rule: Arc::clone(rule),
            labels: listener.labels.clone(),
            upstream: *id,
            backend: Arc::clone(label),
            revision: snapshot.revision(),
        }),
        Some(CompiledTarget::Unavailable { .. }) | None => Err(Refused::Unrouted),
    }
}

fn rule(
    snapshot: &Snapshot,
    peers: Peers,
) -> Result<(&Arc<CompiledListener>, &Arc<CompiledRule>), Refused> {
    let table = snapshot.datagram_table(peers.local);
    let listener = table.and_then(|table| table.listeners.first());
    let listener = listener.ok_or(Refused::Unrouted)?;
    if !listener.listener.source_policy.permits(peers.client.ip()) {
        return Err(Refused::Denied);
    }
    let rule = listener.find_stream("").ok_or(Refused::Unrouted)?;
    Ok((listener, rule))
}

fn pool(worker: &Worker, snapshot: &Snapshot, upstream: UpstreamId) -> Option<Rc<Pool>> {
    let target = Target {
        upstream,
        certificate: None,
    };
    worker.upstreams.pool(snapshot, target).ok()
}

/// Whether a session is still what its client would get: the same route, a backend of it with a weight,
/// and an endpoint of that. One that is not is told to end.
pub(super) fn confirm(worker: &Worker, session: &Session) -> bool {
    let serving = worker.serving();
    let snapshot = &serving.snapshot;
    if session.has_seen(snapshot.revision()) {
        return true;
    }
    let pool = rule(snapshot, session.peers).ok().and_then(|(_, rule)| {
        let is_ours = rule.route == session.chosen.rule.route;
        let CompiledAction::Forward(forward) = &rule.action else {
            return None;
        };
        let mut backends = forward.backends().iter().filter(|b| b.weight > 0);
        let has_it = backends.any(|backend| match &backend.target {
            CompiledTarget::Upstream { label, .. } => *label == session.chosen.backend,
            CompiledTarget::Unavailable { .. } => false,
        });
        let pool = pool(worker, snapshot, session.chosen.upstream)?;
        let is_there = pool.known_members().is_none_or(|members| {
            let mut members = members.iter().map(|member| Some(member.address()));
            members.any(|address| address == session.endpoint.get())
        });
        (is_ours && has_it && is_there && *pool.label() == session.chosen.backend).then_some(pool)
    });
    match pool {
        Some(pool) => session.see(snapshot.revision(), pool),
        None => session.end(End::Rerouted),
    }
    session.has_seen(snapshot.revision())
}

/// A session's task.
async fn drive(worker: Rc<Worker>, session: Rc<Session>) {
    let _member = Member(&worker, &session);
    let end = match session.resolve_if_named().await {
        Ok(()) => carry(&worker, &session).await,
        Err(error) => End::Upstream(error),
    };
    record::write(&worker, &session, &end);
}

async fn carry(worker: &Worker, session: &Session) -> End {
    loop {
        if let Some(end) = session.wait().await {
            return end;
        }
        if !confirm(worker, session) {
            return End::Rerouted;
        }
        // A panic ends that session alone.
        let carried = catch_unwind(AssertUnwindSafe(|| session.carry()));
        let panicked = || {
            worker.counters.panics.up();
            Some(End::Upstream(io::Error::other("panic")))
        };
        if let Some(end) = carried.unwrap_or_else(|_| panicked()) {
            return end;
        }
        tokio::task::yield_now().await;
    }
}

/// A session in the worker's table, as long as its task lives.
struct Member<'a>(&'a Worker, &'a Rc<Session>);

impl Drop for Member<'_> {
    fn drop(&mut self) {
        self.0.datagrams.remove(self.1);
    }
}

/// The IPv4 address of an IPv4-mapped one.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().to_ipv4_mapped().is_some() => {
            SocketAddr::new(address.ip().to_canonical(), address.port())
        }
        other => other,
    }
}
