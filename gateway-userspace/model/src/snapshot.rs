//! The compiled, immutable form of an [`Ir`]: what one request and one packet see.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::head::Head;
use crate::ir::{
    Action, Certificate, CertificateKey, Cors, Filter, Ir, Listener, ListenerProtocol, Retry,
    Timeouts, Upstream,
};
use crate::l4_plan::L4Plan;
use crate::names::{ListenerKey, ObjectRef, Revision, UpstreamKey};

/// What [`compile`] makes of an [`Ir`].
#[derive(Debug)]
pub struct Compiled {
    /// What is served from now on.
    pub snapshot: Arc<Snapshot>,
    /// What could not be compiled and keeps its last good form.
    pub rejected: Vec<Rejected>,
}

/// A part that is over a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The object.
    pub object: ObjectRef,
    /// Why, and what would help.
    pub reason: String,
}

/// One published configuration.
#[derive(Debug)]
pub struct Snapshot {
    revision: Revision,
    ir: Ir,
    ports: Vec<Arc<PortTable>>,
    l4_plan: Arc<L4Plan>,
}

/// All listeners of one address and port.
#[derive(Debug)]
pub struct PortTable {
    /// The address; none means every address of the node that no other table names.
    pub address: Option<IpAddr>,
    /// The TCP port.
    pub port: u16,
    /// Whether TLS is terminated here.
    pub tls: bool,
    /// The listeners, most specific hostname first.
    pub listeners: Vec<Arc<CompiledListener>>,
}

/// One listener with its route table.
#[derive(Debug)]
pub struct CompiledListener {
    /// What the translator said.
    pub listener: Arc<Listener>,
}

/// One rule, ready to be carried out.
#[derive(Debug)]
pub struct CompiledRule {
    /// The route object.
    pub route: ObjectRef,
    /// The rule's position.
    pub index: u32,
    /// The rule's name.
    pub name: Option<Arc<str>>,
    /// What is done.
    pub action: Action,
    /// Edits and mirrors.
    pub filters: Vec<Filter>,
    /// CORS.
    pub cors: Option<Cors>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Option<Retry>,
    /// Counters; they outlive a recompilation of the rule.
    pub stats: Arc<RuleStats>,
}

/// A rule's counters.
#[derive(Debug, Default)]
pub struct RuleStats {
    requests: AtomicU64,
}

impl RuleStats {
    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// Where a request goes.
#[derive(Debug)]
pub struct Found<'a> {
    /// The rule.
    pub rule: &'a Arc<CompiledRule>,
    /// How many bytes of the path the matching prefix covers; 0 unless the match is a prefix.
    pub prefix_len: usize,
}

/// Compiles an IR; what did not change since `previous` is shared with it.
#[must_use]
pub fn compile(ir: &Ir, revision: Revision, _previous: Option<&Snapshot>) -> Compiled {
    let snapshot = Snapshot {
        revision,
        ir: ir.clone(),
        ports: Vec::new(),
        l4_plan: Arc::default(),
    };
    Compiled {
        snapshot: Arc::new(snapshot),
        rejected: Vec::new(),
    }
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

    /// The listeners of the address that a connection was made to.
    #[must_use]
    pub fn port_table(&self, local: SocketAddr) -> Option<&Arc<PortTable>> {
        let of = |address| {
            self.ports
                .iter()
                .find(|t| t.port == local.port() && t.address == address)
        };
        of(Some(local.ip())).or_else(|| of(None))
    }

    /// Every address and port that is served.
    pub fn port_tables(&self) -> impl Iterator<Item = &Arc<PortTable>> {
        self.ports.iter()
    }

    /// An upstream by its key.
    #[must_use]
    pub fn upstream(&self, key: &UpstreamKey) -> Option<&Arc<Upstream>> {
        self.ir.upstreams.get(key)
    }

    /// A certificate by its key.
    #[must_use]
    pub fn certificate(&self, key: &CertificateKey) -> Option<&Arc<Certificate>> {
        self.ir.certificates.get(key)
    }
}

impl PortTable {
    /// The listener whose hostname covers this name best; the same rule for SNI and for `Host`.
    #[must_use]
    pub fn listener_for(&self, host: &str) -> Option<&Arc<CompiledListener>> {
        self.listeners.iter().find(|l| {
            l.listener
                .hostname
                .as_ref()
                .is_none_or(|name| name.matches(host))
        })
    }
}

impl CompiledListener {
    /// Its identity.
    #[must_use]
    pub fn key(&self) -> &ListenerKey {
        &self.listener.key
    }

    /// Whether it terminates TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.listener.protocol, ListenerProtocol::Https(_))
    }

    /// The first rule that matches.
    #[must_use]
    pub fn find<H: Head>(&self, _head: &H) -> Option<Found<'_>> {
        None
    }
}
