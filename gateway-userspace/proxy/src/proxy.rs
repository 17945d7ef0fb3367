//! The proxy as its owner sees it: start, apply, hand over, drain, read figures.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use gateway_model::failure::Failure;
use gateway_model::ir::Listener;
use gateway_model::names::{ListenerKey, Revision};
use gateway_model::snapshot::Snapshot;
use tokio::sync::{Mutex, oneshot};

use crate::datagram::{self, LOOKS, Leaving};
use crate::listen::{ListenMode, Listening, Refusal, SteeringSocket};
use crate::settings::Settings;
use crate::shared::Shared;
use crate::stats::Stats;
use crate::tls::TlsTables;
use crate::worker::{Begins, Command, Serving, WorkerHandle};

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A worker's thread or runtime.
    #[error("cannot start worker {worker}")]
    Worker {
        /// The worker, from 0.
        worker: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A worker's socket for steered connections.
    #[error("cannot open a listening socket on loopback for worker {worker}")]
    Steering {
        /// The worker, from 0.
        worker: usize,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The access log.
    #[error("cannot open the access log")]
    AccessLog(#[source] io::Error),
}

/// What became of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The snapshot's number; every worker serves it.
    pub revision: Revision,
    /// Listeners that do not serve, or not on each of their addresses. All others do.
    pub failures: Vec<ListenerFailure>,
}

/// A listener that does not serve, or not everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerFailure {
    /// The listener.
    pub listener: ListenerKey,
    /// Where and why.
    pub failure: Failure,
}

/// The running L7 engine. Dropping it ends every connection; [`Proxy::drain`] first where that matters.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Vec<WorkerHandle>,
    state: Mutex<State>,
}

/// What belongs to the applying side alone.
#[derive(Debug)]
struct State {
    listening: Listening,
    tls: Arc<TlsTables>,
}

impl Proxy {
    /// Starts the workers. Nothing is served before the first [`Proxy::apply`].
    ///
    /// # Errors
    /// When the system refuses a thread, an event queue, or a socket on loopback.
    pub fn start(settings: Settings, mode: ListenMode) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new(settings).map_err(StartError::AccessLog)?);
        let count = shared.settings.workers.get();
        let (listening, mut steered) = Listening::new(mode, count, &shared.settings.limits)
            .map_err(|(worker, source)| StartError::Steering { worker, source })?;
        let begins = Begins {
            accepting: !listening.shares_connections(),
            receiving: !listening.shares_datagrams(),
        };
        let workers = (0..count)
            .map(|index| {
                let sockets = steered.get_mut(index).map(std::mem::take);
                let sockets = sockets.unwrap_or_default();
                WorkerHandle::start(index, &shared, sockets, begins).map_err(|source| {
                    StartError::Worker {
                        worker: index,
                        source,
                    }
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        shared.introduce(&workers);
        Ok(Self {
            shared,
            workers,
            state: Mutex::new(State {
                listening,
                tls: Arc::default(),
            }),
        })
    }

    /// Serves this snapshot: certificates and sockets first, then the routes of every worker, then
    /// the sockets that nobody asks for any more are closed. Requests under way keep the snapshot
    /// they began with. Returns when every worker serves it; concurrent calls wait for each other.
    pub async fn apply(&self, snapshot: Arc<Snapshot>) -> Applied {
        let mut state = self.state.lock().await;
        let mut failures = Failures::default();
        state.tls = TlsTables::build(&snapshot, &state.tls, &mut failures);
        let (mut connections, mut datagrams) = state.listening.change(&snapshot, &mut failures);
        let serving = Arc::new(Serving {
            snapshot: Arc::clone(&snapshot),
            tls: Arc::clone(&state.tls),
        });
        let mut opened = Vec::new();
        for (index, worker) in self.workers.iter().enumerate() {
            opened.push(worker.ask(|done| Command::Apply {
                serving: Arc::clone(&serving),
                listeners: connections.take(index),
                datagrams: datagrams.take(index),
                done,
            }));
        }
        for done in opened {
            let _ = done.await;
        }
        self.close(&connections.remove, &datagrams.remove).await;
        Applied {
            revision: snapshot.revision(),
            failures: failures.into_vec(),
        }
    }

    async fn close(&self, connections: &[SocketAddr], datagrams: &[SocketAddr]) {
        if connections.is_empty() && datagrams.is_empty() {
            return;
        }
        self.all(|done| Command::Close {
            connections: connections.to_vec(),
            datagrams: datagrams.to_vec(),
            done,
        })
        .await;
    }

    /// Asks the same of every worker and waits for all.
    async fn all<T>(&self, command: impl Fn(oneshot::Sender<T>) -> Command) {
        let asked: Vec<_> = self.workers.iter().map(|w| w.ask(&command)).collect();
        for done in asked {
            let _ = done.await;
        }
    }

    /// Begins to accept steered connections. They are accepted from the start unless a predecessor gave its sockets:
    /// then not before this, which is to be called when they are this process's to serve.
    pub async fn accept_connections(&self) {
        self.all(|done| Command::Accept { done }).await;
    }

    /// Leaves the steered sockets to a successor that accepts from them. Without this, [`Proxy::drain`] goes on to
    /// accept what the kernel has begun, and closes them.
    pub async fn leave_connections(&self) {
        self.all(|done| Command::LeaveConnections { done }).await;
    }

    /// Begins to read the datagram sockets. They are read from the start unless some are a predecessor's: then
    /// not before this, which is to be called when that one has [left](Proxy::leave_datagrams) them.
    pub async fn receive_datagrams(&self) {
        self.all(|done| Command::Receive { done }).await;
    }

    /// Leaves the datagram sockets to a successor that has duplicates of them and does not read them yet.
    /// Sessions stay here, each with a socket of its own, and what has been queued is sent on; when this returns
    /// the successor may begin. [`Proxy::apply`] must not be called afterwards.
    pub async fn leave_datagrams(&self) {
        for step in [Leaving::Stop, Leaving::Pin] {
            self.all(|done| Command::LeaveDatagrams { step, done })
                .await;
        }
        for _ in 0..LOOKS {
            datagram::settle().await;
            if self.look_once_more().await == 0 {
                break;
            }
        }
        let step = Leaving::Close;
        self.all(|done| Command::LeaveDatagrams { step, done })
            .await;
    }

    /// One worker after the other, from the last to the first, as they show each other what they do not know: what
    /// one look has found has been taken when the next one is over.
    async fn look_once_more(&self) -> usize {
        let mut found = 0;
        for worker in self.workers.iter().rev() {
            let step = Leaving::Look;
            let looked = worker.ask(|done| Command::LeaveDatagrams { step, done });
            found += looked.await.unwrap_or_default();
        }
        found
    }

    /// Duplicates of the sockets that the packet path steers connections to; empty in sockets mode.
    ///
    /// # Errors
    /// When file descriptors run out.
    pub async fn steering_sockets(&self) -> io::Result<Vec<SteeringSocket>> {
        self.state.lock().await.listening.steering_sockets()
    }

    /// Duplicates of the sockets bound to the snapshot's addresses, for a successor; in steered mode
    /// those for datagrams.
    ///
    /// # Errors
    /// When file descriptors run out.
    pub async fn listening_sockets(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        self.state.lock().await.listening.duplicates()
    }

    /// Ends service without losing a request: takes what the listening queues still hold, then
    /// accepts nothing more; answers carry `Connection: close`, HTTP/2 gets GOAWAY, connections end
    /// as soon as they are idle, and upgraded ones live on. Returns when no connection is left, or
    /// after `deadline`, when what is left is cut off.
    pub async fn drain(&self, deadline: Duration) {
        self.state.lock().await.listening.release();
        self.all(|done| Command::Drain { deadline, done }).await;
        self.shared.log.flush().await;
    }

    /// All figures, all workers added up.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// How many worker threads there are.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.len()
    }
}

/// What cannot be served: of a listener the first reason found, or one for each address.
#[derive(Debug, Default)]
pub(crate) struct Failures(BTreeMap<ListenerKey, Failure>);

impl Failures {
    pub(crate) fn add(&mut self, listener: &ListenerKey, reason: impl FnOnce() -> String) {
        if !self.0.contains_key(listener) {
            let failure = Failure::of_all(reason());
            self.0.insert(listener.clone(), failure);
        }
    }

    /// A listener is not served on this address, one of its own.
    pub(crate) fn add_address(&mut self, listener: &Listener, address: IpAddr, why: &Refusal) {
        let failure = self.0.entry(listener.key.clone());
        let failure = failure.or_insert_with(|| Failure {
            served: listener.addresses.clone(),
            ..Failure::default()
        });
        let Some(at) = failure.served.iter().position(|served| *served == address) else {
            return;
        };
        failure.served.remove(at);
        if why.is_unusable {
            failure.unusable.push(address);
        } else {
            failure.is_refused = true;
        }
        if !failure.reason.is_empty() {
            failure.reason.push_str("; ");
        }
        failure.reason.push_str(&why.reason);
    }

    fn into_vec(self) -> Vec<ListenerFailure> {
        self.0
            .into_iter()
            .map(|(listener, failure)| ListenerFailure { listener, failure })
            .collect()
    }
}
