//! Whether a silent client is still there, asked by PING (RFC 9113 §6.7).

use std::rc::Rc;
use std::task::Context;

use h2::{Ping, PingPong};

use super::io::Reads;
use crate::timers::Deadline;
use crate::worker::Worker;

/// The pings of one connection. Whatever the client sends counts as an answer.
pub(super) struct Pings {
    pings: PingPong,
    worker: Rc<Worker>,
    deadline: Deadline,
    /// How often the client has been read from, and how often when that was last looked at.
    reads: Rc<Reads>,
    seen: u64,
    /// Whether an answer is awaited.
    asked: bool,
}

impl Pings {
    pub(super) fn new(pings: PingPong, worker: &Rc<Worker>, reads: Rc<Reads>) -> Self {
        let deadline = worker.timers.deadline();
        deadline.set(worker.limits().http2.ping_interval);
        Self {
            pings,
            worker: Rc::clone(worker),
            deadline,
            seen: reads.count(),
            reads,
            asked: false,
        }
    }

    /// Asks when it is time to; false once a client has not answered in time.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.deadline.register(cx);
        if !self.deadline.is_expired() {
            return true;
        }
        let limits = &self.worker.limits().http2;
        let reads = self.reads.count();
        if reads != std::mem::replace(&mut self.seen, reads) {
            self.asked = false;
            self.deadline.set(limits.ping_interval);
            return true;
        }
        if self.asked {
            return false;
        }
        self.asked = true;
        self.deadline.set(limits.ping_timeout);
        // The last pong makes way. A ping that is still unanswered, while other things came, stands for this one.
        let _ = self.pings.poll_pong(cx);
        let _ = self.pings.send_ping(Ping::opaque());
        true
    }
}
