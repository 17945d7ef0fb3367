//! TLS towards clients: certificates by listener, handshakes, session tickets.

use gateway_model::snapshot::Snapshot;

use crate::proxy::Failures;

/// The certificates of one revision, ready to be used.
#[derive(Debug, Default)]
pub(crate) struct TlsTables {}

impl TlsTables {
    /// Builds the tables of a snapshot; what did not change since `previous` is taken over.
    pub(crate) fn build(_snapshot: &Snapshot, _previous: &Self, _failures: &mut Failures) -> Self {
        Self {}
    }
}
