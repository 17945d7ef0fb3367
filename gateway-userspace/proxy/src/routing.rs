//! From a request's head to what is done with it: listener, rule, backend.

use std::sync::Arc;

use gateway_model::ir::Redirect;
use gateway_model::snapshot::{
    CompiledAction, CompiledCors, CompiledFilters, CompiledListener, CompiledRule, CompiledTarget,
    NoListener, UpstreamId, WorkerIndex,
};

use crate::downstream::{Downstream, Routing};
use crate::error::Kind;
use crate::head::Source;
use crate::origin;
use crate::overload::Pressure;
use crate::upstream::Target;

/// What is done with a request, and which listener and rule said so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision<'a> {
    pub(crate) listener: Option<&'a Arc<CompiledListener>>,
    pub(crate) rule: Option<&'a Arc<CompiledRule>>,
    /// What of the path the matching prefix covers.
    pub(crate) prefix_len: usize,
    pub(crate) action: Act<'a>,
}

impl<'a> Decision<'a> {
    /// An upstream as requests of this listener reach it.
    pub(crate) fn target(&self, upstream: UpstreamId) -> Target<'a> {
        Target {
            upstream,
            certificate: self
                .listener
                .and_then(|listener| listener.listener.backend_client_certificate.as_ref()),
        }
    }
}

/// What is done with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act<'a> {
    /// Sent to a backend.
    Forward {
        filters: &'a CompiledFilters,
        upstream: UpstreamId,
        /// `namespace/name:port`.
        label: &'a Arc<str>,
    },
    /// Answered with a redirect.
    Redirect(&'a Redirect),
    /// A CORS preflight, answered for the backend.
    Preflight(&'a CompiledCors),
    /// `OPTIONS *`, which asks about the server.
    Asterisk,
    /// Answered by Sluice itself; the text is for the operator.
    Refuse(Kind, &'a str),
}

/// Decides what is done with a request.
pub(crate) fn decide<'a>(
    routing: &'a Routing,
    downstream: &Downstream,
    head: &impl Source,
) -> Decision<'a> {
    let mut decision = Decision {
        listener: None,
        rule: None,
        prefix_len: 0,
        action: Act::Refuse(Kind::NoRoute, "no listener on this address any more"),
    };
    let Some(table) = routing.table() else {
        return decision;
    };
    if downstream.worker.pressure() >= Pressure::NoRequests {
        decision.action = Act::Refuse(Kind::Overloaded, "memory");
        return decision;
    }
    if head.path() == "*" {
        decision.action = Act::Asterisk;
        return decision;
    }
    let listener = match table.listener_for_request(downstream.sni.as_deref(), head.host()) {
        Ok(listener) => listener,
        Err(NoListener::Unclaimed) => {
            decision.action = Act::Refuse(Kind::NoRoute, "no listener for this host");
            return decision;
        }
        Err(NoListener::Misdirected) => {
            decision.action = Act::Refuse(Kind::Misdirected, "the server name chose another one");
            return decision;
        }
    };
    decision.listener = Some(listener);
    // A connection that was made when less was asked of clients, or something else, is not enough.
    let termination = listener.protocol().termination();
    if termination.is_some_and(|tls| tls.client_validation != downstream.client_validation) {
        let why = "the listener asks something else of clients";
        decision.action = Act::Refuse(Kind::Misdirected, why);
        return decision;
    }
    if !listener
        .listener
        .source_policy
        .permits(downstream.peer.ip())
    {
        decision.action = Act::Refuse(Kind::SourceDenied, "source policy of the listener");
    } else if let Some(found) = listener.find(head) {
        decision.rule = Some(found.rule);
        decision.prefix_len = found.prefix_len;
        decision.action = match &found.rule.cors {
            Some(cors) if origin::asked(head).is_preflight() => Act::Preflight(cors),
            _ => act(found.rule, downstream.worker.index),
        };
    } else {
        decision.action = Act::Refuse(Kind::NoRoute, "no rule matches");
    }
    decision
}

fn act(rule: &CompiledRule, worker: WorkerIndex) -> Act<'_> {
    let forward = match &rule.action {
        CompiledAction::Redirect(redirect) => return Act::Redirect(redirect),
        CompiledAction::Respond { status, reason } => {
            return Act::Refuse(Kind::Refused(*status), reason);
        }
        CompiledAction::Forward(forward) => forward,
    };
    let backend = match forward.backends() {
        [only] if only.weight > 0 => Some(only),
        _ => forward.pick(rule.stats.slot(worker).draw()),
    };
    let Some(backend) = backend else {
        return Act::Refuse(Kind::Refused(500), "no backend has a weight");
    };
    match &backend.target {
        CompiledTarget::Unavailable { status, reason } => {
            Act::Refuse(Kind::Refused(*status), reason)
        }
        CompiledTarget::Upstream { id, label } => Act::Forward {
            filters: &backend.filters,
            upstream: *id,
            label,
        },
    }
}
