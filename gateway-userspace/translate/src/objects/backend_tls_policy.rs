//! Gateway API `BackendTLSPolicy`: how TLS is spoken with a Service.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};

use super::reader::Node;
use super::{Known, Meta, ObjectReference, check};

/// Gateway API v1 `BackendTLSPolicy`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendTlsPolicy {
    /// `metadata`.
    pub meta: Meta,
    /// `spec.targetRefs`, 1 to 16, in the policy's own namespace.
    pub target_refs: Vec<PolicyTarget>,
    /// `spec.validation.caCertificateRefs`, up to 8, in the policy's own namespace; empty exactly
    /// if there are well-known authorities.
    pub ca_certificate_refs: Vec<ObjectReference>,
    /// `spec.validation.wellKnownCACertificates`; `System` is the only value of the specification.
    pub well_known: Option<Arc<str>>,
    /// `spec.validation.hostname`.
    pub hostname: Arc<str>,
    /// `spec.validation.subjectAltNames`, up to 5.
    pub subject_alt_names: Vec<Known<PolicyAltName>>,
    /// `spec.options`: the names alone.
    pub options: BTreeSet<Arc<str>>,
}

/// Gateway API v1 `LocalPolicyTargetReferenceWithSectionName`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyTarget {
    /// The API group; empty is the core group.
    pub group: Arc<str>,
    /// The kind.
    pub kind: Arc<str>,
    /// The name.
    pub name: Arc<str>,
    /// The name of a Service's port; none means every port.
    pub section_name: Option<Arc<str>>,
}

/// Gateway API v1 `SubjectAltName`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PolicyAltName {
    /// `Hostname`, exact or with a wildcard.
    Hostname(Arc<str>),
    /// `URI`.
    Uri(Arc<str>),
}

impl BackendTlsPolicy {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping().required();
        let validation = spec.field("validation").mapping().required();
        let references = validation.field("caCertificateRefs").items(8);
        let well_known = validation.field("wellKnownCACertificates");
        let names = validation.field("subjectAltNames").items(5);
        let policy = Self {
            meta: Meta::read(ObjectKind::BackendTlsPolicy, root),
            target_refs: targets(&spec.field("targetRefs")),
            ca_certificate_refs: references.iter().map(ObjectReference::read_local).collect(),
            well_known: well_known
                .checked(|text| check::length(text, 0, 253))
                .filter(|text| !text.is_empty()),
            hostname: validation
                .field("hostname")
                .required_checked(check::precise_hostname),
            subject_alt_names: names.iter().map(alt_name).collect(),
            options: spec.field("options").texts(|_| true).into_keys().collect(),
        };
        if policy.ca_certificate_refs.is_empty() == policy.well_known.is_none() {
            validation.problem(
                "needs caCertificateRefs or wellKnownCACertificates, and not both of them",
            );
        }
        policy
    }

    /// The Services that it names, itself or a port of theirs.
    pub(crate) fn services(&self) -> BTreeSet<ObjectRef> {
        let services = self.target_refs.iter().filter(|target| target.is_service());
        let namespace = &self.meta.object.namespace;
        services
            .map(|target| {
                ObjectRef::of(ObjectKind::Service, namespace.clone(), target.name.clone())
            })
            .collect()
    }
}

fn targets(node: &Node<'_>) -> Vec<PolicyTarget> {
    let items = node.items(16);
    if items.is_empty() {
        node.problem("must hold at least one target");
    }
    let targets: Vec<_> = items.iter().map(PolicyTarget::read).collect();
    let mut seen = BTreeSet::new();
    for (target, item) in targets.iter().zip(&items) {
        if !seen.insert(target) {
            item.problem("names the same target as another entry; give each another sectionName");
        }
        let mixed = targets.iter().any(|other| {
            (&other.group, &other.kind, &other.name) == (&target.group, &target.kind, &target.name)
                && other.section_name.is_some() != target.section_name.is_some()
        });
        if mixed && target.section_name.is_none() {
            item.problem("needs a sectionName, for another entry names a section of that target");
        }
    }
    targets
}

impl PolicyTarget {
    /// Whether this is a core Service.
    #[must_use]
    pub fn is_service(&self) -> bool {
        self.group.is_empty() && &*self.kind == "Service"
    }

    fn read(node: &Node<'_>) -> Self {
        Self {
            group: node
                .field("group")
                .required()
                .checked(check::group)
                .unwrap_or_default(),
            kind: node.field("kind").required_checked(check::kind),
            name: node.field("name").required_checked(check::object_name),
            section_name: node.field("sectionName").checked(check::subdomain),
        }
    }
}

fn alt_name(node: &Node<'_>) -> Known<PolicyAltName> {
    let kind = node.field("type").required_text();
    let (hostname, uri) = (node.field("hostname"), node.field("uri"));
    let unwanted = |member: &Node<'_>| {
        if !member.is_absent() {
            member.problem(format!("must not be given for type {kind}"));
        }
    };
    match kind {
        "Hostname" => {
            unwanted(&uri);
            Known::Known(PolicyAltName::Hostname(
                hostname.required_checked(check::hostname),
            ))
        }
        "URI" => {
            unwanted(&hostname);
            Known::Known(PolicyAltName::Uri(
                uri.required_checked(check::absolute_uri),
            ))
        }
        other => Known::Unknown(other.into()),
    }
}
