//! What has been handed over to be written to one client, as far as the streams and the connection have
//! to know of it.

use std::cell::Cell;

/// Whether a connection's socket takes what there is.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// Whether the socket had no room for what was written last.
    blocked: Cell<bool>,
}

impl Outbox {
    /// The socket has been written to, or flushed.
    pub(super) fn note(&self, blocked: bool) {
        self.blocked.set(blocked);
    }

    /// Whether all that a client's windows allow is written, once the connection has been polled and waits.
    pub(super) fn is_written(&self) -> bool {
        !self.blocked.get()
    }
}
