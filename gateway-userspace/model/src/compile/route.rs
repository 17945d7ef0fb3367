//! One route: its rules with everything resolved, reusing what the previous form of it already had.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use crate::ir::{Action, BackendTarget, Filter, Route, RouteAttachment, Rule};
use crate::names::{ObjectRef, UpstreamKey};
use crate::route_index::matcher::CompiledMatch;
use crate::snapshot::{
    CompiledAction, CompiledCors, CompiledFilters, CompiledRule, CompiledTarget, Forward,
    RuleLabels, RuleStats, Snapshot, UpstreamId, UpstreamTable, compile_filters,
};

/// A route as it is served.
#[derive(Debug)]
pub(crate) struct CompiledRoute {
    source: Arc<Route>,
    rules: Box<[Arc<CompiledRule>]>,
    matches: Box<[Arc<CompiledMatch>]>,
}

impl CompiledRoute {
    /// Compiles a route and counts it as a user of every upstream that it names and `old` does not.
    ///
    /// # Errors
    /// Says which condition does not compile; then nothing is counted.
    pub fn new(
        source: &Arc<Route>,
        old: Option<&Self>,
        next: &mut Snapshot,
    ) -> Result<Self, String> {
        let mut route = Self {
            source: dedup_hostnames(source),
            rules: Box::default(),
            matches: Box::default(),
        };
        route.acquire(old, next);
        let route_label: Arc<str> = source.object.route_label().into();
        let mut parts = Parts::of(&source.object, route_label);
        for rule in &source.rules {
            if let Err(reason) = parts.add(rule, old, &next.upstreams) {
                route.release(old, &mut next.upstreams);
                return Err(reason);
            }
        }
        route.rules = parts.rules.into();
        route.matches = parts.matches.into();
        Ok(route)
    }

    /// Counts this route no longer as a user of the upstreams that `except` does not name.
    pub fn release(&self, except: Option<&Self>, upstreams: &mut UpstreamTable) {
        let kept = except.map(Self::upstreams).unwrap_or_default();
        for key in self.upstreams().difference(&kept) {
            upstreams.release(key);
        }
    }

    fn acquire(&self, old: Option<&Self>, next: &mut Snapshot) {
        let before = old.map(Self::upstreams).unwrap_or_default();
        for key in self.upstreams().difference(&before) {
            next.upstreams.acquire(key, next.revision);
        }
    }

    /// Whether both stand in the same places with the same conditions and order.
    pub fn is_placed_like(&self, other: &Self) -> bool {
        self.source.attachments == other.source.attachments
            && self.matches.len() == other.matches.len()
            && (self.matches.iter().zip(&other.matches))
                .all(|(a, b)| Arc::ptr_eq(a, b) || a.source() == b.source())
    }

    pub fn rules(&self) -> &[Arc<CompiledRule>] {
        &self.rules
    }

    pub fn matches(&self) -> &[Arc<CompiledMatch>] {
        &self.matches
    }

    pub fn attachments(&self) -> &[RouteAttachment] {
        &self.source.attachments
    }

    fn upstreams(&self) -> BTreeSet<&UpstreamKey> {
        self.source
            .rules
            .iter()
            .flat_map(|rule| rule_upstreams(rule))
            .collect()
    }

    /// The counters of the rule of that name, or, if it has none, of the unnamed one at that position.
    fn stats_of(&self, rule: &Rule) -> Option<Arc<RuleStats>> {
        let same = |old: &&Arc<CompiledRule>| match (&rule.name, old.name()) {
            (None, None) => old.index == rule.index,
            (new, old) => new.as_ref() == old,
        };
        self.rules
            .iter()
            .find(same)
            .map(|old| Arc::clone(&old.stats))
    }
}

/// What a route is compiled into, rule by rule.
struct Parts<'a> {
    route: &'a ObjectRef,
    route_label: Arc<str>,
    rules: Vec<Arc<CompiledRule>>,
    matches: Vec<Arc<CompiledMatch>>,
}

impl<'a> Parts<'a> {
    fn of(route: &'a ObjectRef, route_label: Arc<str>) -> Self {
        Self {
            route,
            route_label,
            rules: Vec::new(),
            matches: Vec::new(),
        }
    }

    fn add(
        &mut self,
        rule: &Arc<Rule>,
        old: Option<&CompiledRoute>,
        upstreams: &UpstreamTable,
    ) -> Result<(), String> {
        let (at, first) = (self.rules.len(), self.matches.len());
        if let Some(old) = old
            && old.source.rules.get(at) == Some(rule)
            && let Some(same) = old.matches.get(first..first + rule.matches.len())
            && same
                .iter()
                .all(|each| Arc::ptr_eq(&each.rule, &old.rules[at]))
        {
            self.rules.push(Arc::clone(&old.rules[at]));
            self.matches.extend_from_slice(same);
            return Ok(());
        }
        let stats = old.and_then(|old| old.stats_of(rule)).unwrap_or_default();
        let compiled = Arc::new(compile_rule(
            self.route,
            rule,
            &self.route_label,
            stats,
            upstreams,
        ));
        for alternative in 0..rule.matches.len() {
            let like = old.and_then(|old| old.matches.get(first + alternative));
            let each = CompiledMatch::new(rule, alternative, Arc::clone(&compiled), like)
                .map_err(|reason| format!("rule {}: {reason}", compiled.labels.rule))?;
            self.matches.push(Arc::new(each));
        }
        self.rules.push(compiled);
        Ok(())
    }
}

fn compile_rule(
    route: &ObjectRef,
    rule: &Rule,
    route_label: &Arc<str>,
    stats: Arc<RuleStats>,
    upstreams: &UpstreamTable,
) -> CompiledRule {
    let target = |key: &UpstreamKey| {
        let upstream = upstreams
            .by_key(key)
            .expect("a route's upstreams are acquired before its rules are compiled");
        (upstream.id, Arc::clone(&upstream.label))
    };
    let filters = compile_filters(&[&rule.filters], target);
    CompiledRule {
        route: route.clone(),
        index: rule.index,
        is_named: rule.name.is_some(),
        labels: RuleLabels {
            route: Arc::clone(route_label),
            rule: rule.name.clone().unwrap_or_else(|| position(rule.index)),
        },
        action: compile_action(rule, &filters, target),
        filters,
        cors: rule
            .cors
            .as_ref()
            .map(|cors| Arc::new(CompiledCors::new(cors))),
        timeouts: rule.timeouts,
        retry: rule.retry.clone(),
        stats,
    }
}

/// A position as text; those of small routes are shared.
fn position(index: u32) -> Arc<str> {
    static SMALL: LazyLock<[Arc<str>; 16]> =
        LazyLock::new(|| std::array::from_fn(|index| index.to_string().into()));
    SMALL
        .get(index as usize)
        .map_or_else(|| index.to_string().into(), Arc::clone)
}

fn compile_action(
    rule: &Rule,
    filters: &Arc<CompiledFilters>,
    resolved: impl Fn(&UpstreamKey) -> (UpstreamId, Arc<str>),
) -> CompiledAction {
    match &rule.action {
        Action::Redirect(redirect) => CompiledAction::Redirect(redirect.clone()),
        Action::Respond { status, reason } => CompiledAction::Respond {
            status: *status,
            reason: Arc::clone(reason),
        },
        Action::Forward(backends) => {
            CompiledAction::Forward(Forward::new(backends.iter().map(|backend| {
                let target = match &backend.target {
                    BackendTarget::Upstream(key) => {
                        let (id, label) = resolved(key);
                        CompiledTarget::Upstream { id, label }
                    }
                    BackendTarget::Unavailable { status, reason } => CompiledTarget::Unavailable {
                        status: *status,
                        reason: Arc::clone(reason),
                    },
                };
                let filters = if backend.filters.is_empty() {
                    Arc::clone(filters)
                } else {
                    compile_filters(&[&rule.filters, &backend.filters], &resolved)
                };
                (backend.weight, target, filters)
            })))
        }
    }
}

fn rule_upstreams(rule: &Rule) -> impl Iterator<Item = &UpstreamKey> {
    let backends = rule.backends();
    let targets = backends
        .iter()
        .filter_map(|backend| backend.target.upstream());
    let filters = backends.iter().flat_map(|backend| &backend.filters);
    let mirrors = rule
        .filters
        .iter()
        .chain(filters)
        .filter_map(|filter| match filter {
            Filter::Mirror(mirror) => mirror.target.upstream(),
            _ => None,
        });
    targets.chain(mirrors)
}

/// The route with each hostname of an attachment, and each listener, once.
fn dedup_hostnames(source: &Arc<Route>) -> Arc<Route> {
    let once = |attachment: &RouteAttachment| {
        let mut seen = BTreeSet::new();
        attachment.hostnames.iter().all(|name| seen.insert(name))
    };
    let mut listeners = BTreeSet::new();
    let unique = source
        .attachments
        .iter()
        .all(|attachment| listeners.insert(&attachment.listener) && once(attachment));
    if unique {
        return Arc::clone(source);
    }
    let mut route = Route::clone(source);
    let mut merged: Vec<RouteAttachment> = Vec::new();
    for attachment in std::mem::take(&mut route.attachments) {
        match merged
            .iter_mut()
            .find(|m| m.listener == attachment.listener)
        {
            // No hostname is every hostname.
            Some(first) if first.hostnames.is_empty() || attachment.hostnames.is_empty() => {
                first.hostnames.clear();
            }
            Some(first) => first.hostnames.extend(attachment.hostnames),
            None => merged.push(attachment),
        }
    }
    for attachment in &mut merged {
        attachment.hostnames.sort();
        attachment.hostnames.dedup();
    }
    route.attachments = merged.into();
    Arc::new(route)
}
