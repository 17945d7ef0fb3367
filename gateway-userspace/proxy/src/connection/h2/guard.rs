//! The task of one stream, under a deadline that a client cannot evade by closing its window.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::Request;

use super::{Session, stream};
use crate::timers::Deadline;

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

/// Serves a request in a task of its own, on the worker's own thread.
pub(super) fn spawn(
    state: Rc<StreamState>,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
) {
    // Boxed, for it is moved before its first poll.
    let stream = Box::pin(stream::serve(Rc::clone(&state), request, respond));
    tokio::task::spawn_local(StreamTask { stream, state });
}

/// Drives a stream until it is done, or until it has been stalled for too long while it was
/// sending: dropping it resets the stream. A panic ends that stream alone.
struct StreamTask<F> {
    stream: Pin<Box<F>>,
    state: Rc<StreamState>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Self { stream, state } = self.get_mut();
        let counters = &state.session.downstream.worker.counters;
        match catch_unwind(AssertUnwindSafe(|| stream.as_mut().poll(cx))) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return Poll::Ready(()),
            Err(_) => {
                counters.panics.up();
                return Poll::Ready(());
            }
        }
        state.deadline.register(cx);
        if state.sending.get() && state.deadline.is_expired() {
            counters.timeouts_downstream.up();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}
