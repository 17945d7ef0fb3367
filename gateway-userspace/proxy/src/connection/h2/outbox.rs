//! What is on its way to one client: how much the h2 crate may be given to hold, whose turn it is to give
//! more, and whether the socket takes it.
//!
//! The crate bounds what it holds for each stream. A client with wide windows that does not read would
//! make it hold that much for every one of them.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

/// Bytes of bodies that the streams of a connection hand over before all of them are written. Who has
/// the turn gives one piece more.
const BUDGET_BYTES: usize = 256 * 1024;

/// How many get the turn at once: each has a piece of 64 KiB at most.
const CALLED: usize = 4;

/// What is on its way to one client.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Whether the socket had no room for what was written last.
    blocked: Cell<bool>,
    /// Bytes handed over since all was written.
    handed: Cell<usize>,
    /// How many tickets have been given out, and how many of them called.
    given: Cell<u64>,
    called: Cell<u64>,
    /// Whose tickets have not been called yet, in their order.
    waiting: RefCell<VecDeque<Waker>>,
}

/// One stream's place among those that wait for their turn.
#[derive(Debug, Default)]
pub(super) struct Ticket(Cell<Option<u64>>);

impl Outbox {
    /// The socket has been written to, or flushed.
    pub(super) fn note(&self, blocked: bool) {
        self.blocked.set(blocked);
    }

    /// Whether all that the client's windows allow is written, once the connection has been polled and waits.
    pub(super) fn is_written(&self) -> bool {
        !self.blocked.get()
    }

    /// Whether a stream may hand something over without waiting for others.
    pub(super) fn has_room(&self) -> bool {
        self.handed.get() < BUDGET_BYTES && self.given.get() == self.called.get()
    }

    /// Ready when it is the stream's turn to hand something over; until then its task waits.
    pub(super) fn poll_turn(&self, cx: &Context<'_>, ticket: &Ticket) -> Poll<()> {
        match ticket.0.get() {
            None if self.has_room() => Poll::Ready(()),
            None => {
                self.given.set(self.given.get() + 1);
                ticket.0.set(Some(self.given.get()));
                self.waiting.borrow_mut().push_back(cx.waker().clone());
                Poll::Pending
            }
            Some(number) if number > self.called.get() => Poll::Pending,
            Some(_) => Poll::Ready(()),
        }
    }

    /// A stream has handed this over, and its turn is over.
    pub(super) fn hand_over(&self, bytes: usize, ticket: &Ticket) {
        self.handed.set(self.handed.get() + bytes);
        ticket.0.set(None);
    }

    /// A stream waits for something else: a turn that it has is over, for it would keep it and use it
    /// together with those of others.
    pub(super) fn pass(&self, ticket: &Ticket) {
        if ticket.0.get() <= Some(self.called.get()) {
            ticket.0.set(None);
        }
    }

    /// The connection has been polled and waits: if all is written, others get their turn. True if there are
    /// more of them; those that were called may have nothing to say, so the connection has to come back.
    pub(super) fn call(&self) -> bool {
        if self.blocked.get() {
            return false;
        }
        self.handed.set(0);
        if self.given.get() == self.called.get() {
            return false;
        }
        let mut waiting = self.waiting.borrow_mut();
        for waker in (0..CALLED).map_while(|_| waiting.pop_front()) {
            self.called.set(self.called.get() + 1);
            waker.wake();
        }
        !waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_turn(outbox: &Outbox, ticket: &Ticket) -> bool {
        let cx = Context::from_waker(Waker::noop());
        outbox.poll_turn(&cx, ticket).is_ready()
    }

    #[test]
    fn what_is_handed_over_ends_with_the_budget_until_all_is_written() {
        let outbox = Outbox::default();
        let (first, second) = (Ticket::default(), Ticket::default());
        assert!(has_turn(&outbox, &first));
        outbox.hand_over(BUDGET_BYTES, &first);
        assert!(!has_turn(&outbox, &second));
        outbox.note(true);
        assert!(!outbox.call());
        assert!(!has_turn(&outbox, &second), "the socket takes nothing");
        outbox.note(false);
        assert!(!outbox.call(), "nobody waits any more");
        assert!(has_turn(&outbox, &second));
    }

    #[test]
    fn who_has_waited_longest_comes_first() {
        let outbox = Outbox::default();
        let greedy = Ticket::default();
        let waiting: [Ticket; 2 * CALLED] = Default::default();
        outbox.hand_over(BUDGET_BYTES, &greedy);
        assert!(waiting.iter().all(|ticket| !has_turn(&outbox, ticket)));
        assert!(outbox.call(), "half of them still wait");
        assert!(!has_turn(&outbox, &greedy), "it stands behind them now");
        for (i, ticket) in waiting.iter().enumerate() {
            assert_eq!(has_turn(&outbox, ticket), i < CALLED, "{i}");
        }
        assert!(outbox.call(), "the greedy one still waits");
        assert!(waiting.iter().all(|ticket| has_turn(&outbox, ticket)));
        assert!(!outbox.call());
        assert!(has_turn(&outbox, &greedy));
    }

    #[test]
    fn a_turn_that_is_passed_is_not_kept_and_a_place_in_the_queue_is() {
        let outbox = Outbox::default();
        let (passing, waiting) = (Ticket::default(), Ticket::default());
        outbox.hand_over(BUDGET_BYTES, &Ticket::default());
        assert!(!has_turn(&outbox, &passing));
        outbox.pass(&passing);
        outbox.call();
        assert!(has_turn(&outbox, &passing));
        outbox.pass(&passing);
        outbox.hand_over(BUDGET_BYTES, &Ticket::default());
        assert!(!has_turn(&outbox, &waiting));
        assert!(!has_turn(&outbox, &passing), "it has to wait again");
    }
}
