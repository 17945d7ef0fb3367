//! `tls.certificateRefs` of a listener: from references to certificates.

use std::sync::Arc;

use gateway_model::ir::{Certificate, CertificateKey};
use gateway_model::names::{ObjectKind, ObjectRef};

use super::{Finding, grant, group_name};
use crate::objects::{ListenerTls, ObjectReference, Objects};
use crate::status::Reason;

/// What became of a listener's references.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Certificates {
    /// Those that can be used, in the order of the spec.
    pub(super) usable: Vec<(CertificateKey, Arc<Certificate>)>,
    /// What is wrong with the others, or stale about these.
    pub(super) findings: Vec<Finding>,
}

/// Gateway API v1 `ListenerTLSConfig.certificateRefs`.
pub(super) fn resolve(
    objects: &Objects,
    gateway: &ObjectRef,
    tls: Option<&ListenerTls>,
) -> Certificates {
    let mut certificates = Certificates::default();
    let references = tls.map_or(&[][..], |tls| &tls.certificate_refs);
    if references.is_empty() {
        certificates.findings.push(Finding::new(
            Reason::InvalidCertificateRef,
            "protocol HTTPS needs tls.certificateRefs with the name of a Secret",
        ));
    }
    for reference in references {
        certificates.add(objects, gateway, reference);
    }
    certificates
}

impl Certificates {
    fn add(&mut self, objects: &Objects, gateway: &ObjectRef, reference: &ObjectReference) {
        let target = reference.target(gateway);
        let Some(secret) = target.filter(|t| t.kind == ObjectKind::Secret) else {
            return self.invalid(format!(
                "tls.certificateRefs: {} {} of group {} is not supported; refer to a Secret",
                reference.kind,
                reference.name,
                group_name(&reference.group)
            ));
        };
        // "This reason must be used only when the reference is allowed": permission comes first.
        if !grant::permits(objects, gateway, &secret) {
            self.findings.push(Finding::new(
                Reason::RefNotPermitted,
                grant::advice(gateway, &secret),
            ));
            return;
        }
        let Some(entry) = objects.secrets.get(&secret) else {
            return self.invalid(format!("{secret} does not exist"));
        };
        let key = CertificateKey(secret.clone());
        match (entry.current.certificate(), &entry.last_good) {
            (Ok(certificate), _) => self.usable.push((key, certificate.clone())),
            (Err(fault), None) => self.invalid(format!("{secret} cannot be used: {fault}")),
            (Err(fault), Some(last)) => {
                self.invalid(format!(
                    "{secret} cannot be used: {fault}; its last good certificate is still served"
                ));
                if let Ok(certificate) = last.certificate() {
                    self.usable.push((key, certificate.clone()));
                }
            }
        }
    }

    fn invalid(&mut self, message: String) {
        self.findings
            .push(Finding::new(Reason::InvalidCertificateRef, message));
    }
}
