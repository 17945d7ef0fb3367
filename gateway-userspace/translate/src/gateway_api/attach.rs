//! Which listeners a route attaches to, and why it does not.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_model::names::{Hostname, ObjectKind, ObjectRef};

use super::Finding;
use super::gateway::{ListenerView, ParentView};
use crate::objects::{GATEWAY_API_GROUP, Known, Namespace, NamespacesFrom, Objects, ParentRef};
use crate::status::{Reason, listed};

/// Where a route comes from, for listeners that choose by namespace.
pub(super) struct Origin<'a> {
    route: &'a ObjectRef,
    labels: BTreeMap<Arc<str>, Arc<str>>,
}

impl<'a> Origin<'a> {
    pub(super) fn new(objects: &Objects, route: &'a ObjectRef) -> Self {
        let namespace = ObjectRef::of(ObjectKind::Namespace, "".into(), route.namespace.clone());
        let known = objects.namespaces.get(&namespace);
        Self {
            route,
            labels: known.map_or_else(
                || Namespace::implied_labels(&route.namespace),
                |namespace| namespace.meta.labels().clone(),
            ),
        }
    }

    fn is_allowed_by(&self, listener: &ListenerView) -> bool {
        let allowed = &listener.allowed_routes;
        let of_kind = listener.supported_kinds.iter().any(|kind| {
            *kind.group == *GATEWAY_API_GROUP && *kind.kind == *self.route.kind.as_str()
        });
        of_kind
            && match allowed.from {
                Known::Known(NamespacesFrom::All) => true,
                Known::Known(NamespacesFrom::Same) => {
                    listener.key.gateway.namespace == self.route.namespace
                }
                Known::Known(NamespacesFrom::Selector) => allowed
                    .selector
                    .as_ref()
                    .is_some_and(|selector| selector.selects(&self.labels)),
                Known::Unknown(_) => false,
            }
    }
}

/// Listeners, and the hostnames of the route that fall under theirs.
pub(super) type Attached<'a> = Vec<(&'a ListenerView, Vec<Hostname>)>;

/// The listeners that a parent reference speaks of.
fn select<'a>(
    parent: &ParentRef,
    gateway: &'a ParentView,
) -> Result<Vec<&'a ListenerView>, Finding> {
    let selected: Vec<_> = gateway
        .listeners
        .iter()
        .filter(|l| {
            parent
                .section_name
                .as_ref()
                .is_none_or(|name| *name == l.key.section)
        })
        .filter(|l| parent.port.is_none_or(|port| port == l.port))
        .collect();
    if selected.is_empty() {
        let listeners: Vec<_> = gateway
            .listeners
            .iter()
            .map(|l| format!("{} (port {})", l.key.section, l.port))
            .collect();
        let has = match &listeners[..] {
            [] => "none, for its Gateway does not take it".to_owned(),
            some => listed(some, ", "),
        };
        return Err(Finding::new(
            Reason::NoMatchingParent,
            format!(
                "no listener of {} {} has that sectionName and port; it has {has}",
                parent.kind, parent.name
            ),
        ));
    }
    Ok(selected)
}

/// The listeners that a route attaches to through one parent reference, and its hostnames there.
///
/// # Errors
/// Why no listener takes it.
pub(super) fn attach<'a>(
    parent: &ParentRef,
    gateway: &'a ParentView,
    hostnames: &[Hostname],
    from: &Origin<'_>,
) -> Result<Attached<'a>, Finding> {
    let mut allowed = select(parent, gateway)?;
    allowed.retain(|listener| from.is_allowed_by(listener));
    if allowed.is_empty() {
        return Err(Finding::new(
            Reason::NotAllowedByListeners,
            format!(
                "no listener of {} {} allows {}s from namespace {}; its protocol and \
                 allowedRoutes decide, and the default is the Gateway's own namespace",
                parent.kind, parent.name, from.route.kind, from.route.namespace
            ),
        ));
    }
    let attached: Attached<'_> = allowed
        .into_iter()
        .filter_map(|listener| Some((listener, intersection(listener, hostnames)?)))
        .collect();
    if attached.is_empty() {
        return Err(Finding::new(
            Reason::NoMatchingListenerHostname,
            format!(
                "no hostname of the route falls under a hostname of {} {}'s listeners",
                parent.kind, parent.name
            ),
        ));
    }
    Ok(attached)
}

/// The route's hostnames that fall under the listener's; none if it has some and none does.
fn intersection(listener: &ListenerView, hostnames: &[Hostname]) -> Option<Vec<Hostname>> {
    let Some(own) = &listener.hostname else {
        return Some(hostnames.to_vec());
    };
    let matching: Vec<_> = hostnames
        .iter()
        .filter(|hostname| own.intersects(hostname))
        .cloned()
        .collect();
    (hostnames.is_empty() || !matching.is_empty()).then_some(matching)
}
