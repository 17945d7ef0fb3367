//! The kinds as an API server knows them: paths, and what is not asked for.

use gateway_model::names::ObjectKind;

/// Every kind that is followed, what others refer to first: where something else decides nothing,
/// an object is then known before what names it.
pub const KINDS: [ObjectKind; 16] = [
    ObjectKind::Namespace,
    ObjectKind::Node,
    ObjectKind::Service,
    ObjectKind::EndpointSlice,
    ObjectKind::Secret,
    ObjectKind::ConfigMap,
    ObjectKind::GatewayClass,
    ObjectKind::ReferenceGrant,
    ObjectKind::BackendTlsPolicy,
    ObjectKind::Gateway,
    ObjectKind::ListenerSet,
    ObjectKind::HttpRoute,
    ObjectKind::GrpcRoute,
    ObjectKind::TlsRoute,
    ObjectKind::TcpRoute,
    ObjectKind::UdpRoute,
];

/// Where definitions of kinds are.
pub const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// Types of Secrets that hold no certificate, which are never asked for: releases of Helm alone
/// can be most of what a cluster keeps. Kubernetes v1 `Secret.type`.
const FOREIGN_SECRETS: &str = "type!=helm.sh/release.v1,\
    type!=kubernetes.io/service-account-token,\
    type!=kubernetes.io/dockercfg,\
    type!=kubernetes.io/dockerconfigjson,\
    type!=kubernetes.io/basic-auth,\
    type!=kubernetes.io/ssh-auth,\
    type!=bootstrap.kubernetes.io/token";

/// Versions of Gateway API that can be read, the one preferred first.
const GATEWAY_API: [&str; 2] = [
    "gateway.networking.k8s.io/v1",
    "gateway.networking.k8s.io/v1beta1",
];

/// A kind at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// `apiVersion` of its objects.
    pub api_version: &'static str,
    /// The path of all objects in all namespaces.
    pub path: String,
}

/// The versions of a kind that can be read, the one preferred first.
pub fn resources(kind: ObjectKind) -> Vec<Resource> {
    let versions: &[&'static str] = match kind {
        ObjectKind::Service
        | ObjectKind::Secret
        | ObjectKind::ConfigMap
        | ObjectKind::Namespace
        | ObjectKind::Node => &["v1"],
        ObjectKind::EndpointSlice => &["discovery.k8s.io/v1"],
        ObjectKind::GatewayClass
        | ObjectKind::Gateway
        | ObjectKind::HttpRoute
        | ObjectKind::ReferenceGrant => &GATEWAY_API,
        ObjectKind::GrpcRoute
        | ObjectKind::TlsRoute
        | ObjectKind::TcpRoute
        | ObjectKind::UdpRoute
        | ObjectKind::ListenerSet
        | ObjectKind::BackendTlsPolicy => &GATEWAY_API[..1],
    };
    let resource = |api_version: &&'static str| {
        let root = if api_version.contains('/') {
            "apis"
        } else {
            "api"
        };
        Resource {
            api_version,
            path: format!("/{root}/{api_version}/{}", plural(kind)),
        }
    };
    versions.iter().map(resource).collect()
}

/// The field selector that objects of a kind are asked for with.
pub fn selector(kind: ObjectKind) -> Option<&'static str> {
    (kind == ObjectKind::Secret).then_some(FOREIGN_SECRETS)
}

/// The kind that a CustomResourceDefinition of this name defines.
pub fn defined_by(name: &str) -> Option<ObjectKind> {
    let plural_name = name.strip_suffix(".gateway.networking.k8s.io")?;
    KINDS.into_iter().find(|kind| plural(*kind) == plural_name)
}

fn plural(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::GatewayClass => "gatewayclasses",
        ObjectKind::Gateway => "gateways",
        ObjectKind::HttpRoute => "httproutes",
        ObjectKind::GrpcRoute => "grpcroutes",
        ObjectKind::TlsRoute => "tlsroutes",
        ObjectKind::TcpRoute => "tcproutes",
        ObjectKind::UdpRoute => "udproutes",
        ObjectKind::ListenerSet => "listenersets",
        ObjectKind::BackendTlsPolicy => "backendtlspolicies",
        ObjectKind::ReferenceGrant => "referencegrants",
        ObjectKind::Service => "services",
        ObjectKind::EndpointSlice => "endpointslices",
        ObjectKind::Secret => "secrets",
        ObjectKind::ConfigMap => "configmaps",
        ObjectKind::Namespace => "namespaces",
        ObjectKind::Node => "nodes",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_kubernetes() {
        let paths = |kind| {
            let resources = resources(kind).into_iter();
            resources.map(|r| r.path).collect::<Vec<_>>()
        };
        assert_eq!(paths(ObjectKind::Secret), ["/api/v1/secrets"]);
        assert_eq!(
            paths(ObjectKind::EndpointSlice),
            ["/apis/discovery.k8s.io/v1/endpointslices"]
        );
        assert_eq!(
            paths(ObjectKind::HttpRoute),
            [
                "/apis/gateway.networking.k8s.io/v1/httproutes",
                "/apis/gateway.networking.k8s.io/v1beta1/httproutes",
            ]
        );
    }

    #[test]
    fn a_definition_is_known_by_its_name() {
        let kind = defined_by("udproutes.gateway.networking.k8s.io");
        assert_eq!(kind, Some(ObjectKind::UdpRoute));
        assert_eq!(defined_by("udproutes.example.org"), None);
        assert_eq!(defined_by("meshes.gateway.networking.k8s.io"), None);
    }
}
