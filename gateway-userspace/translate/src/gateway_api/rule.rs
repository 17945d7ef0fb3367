//! One rule of an HTTPRoute or GRPCRoute.

use std::sync::Arc;

use gateway_model::ir::{
    Action, BackendTarget, Cors, Filter, HttpMatch, Retry, Rule, RuleMatch, Timeouts,
    WeightedBackend,
};

use super::backend::Resolver;
use super::matching::{self, Place, Rank, Specificity};
use super::{filter, grpc};
use crate::objects::{GrpcRouteRule, HttpRouteFilter, HttpRouteRule, WeightedRef};

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

/// Gateway API v1 `HTTPRouteRule`. `first` is the place of its first match.
pub(super) fn http(first: Place<'_>, rule: &HttpRouteRule, resolver: &mut Resolver<'_>) -> Outcome {
    let conditions = rule.matches.iter().map(|matched| {
        let conditions = matching::conditions(matched)?;
        Ok((Specificity::of(&conditions).rank(), conditions))
    });
    let done = done(&rule.filters, &rule.backend_refs, resolver);
    let outcome = outcome(first, rule.name.as_ref(), conditions, done);
    outcome.map(|built| Rule {
        timeouts: (rule.timeouts.as_ref()).map_or_else(Timeouts::default, |written| Timeouts {
            request: written.request,
            backend_request: written.backend_request,
        }),
        retry: rule.retry.as_ref().map(|retry| {
            Arc::new(Retry {
                attempts: retry.attempts,
                codes: retry.codes.iter().copied().collect(),
                backoff: retry.backoff,
            })
        }),
        ..built
    })
}

/// Gateway API v1 `GRPCRouteRule`. `first` is the place of its first match.
pub(super) fn grpc(first: Place<'_>, rule: &GrpcRouteRule, resolver: &mut Resolver<'_>) -> Outcome {
    let conditions = rule.matches.iter().map(grpc::conditions);
    let done = done(&rule.filters, &rule.backend_refs, resolver);
    outcome(first, rule.name.as_ref(), conditions, done)
}

fn outcome(
    first: Place<'_>,
    name: Option<&Arc<str>>,
    conditions: impl Iterator<Item = Result<(Rank, HttpMatch), String>>,
    done: Result<Done, String>,
) -> Outcome {
    let mut matches = Vec::with_capacity(conditions.size_hint().0);
    for (alternative, matched) in (0..).zip(conditions) {
        let (rank, conditions) = match matched {
            Ok(matched) => matched,
            Err(why) => return Outcome::Dropped(why),
        };
        let place = Place {
            alternative,
            ..first
        };
        matches.push(RuleMatch {
            order: place.order(rank),
            conditions,
        });
    }
    let built = |done: Done| Rule {
        name: name.cloned(),
        index: first.rule,
        matches: matches.into(),
        action: done.action,
        filters: done.filters,
        cors: done.cors,
        timeouts: Timeouts::default(),
        retry: None,
    };
    match done {
        Ok(done) => Outcome::Valid(built(done)),
        Err(why) => Outcome::FailClosed(built(Done::refuse(&why)), why),
    }
}

impl Outcome {
    fn map(self, with: impl FnOnce(Rule) -> Rule) -> Self {
        match self {
            Self::Valid(rule) => Self::Valid(with(rule)),
            other => other,
        }
    }
}

/// What is done with a request.
struct Done {
    action: Action,
    filters: Box<[Filter]>,
    cors: Option<Box<Cors>>,
}

impl Done {
    fn refuse(why: &str) -> Self {
        Self {
            action: Action::Respond {
                status: 500,
                reason: why.into(),
            },
            filters: Box::default(),
            cors: None,
        }
    }
}

fn done(
    filters: &[HttpRouteFilter],
    backend_refs: &[WeightedRef],
    resolver: &mut Resolver<'_>,
) -> Result<Done, String> {
    let filters = filter::of_rule(filters, resolver)?;
    let mut backends = Vec::with_capacity(backend_refs.len());
    for reference in backend_refs {
        backends.push(backend(reference, resolver)?);
    }
    if let Some(why) = filters.missing {
        return Ok(Done::refuse(&why));
    }
    Ok(Done {
        action: match filters.redirect {
            Some(redirect) => Action::Redirect(Box::new(redirect)),
            None => Action::Forward(backends.into()),
        },
        filters: filters.steps.into(),
        cors: filters.cors.map(Box::new),
    })
}

fn backend(
    reference: &WeightedRef,
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
        filters: filters.steps.into(),
    })
}
