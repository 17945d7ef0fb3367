//! Certificates out of Secrets and ConfigMaps: PEM texts in, a checked chain and key out, or the
//! certificates of authorities.
//!
//! The Secret's `type` does not matter, its keys do: `tls.crt` and `tls.key`, else `cert` and
//! `key`. Whether a certificate has expired is not asked here, for translation has no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_model::ir::{Certificate, PrivateKey, TrustAnchors};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why a Secret holds no usable certificate, in words for its users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CertificateFault(String);

fn fault<T>(message: impl Into<String>) -> Result<T, CertificateFault> {
    Err(CertificateFault(message.into()))
}

/// Where chain and key stand; the first pair that is there counts.
const KEYS: [(&str, &str); 2] = [("tls.crt", "tls.key"), ("cert", "key")];

/// Reads the certificate and key of a Secret, and checks that they belong together.
pub(crate) fn parse(
    data: &BTreeMap<Arc<str>, Arc<[u8]>>,
) -> Result<Arc<Certificate>, CertificateFault> {
    let pair = KEYS
        .into_iter()
        .find(|(cert, key)| data.contains_key(*cert) || data.contains_key(*key));
    let Some((cert_name, key_name)) = pair else {
        return fault("it has neither tls.crt and tls.key nor cert and key");
    };
    let entry = |name: &str| match data.get(name) {
        Some(text) if !text.is_empty() => Ok(text),
        _ => fault(format!("its {name} is missing or empty")),
    };
    let chain = chain(cert_name, entry(cert_name)?)?;
    let private_key = private_key(key_name, entry(key_name)?)?;
    check_pair(cert_name, key_name, &chain, &private_key)?;
    let leaf = leaf(cert_name, &chain[0])?;
    let alternatives = alternative_names(&leaf);
    let has_common_name_only = alternatives.is_empty();
    Ok(Arc::new(Certificate {
        not_before: leaf.validity().not_before.timestamp(),
        not_after: leaf.validity().not_after.timestamp(),
        names: if has_common_name_only {
            common_names(&leaf)
        } else {
            alternatives
        },
        has_common_name_only,
        chain,
        private_key,
    }))
}

/// Where the certificates of authorities stand, in Secrets and ConfigMaps alike.
pub(crate) const AUTHORITIES: &str = "ca.crt";

/// Reads the certificates of authorities out of a `ca.crt`.
pub(crate) fn parse_authorities(pem: Option<&[u8]>) -> Result<TrustAnchors, CertificateFault> {
    let pem = match pem {
        Some(pem) if !pem.is_empty() => pem,
        _ => return fault(format!("its {AUTHORITIES} is missing or empty")),
    };
    let anchors = chain(AUTHORITIES, pem)?;
    let mut store = RootCertStore::empty();
    for (at, der) in anchors.iter().enumerate() {
        if let Err(e) = store.add(CertificateDer::from(der.to_vec())) {
            return fault(format!(
                "certificate {} of its {AUTHORITIES} cannot be used: {e}",
                at + 1
            ));
        }
    }
    Ok(anchors)
}

fn sections(name: &str, pem: &[u8]) -> Result<Vec<(SectionKind, Vec<u8>)>, CertificateFault> {
    let sections: Result<Vec<_>, _> = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).collect();
    sections.or_else(|e| fault(format!("its {name} is not PEM: {e}")))
}

fn chain(name: &str, pem: &[u8]) -> Result<Vec<Arc<[u8]>>, CertificateFault> {
    let chain: Vec<Arc<[u8]>> = sections(name, pem)?
        .into_iter()
        .filter(|(kind, _)| *kind == SectionKind::Certificate)
        .map(|(_, der)| der.into())
        .collect();
    if chain.is_empty() {
        return fault(format!("its {name} holds no BEGIN CERTIFICATE"));
    }
    Ok(chain)
}

fn private_key(name: &str, pem: &[u8]) -> Result<PrivateKey, CertificateFault> {
    let keys = sections(name, pem)?.into_iter();
    let mut keys = keys.filter_map(|(kind, der)| match kind {
        SectionKind::PrivateKey => Some(PrivateKey::Pkcs8(der.into())),
        SectionKind::RsaPrivateKey => Some(PrivateKey::Pkcs1(der.into())),
        SectionKind::EcPrivateKey => Some(PrivateKey::Sec1(der.into())),
        _ => None,
    });
    match keys.next() {
        Some(key) => Ok(key),
        None if pem.windows(9).any(|w| w == b"ENCRYPTED") => fault(format!(
            "its {name} is encrypted; store it without a passphrase"
        )),
        None => fault(format!("its {name} holds no BEGIN PRIVATE KEY")),
    }
}

fn leaf<'a>(name: &str, der: &'a [u8]) -> Result<X509Certificate<'a>, CertificateFault> {
    let Ok((_, leaf)) = X509Certificate::from_der(der) else {
        return fault(format!(
            "the first certificate of its {name} cannot be parsed"
        ));
    };
    let validity = leaf.validity();
    if validity.not_after < validity.not_before {
        return fault(format!(
            "the first certificate of its {name} is never valid"
        ));
    }
    Ok(leaf)
}

fn check_pair(
    cert_name: &str,
    key_name: &str,
    chain: &[Arc<[u8]>],
    key: &PrivateKey,
) -> Result<(), CertificateFault> {
    let der = match key {
        PrivateKey::Pkcs8(der) => PrivateKeyDer::Pkcs8(der.to_vec().into()),
        PrivateKey::Pkcs1(der) => PrivateKeyDer::Pkcs1(der.to_vec().into()),
        PrivateKey::Sec1(der) => PrivateKeyDer::Sec1(der.to_vec().into()),
    };
    let Ok(key) = aws_lc_rs::sign::any_supported_type(&der) else {
        return fault(format!(
            "its {key_name} is not a usable RSA (2048 bits or more), ECDSA or Ed25519 key"
        ));
    };
    let chain: Vec<_> = chain
        .iter()
        .map(|der| CertificateDer::from(der.to_vec()))
        .collect();
    match CertifiedKey::new(chain, key).keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => fault(format!(
            "its {key_name} does not belong to the first certificate of its {cert_name}"
        )),
        Err(e) => fault(format!(
            "the first certificate of its {cert_name} cannot be used: {e}"
        )),
    }
}

/// The DNS names among the `subjectAltName`s of a certificate, lower case, in order.
fn alternative_names(leaf: &X509Certificate<'_>) -> Vec<Arc<str>> {
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    alternatives
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase().into()),
            _ => None,
        })
        .collect()
}

/// The common names of a certificate, lower case.
fn common_names(leaf: &X509Certificate<'_>) -> Vec<Arc<str>> {
    let common = leaf.subject().iter_common_name();
    common
        .filter_map(|name| Some(name.as_str().ok()?.to_ascii_lowercase().into()))
        .collect()
}

#[cfg(test)]
mod tests;
