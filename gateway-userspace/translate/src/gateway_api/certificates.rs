//! `tls.certificateRefs` of a listener: from references to certificates.

use std::sync::Arc;

use gateway_model::ir::{Certificate, CertificateKey};
use gateway_model::names::{ObjectKind, ObjectRef};

use super::{Finding, grant, group_name};
use crate::objects::{Listener, ObjectReference, Objects};
use crate::status::Reason;

/// What became of a listener's references.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Certificates {
    /// Those that can be used, in the order of the spec.
    pub(super) usable: Vec<Usable>,
    /// What is wrong with the others, or stale about these.
    pub(super) findings: Vec<Finding>,
}

/// Gateway API v1 `ListenerTLSConfig.certificateRefs`.
pub(super) fn resolve(objects: &Objects, object: &ObjectRef, listener: &Listener) -> Certificates {
    let mut certificates = Certificates::default();
    let tls = listener.tls.as_ref();
    let references = tls.map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        certificates.findings.push(Finding::new(
            Reason::InvalidCertificateRef,
            format!(
                "protocol {} needs tls.certificateRefs with the name of a Secret",
                listener.protocol.as_str()
            ),
        ));
    }
    for reference in references {
        certificates.add(objects, object, reference);
    }
    certificates
}

impl Certificates {
    fn add(&mut self, objects: &Objects, object: &ObjectRef, reference: &ObjectReference) {
        let (usable, fault) = certificate(objects, object, reference);
        self.usable.extend(usable);
        self.findings.extend(fault.map(|fault| match fault {
            CertificateRefFault::NotPermitted(message) => {
                Finding::new(Reason::RefNotPermitted, message)
            }
            CertificateRefFault::Kind(message) => Finding::new(
                Reason::InvalidCertificateRef,
                format!("tls.certificateRefs: {message}"),
            ),
            CertificateRefFault::Invalid(message) => {
                Finding::new(Reason::InvalidCertificateRef, message)
            }
        }));
    }
}

/// Gateway API v1 `Gateway.spec.tls.backend.clientCertificateRef`: what can be shown to backends,
/// and what is wrong with it.
pub(super) fn client_certificate(
    objects: &Objects,
    gateway: &ObjectRef,
    reference: &ObjectReference,
) -> (Option<Usable>, Option<Finding>) {
    let (usable, fault) = certificate(objects, gateway, reference);
    let finding = fault.map(|fault| {
        let (reason, message) = match fault {
            CertificateRefFault::NotPermitted(message) => (Reason::RefNotPermitted, message),
            CertificateRefFault::Kind(message) | CertificateRefFault::Invalid(message) => {
                (Reason::InvalidClientCertificateRef, message)
            }
        };
        Finding::new(
            reason,
            format!("spec.tls.backend.clientCertificateRef: {message}"),
        )
    });
    (usable, finding)
}

/// A certificate that can be used, and its name.
pub(super) type Usable = (CertificateKey, Arc<Certificate>);

enum CertificateRefFault {
    Kind(String),
    NotPermitted(String),
    Invalid(String),
}

/// What a reference leads to, and what is wrong with it; both if its last good form is used.
fn certificate(
    objects: &Objects,
    object: &ObjectRef,
    reference: &ObjectReference,
) -> (Option<Usable>, Option<CertificateRefFault>) {
    let invalid = |message| Some(CertificateRefFault::Invalid(message));
    let target = reference.target(object);
    let Some(secret) = target.filter(|t| t.kind == ObjectKind::Secret) else {
        let message = format!(
            "{} {} of group {} is not supported; refer to a Secret",
            reference.kind,
            reference.name,
            group_name(&reference.group)
        );
        return (None, Some(CertificateRefFault::Kind(message)));
    };
    // "This reason must be used only when the reference is allowed": permission comes first.
    if !grant::permits(objects, object, &secret) {
        let advice = grant::advice(object, &secret);
        return (None, Some(CertificateRefFault::NotPermitted(advice)));
    }
    let Some(entry) = objects.secrets.get(&secret) else {
        return (None, invalid(format!("{secret} does not exist")));
    };
    let usable = |certificate: &Arc<Certificate>| {
        Some((CertificateKey(secret.clone()), certificate.clone()))
    };
    match (entry.current.certificate(), &entry.last_good) {
        (Ok(certificate), _) => (usable(certificate), None),
        (Err(fault), None) => (None, invalid(format!("{secret} cannot be used: {fault}"))),
        (Err(fault), Some(last)) => {
            let message = format!(
                "{secret} cannot be used: {fault}; its last good certificate is still served"
            );
            let last = last.certificate().as_ref().ok();
            (last.and_then(usable), invalid(message))
        }
    }
}
