//! A worker's main task: carries out commands, keeps the clock, sweeps the pools.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::accept::Acceptor;
use super::{Command, Serving, Worker};
use crate::timers::TICK;

/// How often idle connections to endpoints are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Serves until the owner is gone or draining has ended.
pub(super) async fn run(
    worker: Rc<Worker>,
    steered: Vec<TcpListener>,
    mut inbox: mpsc::UnboundedReceiver<Command>,
) {
    let clock = tokio::task::spawn_local(keep_time(Rc::clone(&worker)));
    let mut acceptors = Acceptors::default();
    for socket in steered {
        acceptors.add(&worker, None, socket);
    }
    while let Some(command) = inbox.recv().await {
        match command {
            Command::Apply {
                serving,
                listeners,
                done,
            } => {
                worker.swap(&serving);
                for (address, socket) in listeners {
                    acceptors.add(&worker, Some(address), socket);
                }
                let _ = done.send(());
            }
            Command::Close { addresses, done } => {
                acceptors.close(&addresses);
                let _ = done.send(());
            }
            Command::Drain { deadline, done } => {
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
}

impl Acceptors {
    fn add(&mut self, worker: &Rc<Worker>, address: Option<SocketAddr>, socket: TcpListener) {
        let acceptor = match Acceptor::start(worker, address, socket) {
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
