//! Whether a reference may leave its namespace.

use gateway_model::names::ObjectRef;

use crate::objects::{GATEWAY_API_GROUP, Objects};

/// Gateway API v1 `ReferenceGrant`: whether `from`, a Gateway API object, may refer to `to`, a
/// core object. Inside one namespace everything may.
pub(super) fn permits(objects: &Objects, from: &ObjectRef, to: &ObjectRef) -> bool {
    if from.namespace == to.namespace {
        return true;
    }
    objects.grants_in(&to.namespace).any(|grant| {
        let names_from = grant.from.iter().any(|f| {
            *f.group == *GATEWAY_API_GROUP
                && *f.kind == *from.kind.as_str()
                && f.namespace == from.namespace
        });
        let names_to = || {
            grant.to.iter().any(|t| {
                t.group.is_empty()
                    && *t.kind == *to.kind.as_str()
                    && t.name.as_ref().is_none_or(|name| *name == to.name)
            })
        };
        names_from && names_to()
    })
}

/// What to write when [`permits`] says no.
pub(super) fn advice(from: &ObjectRef, to: &ObjectRef) -> String {
    format!(
        "{from} may not refer to {to}: namespace {} has no ReferenceGrant from {} in {} to {} {}",
        to.namespace, from.kind, from.namespace, to.kind, to.name
    )
}
