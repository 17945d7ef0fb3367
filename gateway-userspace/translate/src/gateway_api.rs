//! The Gateway API dialect: GatewayClass, Gateway, ListenerSet, the five kinds of routes,
//! BackendTLSPolicy and ReferenceGrant.
//!
//! Each file translates one noun and knows no other change than the objects it is given; which of
//! them must be done again after a change is [`crate::translator`]'s business. What kinds of routes
//! have in common is [`route`]; they differ in [`rules`].

mod addresses;
mod allocation;
mod attach;
mod authorities;
mod backend;
mod certificates;
mod class;
mod conflict;
mod features;
mod filter;
mod frontend;
mod gateway;
mod gateway_status;
mod grant;
mod grpc;
mod infrastructure;
mod judged;
mod listener;
mod listener_set;
mod matching;
mod overlap;
mod policy;
mod policy_status;
mod references;
mod route;
mod rule;
mod rules;
mod source_policy;
mod stray;

pub(crate) use addresses::{NodeAddresses, Sources};
pub(crate) use allocation::{Ask, Grant, allocate};
pub(crate) use class::{ClassState, class_state, class_status};
pub(crate) use conflict::{Claims, ClaimsOfGateway, Rank};
pub(crate) use gateway::{GatewayUnit, ParentView, Served};
pub(crate) use infrastructure::service_of as service_of_gateway;
pub(crate) use judged::Judged;
pub(crate) use policy::upstream_tls;
pub(crate) use policy_status::policy_status;
pub(crate) use references::References;
pub(crate) use route::RouteUnit;
pub use stray::stray_hostnames;

use std::borrow::Cow;

use crate::status::{ConditionType, Conditions, Reason, listed};

/// Something wrong, and how the specification calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) reason: Reason,
    pub(crate) message: String,
}

impl Finding {
    fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    /// The reason of the first finding and the messages of all, the first of them in words; none
    /// without findings.
    fn merge(findings: &[Self]) -> Option<Self> {
        let first = findings.first()?;
        let mut messages: Vec<_> = findings.iter().map(|f| f.message.as_str()).collect();
        messages.dedup();
        Some(Self::new(first.reason, listed(messages, "; ")))
    }
}

/// Sets a condition: it fails by this finding, else it holds with that reason and message.
fn judge(
    conditions: &mut Conditions,
    kind: ConditionType,
    finding: Option<&Finding>,
    otherwise: (Reason, Cow<'static, str>),
) {
    match finding {
        Some(Finding { reason, message }) => conditions.fail(kind, *reason, message.clone()),
        None => conditions.hold(kind, otherwise.0, otherwise.1),
    }
}

/// Sets `ResolvedRefs` likewise.
fn judge_references(conditions: &mut Conditions, finding: Option<&Finding>) {
    let resolved = "every reference leads somewhere".into();
    let otherwise = (Reason::ResolvedRefs, resolved);
    judge(conditions, ConditionType::ResolvedRefs, finding, otherwise);
}

/// An API group as it is spoken of: the core group has no name.
fn group_name(group: &str) -> &str {
    if group.is_empty() { "core" } else { group }
}
