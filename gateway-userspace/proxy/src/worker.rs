//! A worker: one thread with its own runtime, listeners, pools, timers and figures. Nothing it
//! touches for a request is written by another thread.

mod accept;
mod control;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_model::snapshot::{Snapshot, WorkerIndex};
use http::HeaderValue;
use tokio::runtime::LocalOptions;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use crate::buffer::BUFFER_BYTES;
use crate::clock::{HTTP_DATE_LEN, http_date};
use crate::connection::{IdleTasks, Workspaces};
use crate::datagram::{Datagrams, Leaving, Stray};
use crate::forwarded::{RequestId, RequestIds};
use crate::h1::ResponseHead;
use crate::limits::Limits;
use crate::log::Log;
use crate::overload::Pressure;
use crate::settings::Settings;
use crate::shared::Shared;
use crate::stats::Counters;
use crate::timers::{NEVER, Timers};
use crate::tls::TlsTables;
use crate::upstream::Upstreams;

/// What the workers serve: one revision, with what is derived from it off the request path.
#[derive(Debug, Default)]
pub(crate) struct Serving {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) tls: Arc<TlsTables>,
}

/// What one worker's connections share; nobody else touches it.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) index: WorkerIndex,
    pub(crate) shared: Arc<Shared>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) timers: Rc<Timers>,
    pub(crate) workspaces: Rc<Workspaces>,
    pub(crate) idle_tasks: IdleTasks,
    pub(crate) upstreams: Upstreams,
    pub(crate) datagrams: Datagrams,
    pub(crate) log: Log,
    /// Places for TLS handshakes that are answered next.
    pub(crate) handshakes: Semaphore,
    vecs: RefCell<Vec<Vec<u8>>>,
    #[expect(clippy::vec_box, reason = "a head is lent, and moved, as a pointer")]
    response_heads: RefCell<Vec<Box<ResponseHead>>>,
    request_ids: RefCell<RequestIds>,
    /// Copies of requests under way.
    pub(crate) mirrors: Cell<usize>,
    dice: Cell<u32>,
    serving: RefCell<Rc<Serving>>,
    draining: Cell<bool>,
    /// The `Date` of a moment of [`Timers`].
    date: Cell<(u64, [u8; HTTP_DATE_LEN])>,
    /// The same for HTTP/2.
    date_value: RefCell<(u64, HeaderValue)>,
    open: Cell<usize>,
    /// Told when the last connection has ended.
    idle: Notify,
}

/// Pieces of storage of one kind kept free, and tasks that wait for work.
pub(crate) const KEPT: usize = 256;

impl Worker {
    fn new(index: usize, shared: &Arc<Shared>) -> Rc<Self> {
        let number = |n| u16::try_from(n).unwrap_or(u16::MAX);
        Rc::new(Self {
            index: WorkerIndex {
                index: number(index),
                count: number(shared.settings.workers.get()),
            },
            shared: Arc::clone(shared),
            counters: shared.counters(index),
            timers: Timers::new(),
            workspaces: Rc::default(),
            idle_tasks: IdleTasks::default(),
            upstreams: Upstreams::default(),
            datagrams: Datagrams::default(),
            log: Log::new(
                shared.settings.access_log,
                shared.log.clone(),
                shared.counters(index),
            ),
            handshakes: Semaphore::new(shared.settings.limits.tls.concurrent_handshakes),
            vecs: RefCell::default(),
            response_heads: RefCell::default(),
            mirrors: Cell::new(0),
            dice: Cell::new(0x9E37_79B9 ^ (index as u32 + 1)),
            request_ids: RefCell::new(RequestIds::new(random())),
            serving: RefCell::default(),
            draining: Cell::new(false),
            date: Cell::new((NEVER, [b' '; HTTP_DATE_LEN])),
            date_value: RefCell::new((NEVER, HeaderValue::from_static(""))),
            open: Cell::new(0),
            idle: Notify::new(),
        })
    }

    /// A worker without a thread, for tests.
    #[cfg(test)]
    pub(crate) fn alone() -> Rc<Self> {
        let shared = Shared::new(Settings::default()).expect("no log to open");
        Self::new(0, &Arc::new(shared))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.shared.settings.limits
    }

    /// What is served now. A request keeps what it began with.
    pub(crate) fn serving(&self) -> Rc<Serving> {
        Rc::clone(&self.serving.borrow())
    }

    /// Whether `known` is what is served now.
    pub(crate) fn is_serving(&self, known: &Rc<Serving>) -> bool {
        Rc::ptr_eq(&self.serving.borrow(), known)
    }

    /// How short memory is.
    pub(crate) fn pressure(&self) -> Pressure {
        self.shared.overload.pressure()
    }

    /// Whether connections are to end as soon as they can.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// A number drawn from all of `u32` but 0.
    pub(crate) fn draw(&self) -> u32 {
        let mut x = self.dice.get();
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        self.dice.set(x);
        x
    }

    /// A new `X-Request-Id`.
    pub(crate) fn request_id(&self) -> RequestId {
        self.request_ids.borrow_mut().next_id()
    }

    /// Storage for a head that is to be written, empty.
    pub(crate) fn take_vec(&self) -> Vec<u8> {
        self.vecs.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives such storage back.
    pub(crate) fn put_vec(&self, mut vec: Vec<u8>) {
        let mut vecs = self.vecs.borrow_mut();
        if vecs.len() < KEPT && vec.capacity() <= BUFFER_BYTES {
            vec.clear();
            vecs.push(vec);
        }
    }

    /// Storage for a response's head, empty.
    pub(crate) fn take_response_head(&self) -> Box<ResponseHead> {
        self.response_heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives such storage back.
    pub(crate) fn put_response_head(&self, mut head: Box<ResponseHead>) {
        let mut heads = self.response_heads.borrow_mut();
        if heads.len() < KEPT {
            head.reset();
            heads.push(head);
        }
    }

    /// The time of day as a `Date` line has it; as exact as the worker's coarse clock.
    pub(crate) fn date(&self) -> [u8; HTTP_DATE_LEN] {
        let now_ms = self.timers.now_ms();
        let (at_ms, date) = self.date.get();
        if at_ms == now_ms {
            return date;
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        let date = http_date(since_epoch.map_or(0, |since| since.as_secs()));
        self.date.set((now_ms, date));
        date
    }

    /// The same as HTTP/2 carries it.
    pub(crate) fn date_value(&self) -> HeaderValue {
        let now_ms = self.timers.now_ms();
        let (at_ms, value) = &mut *self.date_value.borrow_mut();
        if *at_ms != now_ms
            && let Ok(date) = HeaderValue::from_bytes(&self.date())
        {
            (*at_ms, *value) = (now_ms, date);
        }
        value.clone()
    }

    /// Counts a connection in; it ends on drop.
    pub(crate) fn open(self: &Rc<Self>) -> OpenConnection {
        self.enter();
        self.counters.connections_open.up();
        OpenConnection(Rc::clone(self))
    }

    /// Counts a session of datagrams in; it ends on drop.
    pub(crate) fn open_session(self: &Rc<Self>) -> OpenSession {
        self.enter();
        self.counters.datagram_sessions_open.up();
        OpenSession(Rc::clone(self))
    }

    fn enter(&self) {
        self.open.set(self.open.get() + 1);
    }

    fn leave(&self) {
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            self.idle.notify_waiters();
        }
    }
}

/// An open downstream connection, as far as draining and figures go.
#[derive(Debug)]
pub(crate) struct OpenConnection(Rc<Worker>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.counters.connections_open.down();
        self.0.leave();
    }
}

/// An open session of datagrams, likewise.
#[derive(Debug)]
pub(crate) struct OpenSession(Rc<Worker>);

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.0.counters.datagram_sessions_open.down();
        self.0.leave();
    }
}

/// What the owner asks of a worker. `done` is answered, or dropped, when it has happened.
#[derive(Debug)]
pub(crate) enum Command {
    /// Open these sockets and serve this from now on.
    Apply {
        serving: Arc<Serving>,
        listeners: Vec<(SocketAddr, OwnedFd)>,
        datagrams: Vec<(SocketAddr, OwnedFd)>,
        done: oneshot::Sender<()>,
    },
    /// Take what the sockets of these addresses hold and close them.
    Close {
        connections: Vec<SocketAddr>,
        datagrams: Vec<SocketAddr>,
        done: oneshot::Sender<()>,
    },
    /// Accept steered connections from now on.
    Accept { done: oneshot::Sender<()> },
    /// Accept none any more, at once.
    LeaveConnections { done: oneshot::Sender<()> },
    /// Read datagrams from now on.
    Receive { done: oneshot::Sender<()> },
    /// Leave the sockets of datagrams to another process, step by step; how many were found for others, or were of
    /// new clients.
    LeaveDatagrams {
        step: Leaving,
        done: oneshot::Sender<usize>,
    },
    /// Look whether this is of a session here.
    Stray(Stray),
    /// End service.
    Drain {
        deadline: Duration,
        done: oneshot::Sender<()>,
    },
}

/// What a worker does from the start on; the rest it does when it is told to, for a predecessor does it still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begins {
    /// Whether it accepts steered connections.
    pub(crate) accepting: bool,
    /// Whether it reads datagrams.
    pub(crate) receiving: bool,
}

/// The owner's side of a worker. The worker ends when it is dropped.
#[derive(Debug)]
pub(crate) struct WorkerHandle {
    commands: mpsc::UnboundedSender<Command>,
}

impl WorkerHandle {
    /// Starts worker `index` with the sockets that connections are steered to.
    pub(crate) fn start(
        index: usize,
        shared: &Arc<Shared>,
        steered: Vec<TcpListener>,
        begins: Begins,
    ) -> io::Result<Self> {
        let (commands, inbox) = mpsc::unbounded_channel();
        let shared = Arc::clone(shared);
        // A runtime for tasks that stay where they are does not leave the thread that makes it.
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = match runtime.enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started.send(Err(error))),
                };
                drop(started.send(Ok(())));
                if shared.settings.pin_workers {
                    pin(index);
                }
                let worker = Worker::new(index, &shared);
                runtime.block_on(control::run(worker, steered, begins, inbox));
            })?;
        outcome
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread has ended")))?;
        Ok(Self { commands })
    }

    /// How its colleagues reach it; it still ends when this handle is dropped.
    pub(crate) fn inbox(&self) -> mpsc::WeakUnboundedSender<Command> {
        self.commands.downgrade()
    }

    /// Sends a command; the answer comes when the worker has carried it out or is gone.
    pub(crate) fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> oneshot::Receiver<T> {
        let (done, answer) = oneshot::channel();
        let _ = self.commands.send(command(done));
        answer
    }
}

/// A number that nobody can guess, from the standard library's own source of hash keys.
fn random() -> u128 {
    let half = || u128::from(RandomState::new().build_hasher().finish());
    half() << 64 | half()
}

/// Pins the calling thread to one of the CPUs that it may use, in turn.
fn pin(worker: usize) {
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else {
        return;
    };
    let cpus: Vec<_> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    let mut one = rustix::thread::CpuSet::new();
    one.set(cpus[worker % cpus.len()]);
    if let Err(error) = rustix::thread::sched_setaffinity(None, &one) {
        tracing::warn!(worker, %error, "cannot pin a worker to its cpu");
    }
}
