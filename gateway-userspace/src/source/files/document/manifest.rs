//! What a manifest must be before it is read as a kind: what `kubectl apply` refuses to take at all.

use gateway_model::names::ObjectKind;
use gateway_translate::nearest;
use serde_json::{Map, Value};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

/// The kinds of that group.
const KINDS: [ObjectKind; 10] = [
    ObjectKind::GatewayClass,
    ObjectKind::Gateway,
    ObjectKind::ListenerSet,
    ObjectKind::HttpRoute,
    ObjectKind::GrpcRoute,
    ObjectKind::TlsRoute,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
    ObjectKind::BackendTlsPolicy,
    ObjectKind::ReferenceGrant,
];

/// Kinds of the core group that are ours; what is only nearly one of them is none that exists.
const CORE_KINDS: [ObjectKind; 4] = [
    ObjectKind::Service,
    ObjectKind::Secret,
    ObjectKind::ConfigMap,
    ObjectKind::Namespace,
];

/// Why this is no manifest of any kind, if it is none.
pub fn mistake(value: &Value) -> Option<String> {
    let Value::Object(map) = value else {
        return Some("is no manifest: it has neither apiVersion nor kind".to_owned());
    };
    let (api_version, kind) = (text(map, "apiVersion"), text(map, "kind"));
    let (api_version, kind) = match (api_version, kind) {
        (Some(api_version), Some(kind)) => (api_version, kind),
        (None, None) => {
            return Some("is no manifest: it has neither apiVersion nor kind".to_owned());
        }
        (None, Some(kind)) => return Some(format!("{kind}: apiVersion is missing")),
        (Some(_), None) => return Some("kind is missing".to_owned()),
    };
    let group = match api_version.rsplit_once('/') {
        Some((group, _)) => group,
        None if api_version.contains('.') => {
            return Some(format!(
                "apiVersion {api_version:?} lacks the version, as in {GATEWAY_API}/v1"
            ));
        }
        None => "",
    };
    misspelled(group, kind)
}

/// The text of a field; what is empty or no text says nothing.
fn text<'a>(map: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    map.get(field)?.as_str().filter(|text| !text.is_empty())
}

fn misspelled(group: &str, kind: &str) -> Option<String> {
    let of = |kinds: &[ObjectKind]| kinds.iter().any(|known| known.as_str() == kind);
    match group {
        GATEWAY_API if of(&KINDS) => None,
        GATEWAY_API => Some(
            match nearest(kind, KINDS.iter().map(|kind| kind.as_str())) {
                Some(meant) => format!("{GATEWAY_API} has no kind {kind}; is {meant} meant?"),
                None => format!("{GATEWAY_API} has no kind {kind} that is known here"),
            },
        ),
        "" if of(&CORE_KINDS) => None,
        "" => nearest(kind, CORE_KINDS.iter().map(|kind| kind.as_str()))
            .map(|meant| format!("v1 has no kind {kind}; is {meant} meant?")),
        group if of(&KINDS) && nearest(group, [GATEWAY_API].into_iter()).is_some() => Some(
            format!("{kind} is no kind of {group}; is {GATEWAY_API} meant?"),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_of_any_kind_are_manifests() {
        for (api_version, kind) in [
            ("gateway.networking.k8s.io/v1", "HTTPRoute"),
            ("gateway.networking.x-k8s.io/v1alpha1", "XMesh"),
            ("networking.istio.io/v1", "Gateway"),
            ("networking.k8s.io/v1", "Ingress"),
            ("apps/v1", "Deployment"),
            ("v1", "Service"),
            ("v1", "ServiceAccount"),
            ("v1", "Pod"),
            ("v1", "Node"),
            ("v1", "Event"),
            ("v1", "Endpoints"),
            ("v1", "PersistentVolume"),
        ] {
            let value = json!({"apiVersion": api_version, "kind": kind});
            assert_eq!(mistake(&value), None, "{kind}");
        }
    }

    #[test]
    fn what_the_api_server_would_not_know_is_a_mistake_that_says_what_is_meant() {
        for (api_version, kind, says) in [
            (
                "gateway.networking.k8s.io/v1",
                "HTTPRoutes",
                "is HTTPRoute meant?",
            ),
            (
                "gateway.networking.k8s.io/v1",
                "Gatway",
                "is Gateway meant?",
            ),
            ("gateway.networking.k8s.io/v1", "Pod", "no kind Pod"),
            (
                "gateway.networking.k8s.oi/v1",
                "HTTPRoute",
                "gateway.networking.k8s.io meant?",
            ),
            ("gateway.networking.k8s.io", "Gateway", "lacks the version"),
            ("v1", "Sevice", "is Service meant?"),
        ] {
            let value = json!({"apiVersion": api_version, "kind": kind});
            let message = mistake(&value).expect(kind);
            assert!(message.contains(says), "{message}");
        }
    }

    #[test]
    fn what_is_no_object_is_a_mistake() {
        for value in [
            json!("hello {"),
            json!([]),
            json!({"foo": "bar"}),
            json!({"apiVersion": "v1", "kind": null}),
            json!({"kind": "HTTPRoute"}),
            json!({"apiVersion": 1, "kind": "Service"}),
        ] {
            assert!(mistake(&value).is_some(), "{value}");
        }
    }
}
