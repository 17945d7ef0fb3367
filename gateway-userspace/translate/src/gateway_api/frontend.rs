//! What a Gateway asks of the clients of its TLS listeners, resolved.
//!
//! Gateway API v1 speaks of "all Listeners handling HTTPS traffic". It holds for every listener
//! that terminates TLS, protocol `TLS` as well: a port that is to be closed to strangers must not
//! be open to those who speak something else inside TLS.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_model::ir::{ClientValidation, ClientValidationMode};
use gateway_model::names::ObjectRef;

use super::Finding;
use super::authorities::{self, AuthoritiesFault};
use crate::objects::{FrontendTls, FrontendValidation, Known, Objects};
use crate::status::Reason;

/// What is asked on one port.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PortValidation {
    /// What is served; none if nothing is asked, or if it cannot be done.
    pub(super) validation: Option<Arc<ClientValidation>>,
    /// Why the listeners of the port cannot be accepted: without the authorities they would let
    /// everybody in, or nobody.
    pub(super) fault: Option<Finding>,
    /// What is wrong with the references.
    pub(super) findings: Vec<Finding>,
}

/// `Gateway.spec.tls.frontend` of one Gateway, each port resolved once.
pub(super) struct Frontend<'a> {
    objects: &'a Objects,
    gateway: &'a ObjectRef,
    spec: &'a FrontendTls,
    ports: BTreeMap<u16, Arc<PortValidation>>,
}

impl<'a> Frontend<'a> {
    pub(super) fn new(objects: &'a Objects, gateway: &'a ObjectRef, spec: &'a FrontendTls) -> Self {
        Self {
            objects,
            gateway,
            spec,
            ports: BTreeMap::new(),
        }
    }

    /// What TLS listeners of a port ask of their clients.
    pub(super) fn of_port(&mut self, port: u16) -> Arc<PortValidation> {
        let resolve = || match self.spec.of_port(port) {
            None => Arc::default(),
            Some(spec) => Arc::new(PortValidation::new(self.objects, self.gateway, spec)),
        };
        self.ports.entry(port).or_insert_with(resolve).clone()
    }
}

impl PortValidation {
    fn new(objects: &Objects, gateway: &ObjectRef, spec: &FrontendValidation) -> Self {
        let mut authorities = Vec::new();
        let mut findings = Vec::new();
        for reference in &spec.authorities {
            match authorities::resolve(objects, gateway, reference) {
                Ok(anchors) => authorities.extend(anchors),
                Err(fault) => findings.push(finding(fault)),
            }
        }
        let fault = |reason, message: String| Self {
            fault: Some(Finding::new(reason, message)),
            findings: findings.clone(),
            validation: None,
        };
        let mode = match &spec.mode {
            Known::Known(mode) => *mode,
            Known::Unknown(mode) => {
                return fault(
                    Reason::UnsupportedValue,
                    format!(
                        "the Gateway's spec.tls.frontend: mode {mode:?} is not known; use AllowValidOnly or \
                         AllowInsecureFallback"
                    ),
                );
            }
        };
        if authorities.is_empty() {
            return fault(
                Reason::NoValidCaCertificate,
                "the Gateway's spec.tls.frontend: no reference leads to the certificate of an authority, so no \
                 client could be validated"
                    .to_owned(),
            );
        }
        Self {
            validation: Some(Arc::new(ClientValidation { authorities, mode })),
            fault: None,
            findings,
        }
    }
}

fn finding(fault: AuthoritiesFault) -> Finding {
    let (reason, message) = match fault {
        AuthoritiesFault::Kind(message) => (Reason::InvalidCaCertificateKind, message),
        AuthoritiesFault::NotPermitted(message) => (Reason::RefNotPermitted, message),
        AuthoritiesFault::Invalid(message) => (Reason::InvalidCaCertificateRef, message),
    };
    Finding::new(
        reason,
        format!("the Gateway's spec.tls.frontend: caCertificateRefs: {message}"),
    )
}

/// Gateway API v1 `InsecureFrontendValidationMode`: what to say if clients without a valid
/// certificate are let in somewhere; none if they are not.
pub(super) fn insecure(spec: &FrontendTls) -> Option<String> {
    let is_insecure = |validation: &FrontendValidation| {
        validation.mode == Known::Known(ClientValidationMode::AllowInsecureFallback)
    };
    let mut places = Vec::new();
    if spec.default.as_ref().is_some_and(is_insecure) {
        places.push("by default".to_owned());
    }
    for (port, validation) in &spec.per_port {
        if validation.as_ref().is_some_and(is_insecure) {
            places.push(format!("on port {port}"));
        }
    }
    (!places.is_empty()).then(|| {
        format!(
            "clients without a valid certificate are let in {}; backends must judge them themselves",
            places.join(" and ")
        )
    })
}
