//! Whether a backend is who the policy says: its certificate's chain, and its names.

use std::fmt;
use std::sync::Arc;

use gateway_model::ir::SubjectAltName;
use gateway_model::names::Hostname;
use rustls::client::danger::{ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, RootCertStore};
use x509_parser::prelude::{GeneralName, X509Certificate};

use crate::tls::trust::{Pinned, parse, verify_signatures};

/// Gateway API v1 `BackendTLSPolicy.spec.validation`.
pub(super) struct Verifier {
    roots: Arc<RootCertStore>,
    pinned: Pinned,
    /// One of these must be the certificate's; without any it is the server name that must.
    names: Vec<SubjectAltName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("names", &self.names)
            .finish_non_exhaustive()
    }
}

impl Verifier {
    pub(super) fn new(
        roots: Arc<RootCertStore>,
        pinned: Vec<Arc<[u8]>>,
        names: Vec<SubjectAltName>,
        provider: &CryptoProvider,
    ) -> Self {
        Self {
            roots,
            pinned: Pinned(pinned),
            names,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    /// Whether an authority signed it, or it is itself among those that are believed.
    fn verify_chain(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        if let Some(believed) = self.pinned.verify(certificate, now) {
            return believed;
        }
        let all = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(parsed, &self.roots, intermediates, now, all)
    }

    fn verify_names(
        &self,
        certificate: &CertificateDer<'_>,
        parsed: &ParsedCertificate<'_>,
        server_name: &ServerName<'_>,
    ) -> Result<(), Error> {
        if self.names.is_empty() {
            return verify_server_name(parsed, server_name);
        }
        let certificate = parse(certificate)?;
        let holds = self.names.iter().any(|name| match name {
            SubjectAltName::Hostname(name) if name.wildcard_suffix().is_some() => {
                holds_wildcard(&certificate, name)
            }
            SubjectAltName::Hostname(name) => ServerName::try_from(name.as_str())
                .is_ok_and(|name| verify_server_name(parsed, &name).is_ok()),
            SubjectAltName::Uri(wanted) => alternatives(&certificate)
                .any(|name| matches!(name, GeneralName::URI(uri) if **uri == **wanted)),
        });
        match holds {
            true => Ok(()),
            false => Err(CertificateError::NotValidForName.into()),
        }
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        self.verify_chain(end_entity, &parsed, intermediates, now)?;
        self.verify_names(end_entity, &parsed, server_name)?;
        Ok(ServerCertVerified::assertion())
    }

    verify_signatures!();
}

fn alternatives<'a>(
    certificate: &'a X509Certificate<'a>,
) -> impl Iterator<Item = &'a GeneralName<'a>> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    extension
        .into_iter()
        .flat_map(|extension| &extension.value.general_names)
}

/// Whether a certificate holds a wildcard name, or a name one label below it.
fn holds_wildcard(certificate: &X509Certificate<'_>, wildcard: &Hostname) -> bool {
    let wildcard = wildcard.as_str();
    let suffix = wildcard.strip_prefix('*').unwrap_or(wildcard);
    alternatives(certificate).any(|name| {
        let GeneralName::DNSName(name) = name else {
            return false;
        };
        let name = name.to_ascii_lowercase();
        let label = name.strip_suffix(suffix);
        label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
    })
}
