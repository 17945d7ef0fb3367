//! A worker's main task: carries out commands, keeps the clock, sweeps the pools.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::accept::Acceptor;
use super::{Begins, Command, Serving, Worker};
use crate::datagram::{Leaving, Left, Reader};
use crate::timers::TICK;

/// How often idle connections to endpoints are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Serves until the owner is gone or draining has ended.
pub(super) async fn run(
    worker: Rc<Worker>,
    steered: Vec<TcpListener>,
    begins: Begins,
    mut inbox: mpsc::UnboundedReceiver<Command>,
) {
    let clock = tokio::task::spawn_local(keep_time(Rc::clone(&worker)));
    let mut acceptors = Acceptors {
        waiting: steered,
        ..Acceptors::default()
    };
    let mut readers = Readers::new(begins.receiving);
    if begins.accepting {
        acceptors.accept(&worker);
    }
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply {
                serving,
                listeners,
                datagrams,
                done,
            } => {
                worker.swap(&serving);
                for (address, socket) in listeners {
                    acceptors.add(&worker, Some(address), socket.into());
                }
                for (address, socket) in datagrams {
                    readers.add(&worker, address, socket);
                }
                let _ = done.send(());
            }
            Command::Close {
                connections,
                datagrams,
                done,
            } => {
                acceptors.close(&connections);
                readers.close(&worker, &datagrams).await;
                let _ = done.send(());
            }
            Command::Accept { done } => {
                acceptors.accept(&worker);
                let _ = done.send(());
            }
            Command::LeaveConnections { done } => {
                acceptors.leave().await;
                let _ = done.send(());
            }
            Command::Receive { done } => {
                readers.receive(&worker);
                let _ = done.send(());
            }
            Command::LeaveDatagrams { step, done } => {
                let found = readers.leave(&worker, step).await;
                let _ = done.send(found);
            }
            Command::Stray(stray) => readers.left.take(&worker, stray),
            Command::Drain { deadline, done } => {
                let grace = worker.limits().time.drain_grace;
                worker.datagrams.close_at(worker.timers.at(grace));
                drain(&worker, &mut acceptors, deadline, &mut inbox).await;
                clock.abort();
                worker.log.hand_over();
                let _ = done.send(());
                return;
            }
        }
    }
}

impl Worker {
    fn swap(&self, serving: &Serving) {
        let next = Serving {
            snapshot: serving.snapshot.clone(),
            tls: serving.tls.clone(),
        };
        self.upstreams.forget_missing(&next.snapshot);
        *self.serving.borrow_mut() = Rc::new(next);
    }
}

/// The tasks that accept, by the address of their socket; steered ones have none.
#[derive(Default)]
struct Acceptors {
    bound: HashMap<SocketAddr, Vec<Acceptor>>,
    steered: Vec<Acceptor>,
    /// Steered sockets that a predecessor still accepts from.
    waiting: Vec<TcpListener>,
}

impl Acceptors {
    fn add(&mut self, worker: &Rc<Worker>, address: Option<SocketAddr>, socket: TcpListener) {
        let started = socket.set_nonblocking(true);
        let acceptor = match started.and_then(|()| Acceptor::start(worker, address, socket)) {
            Ok(acceptor) => acceptor,
            Err(error) => {
                tracing::error!(?address, %error, "cannot watch a listening socket");
                return;
            }
        };
        match address {
            Some(address) => self.bound.entry(address).or_default().push(acceptor),
            None => self.steered.push(acceptor),
        }
    }

    fn accept(&mut self, worker: &Rc<Worker>) {
        for socket in std::mem::take(&mut self.waiting) {
            self.add(worker, None, socket);
        }
    }

    /// Ends the steered ones as they are: their queues are a successor's.
    async fn leave(&mut self) {
        let left: Vec<_> = self.steered.drain(..).map(Acceptor::leave).collect();
        for acceptor in left {
            let _ = acceptor.await;
        }
    }

    fn close(&mut self, addresses: &[SocketAddr]) {
        for address in addresses {
            let closed = self.bound.remove(address).into_iter().flatten();
            closed.for_each(|acceptor| drop(acceptor.finish()));
        }
    }

    /// Ends all of them, once their queues are empty.
    fn finish(&mut self) -> Vec<JoinHandle<()>> {
        let bound = self.bound.drain().flat_map(|(_, acceptors)| acceptors);
        bound
            .chain(self.steered.drain(..))
            .map(Acceptor::finish)
            .collect()
    }
}

/// The tasks that read datagrams, by the address of their socket.
struct Readers {
    running: Vec<(SocketAddr, Reader)>,
    /// Sockets that a predecessor still reads; none if datagrams are received.
    waiting: Option<Vec<(SocketAddr, OwnedFd)>>,
    /// What is a successor's.
    left: Left,
}

impl Readers {
    fn new(receives: bool) -> Self {
        Self {
            running: Vec::new(),
            waiting: (!receives).then(Vec::new),
            left: Left::default(),
        }
    }

    fn add(&mut self, worker: &Rc<Worker>, address: SocketAddr, socket: OwnedFd) {
        if let Some(waiting) = &mut self.waiting {
            return waiting.push((address, socket));
        }
        match Reader::start(worker, address, socket) {
            Ok(reader) => self.running.push((address, reader)),
            Err(error) => tracing::error!(%address, %error, "cannot watch a socket"),
        }
    }

    fn receive(&mut self, worker: &Rc<Worker>) {
        for (address, socket) in self.waiting.take().into_iter().flatten() {
            self.add(worker, address, socket);
        }
    }

    async fn close(&mut self, worker: &Worker, addresses: &[SocketAddr]) {
        if let Some(waiting) = &mut self.waiting {
            waiting.retain(|(address, _)| !addresses.contains(address));
        }
        let is_closing = |(address, _): &mut (SocketAddr, Reader)| addresses.contains(address);
        let closing: Vec<_> = self.running.extract_if(.., is_closing).collect();
        for (_, reader) in closing {
            reader.close(worker).await;
        }
    }

    async fn leave(&mut self, worker: &Rc<Worker>, step: Leaving) -> usize {
        let running = self.running.drain(..).map(|(_, reader)| reader);
        self.left.stop(running).await;
        self.left.go_on(worker, step)
    }
}

/// Ends service: the queues are emptied, idle connections end, others end after what they are
/// doing, and at the deadline whatever is left. Commands that still come are answered by silence,
/// but a successor's snapshot is not ours to serve.
async fn drain(
    worker: &Rc<Worker>,
    acceptors: &mut Acceptors,
    deadline: Duration,
    inbox: &mut mpsc::UnboundedReceiver<Command>,
) {
    inbox.close();
    worker.draining.set(true);
    worker.timers.wake_all();
    let closing = acceptors.finish();
    let ended = async {
        for acceptor in closing {
            let _ = acceptor.await;
        }
        while worker.open.get() > 0 {
            worker.idle.notified().await;
        }
    };
    if tokio::time::timeout(deadline, ended).await.is_err() {
        let open = worker.open.get();
        tracing::warn!(open, "drain deadline reached, connections are cut off");
    }
}

async fn keep_time(worker: Rc<Worker>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut swept_ms = 0;
    loop {
        ticks.tick().await;
        worker.timers.tick();
        worker.log.hand_over();
        let now = worker.timers.now_ms();
        if now - swept_ms >= SWEEP.as_millis() as u64 {
            swept_ms = now;
            worker.sweep(now);
        }
    }
}

impl Worker {
    fn sweep(&self, now_ms: u64) {
        let kept = self.upstreams.sweep(now_ms, &self.limits().upstream);
        self.counters.upstream_idle.set(kept as u64);
    }
}
