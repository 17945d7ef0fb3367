//! The Service that Sluice keeps for a Gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};

use super::addresses::NodeAddresses;
use super::gateway::{GatewayUnit, Served};
use crate::objects::Gateway;
use crate::provision::{ProvisionKind, ProvisionedPort, ProvisionedService};
use crate::settings::{Publish, Settings};

/// Gateway API v1 `GatewayNameLabelKey`: "All generated resources must include a label set to the
/// name of the Gateway resource".
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// Gateway API v1 `GatewayClassNameLabelKey`.
const GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";

/// Kubernetes: the longest value of a label, and the longest name of a Service.
const MAX_LABEL: usize = 63;

/// The Service that is kept for a Gateway, whether it is there or not.
pub(crate) fn service_of(object: &ObjectRef, gateway: &Gateway) -> ObjectRef {
    let name = service_name(&object.name, &gateway.class_name);
    ObjectRef::of(ObjectKind::Service, object.namespace.clone(), name.into())
}

impl GatewayUnit {
    /// The Service that is to be kept for it: where addresses come from Services always, else for
    /// what its `spec.infrastructure` asks.
    pub(crate) fn provision(
        &self,
        settings: &Settings,
        nodes: &NodeAddresses,
        served: &Served,
    ) -> Option<Arc<ProvisionedService>> {
        if self.fault.is_some() {
            return None;
        }
        let ports: BTreeSet<_> = served
            .listeners
            .values()
            .map(|listener| ProvisionedPort {
                transport: listener.protocol.port_kind().transport(),
                port: listener.port,
            })
            .collect();
        let (kind, endpoints) = match settings.publish {
            Publish::Service if !ports.is_empty() => {
                (ProvisionKind::LoadBalancer, nodes.internal.clone())
            }
            Publish::Nodes if !self.spec.infrastructure.is_empty() => {
                let shown = self.addresses.shown.iter();
                let addresses = shown.filter_map(|address| address.value.parse::<IpAddr>().ok());
                (ProvisionKind::Headless, addresses.collect())
            }
            _ => return None,
        };
        Some(Arc::new(ProvisionedService {
            name: service_of(&self.object, &self.spec).name.clone(),
            owner: self.spec.meta.uid().cloned(),
            labels: self.labels(),
            annotations: self.spec.infrastructure.annotations.clone(),
            kind,
            ports: ports.into_iter().collect(),
            endpoints: endpoints.into_iter().collect(),
        }))
    }

    /// What the user asks for, and Gateway API's own labels, which win.
    fn labels(&self) -> BTreeMap<Arc<str>, Arc<str>> {
        let mut labels = self.spec.infrastructure.labels.clone();
        let value = |name: &str| shortened(name.to_owned(), name).into();
        labels.insert(GATEWAY_NAME.into(), value(&self.object.name));
        labels.insert(GATEWAY_CLASS_NAME.into(), value(&self.spec.class_name));
        labels
    }
}

/// `<gateway>-<class>` as the name of a Service (RFC 1035 label); where that cannot be, with a hash
/// of what was meant, so that two Gateways never share one.
fn service_name(gateway: &str, class: &str) -> String {
    let full = format!("{gateway}-{class}");
    let mut name = full.replace('.', "-");
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, "gateway-");
    }
    if name == full && name.len() <= MAX_LABEL {
        return name;
    }
    with_hash(name, &full)
}

/// A text that fits into a label: itself, or its beginning with a hash of `full`.
fn shortened(text: String, full: &str) -> String {
    if text.len() <= MAX_LABEL {
        return text;
    }
    with_hash(text, full)
}

fn with_hash(mut text: String, full: &str) -> String {
    let hash = super::allocation::fnv1a(full.bytes());
    let suffix = format!("-{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff));
    text.truncate(MAX_LABEL - suffix.len());
    let kept = text.trim_end_matches(['-', '.', '_']).len();
    text.truncate(kept);
    text + &suffix
}

#[cfg(test)]
mod tests {
    use super::{service_name, shortened};

    #[test]
    fn a_name_that_fits_stays_as_it_is() {
        assert_eq!(service_name("web", "sluice"), "web-sluice");
        assert_eq!(shortened("web".to_owned(), "web"), "web");
    }

    #[test]
    fn every_other_name_becomes_a_label_of_its_own() {
        let long = "a".repeat(253);
        let names = [
            service_name(&long, "sluice"),
            service_name(&format!("{}b", &long[1..]), "sluice"),
            service_name("a.b", "sluice"),
            service_name("a-b", "sluice"),
            service_name("1st", "sluice"),
            service_name(&format!("{}.", "a".repeat(52)), "sluice"),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= 63, "{name}");
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{name}");
            assert!(
                name.ends_with(|c: char| c.is_ascii_alphanumeric()),
                "{name}"
            );
            assert!(!name.contains('.'), "{name}");
            assert!(!names[..at].contains(name), "{name} twice");
        }
    }
}
