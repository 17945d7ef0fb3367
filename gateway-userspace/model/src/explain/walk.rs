//! The walk itself: port, listener, hostnames, matches.

use std::net::SocketAddr;
use std::sync::Arc;

use super::reason;
use super::{
    ExplainedBackend, ExplainedCandidate, ExplainedHost, ExplainedListener, ExplainedOutcome,
    ExplainedRequest, ExplainedWinner, Explanation,
};
use crate::head::Head;
use crate::ir::{BackendTarget, Endpoints, Filter, HeaderEdits, HeaderLine, PathRewrite, Redirect};
use crate::names::Hostname;
use crate::route_index::host::HostRules;
use crate::route_index::matcher::CompiledMatch;
use crate::snapshot::{
    CompiledAction, CompiledBackend, CompiledListener, CompiledRule, CompiledTarget, NoListener,
    PortTable, Snapshot,
};

/// At most so many matches that do not match are listed per hostname.
const LISTED: usize = 200;

/// Explains one request.
pub(crate) fn explain<H: Head>(
    snapshot: &Snapshot,
    local: SocketAddr,
    sni: Option<&str>,
    head: &H,
) -> Explanation {
    let mut explanation = Explanation {
        revision: snapshot.revision(),
        request: ExplainedRequest {
            local: local.to_string(),
            sni: sni.map(str::to_owned),
            method: head.method().to_owned(),
            host: head.host().to_owned(),
            path: head.path().to_owned(),
            query: head.query().map(str::to_owned),
        },
        outcome: ExplainedOutcome::NotServed,
        summary: format!("no listener has {local}: the connection is refused"),
        listeners: Vec::new(),
        hosts: Vec::new(),
        winner: None,
    };
    let Some(table) = snapshot.port_table(local) else {
        return explanation;
    };
    let chosen = table.listener_for_request(sni, head.host());
    explanation.listeners = listeners(table, head.host(), chosen.ok());
    match chosen {
        Ok(listener) => routes(&mut explanation, snapshot, listener, head),
        Err(NoListener::Unclaimed) => {
            explanation.outcome = ExplainedOutcome::NoListener;
            explanation.summary = format!("no listener of {local} takes host {:?}", head.host());
        }
        Err(NoListener::Misdirected) => {
            explanation.outcome = ExplainedOutcome::Misdirected;
            explanation.summary = misdirected(table, sni, head.host());
        }
    }
    explanation
}

fn misdirected(table: &PortTable, sni: Option<&str>, host: &str) -> String {
    let name = |of: &str| {
        table.listener_for(of).map_or_else(
            || "no listener".to_owned(),
            |l| format!("listener {}", l.key()),
        )
    };
    format!(
        "421: the connection was made for {:?}, which belongs to {}, but host {host:?} belongs to {}",
        sni.unwrap_or_default(),
        name(sni.unwrap_or_default()),
        name(host)
    )
}

pub(super) fn listeners(
    table: &PortTable,
    host: &str,
    chosen: Option<&Arc<CompiledListener>>,
) -> Vec<ExplainedListener> {
    let best = table.listener_for(host);
    let explained = |listener: &Arc<CompiledListener>| {
        let name = listener.hostname();
        let is_best = best.is_some_and(|best| Arc::ptr_eq(best, listener));
        let reason = match name {
            _ if is_best && chosen.is_none() => {
                "takes the host, but the connection was made for another listener".to_owned()
            }
            _ if is_best => match name {
                Some(name) => format!("{name} is the most specific hostname that covers {host:?}"),
                None => "has no hostname and takes what no other listener claims".to_owned(),
            },
            Some(name) if !name.matches(host) => format!("{name} does not cover {host:?}"),
            _ => format!(
                "less specific than {}",
                best.and_then(|best| best.hostname())
                    .map_or("*", Hostname::as_str)
            ),
        };
        ExplainedListener {
            gateway: listener.labels.gateway.to_string(),
            listener: listener.labels.listener.to_string(),
            hostname: name.map(ToString::to_string),
            chosen: chosen.is_some_and(|chosen| Arc::ptr_eq(chosen, listener)),
            reason,
        }
    };
    table.listeners.iter().map(explained).collect()
}

pub(super) fn routes<H: Head>(
    explanation: &mut Explanation,
    snapshot: &Snapshot,
    listener: &CompiledListener,
    head: &H,
) {
    let mut winner: Option<(&HostRules, &Arc<CompiledMatch>)> = None;
    for rules in listener.routes.hosts_for(head.host()) {
        let mut host = ExplainedHost {
            hostname: rules.hostname(),
            candidates: Vec::new(),
            omitted: 0,
        };
        for candidate in rules.matches() {
            let failure = reason::failure(candidate, head);
            let matched = failure.is_none();
            if !matched && host.candidates.len() >= LISTED {
                host.omitted += 1;
                continue;
            }
            let won = matched && winner.is_none();
            let reason = failure.unwrap_or_else(|| match winner {
                None => "every condition holds, and it is the first in order".to_owned(),
                Some((of, best)) if std::ptr::eq(of, rules) => {
                    reason::precedence(best.source(), candidate.source())
                }
                Some((of, _)) => format!(
                    "less specific: hostname {} comes after {}",
                    rules.hostname(),
                    of.hostname()
                ),
            });
            if won {
                winner = Some((rules, candidate));
            }
            host.candidates
                .push(listed(candidate, matched, won, reason));
        }
        explanation.hosts.push(host);
    }
    conclude(explanation, snapshot, listener, winner.map(|(_, won)| won));
}

fn listed(
    candidate: &CompiledMatch,
    matched: bool,
    won: bool,
    reason: String,
) -> ExplainedCandidate {
    let source = candidate.source();
    ExplainedCandidate {
        route: candidate.rule.route.clone(),
        rule: candidate.rule.labels.rule.to_string(),
        alternative: source.order.alternative,
        conditions: reason::conditions(&source.conditions),
        matched,
        won,
        reason,
    }
}

fn conclude(
    explanation: &mut Explanation,
    snapshot: &Snapshot,
    listener: &CompiledListener,
    winner: Option<&Arc<CompiledMatch>>,
) {
    let Some(candidate) = winner else {
        explanation.outcome = ExplainedOutcome::NoRule;
        explanation.summary = format!("404: no rule of listener {} matches", listener.key());
        return;
    };
    let rule = &candidate.rule;
    explanation.outcome = ExplainedOutcome::Matched;
    explanation.summary = format!(
        "listener {}, {}, rule {}: {}",
        listener.key(),
        rule.route,
        rule.labels.rule,
        action(rule)
    );
    explanation.winner = Some(ExplainedWinner {
        route: rule.route.clone(),
        rule: rule.labels.rule.to_string(),
        rule_index: rule.index,
        alternative: candidate.order().alternative,
        action: action(rule),
        backends: backends(snapshot, candidate),
        filters: candidate.rule_source().filters.iter().map(filter).collect(),
        limits: limits(rule),
    });
}

fn action(rule: &CompiledRule) -> String {
    match &rule.action {
        CompiledAction::Forward(forward) if forward.total_weight() == 0 => {
            "answers 500, for it has no backend with a weight".to_owned()
        }
        CompiledAction::Forward(forward) => {
            let name = |backend: &CompiledBackend| match &backend.target {
                CompiledTarget::Upstream { label, .. } => label.to_string(),
                CompiledTarget::Unavailable { status, .. } => format!("an answer {status}"),
            };
            let backends = forward.backends().iter().filter(|b| b.weight > 0);
            let names: Vec<_> = backends.map(name).collect();
            format!("forwards to {}", names.join(", "))
        }
        CompiledAction::Redirect(redirect) => redirects(redirect),
        CompiledAction::Respond { status, reason } => format!("answers {status}: {reason}"),
    }
}

fn redirects(redirect: &Redirect) -> String {
    let mut words = format!("redirects with {}", redirect.status);
    if let Some(scheme) = redirect.scheme {
        words += &format!(", scheme {}", scheme.as_str());
    }
    if let Some(host) = &redirect.hostname {
        words += &format!(", host {host}");
    }
    if let Some(port) = redirect.port {
        words += &format!(", port {port}");
    }
    if let Some(path) = &redirect.path {
        words += &format!(", {}", path_rewrite(path));
    }
    words
}

fn backends(snapshot: &Snapshot, candidate: &CompiledMatch) -> Vec<ExplainedBackend> {
    let CompiledAction::Forward(forward) = &candidate.rule.action else {
        return Vec::new();
    };
    let sources = candidate.rule_source().backends();
    let explained = |(backend, source): (&CompiledBackend, &crate::ir::WeightedBackend)| {
        let (name, endpoints) = match &backend.target {
            CompiledTarget::Unavailable { status, reason } => {
                (format!("answers {status}: {reason}"), Vec::new())
            }
            CompiledTarget::Upstream { id, label } => (
                label.to_string(),
                snapshot
                    .upstream(*id)
                    .map_or_else(Vec::new, |upstream| endpoints(upstream.endpoints())),
            ),
        };
        ExplainedBackend {
            backend: name,
            weight: backend.weight,
            of: forward.total_weight(),
            endpoints,
            filters: source.filters.iter().map(filter).collect(),
        }
    };
    forward
        .backends()
        .iter()
        .zip(sources)
        .map(explained)
        .collect()
}

fn endpoints(endpoints: &Endpoints) -> Vec<String> {
    match endpoints {
        Endpoints::Addresses(all) => all.iter().map(|e| e.address.to_string()).collect(),
        Endpoints::Dns { host, port } => vec![format!("{host}:{port}")],
    }
}

fn filter(filter: &Filter) -> String {
    match filter {
        Filter::RequestHeaders(edits) => format!("request headers: {}", edited(edits)),
        Filter::ResponseHeaders(edits) => format!("response headers: {}", edited(edits)),
        Filter::Rewrite(rewrite) => {
            let host = rewrite.hostname.iter().map(|host| format!("host {host}"));
            let path = rewrite.path.iter().map(path_rewrite);
            format!(
                "rewrite: {}",
                host.chain(path).collect::<Vec<_>>().join(", ")
            )
        }
        Filter::Mirror(mirror) => {
            let target = match &mirror.target {
                BackendTarget::Upstream(key) => key.to_string(),
                BackendTarget::Unavailable { reason, .. } => format!("nowhere: {reason}"),
            };
            match mirror.fraction {
                Some(f) => format!("mirror {} of {} to {target}", f.numerator, f.denominator),
                None => format!("mirror to {target}"),
            }
        }
    }
}

fn edited(edits: &HeaderEdits) -> String {
    let line =
        |verb: &str, line: &HeaderLine| format!("{verb} {}: {}", line.name.as_str(), line.value);
    let remove = edits
        .remove
        .iter()
        .map(|name| format!("remove {}", name.as_str()));
    let set = edits.set.iter().map(|each| line("set", each));
    let add = edits.add.iter().map(|each| line("add", each));
    remove.chain(set).chain(add).collect::<Vec<_>>().join("; ")
}

fn path_rewrite(path: &PathRewrite) -> String {
    match path {
        PathRewrite::Full(path) => format!("path {path}"),
        PathRewrite::Prefix(prefix) => format!("prefix replaced by {prefix:?}"),
    }
}

fn limits(rule: &CompiledRule) -> Vec<String> {
    let timeouts = [
        ("request", rule.timeouts.request),
        ("backend request", rule.timeouts.backend_request),
    ];
    let timeouts = timeouts.into_iter().filter_map(|(what, limit)| {
        limit.map(|limit| match limit.is_zero() {
            true => format!("{what} timeout: none"),
            false => format!("{what} timeout: {limit:?}"),
        })
    });
    let retry = rule.retry.iter().map(|retry| {
        format!(
            "up to {} retries, also on {:?}",
            retry.attempts, retry.codes
        )
    });
    let cors = rule
        .cors
        .iter()
        .map(|_| "CORS: preflights are answered here".to_owned());
    timeouts.chain(retry).chain(cors).collect()
}
