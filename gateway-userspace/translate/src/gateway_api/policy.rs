//! BackendTLSPolicy: which policy holds for a Service's port, and what it comes to.

use gateway_model::names::{ObjectKind, ObjectRef};

use crate::objects::ParametersRef;

/// The ConfigMap or Secret that a policy's reference to authorities means; none for another kind.
pub(crate) fn authority_of(policy: &ObjectRef, reference: &ParametersRef) -> Option<ObjectRef> {
    let kind = match (&*reference.group, &*reference.kind) {
        ("", "ConfigMap") => ObjectKind::ConfigMap,
        ("", "Secret") => ObjectKind::Secret,
        _ => return None,
    };
    Some(ObjectRef {
        kind,
        namespace: policy.namespace.clone(),
        name: reference.name.clone(),
    })
}
