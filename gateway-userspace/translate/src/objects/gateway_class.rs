//! Gateway API `GatewayClass`.

use std::sync::Arc;

use gateway_model::names::ObjectKind;

use super::reader::Node;
use super::{Meta, ParametersRef, check};

/// Gateway API v1 `GatewayClass`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayClass {
    /// `metadata`.
    pub meta: Meta,
    /// Who runs the Gateways of this class.
    pub controller_name: Arc<str>,
    /// Parameters of the class.
    pub parameters_ref: Option<ParametersRef>,
}

impl GatewayClass {
    pub(super) fn read(root: &Node<'_>) -> Self {
        let spec = root.field("spec").mapping();
        let description = spec.field("description");
        description.checked(|text| check::length(text, 0, 64));
        let parameters_ref = spec.field("parametersRef").mapping();
        Self {
            meta: Meta::read(ObjectKind::GatewayClass, root),
            controller_name: spec
                .field("controllerName")
                .required_checked(check::controller_name),
            parameters_ref: parameters_ref.present().map(ParametersRef::read),
        }
    }
}
