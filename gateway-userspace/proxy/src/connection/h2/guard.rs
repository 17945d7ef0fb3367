//! The tasks that serve streams, each under a deadline that a client cannot evade by closing its window.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;

use super::outbox::Ticket;
use super::{Session, stream};
use crate::connection::budget::Budget;
use crate::timers::Deadline;
use crate::worker::{KEPT, Worker};

/// A stream that its client resets later than this after its start was wanted.
const EARLY: Duration = Duration::from_secs(1);

/// One stream, as long as it is served.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) session: Rc<Session>,
    /// Its task's.
    pub(super) deadline: Rc<Deadline>,
    /// When its head was complete.
    pub(super) began: Instant,
    /// Whether its end is this side's doing: the whole response has been handed over, or it is reset.
    pub(super) ended: Cell<bool>,
    /// Whether the client has reset it early.
    reset: Cell<bool>,
    /// Bytes of this stream's head on its way to the backend.
    held_bytes: Cell<usize>,
    ticket: Ticket,
    /// Whether it has waited for its turn, during which no limit of its own was running.
    waited: Cell<bool>,
}

impl StreamState {
    pub(super) fn new(session: &Rc<Session>, deadline: &Rc<Deadline>, began: Instant) -> Self {
        Self {
            session: Rc::clone(session),
            deadline: Rc::clone(deadline),
            began,
            ended: Cell::new(false),
            reset: Cell::new(false),
            held_bytes: Cell::new(0),
            ticket: Ticket::default(),
            waited: Cell::new(false),
        }
    }
}

impl StreamState {
    /// Counts a head of so many bytes; false when the connection holds more than it may.
    pub(super) fn hold(&self, bytes: usize) -> bool {
        self.held_bytes.set(bytes);
        let held = &self.session.held_bytes;
        held.set(held.get() + bytes);
        held.get() <= self.session.downstream.worker.limits().http2.head_budget
    }

    /// The head has gone to the backend.
    pub(super) fn let_go(&self) {
        let held = &self.session.held_bytes;
        held.set(held.get() - self.held_bytes.take());
    }

    /// The response's head is on its way: from now on the client has to take what comes.
    pub(super) fn begins_sending(&self) {
        let worker = &self.session.downstream.worker;
        self.deadline.set(worker.limits().time.write_stall);
    }

    /// Looks, at the stream's end, whether it is the client that has reset it, and early.
    pub(super) fn note_reset(&self, respond: &RefCell<SendResponse<Bytes>>) {
        if self.ended.get() || self.began.elapsed() >= EARLY {
            return;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let reset = respond.borrow_mut().poll_reset(&mut cx);
        self.reset.set(matches!(reset, Poll::Ready(Ok(_))));
    }

    /// Ready when it is its turn to hand something over. A connection that takes nothing is given up as a whole;
    /// meanwhile a stream has no limits but those of its rule.
    pub(super) fn poll_turn(&self, cx: &Context<'_>, budget: Option<&Budget>) -> Poll<()> {
        let turn = self.session.outbox.poll_turn(cx, &self.ticket);
        if turn.is_pending() {
            match budget {
                Some(budget) => budget.arm(&self.deadline, None),
                None => self.deadline.clear(),
            }
            self.waited.set(true);
        }
        turn
    }

    /// Has the client's window waited for again, if it was the turn until now.
    pub(super) fn go_on(&self, budget: Option<&Budget>) {
        if self.goes_on() {
            self.wait_anew(budget);
        }
    }

    /// The client has taken something, and may take its time for what is left.
    pub(super) fn wait_anew(&self, budget: Option<&Budget>) {
        let stall = self.session.downstream.worker.limits().time.write_stall;
        match budget {
            Some(budget) => budget.arm(&self.deadline, Some(stall)),
            None => self.deadline.set(stall),
        }
    }

    /// Whether its turn has come since this was last asked, and a limit has to be set anew.
    pub(super) fn goes_on(&self) -> bool {
        self.waited.take()
    }

    /// So many bytes of the response are handed over.
    pub(super) fn hand_over(&self, bytes: usize) {
        self.session.outbox.hand_over(bytes, &self.ticket);
    }

    /// The stream waits for something; its turn, if it has it, is over.
    pub(super) fn pass_turn(&self) {
        self.session.outbox.pass(&self.ticket);
    }

    /// Ready once a response has not moved for too long. Who then lets go of the stream resets it.
    pub(super) fn poll_stalled(&self, cx: &Context<'_>) -> Poll<()> {
        self.deadline.register(cx);
        if !self.deadline.is_expired() {
            return Poll::Pending;
        }
        let counters = &self.session.downstream.worker.counters;
        counters.timeouts_downstream.up();
        Poll::Ready(())
    }
}

impl Drop for StreamState {
    fn drop(&mut self) {
        self.deadline.clear();
        self.let_go();
        self.session.end(self.reset.get());
    }
}

/// A stream to serve, but for its request, which is large and not to be moved about.
struct Job {
    state: StreamState,
    respond: SendResponse<Bytes>,
}

/// The tasks of a worker that have served a stream and wait for another: making one costs more than
/// parsing a head.
#[derive(Debug, Default)]
pub(crate) struct IdleTasks(RefCell<Vec<Rc<Place>>>);

/// A task, and what it shares with those that have work for it.
struct Place {
    /// Wakes this task, whichever stream it serves.
    deadline: Rc<Deadline>,
    job: RefCell<Option<Job>>,
    request: RefCell<Option<Request<RecvStream>>>,
    waker: OnceCell<Waker>,
    /// What the task does; none once it is over.
    serving: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// Serves a request in a task of its own, on the worker's own thread. The head is judged before this returns where
/// a task is there that waits: what has been read of a connection is judged in one go, while it is in the cache
/// and the code with it, and only then do the tasks go and ask the upstreams.
pub(super) fn spawn(
    session: &Rc<Session>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    began: Instant,
) {
    let worker = &session.downstream.worker;
    let job = |deadline: &Rc<Deadline>| Job {
        state: session.begin(deadline, began),
        respond,
    };
    let idle = worker.idle_tasks.0.borrow_mut().pop();
    if let Some(place) = idle {
        *place.job.borrow_mut() = Some(job(&place.deadline));
        *place.request.borrow_mut() = Some(request);
        place.serve_now(worker);
        return;
    }
    let deadline = Rc::new(worker.timers.deadline());
    let place = Rc::new(Place {
        job: RefCell::new(Some(job(&deadline))),
        request: RefCell::new(Some(request)),
        deadline,
        waker: OnceCell::new(),
        serving: RefCell::new(None),
    });
    let serving = serve_all(Rc::clone(&place), Rc::clone(worker));
    *place.serving.borrow_mut() = Some(Box::pin(serving));
    tokio::task::spawn_local(StreamTask {
        place,
        worker: Rc::clone(worker),
    });
}

/// Serves one stream after the other.
async fn serve_all(place: Rc<Place>, worker: Rc<Worker>) {
    loop {
        let Job { state, respond } = poll_fn(|cx| place.poll_job(cx)).await;
        stream::serve(&state, &place.request, respond).await;
        drop(state);
        let mut idle = worker.idle_tasks.0.borrow_mut();
        if idle.len() >= KEPT {
            return;
        }
        idle.push(Rc::clone(&place));
    }
}

impl Place {
    fn poll_job(&self, cx: &mut Context<'_>) -> Poll<Job> {
        if let Some(job) = self.job.borrow_mut().take() {
            return Poll::Ready(job);
        }
        // A task has one waker for all its life.
        self.waker.get_or_init(|| cx.waker().clone());
        Poll::Pending
    }

    /// Goes on with what the task does, from whatever task this is called.
    fn serve_now(&self, worker: &Worker) {
        let Some(waker) = self.waker.get() else {
            return;
        };
        if self
            .poll(&mut Context::from_waker(waker), worker)
            .is_ready()
        {
            waker.wake_by_ref();
        }
    }

    /// Ready once the task is over. A panic ends the stream that it came of alone.
    fn poll(&self, cx: &mut Context<'_>, worker: &Worker) -> Poll<()> {
        let mut serving = self.serving.borrow_mut();
        let Some(stream) = &mut *serving else {
            return Poll::Ready(());
        };
        let polled = catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(cx)));
        let polled = polled.unwrap_or_else(|_| {
            worker.counters.panics.up();
            Poll::Ready(())
        });
        if polled.is_ready() {
            *serving = None;
        }
        polled
    }
}

/// A place in the hands of the executor.
struct StreamTask {
    place: Rc<Place>,
    worker: Rc<Worker>,
}

impl Future for StreamTask {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.place.poll(cx, &self.worker)
    }
}

impl Drop for StreamTask {
    /// What the task does holds its place, and the place holds it.
    fn drop(&mut self) {
        *self.place.serving.borrow_mut() = None;
    }
}

/// Lets the tasks go first that are to run already. tokio's `yield_now` would wait for a look at the sockets too.
pub(super) async fn step_back() {
    let mut stepped_back = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut stepped_back, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
