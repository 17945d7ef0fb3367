//! Hostnames of a route that no listener of its parents has, beside others that some have: the
//! specification ignores them without a word.

use std::sync::Arc;

use gateway_model::names::{Hostname, ObjectKind, ObjectRef};

use super::references::parent_of;
use crate::objects::{Listener, Objects, ParentRef};

/// The hostnames of a route that fall under no listener which its parents declare, whether it is
/// served or allows the route. None while one of the parents is not known.
#[must_use]
pub fn stray_hostnames(objects: &Objects, route: &ObjectRef) -> Vec<Arc<str>> {
    let Some(spec) = objects.route(route) else {
        return Vec::new();
    };
    let parents = spec.parent_refs().iter();
    let listeners: Option<Vec<_>> = parents
        .map(|parent| declared(objects, parent, &parent_of(route, parent)?))
        .collect();
    let Some(listeners) = listeners else {
        return Vec::new();
    };
    let listeners: Vec<_> = listeners.into_iter().flatten().collect();
    let is_stray = |text: &&Arc<str>| {
        Hostname::sharing(text).is_ok_and(|hostname| !listeners.iter().any(|l| takes(l, &hostname)))
    };
    spec.hostnames().iter().filter(is_stray).cloned().collect()
}

/// The listeners that a parent reference speaks of; none if the parent is not known.
fn declared<'a>(
    objects: &'a Objects,
    reference: &ParentRef,
    parent: &ObjectRef,
) -> Option<Vec<&'a Listener>> {
    let listeners = match parent.kind {
        ObjectKind::ListenerSet => &objects.listener_sets.get(parent)?.listeners,
        _ => &objects.gateways.get(parent)?.listeners,
    };
    let is_meant = |listener: &&Listener| {
        let section = reference.section_name.as_ref();
        section.is_none_or(|name| *name == listener.name)
            && reference.port.is_none_or(|port| port == listener.port)
    };
    Some(listeners.iter().filter(is_meant).collect())
}

fn takes(listener: &Listener, hostname: &Hostname) -> bool {
    // What is no hostname is told of the listener.
    let own = listener.hostname.as_ref().map(Hostname::sharing);
    own.and_then(Result::ok)
        .is_none_or(|own| own.intersects(hostname))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::objects::{Event, decode};

    fn stray(parents: &serde_json::Value) -> Vec<Arc<str>> {
        let mut objects = Objects::default();
        let listener = |name: &str, hostname: Option<&str>| json!({ "name": name, "port": 80, "protocol": "HTTP", "hostname": hostname });
        for value in [
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": { "name": "web", "namespace": "shop" },
                "spec": { "gatewayClassName": "sluice", "listeners": [
                    listener("shop", Some("*.example.com")), listener("other", Some("example.org")),
                    listener("every", None),
                ] },
            }),
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
                "metadata": { "name": "cart", "namespace": "shop" },
                "spec": { "parentRefs": parents,
                          "hostnames": ["a.example.com", "example.org", "example.net"] },
            }),
        ] {
            let object = decode(value).expect("valid").expect("of ours");
            objects.apply(Event::Apply(object));
        }
        let route = ObjectRef::new(ObjectKind::HttpRoute, "shop", "cart");
        stray_hostnames(&objects, &route)
    }

    #[test]
    fn a_hostname_is_stray_where_no_parent_has_it() {
        let shop = json!({ "name": "web", "sectionName": "shop" });
        let other = json!({ "name": "web", "sectionName": "other" });
        let (org, net): (Arc<str>, Arc<str>) = ("example.org".into(), "example.net".into());
        assert_eq!(stray(&json!([shop])), [org, net.clone()]);
        assert_eq!(stray(&json!([shop, other])), [net]);
        assert!(stray(&json!([{ "name": "web" }])).is_empty());
    }

    #[test]
    fn nothing_is_said_while_a_parent_is_not_known() {
        let shop = json!({ "name": "web", "sectionName": "shop" });
        assert!(stray(&json!([shop, { "name": "elsewhere" }])).is_empty());
    }
}
