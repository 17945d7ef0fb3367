//! The task of one stream: what hyper makes of it, under a deadline that a client cannot evade by
//! closing its window.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::rt::Executor;
use pin_project_lite::pin_project;

use super::Session;
use crate::timers::Deadline;
use crate::worker::Worker;

/// One stream, shared by its task, its service and its response body.
#[derive(Debug)]
pub(super) struct StreamState {
    pub(super) session: Rc<Session>,
    pub(super) deadline: Deadline,
    /// Whether the response's head has been handed to hyper; from then on an expired deadline ends
    /// the stream.
    pub(super) sending: Cell<bool>,
    /// Whether the whole response has been handed to hyper.
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

    /// The response's head is handed to hyper: from now on the client has to take what comes.
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

/// Spawns the tasks of one connection's streams on the worker's own thread.
#[derive(Clone, Debug)]
pub(super) struct LocalExecutor {
    session: Rc<Session>,
}

impl LocalExecutor {
    pub(super) fn new(session: &Rc<Session>) -> Self {
        Self {
            session: Rc::clone(session),
        }
    }
}

impl<F: Future + 'static> Executor<F> for LocalExecutor {
    /// hyper calls it right after the service, whose stream this therefore is.
    fn execute(&self, stream: F) {
        tokio::task::spawn_local(StreamTask {
            stream,
            state: self.session.starting.borrow_mut().take(),
            worker: Rc::clone(&self.session.downstream.worker),
        });
    }
}

pin_project! {
    /// Drives a stream until it is done, or until it has been stalled for too long while it was
    /// sending: dropping it resets the stream. A panic ends that stream alone.
    ///
    /// Written out, because an `async` block would copy what hyper hands over four times.
    struct StreamTask<F> {
        #[pin]
        stream: F,
        state: Option<Rc<StreamState>>,
        worker: Rc<Worker>,
    }
}

impl<F: Future> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = self.project();
        match catch_unwind(AssertUnwindSafe(|| task.stream.poll(cx))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(_)) => return Poll::Ready(()),
            Err(_) => {
                task.worker.counters.panics.up();
                return Poll::Ready(());
            }
        }
        let Some(state) = task.state else {
            return Poll::Pending;
        };
        state.deadline.register(cx);
        if state.sending.get() && state.deadline.is_expired() {
            task.worker.counters.timeouts_downstream.up();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
