//! Kubernetes core `Secret`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use gateway_model::names::ObjectKind;

use gateway_model::ir::{Certificate, TrustAnchors};

use super::Meta;
use super::reader::Node;
use crate::secret::{AUTHORITIES, CertificateFault, parse, parse_authorities};

/// Kubernetes core `Secret`. Its contents are never printed.
#[derive(Clone)]
pub struct Secret {
    /// `metadata`.
    pub meta: Meta,
    /// `data`, decoded, and `stringData`, which wins.
    pub data: BTreeMap<Arc<str>, Arc<[u8]>>,
    certificate: OnceLock<Result<Arc<Certificate>, CertificateFault>>,
    authorities: OnceLock<Result<TrustAnchors, CertificateFault>>,
}

impl Secret {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let mut data = BTreeMap::new();
        for (name, node) in root.field("data").entries() {
            let Some(text) = node.text() else { continue };
            match base64(text) {
                Some(bytes) => {
                    data.insert(name.into(), bytes.into());
                }
                None => node.problem("must be Base64; plain text belongs under stringData"),
            }
        }
        for (name, node) in root.field("stringData").entries() {
            if let Some(text) = node.text() {
                data.insert(name.into(), text.as_bytes().into());
            }
        }
        Self {
            meta: Meta::read(ObjectKind::Secret, root),
            data,
            certificate: OnceLock::new(),
            authorities: OnceLock::new(),
        }
    }

    /// The certificate and key it holds; parsed once, when somebody asks.
    pub(crate) fn certificate(&self) -> &Result<Arc<Certificate>, CertificateFault> {
        self.certificate.get_or_init(|| parse(&self.data))
    }

    /// The certificates of its `ca.crt`; parsed once, when somebody asks.
    pub(crate) fn authorities(&self) -> &Result<TrustAnchors, CertificateFault> {
        let pem = self.data.get(AUTHORITIES).map(|pem| &**pem);
        self.authorities.get_or_init(|| parse_authorities(pem))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta && self.data == other.data
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<_> = self.data.keys().collect();
        f.debug_struct("Secret")
            .field("meta", &self.meta)
            .field("keys", &keys)
            .finish_non_exhaustive()
    }
}

/// RFC 4648 §4, white space ignored.
pub(super) fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held, mut padding) = (0_u32, 0_u32, 0_u32);
    for b in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let value = match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' => {
                padding += 1;
                continue;
            }
            _ => return None,
        };
        if padding > 0 {
            return None;
        }
        bits = (bits << 6) | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from((bits >> held) & 0xff).ok()?);
        }
    }
    let complete = match held {
        0 => padding == 0,
        4 => padding == 2,
        2 => padding == 1,
        _ => false,
    };
    complete.then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_decodes_rfc_4648_vectors_and_refuses_the_rest() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9v\nYmFy", "foobar"),
        ] {
            assert_eq!(base64(text).as_deref(), Some(plain.as_bytes()), "{text}");
        }
        for text in ["Z", "Zg", "Zg=", "Zg===", "Z=g=", "Zm9v!", "-_-_"] {
            assert_eq!(base64(text), None, "{text}");
        }
    }
}
