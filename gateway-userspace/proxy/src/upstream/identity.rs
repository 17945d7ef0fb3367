//! As whom Sluice speaks TLS with an upstream, and whom it believes: one rustls configuration for each
//! policy and client certificate.
//!
//! Everything that a handshake depends on is part of the identity, and so are its connections and the
//! sessions it may resume: what another policy or another certificate has made is never used again.

mod verifier;

use std::fmt;
use std::sync::{Arc, LazyLock};

use gateway_model::ir::{Authorities, Certificate, UpstreamTls};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::connection::ConnectError;
use super::dial::Via;
use crate::tls;
use verifier::Verifier;

/// Sessions that one identity may resume.
const SESSIONS: usize = 64;

/// One policy and one client certificate.
pub(crate) struct Identity {
    /// Unlike that of any other identity of the worker, now or before; never 0.
    pub(super) id: u64,
    tls: Arc<UpstreamTls>,
    certificate: Option<Arc<Certificate>>,
    name: ServerName<'static>,
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    either: Arc<ClientConfig>,
    bytes: Arc<ClientConfig>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity of a policy and, if backends are shown one, a client certificate.
    ///
    /// # Errors
    /// Why nothing can be believed or shown, for the operator.
    pub(super) fn new(
        id: u64,
        tls: &Arc<UpstreamTls>,
        certificate: Option<&Arc<Certificate>>,
    ) -> Result<Self, String> {
        let name = ServerName::try_from(tls.server_name.to_string())
            .map_err(|_| format!("{:?} is no server name", tls.server_name))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let (roots, pinned) = authorities(&tls.authorities)?;
        let names = tls.subject_alt_names.clone();
        let verifier = Verifier::new(roots, pinned, names, &provider);
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match certificate {
            None => config.with_no_client_auth(),
            Some(certificate) => {
                let key = tls::certified_key(certificate)
                    .map_err(|error| format!("client certificate: {error}"))?;
                config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
            }
        };
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
            Arc::new(config)
        };
        Ok(Self {
            id,
            tls: Arc::clone(tls),
            certificate: certificate.cloned(),
            name,
            http1: offering(&[b"http/1.1"]),
            http2: offering(&[b"h2"]),
            either: offering(&[b"h2", b"http/1.1"]),
            bytes: offering(&[]),
        })
    }

    /// Whether it is that of this policy and this certificate.
    pub(super) fn is_of(
        &self,
        tls: &Arc<UpstreamTls>,
        certificate: Option<&Arc<Certificate>>,
    ) -> bool {
        let same_certificate = match (&self.certificate, certificate) {
            (Some(mine), Some(other)) => Arc::ptr_eq(mine, other) || mine == other,
            (None, None) => true,
            _ => false,
        };
        same_certificate && (Arc::ptr_eq(&self.tls, tls) || self.tls == *tls)
    }

    /// Performs a handshake.
    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
        via: Via,
    ) -> Result<TlsStream<TcpStream>, ConnectError> {
        let config = match via {
            Via::Http1 => &self.http1,
            Via::Http2 => &self.http2,
            Via::Either => &self.either,
            Via::Stream | Via::Untouched => &self.bytes,
        };
        let connector = TlsConnector::from(Arc::clone(config));
        let connected = connector.connect(self.name.clone(), tcp).await;
        connected.map_err(|error| ConnectError::Failed(format!("TLS: {error}")))
    }
}

/// Certificates that are believed themselves, byte for byte.
type Pinned = Vec<Arc<[u8]>>;

fn authorities(authorities: &Authorities) -> Result<(Arc<RootCertStore>, Pinned), String> {
    let these = match authorities {
        Authorities::System => return SYSTEM.clone().map(|roots| (roots, Pinned::new())),
        Authorities::These(these) => these,
    };
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be an authority may still be believed itself.
    roots.add_parsable_certificates(these.iter().map(|der| CertificateDer::from(der.to_vec())));
    match these.is_empty() {
        true => Err("no certificate authority that can be used".into()),
        false => Ok((Arc::new(roots), these.clone())),
    }
}

/// What the system believes, read when it is first asked for: `SSL_CERT_FILE` and `SSL_CERT_DIR`, or
/// where the distribution keeps it.
static SYSTEM: LazyLock<Result<Arc<RootCertStore>, String>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match found.errors.first() {
        _ if !roots.is_empty() => Ok(Arc::new(roots)),
        Some(error) => Err(format!("no system certificate authorities: {error}")),
        None => Err("the system has no certificate authorities; set SSL_CERT_FILE".into()),
    }
});
