//! Small kinds of the core group: ConfigMap and Namespace.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use gateway_model::ir::TrustAnchors;
use gateway_model::names::ObjectKind;

use super::Meta;
use super::reader::Node;
use super::secret::base64;
use crate::secret::{AUTHORITIES, CertificateFault, parse_authorities};

/// Kubernetes core `ConfigMap`, as far as it matters here.
#[derive(Clone, Debug)]
pub struct ConfigMap {
    /// `metadata`.
    pub meta: Meta,
    /// `data["ca.crt"]`, or `binaryData["ca.crt"]` decoded; of everything else nothing is kept.
    pub authorities_pem: Option<Arc<[u8]>>,
    authorities: OnceLock<Result<TrustAnchors, CertificateFault>>,
}

impl ConfigMap {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let text = root.field("data").mapping().field(AUTHORITIES);
        let binary = root.field("binaryData").mapping().field(AUTHORITIES);
        let decoded = || base64(binary.text()?);
        let pem = match text.text() {
            Some(text) => Some(text.as_bytes().into()),
            None => decoded().map(Into::into),
        };
        Self {
            meta: Meta::read(ObjectKind::ConfigMap, root),
            authorities_pem: pem,
            authorities: OnceLock::new(),
        }
    }

    /// The certificates of `ca.crt`; parsed once, when somebody asks.
    pub(crate) fn authorities(&self) -> &Result<TrustAnchors, CertificateFault> {
        let pem = self.authorities_pem.as_deref();
        self.authorities.get_or_init(|| parse_authorities(pem))
    }
}

impl PartialEq for ConfigMap {
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta && self.authorities_pem == other.authorities_pem
    }
}

impl Eq for ConfigMap {}

/// Kubernetes core `Namespace`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// `metadata`, with the label `kubernetes.io/metadata.name` that the API server adds.
    pub meta: Meta,
}

impl Namespace {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let mut meta = Meta::read(ObjectKind::Namespace, root);
        meta.add_labels(Self::implied_labels(&meta.object.name));
        Self { meta }
    }

    /// The labels of a namespace of which no more than its name is known.
    pub(crate) fn implied_labels(name: &Arc<str>) -> BTreeMap<Arc<str>, Arc<str>> {
        BTreeMap::from([("kubernetes.io/metadata.name".into(), name.clone())])
    }
}
