//! BackendTLSPolicy: which policy holds for a Service's port, and what it comes to.
//!
//! A policy for a port goes before a policy for the whole Service; among policies for the same, the
//! older one holds, then the first by name. A policy that holds and cannot be used does not give
//! way to another one, nor to clear text: what it is for is answered with an error.

use std::sync::Arc;

use gateway_model::ir::{Authorities, SubjectAltName, UpstreamTls};
use gateway_model::names::{Hostname, ObjectRef, UpstreamKey, UpstreamUse};

use super::Finding;
use super::authorities::{self, AuthoritiesFault};
use crate::objects::{BackendTlsPolicy, Known, Objects, PolicyAltName};
use crate::service;
use crate::status::Reason;

/// What a policy comes to, whether or not it is the one that holds.
pub(super) struct Validation {
    /// Why it cannot be used at all.
    pub(super) fault: Option<Finding>,
    /// What is wrong with its references.
    pub(super) references: Option<Finding>,
    /// Without any authority if it cannot be used.
    tls: UpstreamTls,
}

/// The policy that holds for an upstream.
pub(super) struct Holding<'a> {
    pub(super) policy: &'a ObjectRef,
    pub(super) validation: Validation,
}

/// How TLS is spoken with an upstream; none means that no policy holds for it.
pub(crate) fn upstream_tls(objects: &Objects, key: &UpstreamKey) -> Option<Arc<UpstreamTls>> {
    Some(Arc::new(holding(objects, key)?.validation.tls))
}

/// The policy that holds for an upstream. Datagrams have no TLS, and what is passed through has its own.
pub(super) fn holding<'a>(objects: &'a Objects, key: &UpstreamKey) -> Option<Holding<'a>> {
    if matches!(key.usage, UpstreamUse::Datagram | UpstreamUse::Passthrough) {
        return None;
    }
    objects.policies_of(&key.backend).next()?;
    let service = objects.services.get(&key.backend)?;
    let port = service.port(key.port, service::transport(key.usage));
    if port.is_none() && !service.ports.is_empty() {
        return None;
    }
    let of_port = port.and_then(|port| winner(objects, &key.backend, Some(&port.name)));
    let (policy, object) = of_port.or_else(|| winner(objects, &key.backend, None))?;
    Some(Holding {
        policy,
        validation: Validation::of(objects, policy, object),
    })
}

/// The policy that goes before all others for a Service, or for one port of it.
pub(super) fn winner<'a>(
    objects: &'a Objects,
    service: &ObjectRef,
    section: Option<&str>,
) -> Option<(&'a ObjectRef, &'a BackendTlsPolicy)> {
    let names = |policy: &BackendTlsPolicy| {
        policy.target_refs.iter().any(|target| {
            target.is_service()
                && target.name == service.name
                && target.section_name.as_deref() == section
        })
    };
    objects
        .policies_of(service)
        .filter(|(_, policy)| names(policy))
        .min_by_key(|(name, policy)| (policy.meta.created, *name))
}

impl Validation {
    pub(super) fn of(objects: &Objects, name: &ObjectRef, policy: &BackendTlsPolicy) -> Self {
        let mut findings = Vec::new();
        let mut anchors = Vec::new();
        for reference in &policy.ca_certificate_refs {
            match authorities::resolve(objects, name, reference) {
                Ok(found) => anchors.extend(found),
                Err(AuthoritiesFault::Kind(why)) => {
                    findings.push(Finding::new(Reason::InvalidKind, why));
                }
                Err(AuthoritiesFault::NotPermitted(why) | AuthoritiesFault::Invalid(why)) => {
                    findings.push(Finding::new(Reason::InvalidCaCertificateRef, why));
                }
            }
        }
        let references = Finding::merge(&findings);
        let names = subject_alt_names(policy);
        let fault = fault(policy, names.as_ref().err()).or_else(|| {
            let why = references.as_ref().filter(|_| anchors.is_empty())?;
            Some(Finding::new(
                Reason::NoValidCaCertificate,
                format!("no reference leads to a certificate: {}", why.message),
            ))
        });
        let authorities = match (&fault, &policy.well_known) {
            (None, Some(_)) => Authorities::System,
            (None, None) => Authorities::These(anchors),
            (Some(_), _) => Authorities::These(Vec::new()),
        };
        Self {
            fault,
            references,
            tls: UpstreamTls {
                server_name: policy.hostname.clone(),
                subject_alt_names: names.unwrap_or_default(),
                authorities,
            },
        }
    }
}

/// Why a policy cannot be used, its references aside.
fn fault(policy: &BackendTlsPolicy, names: Option<&String>) -> Option<Finding> {
    let invalid = |why: String| Some(Finding::new(Reason::Invalid, why));
    if let Err(e) = Hostname::parse(&policy.hostname) {
        return invalid(format!("validation.hostname {:?}: {e}", policy.hostname));
    }
    if let Some(why) = names {
        return invalid(why.clone());
    }
    match policy.well_known.as_deref() {
        None | Some("System") => None,
        Some(other) => invalid(format!(
            "wellKnownCACertificates {other:?} is not known; use System"
        )),
    }
}

fn subject_alt_names(policy: &BackendTlsPolicy) -> Result<Vec<SubjectAltName>, String> {
    let name = |name: &Known<PolicyAltName>| match name {
        Known::Known(PolicyAltName::Uri(uri)) => Ok(SubjectAltName::Uri(uri.clone())),
        Known::Known(PolicyAltName::Hostname(text)) => match Hostname::parse(text) {
            Ok(hostname) => Ok(SubjectAltName::Hostname(hostname)),
            Err(e) => Err(format!("subjectAltNames: hostname {text:?}: {e}")),
        },
        Known::Unknown(kind) => Err(format!(
            "subjectAltNames: type {kind:?} is not known; use Hostname or URI"
        )),
    };
    policy.subject_alt_names.iter().map(name).collect()
}
