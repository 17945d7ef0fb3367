//! GatewayClass: which classes are ours, and what they are told.

use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};

use super::features::SUPPORTED_FEATURES;
use super::group_name;
use crate::objects::{GatewayClass, Objects, ParametersRef};
use crate::settings::{Settings, SourceKind};
use crate::status::{
    ConditionType, Conditions, GatewayClassStatus, Reason, Status, SupportedFeature,
};

/// The Gateway API versions whose CRDs hold nothing that is unknown here, newest first.
const SUPPORTED_VERSIONS: [&str; 4] = ["v1.7", "v1.6", "v1.5", "v1.4"];

/// What a Gateway's class means for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClassState {
    /// The Gateway is somebody else's.
    Foreign,
    /// The Gateway is ours.
    Ours,
    /// The Gateway is ours, but its class is not accepted, for this reason.
    Refused(String),
}

/// Whether Gateways of a class are ours.
///
/// A class is ours if its GatewayClass object names our controller, or if Sluice stands in for it.
/// In files the object may be missing altogether.
pub(crate) fn class_state(objects: &Objects, settings: &Settings, name: &Arc<str>) -> ClassState {
    let stands_in = settings.stands_in_for(name);
    let reference = ObjectRef::of(ObjectKind::GatewayClass, "".into(), name.clone());
    match objects.classes.get(&reference) {
        Some(class) if is_ours(class, settings) => match parameters_fault(class) {
            None => ClassState::Ours,
            Some(why) => ClassState::Refused(format!("GatewayClass {name} is not accepted: {why}")),
        },
        Some(_) => ClassState::Foreign,
        None if settings.source == SourceKind::Files
            && (stands_in || **name == *settings.class_name) =>
        {
            ClassState::Ours
        }
        None => ClassState::Foreign,
    }
}

fn is_ours(class: &GatewayClass, settings: &Settings) -> bool {
    class.controller_name == settings.controller_name
        || settings.stands_in_for(&class.meta.object.name)
}

fn parameters_fault(class: &GatewayClass) -> Option<String> {
    let parameters = class.parameters_ref.as_ref()?;
    Some(unknown_parameters("spec.parametersRef", parameters))
}

/// No kind of parameters is supported, so every reference to parameters is refused.
pub(super) fn unknown_parameters(field: &str, parameters: &ParametersRef) -> String {
    format!(
        "{field} refers to {} {} of group {}, and no kind of parameters is supported; remove it",
        parameters.kind,
        parameters.name,
        group_name(&parameters.group)
    )
}

/// Gateway API v1 `GatewayClass.status`; none for a class that is not ours.
pub(crate) fn class_status(class: &GatewayClass, settings: &Settings) -> Option<Arc<Status>> {
    if !is_ours(class, settings) {
        return None;
    }
    let mut conditions = Conditions::new(class.meta.generation);
    match parameters_fault(class) {
        None => conditions.hold(
            ConditionType::Accepted,
            Reason::Accepted,
            format!("handled by {}", settings.controller_name),
        ),
        Some(why) => conditions.fail(ConditionType::Accepted, Reason::InvalidParameters, why),
    }
    if let Some(version) = &settings.crd_version {
        supported_version(&mut conditions, version);
    }
    let feature = |name: &&'static str| SupportedFeature { name };
    Some(Arc::new(Status::GatewayClass(GatewayClassStatus {
        conditions,
        supported_features: SUPPORTED_FEATURES.iter().map(feature).collect(),
    })))
}

/// Gateway API v1 `GatewayClassConditionStatusSupportedVersion`: support for other versions is
/// best effort, so `Accepted` does not depend on it.
fn supported_version(conditions: &mut Conditions, version: &str) {
    let is_supported = SUPPORTED_VERSIONS.iter().any(|supported| {
        version
            .strip_prefix(supported)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    if is_supported {
        conditions.hold(
            ConditionType::SupportedVersion,
            Reason::SupportedVersion,
            format!("the Gateway API CRDs are of version {version}"),
        );
    } else {
        conditions.fail(
            ConditionType::SupportedVersion,
            Reason::UnsupportedVersion,
            format!(
                "the Gateway API CRDs are of version {version}; known are {}",
                SUPPORTED_VERSIONS.join(", ")
            ),
        );
    }
}
