//! The listeners of one address and port, and which of them a name belongs to.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::{CompiledRule, Found};
use crate::head::Head;
use crate::ir::{HeaderName, Listener, ListenerProtocol, PortKind};
use crate::names::{Hostname, ListenerKey};
use crate::route_index::RouteTable;

/// All listeners of one address and port.
#[derive(Clone, Debug)]
pub struct PortTable {
    /// The address; none means every address of the node that no other table names.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// What connections to it begin with.
    pub kind: PortKind,
    /// The listeners, most specific hostname first.
    pub listeners: Vec<Arc<CompiledListener>>,
    /// Positions in `listeners` by hostname, wildcards without their `*`.
    by_hostname: Arc<HashMap<Box<str>, u32>>,
    catch_all: Option<u32>,
}

/// One listener with its route table.
#[derive(Debug)]
pub struct CompiledListener {
    /// What the translator said; the same allocation in every snapshot until the listener changes.
    pub listener: Arc<Listener>,
    /// Texts for logs and metrics.
    pub labels: ListenerLabels,
    pub(crate) routes: RouteTable,
}

/// A listener's texts for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerLabels {
    /// `namespace/name` of the Gateway.
    pub gateway: Arc<str>,
    /// The listener's name, with its ListenerSet if it is of one: [`Listener::label`].
    pub listener: Arc<str>,
}

/// Why no listener takes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoListener {
    /// No listener of this port claims the host: 404.
    Unclaimed,
    /// The connection was made to another listener's name: 421 (RFC 9110 §15.5.20).
    Misdirected,
}

impl PortTable {
    /// Builds the table. Listeners of another kind than the first, and later
    /// listeners with a hostname that is taken, get nothing: a translator resolves such conflicts.
    pub(crate) fn new(
        address: Option<IpAddr>,
        port: u16,
        listeners: impl IntoIterator<Item = Arc<CompiledListener>>,
    ) -> Option<Self> {
        let mut listeners: Vec<_> = listeners.into_iter().collect();
        let kind = listeners.first()?.listener.protocol.port_kind();
        listeners.retain(|listener| listener.listener.protocol.port_kind() == kind);
        listeners.sort_by(|a, b| specificity(a).cmp(&specificity(b)));
        listeners.dedup_by(|b, a| a.listener.hostname == b.listener.hostname);
        let mut by_hostname = HashMap::default();
        let mut catch_all = None;
        for (position, listener) in (0..).zip(&listeners) {
            match listener.hostname() {
                Some(name) => {
                    let key = name.wildcard_suffix().unwrap_or(name.as_str());
                    by_hostname.insert(key.into(), position);
                }
                None => catch_all = Some(position),
            }
        }
        Some(Self {
            address,
            port,
            kind,
            listeners,
            by_hostname: Arc::new(by_hostname),
            catch_all,
        })
    }

    /// Whether connections to it begin with a ClientHello.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.kind == PortKind::Tls
    }

    /// The same table with a newer form of one of its listeners.
    pub(crate) fn replace(&mut self, newer: &Arc<CompiledListener>) {
        for listener in &mut self.listeners {
            if listener.key() == newer.key() {
                *listener = Arc::clone(newer);
            }
        }
    }

    /// The listener whose hostname covers this name best; the same rule for SNI and for `Host`.
    /// A client without SNI, or a request without host, asks with the empty name.
    #[must_use]
    pub fn listener_for(&self, host: &str) -> Option<&Arc<CompiledListener>> {
        // A name that begins with a dot is no name; it would be found as if it were a wildcard.
        let exact = (!host.starts_with('.')).then_some(host);
        let suffixes = memchr::memchr_iter(b'.', host.as_bytes())
            .filter(|&dot| dot > 0)
            .map(|dot| &host[dot..]);
        let named = if self.by_hostname.is_empty() {
            None
        } else {
            exact
                .into_iter()
                .chain(suffixes)
                .find_map(|name| self.by_hostname.get(name).copied())
        };
        self.listeners.get(named.or(self.catch_all)? as usize)
    }

    /// The listener that takes a request for `host` on a connection that was made for `sni` (none
    /// or empty if the client sent none; ignored in clear text).
    ///
    /// # Errors
    /// [`NoListener`] says which answer to give. A listener without a matching route is another
    /// matter: [`CompiledListener::find`] then finds nothing, and the answer is 404.
    pub fn listener_for_request(
        &self,
        sni: Option<&str>,
        host: &str,
    ) -> Result<&Arc<CompiledListener>, NoListener> {
        let by_host = self.listener_for(host);
        if !self.is_tls() {
            return by_host.ok_or(NoListener::Unclaimed);
        }
        let by_sni = self.listener_for(sni.unwrap_or_default());
        match (by_sni, by_host) {
            (_, None) => Err(NoListener::Unclaimed),
            (Some(a), Some(b)) if Arc::ptr_eq(a, b) => Ok(b),
            _ => Err(NoListener::Misdirected),
        }
    }
}

impl CompiledListener {
    pub(crate) fn new(listener: Arc<Listener>, routes: RouteTable) -> Self {
        let gateway = &listener.gateway;
        let labels = ListenerLabels {
            gateway: format!("{}/{}", gateway.namespace, gateway.name).into(),
            listener: listener.label(),
        };
        Self {
            listener,
            labels,
            routes,
        }
    }

    /// Its identity.
    #[must_use]
    pub fn key(&self) -> &ListenerKey {
        &self.listener.key
    }

    /// Its hostname; none means every host.
    #[must_use]
    pub fn hostname(&self) -> Option<&Hostname> {
        self.listener.hostname.as_ref()
    }

    /// What is spoken there.
    #[must_use]
    pub fn protocol(&self) -> &ListenerProtocol {
        &self.listener.protocol
    }

    /// The rule of the TLSRoute, TCPRoute or UDPRoute that takes a connection: that of the most
    /// specific hostname that covers `server_name` (empty where there is none), and there the first.
    #[must_use]
    pub fn find_stream(&self, server_name: &str) -> Option<&Arc<CompiledRule>> {
        let found = self.routes.find(&StreamHead { server_name })?;
        Some(found.rule)
    }

    /// The first rule that matches: hostnames from the most specific, within one the match that
    /// comes first in [`crate::ir::MatchOrder`]. Allocates nothing.
    #[must_use]
    pub fn find<H: Head>(&self, head: &H) -> Option<Found<'_>> {
        self.routes.find(head)
    }
}

/// What a stream is matched by: a server name, and a path that every stream route covers.
pub(crate) struct StreamHead<'a> {
    pub(crate) server_name: &'a str,
}

impl Head for StreamHead<'_> {
    fn method(&self) -> &str {
        ""
    }

    fn path(&self) -> &str {
        "/"
    }

    fn query(&self) -> Option<&str> {
        None
    }

    fn host(&self) -> &str {
        self.server_name
    }

    fn header_values<'a>(&'a self, _: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        std::iter::empty()
    }
}

fn specificity(listener: &CompiledListener) -> (u8, Reverse<usize>, &str, &ListenerKey) {
    let name = listener.hostname();
    let class = match name.map(Hostname::wildcard_suffix) {
        Some(None) => 0,
        Some(Some(_)) => 1,
        None => 2,
    };
    let text = name.map_or("", Hostname::as_str);
    (class, Reverse(text.len()), text, listener.key())
}
