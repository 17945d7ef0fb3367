//! The compiled, immutable form of an [`Ir`]: what one request and one packet see.

mod filters;
mod port_table;
mod rule;
mod stats;
mod upstream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use imbl::OrdMap;

use crate::compile::CompiledRoute;
pub use crate::compile::compile;
use crate::explain::{Explanation, explain, explain_stream};
use crate::head::Head;
use crate::ir::{Certificate, CertificateKey, Ir, PortKind};
use crate::l4_plan::{L4Plan, Transport};
use crate::names::{ListenerKey, ObjectRef, Revision, UpstreamKey};
use crate::route_index::RouteTable;

pub(crate) use filters::compile_filters;
pub use filters::{CompiledEdits, CompiledFilters, CompiledMirror};
pub(crate) use port_table::StreamHead;
pub use port_table::{CompiledListener, ListenerLabels, NoListener, PortTable};
pub use rule::{
    CompiledAction, CompiledBackend, CompiledCors, CompiledRule, CompiledTarget, Forward,
    RuleLabels,
};
pub use stats::{DURATION_BOUNDS_US, Outcome, RuleStats, RuleTotals, StatsSlot, WorkerIndex};
pub(crate) use upstream::UpstreamTable;
pub use upstream::{CompiledUpstream, UpstreamId};

/// What [`compile`] makes of an [`Ir`].
#[derive(Debug)]
pub struct Compiled {
    /// What is served from now on.
    pub snapshot: Arc<Snapshot>,
    /// Everything that could not be compiled and keeps its last good form, if it has one, by object;
    /// also what was rejected before and has not changed since.
    pub rejected: Vec<Rejected>,
}

/// A part that is over a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The object.
    pub object: ObjectRef,
    /// Why, what would help, and what is served instead.
    pub reason: String,
}

/// One published configuration.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(crate) revision: Revision,
    pub(crate) ir: Ir,
    pub(crate) ports: OrdMap<PortKey, Arc<PortTable>>,
    pub(crate) l4_plan: Arc<L4Plan>,
    pub(crate) upstreams: UpstreamTable,
    pub(crate) routes: OrdMap<ObjectRef, Arc<CompiledRoute>>,
    pub(crate) tables: OrdMap<ListenerKey, RouteTable>,
    pub(crate) rejected: OrdMap<ObjectRef, Rejected>,
}

/// Transport and port first, then the address; none is every address.
pub(crate) type PortKey = (Transport, u16, Option<IpAddr>);

/// Where a request goes.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Arc<CompiledRule>,
    /// How many bytes of the path the matching prefix covers; 0 unless the match is a prefix.
    pub prefix_len: usize,
}

impl Snapshot {
    /// Its number.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What it was compiled from.
    #[must_use]
    pub fn ir(&self) -> &Ir {
        &self.ir
    }

    /// What the packet path applies.
    #[must_use]
    pub fn l4_plan(&self) -> &Arc<L4Plan> {
        &self.l4_plan
    }

    /// The listeners of the address that a TCP connection was made to. An IPv4-mapped address
    /// counts as the IPv4 address.
    #[must_use]
    pub fn port_table(&self, local: SocketAddr) -> Option<&Arc<PortTable>> {
        self.table_of(Transport::Tcp, local)
    }

    /// The listener of the address that a UDP datagram was sent to, as its table.
    #[must_use]
    pub fn datagram_table(&self, local: SocketAddr) -> Option<&Arc<PortTable>> {
        self.table_of(Transport::Udp, local)
    }

    fn table_of(&self, transport: Transport, local: SocketAddr) -> Option<&Arc<PortTable>> {
        let (port, address) = (local.port(), local.ip().to_canonical());
        self.ports
            .get(&(transport, port, Some(address)))
            .or_else(|| self.ports.get(&(transport, port, None)))
    }

    /// Every address and port that is served, by transport and port.
    pub fn port_tables(&self) -> impl Iterator<Item = &Arc<PortTable>> {
        self.ports.values()
    }

    /// The upstream of that number. Numbers that come from a rule of this snapshot always have one.
    #[must_use]
    pub fn upstream(&self, id: UpstreamId) -> Option<&Arc<CompiledUpstream>> {
        self.upstreams.by_id(id)
    }

    /// The number of an upstream.
    #[must_use]
    pub fn upstream_id(&self, key: &UpstreamKey) -> Option<UpstreamId> {
        self.upstreams.id(key)
    }

    /// Every upstream, by number.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<CompiledUpstream>> {
        self.upstreams.iter()
    }

    /// Every rule of every route, by object and position; a route's rules are there whatever
    /// listeners it is reachable through.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<CompiledRule>> {
        self.routes.values().flat_map(|route| route.rules())
    }

    /// Why a request goes where it goes. `local` is the address and port that the connection is
    /// made to, `sni` the name in its ClientHello (ignored in clear text). Agrees with
    /// [`PortTable::listener_for_request`] and [`CompiledListener::find`].
    #[must_use]
    pub fn explain<H: Head>(&self, local: SocketAddr, sni: Option<&str>, head: &H) -> Explanation {
        explain(self, local, sni, head)
    }

    /// The same of a connection or datagram whose content nobody reads: to a port of this kind, with the
    /// name in its ClientHello if it begins with one. Agrees with [`CompiledListener::find_stream`].
    #[must_use]
    pub fn explain_stream(
        &self,
        kind: PortKind,
        local: SocketAddr,
        sni: Option<&str>,
    ) -> Explanation {
        explain_stream(self, kind, local, sni)
    }

    /// A certificate by its key.
    #[must_use]
    pub fn certificate(&self, key: &CertificateKey) -> Option<&Arc<Certificate>> {
        self.ir.certificates.get(key)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::names::ObjectKind;

    /// A number to stand in tests for some upstream.
    pub(crate) fn some_upstream() -> UpstreamId {
        let backend = ObjectRef::new(ObjectKind::Service, "shop", "cart");
        UpstreamTable::default().acquire(&UpstreamKey::http(backend, 80), Revision(1))
    }
}
