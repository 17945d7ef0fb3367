//! The tasks that serve streams, each under a deadline that a client cannot evade by closing its window.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;

use super::{Session, stream};
use crate::timers::Deadline;
use crate::worker::{KEPT, Worker};

/// One stream, shared by its task and its response body.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) session: Rc<Session>,
    pub(super) deadline: Deadline,
    /// Whether the response's head is on its way; from then on an expired deadline ends the stream.
    pub(super) sending: Cell<bool>,
    /// Whether the whole response has been handed over.
    pub(super) complete: Cell<bool>,
    /// Bytes of this stream's head on its way to the backend.
    held_bytes: Cell<usize>,
}

impl StreamState {
    pub(super) fn new(session: &Rc<Session>) -> Self {
        Self {
            session: Rc::clone(session),
            deadline: session.downstream.worker.timers.deadline(),
            sending: Cell::new(false),
            complete: Cell::new(false),
            held_bytes: Cell::new(0),
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
        self.sending.set(true);
    }
}

impl Drop for StreamState {
    fn drop(&mut self) {
        self.let_go();
        self.session.end(self.complete.get());
    }
}

/// A request and the way to answer it.
struct Job {
    state: Rc<StreamState>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
}

/// The tasks of a worker that have served a stream and wait for another: making one costs more than
/// parsing a head.
#[derive(Debug, Default)]
pub(crate) struct IdleTasks(RefCell<Vec<Rc<Place>>>);

/// What a task shares with those that have work for it.
#[derive(Default)]
struct Place {
    job: RefCell<Option<Job>>,
    waker: OnceCell<Waker>,
    /// The stream being served.
    state: RefCell<Option<Rc<StreamState>>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").finish_non_exhaustive()
    }
}

/// Serves a request in a task of its own, on the worker's own thread.
pub(super) fn spawn(
    state: Rc<StreamState>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    let worker = Rc::clone(&state.session.downstream.worker);
    let job = Job {
        state,
        request,
        respond,
    };
    let idle = worker.idle_tasks.0.borrow_mut().pop();
    if let Some(place) = idle {
        *place.job.borrow_mut() = Some(job);
        place.waker.get().into_iter().for_each(Waker::wake_by_ref);
        return;
    }
    let place = Rc::new(Place::default());
    *place.job.borrow_mut() = Some(job);
    tokio::task::spawn_local(StreamTask {
        stream: Box::pin(serve_all(Rc::clone(&place), Rc::clone(&worker))),
        place,
        worker,
    });
}

/// Serves one stream after the other.
async fn serve_all(place: Rc<Place>, worker: Rc<Worker>) {
    loop {
        let Job {
            state,
            request,
            respond,
        } = poll_fn(|cx| place.poll_job(cx)).await;
        *place.state.borrow_mut() = Some(Rc::clone(&state));
        stream::serve(state, request, respond).await;
        *place.state.borrow_mut() = None;
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
}

/// Drives a stream until it is done, or until it has been stalled for too long while it was
/// sending: dropping it resets the stream. A panic ends that stream alone.
struct StreamTask<F> {
    stream: Pin<Box<F>>,
    place: Rc<Place>,
    worker: Rc<Worker>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self {
            stream,
            place,
            worker,
        } = self.get_mut();
        match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return Poll::Ready(()),
            Err(_) => {
                worker.counters.panics.up();
                return Poll::Ready(());
            }
        }
        let Some(state) = &*place.state.borrow() else {
            return Poll::Pending;
        };
        state.deadline.register(cx);
        if state.sending.get() && state.deadline.is_expired() {
            worker.counters.timeouts_downstream.up();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
