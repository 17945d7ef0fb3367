//! One rule of an HTTPRoute.

use std::sync::Arc;

use gateway_model::ir::{
    Action, BackendTarget, Cors, Filter, Retry, Rule, RuleMatch, Timeouts, WeightedBackend,
};
use gateway_model::names::ObjectRef;

use super::backend::Resolver;
use super::filter;
use super::matching::{self, Place};
use crate::objects::{HttpBackendRef, HttpRouteRule};

/// What became of a rule.
pub(super) enum Outcome {
    /// It is served as written.
    Valid(Rule),
    /// What it matches is clear, what is to be done is not: its requests are answered with 500,
    /// so that none of them falls through to a rule that was not meant for it.
    FailClosed(Rule, String),
    /// What it matches is not clear: it is left out.
    Dropped(String),
}

/// Gateway API v1 `HTTPRouteRule`.
pub(super) fn translate(
    object: &ObjectRef,
    created: i64,
    index: usize,
    rule: &HttpRouteRule,
    resolver: &mut Resolver<'_>,
) -> Outcome {
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let matches = match matches(object, created, index, rule) {
        Ok(matches) => matches,
        Err(why) => return Outcome::Dropped(why),
    };
    let built = |done: Done| Rule {
        name: rule.name.clone(),
        index,
        matches,
        action: done.action,
        filters: done.filters,
        cors: done.cors,
        timeouts: Timeouts {
            request: rule.timeouts.request,
            backend_request: rule.timeouts.backend_request,
        },
        retry: rule.retry.as_ref().map(|retry| Retry {
            attempts: retry.attempts,
            codes: retry.codes.iter().copied().collect(),
            backoff: retry.backoff,
        }),
    };
    match done(rule, resolver) {
        Ok(done) => Outcome::Valid(built(done)),
        Err(why) => Outcome::FailClosed(built(Done::refuse(&why)), why),
    }
}

fn matches(
    object: &ObjectRef,
    created: i64,
    rule_index: u32,
    rule: &HttpRouteRule,
) -> Result<Vec<RuleMatch>, String> {
    let mut matches = Vec::with_capacity(rule.matches.len());
    for (at, matched) in rule.matches.iter().enumerate() {
        let conditions = matching::conditions(matched)?;
        let place = Place {
            object,
            created,
            rule: rule_index,
            alternative: u32::try_from(at).unwrap_or(u32::MAX),
        };
        matches.push(RuleMatch {
            order: place.order(&conditions),
            conditions,
        });
    }
    Ok(matches)
}

/// What is done with a request.
struct Done {
    action: Action,
    filters: Vec<Filter>,
    cors: Option<Cors>,
}

impl Done {
    fn refuse(why: &str) -> Self {
        Self {
            action: Action::Respond {
                status: 500,
                reason: why.into(),
            },
            filters: Vec::new(),
            cors: None,
        }
    }
}

fn done(rule: &HttpRouteRule, resolver: &mut Resolver<'_>) -> Result<Done, String> {
    let filters = filter::of_rule(&rule.filters, resolver)?;
    let mut backends = Vec::with_capacity(rule.backend_refs.len());
    for reference in &rule.backend_refs {
        backends.push(backend(reference, resolver)?);
    }
    if let Some(why) = filters.missing {
        return Ok(Done::refuse(&why));
    }
    Ok(Done {
        action: match filters.redirect {
            Some(redirect) => Action::Redirect(redirect),
            None => Action::Forward(backends),
        },
        filters: filters.steps,
        cors: filters.cors,
    })
}

fn backend(
    reference: &HttpBackendRef,
    resolver: &mut Resolver<'_>,
) -> Result<WeightedBackend, String> {
    let target = resolver.backend(&reference.backend);
    let filters = filter::of_backend(&reference.filters, resolver)?;
    Ok(WeightedBackend {
        weight: reference.weight,
        target: match filters.missing {
            Some(reason) => BackendTarget::Unavailable {
                status: 500,
                reason,
            },
            None => target,
        },
        filters: filters.steps,
    })
}

/// Keeps the old allocation of every rule that did not change, so that whoever compares by
/// pointer sees only what did.
pub(super) fn share(rules: &mut [Arc<Rule>], before: &[Arc<Rule>]) {
    for (rule, old) in rules.iter_mut().zip(before) {
        if *rule == *old {
            *rule = old.clone();
        }
    }
}
