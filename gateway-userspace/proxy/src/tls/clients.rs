//! Certificates that are asked of clients: Gateway API v1 `Gateway.spec.tls.frontend`.

use std::fmt;
use std::sync::Arc;

use gateway_model::ir::{ClientValidation, ClientValidationMode};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, Error, RootCertStore};
use rustls_pki_types::{CertificateDer, UnixTime};

use super::trust::{Pinned, verify_signatures};

/// What a listener does about client certificates.
pub(super) enum Asked {
    /// It asks for none.
    Nothing,
    /// It asks, and this tells which ones will do.
    For(Arc<dyn ClientCertVerifier>),
    /// There is no authority to go by: nobody gets in.
    NobodyPasses,
}

/// Finds out what a listener does. Authorities that cannot be read count as not there; of several with the same
/// name and serial number, the one whose key fits is the right one.
pub(super) fn asked(
    validation: Option<&Arc<ClientValidation>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Asked, String> {
    let Some(validation) = validation else {
        return Ok(Asked::Nothing);
    };
    let authorities = &validation.authorities;
    let mut roots = RootCertStore::empty();
    let ders = authorities.iter().map(|der| der.to_vec().into());
    roots.add_parsable_certificates(ders);
    if roots.is_empty() {
        return Ok(Asked::NobodyPasses);
    }
    let chains = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Asked::For(Arc::new(Verifier {
        chains,
        pinned: Pinned(authorities.clone()),
        mode: validation.mode,
        algorithms: provider.signature_verification_algorithms,
    })))
}

/// Which certificates will do.
struct Verifier {
    chains: Arc<dyn ClientCertVerifier>,
    pinned: Pinned,
    mode: ClientValidationMode,
    algorithms: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.mode == ClientValidationMode::AllowValidOnly
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        match self.mode {
            ClientValidationMode::AllowValidOnly => self.chains.root_hint_subjects(),
            // A client with a certificate of another authority may show it.
            ClientValidationMode::AllowInsecureFallback => &[],
        }
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        if self.mode == ClientValidationMode::AllowInsecureFallback {
            return Ok(ClientCertVerified::assertion());
        }
        if let Some(believed) = self.pinned.verify(end_entity, now) {
            return believed.map(|()| ClientCertVerified::assertion());
        }
        let chains = &self.chains;
        chains.verify_client_cert(end_entity, intermediates, now)
    }

    verify_signatures!();
}
