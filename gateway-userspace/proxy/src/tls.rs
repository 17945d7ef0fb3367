//! TLS towards clients: one rustls configuration for each listener, built off the request path and
//! shared by all workers.
//!
//! Session tickets are stateless. One rotating key serves all listeners, for none asks for client
//! certificates; rustls itself refuses to resume a session under another server name.

mod handshake;
mod keys;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use gateway_model::ir::{Ir, ListenerProtocol, TlsTermination};
use gateway_model::names::ListenerKey;
use gateway_model::snapshot::Snapshot;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{NoServerSessionStorage, ProducesTickets};

pub(crate) use handshake::handshake;
use keys::{Choice, Keys};

use crate::proxy::Failures;

/// The TLS configurations of one revision.
#[derive(Default)]
pub(crate) struct TlsTables {
    ir: Ir,
    keys: Keys,
    configs: HashMap<ListenerKey, (TlsTermination, Arc<ServerConfig>)>,
    ticketer: Option<Arc<dyn ProducesTickets>>,
}

impl fmt::Debug for TlsTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTables")
            .field("listeners", &self.configs.len())
            .finish_non_exhaustive()
    }
}

impl TlsTables {
    /// The configuration of a listener; none when none of its certificates can be used.
    pub(crate) fn config(&self, listener: &ListenerKey) -> Option<&Arc<ServerConfig>> {
        self.configs.get(listener).map(|(_, config)| config)
    }

    /// Builds the tables of a snapshot. Keys are parsed when their certificate is new, and a
    /// listener's configuration is taken over when neither it nor a certificate of it has changed.
    pub(crate) fn build(
        snapshot: &Snapshot,
        previous: &Arc<Self>,
        failures: &mut Failures,
    ) -> Arc<Self> {
        let (now, then) = (snapshot.ir(), &previous.ir);
        let same =
            now.certificates.ptr_eq(&then.certificates) && now.listeners.ptr_eq(&then.listeners);
        if same && previous.is_complete() {
            return Arc::clone(previous);
        }
        Arc::new(Self::rebuild(now, previous, failures))
    }

    /// Whether nothing has to be reported again.
    fn is_complete(&self) -> bool {
        let tls = |protocol: &ListenerProtocol| matches!(protocol, ListenerProtocol::Https(_));
        let wanted = self.ir.listeners.values().filter(|l| tls(&l.protocol));
        wanted.count() == self.configs.len() && self.keys.are_all_usable()
    }

    fn rebuild(ir: &Ir, previous: &Self, failures: &mut Failures) -> Self {
        let keys = Keys::build(ir, &previous.keys);
        let mut tables = Self {
            ir: ir.clone(),
            keys,
            configs: HashMap::new(),
            ticketer: previous.ticketer.clone(),
        };
        for listener in ir.listeners.values() {
            if let ListenerProtocol::Https(termination) = &listener.protocol {
                tables.add(&listener.key, termination, previous, failures);
            }
        }
        tables
    }

    fn add(
        &mut self,
        listener: &ListenerKey,
        termination: &TlsTermination,
        previous: &Self,
        failures: &mut Failures,
    ) {
        let mut usable = Vec::new();
        for certificate in &termination.certificates {
            match self.keys.find(certificate) {
                Ok(key) => usable.push(key),
                Err(reason) => failures.add(listener, || reason),
            }
        }
        if usable.is_empty() {
            failures.add(listener, || "no certificate that can be used".into());
            return;
        }
        let known = previous.configs.get(listener).filter(|(before, _)| {
            before == termination && self.keys.same(&previous.keys, &termination.certificates)
        });
        let config = match known {
            Some((_, config)) => Arc::clone(config),
            None => match self.configure(Choice::new(usable)) {
                Ok(config) => Arc::new(config),
                Err(error) => return failures.add(listener, || format!("TLS: {error}")),
            },
        };
        self.configs
            .insert(listener.clone(), (termination.clone(), config));
    }

    fn configure(&mut self, choice: Choice) -> Result<ServerConfig, rustls::Error> {
        let ticketer = match &self.ticketer {
            Some(ticketer) => Arc::clone(ticketer),
            None => Arc::clone(self.ticketer.insert(aws_lc_rs::Ticketer::new()?)),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(choice));
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.ticketer = ticketer;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 2;
        Ok(config)
    }
}
