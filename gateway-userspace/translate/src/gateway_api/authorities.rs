//! `caCertificateRefs`: from a reference to the certificates of authorities.

use gateway_model::ir::TrustAnchors;
use gateway_model::names::{ObjectKind, ObjectRef};

use super::{grant, group_name};
use crate::objects::{ObjectReference, Objects};

/// Why a reference to authorities leads nowhere; each is another reason in a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuthoritiesFault {
    /// The kind is none that can hold authorities.
    Kind(String),
    /// No ReferenceGrant permits it.
    NotPermitted(String),
    /// The object is missing, or what it holds cannot be used.
    Invalid(String),
}

/// The certificates that a reference of `from` means: those in `ca.crt` of a ConfigMap or Secret.
pub(super) fn resolve(
    objects: &Objects,
    from: &ObjectRef,
    reference: &ObjectReference,
) -> Result<TrustAnchors, AuthoritiesFault> {
    let Some(target) = reference.target(from) else {
        return Err(AuthoritiesFault::Kind(format!(
            "{} {} of group {} is not supported; refer to a ConfigMap or Secret",
            reference.kind,
            reference.name,
            group_name(&reference.group)
        )));
    };
    if !grant::permits(objects, from, &target) {
        return Err(AuthoritiesFault::NotPermitted(grant::advice(from, &target)));
    }
    let parsed = match target.kind {
        ObjectKind::Secret => {
            let entry = objects.secrets.get(&target);
            entry.map(|entry| entry.current.authorities())
        }
        _ => objects.config_maps.get(&target).map(|c| c.authorities()),
    };
    match parsed {
        None => Err(AuthoritiesFault::Invalid(format!(
            "{target} does not exist"
        ))),
        Some(Err(fault)) => Err(AuthoritiesFault::Invalid(format!(
            "{target} cannot be used: {fault}"
        ))),
        Some(Ok(anchors)) => Ok(anchors.clone()),
    }
}
