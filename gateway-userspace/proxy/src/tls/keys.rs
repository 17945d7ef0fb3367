//! Certificates with their keys parsed, and which of a listener's a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_model::ir::{Certificate, CertificateKey, Ir, PrivateKey};
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

/// Every certificate of a revision.
#[derive(Default)]
pub(super) struct Keys(HashMap<CertificateKey, (Arc<Certificate>, Parsed)>);

/// A key ready to sign, or why there is none.
type Parsed = Result<Arc<CertifiedKey>, String>;

impl Keys {
    /// Parses what `previous` does not have already.
    pub(super) fn build(ir: &Ir, previous: &Self) -> Self {
        let parsed = ir.certificates.iter().map(|(key, certificate)| {
            let known = previous.0.get(key);
            let known = known.filter(|(before, _)| Arc::ptr_eq(before, certificate));
            let parsed = match known {
                Some((_, parsed)) => parsed.clone(),
                None => parse(certificate).map(Arc::new).map_err(|e| e.to_string()),
            };
            (key.clone(), (Arc::clone(certificate), parsed))
        });
        Self(parsed.collect())
    }

    /// A certificate with its key, or for the operator why there is none.
    pub(super) fn find(&self, key: &CertificateKey) -> Result<Usable, String> {
        match self.0.get(key) {
            None => Err(format!("{}: there is no such certificate", key.0)),
            Some((certificate, Ok(parsed))) => Ok(Usable {
                certificate: Arc::clone(certificate),
                key: Arc::clone(parsed),
            }),
            Some((_, Err(reason))) => Err(format!("{}: {reason}", key.0)),
        }
    }

    /// Whether these certificates are the same ones in both.
    pub(super) fn same(&self, other: &Self, keys: &[CertificateKey]) -> bool {
        keys.iter()
            .all(|key| match (self.0.get(key), other.0.get(key)) {
                (Some((a, _)), Some((b, _))) => Arc::ptr_eq(a, b),
                (a, b) => a.is_none() && b.is_none(),
            })
    }

    /// Whether every one could be parsed.
    pub(super) fn are_all_usable(&self) -> bool {
        self.0.values().all(|(_, parsed)| parsed.is_ok())
    }
}

/// A certificate with its key ready to sign.
///
/// # Errors
/// When the key is of no kind that can be used.
pub(crate) fn parse(certificate: &Certificate) -> Result<CertifiedKey, rustls::Error> {
    let chain = certificate.chain.iter();
    let chain = chain
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    let key = match &certificate.private_key {
        PrivateKey::Pkcs8(der) => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.to_vec())),
        PrivateKey::Pkcs1(der) => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der.to_vec())),
        PrivateKey::Sec1(der) => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der.to_vec())),
    };
    Ok(CertifiedKey::new(chain, any_supported_type(&key)?))
}

/// A certificate that can be used.
#[derive(Debug)]
pub(super) struct Usable {
    certificate: Arc<Certificate>,
    key: Arc<CertifiedKey>,
}

/// The certificates of one listener. A client gets one that it can verify the signature of: one for the name that it
/// asks for, if there is one, by its own name rather than by a wildcard; the first of those that are as good.
#[derive(Debug)]
pub(super) struct Choice(Vec<Usable>);

impl Choice {
    pub(super) fn new(certificates: Vec<Usable>) -> Self {
        Self(certificates)
    }
}

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let schemes = hello.signature_schemes();
        let suits = |usable: &&Usable| usable.key.key.choose_scheme(schemes).is_some();
        let mut suiting = self.0.iter().filter(suits);
        let chosen = match hello.server_name() {
            // The last of the best, so the other way round.
            Some(name) if self.0.len() > 1 => suiting
                .rev()
                .max_by_key(|usable| usable.certificate.fit(name)),
            _ => suiting.next(),
        };
        chosen.map(|usable| Arc::clone(&usable.key))
    }
}
