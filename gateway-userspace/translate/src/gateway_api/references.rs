//! What a route refers to: parents, backends and mirrors.

use std::collections::BTreeSet;

use gateway_model::names::{ObjectKind, ObjectRef};

use super::backend::service_of;
use crate::objects::{
    GATEWAY_API_GROUP, HttpRouteFilter, Objects, ParentRef, RouteObject, WeightedRef,
};

/// What a route refers to, whether it is there or not.
pub(crate) struct References {
    /// Its parents that are Gateways or ListenerSets.
    pub(crate) parents: BTreeSet<ObjectRef>,
    /// Its backends and mirrors.
    pub(crate) services: BTreeSet<ObjectRef>,
}

impl References {
    pub(crate) fn of(route: RouteObject<'_>, object: &ObjectRef, objects: &Objects) -> Self {
        let rules: Vec<(&[WeightedRef], &[HttpRouteFilter])> = match route {
            RouteObject::Http(route) => {
                let rules = route.rules.iter();
                rules
                    .map(|r| (&r.backend_refs[..], &r.filters[..]))
                    .collect()
            }
            RouteObject::Grpc(route) => {
                let rules = route.rules.iter();
                rules
                    .map(|r| (&r.backend_refs[..], &r.filters[..]))
                    .collect()
            }
            RouteObject::Stream(route) => vec![(&route.backend_refs, &[])],
        };
        let backends = rules.into_iter().flat_map(|(backends, filters)| {
            let of_backends = backends.iter().flat_map(|b| &b.filters);
            let mirrored = filters.iter().chain(of_backends).filter_map(|f| match f {
                HttpRouteFilter::RequestMirror(mirror) => Some(&mirror.backend),
                _ => None,
            });
            backends.iter().map(|b| &b.backend).chain(mirrored)
        });
        let services = backends.filter_map(|b| service_of(object, b));
        let parents = route.parent_refs().iter();
        Self {
            services: services.map(|name| objects.service_name(name)).collect(),
            parents: parents.filter_map(|p| parent_of(object, p)).collect(),
        }
    }
}

/// The Gateway or ListenerSet that a parent reference means; none for another kind of parent.
pub(super) fn parent_of(route: &ObjectRef, parent: &ParentRef) -> Option<ObjectRef> {
    let kind = match (&*parent.group, &*parent.kind) {
        (GATEWAY_API_GROUP, "Gateway") => ObjectKind::Gateway,
        (GATEWAY_API_GROUP, "ListenerSet") => ObjectKind::ListenerSet,
        _ => return None,
    };
    let namespace = parent.namespace.as_ref().unwrap_or(&route.namespace);
    Some(ObjectRef::of(kind, namespace.clone(), parent.name.clone()))
}
