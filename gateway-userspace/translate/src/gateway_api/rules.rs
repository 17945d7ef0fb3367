//! All rules of a route, whatever its kind.

use std::sync::Arc;

use gateway_model::ir::{Action, HttpMatch, PathMatch, Rule, RuleMatch, Timeouts, WeightedBackend};
use gateway_model::names::ObjectRef;

use super::backend::Resolver;
use super::matching::{Place, Specificity};
use super::rule::{self, Outcome};
use crate::objects::{RouteObject, StreamRoute};
use crate::status::listed;

/// The rules of a route, sorted by what became of them.
#[derive(Default)]
pub(super) struct Rules {
    /// Those that are served, some of them with nothing but an error.
    pub(super) served: Vec<Arc<Rule>>,
    /// How many are served as written.
    pub(super) valid: usize,
    /// What is wrong with the others.
    pub(super) faults: Vec<String>,
}

impl Rules {
    pub(super) fn of(
        route: RouteObject<'_>,
        object: &ObjectRef,
        resolver: &mut Resolver<'_>,
    ) -> Self {
        let mut rules = Self::default();
        let created = route.meta().created;
        let place = |rule| Place {
            object,
            created,
            rule,
            alternative: 0,
        };
        match route {
            RouteObject::Http(route) => {
                for (at, rule) in (0..).zip(&route.rules) {
                    let outcome = rule::http(place(at), rule, resolver);
                    rules.add(at, rule.name.as_ref(), outcome);
                }
            }
            RouteObject::Grpc(route) => {
                for (at, rule) in (0..).zip(&route.rules) {
                    let outcome = rule::grpc(place(at), rule, resolver);
                    rules.add(at, rule.name.as_ref(), outcome);
                }
            }
            RouteObject::Stream(route) => {
                let rule = stream(&place(0), route, resolver);
                rules.add(0, None, Outcome::Valid(rule));
            }
        }
        rules.served.shrink_to_fit();
        rules
    }

    /// What is wrong, where a rule is called so.
    pub(super) fn faults_as(&self, rule: &str) -> String {
        let faults = self.faults.iter();
        listed(faults.map(|fault| format!("{rule} {fault}")), "; ")
    }

    fn add(&mut self, at: u32, name: Option<&Arc<str>>, outcome: Outcome) {
        let named = || match name {
            Some(name) => format!("{at} ({name})"),
            None => at.to_string(),
        };
        match outcome {
            Outcome::Valid(rule) => {
                self.valid += 1;
                self.served.push(Arc::new(rule));
            }
            Outcome::FailClosed(rule, why) => {
                self.served.push(Arc::new(rule));
                self.faults.push(format!(
                    "{}, whose requests are answered with 500: {why}",
                    named()
                ));
            }
            Outcome::Dropped(why) => self.faults.push(format!("{}: {why}", named())),
        }
    }
}

/// The rule of a TLSRoute, TCPRoute or UDPRoute: whatever comes in goes to its backends.
fn stream(place: &Place<'_>, route: &StreamRoute, resolver: &mut Resolver<'_>) -> Rule {
    let conditions = HttpMatch {
        path: PathMatch::Prefix(Arc::default()),
        method: None,
        headers: Vec::new(),
        query: Vec::new(),
    };
    let backends = route.backend_refs.iter().map(|reference| WeightedBackend {
        weight: reference.weight,
        target: resolver.backend(&reference.backend),
        filters: Box::default(),
    });
    Rule {
        name: route.rule_name.clone(),
        index: place.rule,
        action: Action::Forward(backends.collect()),
        matches: [RuleMatch {
            order: place.order(Specificity::of(&conditions).rank()),
            conditions,
        }]
        .into(),
        filters: Box::default(),
        cors: None,
        timeouts: Timeouts::default(),
        retry: None,
    }
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
