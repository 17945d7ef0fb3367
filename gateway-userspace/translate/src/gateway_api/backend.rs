//! References from a route to Services.

use std::collections::BTreeSet;

use gateway_model::ir::BackendTarget;
use gateway_model::names::{ObjectKind, ObjectRef, UpstreamKey, UpstreamUse};

use super::policy::{self, Holding};
use super::{Finding, grant, group_name};
use crate::objects::{BackendRef, Objects};
use crate::service::{self, Resolution};
use crate::settings::Settings;
use crate::status::Reason;

/// Resolves the references of one route, and keeps what was found on the way.
pub(super) struct Resolver<'a> {
    objects: &'a Objects,
    settings: &'a Settings,
    route: &'a ObjectRef,
    usage: UpstreamUse,
    findings: Vec<Finding>,
    hints: BTreeSet<String>,
    upstreams: BTreeSet<UpstreamKey>,
}

/// What a route's references came to.
pub(super) struct Resolved {
    /// What is wrong; none if every reference leads somewhere.
    pub(super) finding: Option<Finding>,
    /// What is not wrong but would surprise.
    pub(super) hints: BTreeSet<String>,
    /// What is named.
    pub(super) upstreams: BTreeSet<UpstreamKey>,
}

/// Where a reference that is right leads.
enum Backend {
    Upstream(UpstreamKey),
    /// Nowhere, which is not the route's fault: it has no endpoint and no way to get one.
    WithoutEndpoints(String),
}

/// The Service that a reference of this route means; none for another kind.
pub(super) fn service_of(route: &ObjectRef, reference: &BackendRef) -> Option<ObjectRef> {
    reference.is_service().then(|| {
        let namespace = reference.namespace.as_ref().unwrap_or(&route.namespace);
        ObjectRef::of(
            ObjectKind::Service,
            namespace.clone(),
            reference.name.clone(),
        )
    })
}

impl<'a> Resolver<'a> {
    /// For a route that speaks to all of its backends in this way.
    pub(super) fn new(
        objects: &'a Objects,
        settings: &'a Settings,
        route: &'a ObjectRef,
        usage: UpstreamUse,
    ) -> Self {
        Self {
            objects,
            settings,
            route,
            usage,
            findings: Vec::new(),
            hints: BTreeSet::new(),
            upstreams: BTreeSet::new(),
        }
    }

    /// Where requests for this backend go. What does not resolve keeps its share of them and
    /// answers 500: "When a HTTPBackendRef is invalid, 500 status codes MUST be returned for
    /// requests that would have otherwise been routed to an invalid backend."
    pub(super) fn backend(&mut self, reference: &BackendRef) -> BackendTarget {
        match self.resolve(reference) {
            Ok(Backend::Upstream(key)) => {
                self.upstreams.insert(key.clone());
                BackendTarget::Upstream(key)
            }
            Ok(Backend::WithoutEndpoints(hint)) => {
                self.hints.insert(hint.clone());
                BackendTarget::Unavailable {
                    status: 503,
                    reason: hint.into(),
                }
            }
            Err(finding) => {
                let reason = finding.message.as_str().into();
                self.finding(finding);
                BackendTarget::Unavailable {
                    status: 500,
                    reason,
                }
            }
        }
    }

    pub(super) fn finding(&mut self, finding: Finding) {
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    pub(super) fn finish(self) -> Resolved {
        Resolved {
            finding: Finding::merge(&self.findings),
            hints: self.hints,
            upstreams: self.upstreams,
        }
    }

    /// Where it leads. Kind first, then permission,
    /// then existence: whoever may not look does not learn what is there. The policy comes last: a
    /// reference to a Service whose BackendTLSPolicy cannot be met is invalid (Gateway API v1
    /// `HTTPBackendRef`).
    fn resolve(&self, reference: &BackendRef) -> Result<Backend, Finding> {
        let service = service_of(self.route, reference);
        let (Some(backend), Some(port)) = (service, reference.port) else {
            return Err(Finding::new(
                Reason::InvalidKind,
                format!(
                    "backend {} {} of group {} is not supported; refer to a Service",
                    reference.kind(),
                    reference.name,
                    group_name(reference.group())
                ),
            ));
        };
        if !grant::permits(self.objects, self.route, &backend) {
            return Err(Finding::new(
                Reason::RefNotPermitted,
                grant::advice(self.route, &backend),
            ));
        }
        let Some((backend, service)) = self.objects.services.get_key_value(&backend) else {
            return Err(Finding::new(
                Reason::BackendNotFound,
                format!("{backend} does not exist"),
            ));
        };
        let has_slices = self.objects.slices_of(backend).next().is_some();
        let key = UpstreamKey {
            backend: backend.clone(),
            port,
            usage: self.usage,
        };
        let policy = policy::holding(self.objects, &key);
        let has_tls = policy.is_some();
        match service::resolve(service, &key, has_tls, has_slices, self.settings) {
            Resolution::Invalid(reason, message) => Err(Finding::new(reason, message)),
            Resolution::WithoutEndpoints(hint) => Ok(Backend::WithoutEndpoints(hint)),
            Resolution::Upstream => match policy.and_then(unusable) {
                Some(finding) => Err(finding),
                None => Ok(Backend::Upstream(key)),
            },
        }
    }
}

fn unusable(holding: Holding<'_>) -> Option<Finding> {
    let fault = holding.validation.fault?;
    let message = format!("{} cannot be used: {}", holding.policy, fault.message);
    Some(Finding::new(fault.reason, message))
}
