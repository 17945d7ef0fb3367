//! TLS towards clients: one rustls configuration for each listener, built off the request path and
//! shared by all workers.
//!
//! Session tickets are stateless. One rotating key serves all listeners that ask the same of client
//! certificates, so that nobody comes in by a ticket who would not by a certificate; rustls itself refuses
//! to resume a session under another server name.

pub(crate) mod alert;
mod clients;
mod handshake;
mod hello;
mod keys;
pub(crate) mod trust;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use gateway_model::ir::{ClientValidation, Ir, Listener, ListenerProtocol, TlsTermination};
use gateway_model::names::ListenerKey;
use gateway_model::snapshot::Snapshot;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets};
use rustls::{CipherSuite, ServerConfig};

use clients::Asked;
pub(crate) use handshake::{failed, greet, handshake};
pub(crate) use keys::parse as certified_key;
use keys::{Choice, Keys};

use crate::proxy::Failures;

/// The TLS configurations of one revision.
#[derive(Default)]
pub(crate) struct TlsTables {
    ir: Ir,
    keys: Keys,
    configs: HashMap<ListenerKey, (ListenerProtocol, Policy)>,
    ticketers: Vec<(Validation, Arc<dyn ProducesTickets>)>,
}

/// What a listener asks of clients' certificates.
type Validation = Option<Arc<ClientValidation>>;

/// What a listener has for those who want to shake hands.
#[derive(Clone)]
enum Policy {
    Shake(Configs),
    /// It asks for client certificates and believes nobody.
    Refuse,
}

/// Why there is no handshake with a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoHandshake {
    /// None of the listener's certificates can be used.
    #[error("the listener has no usable certificate")]
    NoCertificate,
    /// The listener asks for client certificates and has no authority to verify them with.
    #[error("the listener has no authority to verify clients with")]
    NoAuthority,
}

impl NoHandshake {
    /// The alert that says so (RFC 8446 §6).
    fn alert(self) -> u8 {
        match self {
            Self::NoCertificate => alert::UNRECOGNIZED_NAME,
            Self::NoAuthority => alert::ACCESS_DENIED,
        }
    }
}

/// One listener's configuration, in two orders of cipher suites.
#[derive(Clone)]
struct Configs {
    /// AES-128 first: its key schedule runs on SHA-256, for which CPUs have instructions, and is a
    /// sixth of a handshake cheaper than AES-256's on SHA-384.
    aes: Arc<ServerConfig>,
    /// The client's order, for one that puts ChaCha20 first because it lacks AES instructions.
    as_asked: Arc<ServerConfig>,
}

impl fmt::Debug for TlsTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsTables")
            .field("listeners", &self.configs.len())
            .finish_non_exhaustive()
    }
}

impl TlsTables {
    /// The configuration of a listener for a client.
    pub(crate) fn config(
        &self,
        listener: &ListenerKey,
        hello: &ClientHello<'_>,
    ) -> Result<Arc<ServerConfig>, NoHandshake> {
        let configs = match self.configs.get(listener) {
            Some((_, Policy::Shake(configs))) => configs,
            Some((_, Policy::Refuse)) => return Err(NoHandshake::NoAuthority),
            None => return Err(NoHandshake::NoCertificate),
        };
        let config = match prefers_chacha(hello) {
            true => &configs.as_asked,
            false => &configs.aes,
        };
        Ok(match hello.alpn() {
            Some(offers) if config.alpn_protocols.is_empty() => {
                handshake::agree_on_only_offer(config, offers)
            }
            _ => Arc::clone(config),
        })
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
        let wanted = self
            .ir
            .listeners
            .values()
            .filter(|l| l.protocol.termination().is_some());
        wanted.count() == self.configs.len() && self.keys.are_all_usable()
    }

    fn rebuild(ir: &Ir, previous: &Self, failures: &mut Failures) -> Self {
        let keys = Keys::build(ir, &previous.keys);
        let mut tables = Self {
            ir: ir.clone(),
            keys,
            configs: HashMap::new(),
            ticketers: Vec::new(),
        };
        for listener in ir.listeners.values() {
            if let Some(termination) = listener.protocol.termination() {
                tables.add(listener, termination, previous, failures);
            }
        }
        tables
    }

    fn add(
        &mut self,
        listener: &Listener,
        termination: &TlsTermination,
        previous: &Self,
        failures: &mut Failures,
    ) {
        let (protocol, listener) = (&listener.protocol, &listener.key);
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
            before == protocol && self.keys.same(&previous.keys, &termination.certificates)
        });
        let ticketer = self.ticketer(&termination.client_validation, previous);
        let policy = match (known, ticketer) {
            (Some((_, policy)), Ok(_)) => Ok(policy.clone()),
            (None, Ok(ticketer)) => configure(Choice::new(usable), protocol, ticketer),
            (_, Err(error)) => Err(error.to_string()),
        };
        match policy {
            Ok(policy) => {
                let entry = (protocol.clone(), policy);
                self.configs.insert(listener.clone(), entry);
            }
            Err(error) => failures.add(listener, || format!("TLS: {error}")),
        }
    }

    /// The tickets of those listeners that ask the same of clients; kept from revision to revision.
    fn ticketer(
        &mut self,
        validation: &Validation,
        previous: &Self,
    ) -> Result<Arc<dyn ProducesTickets>, rustls::Error> {
        let mut known = self.ticketers.iter().chain(&previous.ticketers);
        let known = known.find(|(of, _)| of == validation);
        let ticketer = match known {
            Some((_, ticketer)) => Arc::clone(ticketer),
            None => aws_lc_rs::Ticketer::new()?,
        };
        if !self.ticketers.iter().any(|(of, _)| of == validation) {
            let entry = (validation.clone(), Arc::clone(&ticketer));
            self.ticketers.push(entry);
        }
        Ok(ticketer)
    }
}

fn configure(
    choice: Choice,
    protocol: &ListenerProtocol,
    ticketer: Arc<dyn ProducesTickets>,
) -> Result<Policy, String> {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| !is_aes_128(suite.suite()));
    let provider = Arc::new(provider);
    let validation = protocol.termination();
    let validation = validation.and_then(|tls| tls.client_validation.as_ref());
    let asked = clients::asked(validation, &provider)?;
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| error.to_string())?;
    let builder = match asked {
        Asked::Nothing => builder.with_no_client_auth(),
        Asked::For(verifier) => builder.with_client_cert_verifier(verifier),
        Asked::NobodyPasses => return Ok(Policy::Refuse),
    };
    let mut config = builder.with_cert_resolver(Arc::new(choice));
    if let ListenerProtocol::Https(_) = protocol {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    config.ticketer = ticketer;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 2;
    let mut aes = config.clone();
    aes.ignore_client_order = true;
    Ok(Policy::Shake(Configs {
        aes: Arc::new(aes),
        as_asked: Arc::new(config),
    }))
}

/// Whether the first suite that the client offers is one of ChaCha20; GREASE (RFC 8701) is none.
fn prefers_chacha(hello: &ClientHello<'_>) -> bool {
    let is_grease = |suite: u16| suite & 0x0f0f == 0x0a0a;
    let mut offered = hello.cipher_suites().iter().copied();
    offered
        .find(|suite| !is_grease(u16::from(*suite)))
        .is_some_and(|suite| {
            matches!(
                suite,
                CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
                    | CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
            )
        })
}

fn is_aes_128(suite: CipherSuite) -> bool {
    matches!(
        suite,
        CipherSuite::TLS13_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}
