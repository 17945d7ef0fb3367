//! Conditions, failures and precedence in words.

use crate::head::Head;
use crate::ir::{HttpMatch, PathMatch, RuleMatch, ValueMatch};
use crate::names::ObjectKind;
use crate::route_index::matcher::{CompiledMatch, joined_value, query_value};

/// Longer values are cut when they are shown.
const SHOWN: usize = 120;

/// An alternative's conditions: `path under /api, method GET, header x-canary is exactly "true"`.
pub(super) fn conditions(conditions: &HttpMatch) -> String {
    let mut words = vec![match &conditions.path {
        PathMatch::Exact(path) => format!("path is {path}"),
        PathMatch::Prefix(path) => format!("path under {}", prefix(path)),
        PathMatch::Regex(pattern) => format!("path matches {pattern:?}"),
    }];
    words.extend(
        conditions
            .method
            .iter()
            .map(|method| format!("method {method}")),
    );
    words.extend(conditions.headers.iter().map(|header| {
        let name = header.name.as_str();
        match &header.value {
            ValueMatch::Prefix(value) => format!("header {name} begins with {value:?}"),
            value => format!("header {name} is {}", wanted(value)),
        }
    }));
    words.extend(
        conditions
            .query
            .iter()
            .map(|query| format!("query parameter {} is {}", query.name, wanted(&query.value))),
    );
    words.join(", ")
}

/// The first condition that does not hold; none if all do.
pub(super) fn failure<H: Head>(each: &CompiledMatch, head: &H) -> Option<String> {
    let source = &each.source().conditions;
    if each.path.covers(head.path()).is_none() {
        let path = head.path();
        return Some(match &source.path {
            PathMatch::Exact(exact) => format!("path {path} is not {exact}"),
            PathMatch::Prefix(under) => format!("path {path} is not under {}", prefix(under)),
            PathMatch::Regex(pattern) => format!("path {path} does not match {pattern:?}"),
        });
    }
    let others = each.conditions.as_ref()?;
    let method = others.method.as_ref();
    if let Some(wanted) = method.filter(|wanted| ***wanted != *head.method()) {
        return Some(format!("method is {}, wanted {wanted}", head.method()));
    }
    for (header, source) in others.headers.iter().zip(&source.headers) {
        if !header.holds(head) {
            let name = header.name.as_str();
            let found = joined_value(head, &header.name).map(|value| show(&value));
            return Some(unfulfilled(&format!("header {name}"), found, &source.value));
        }
    }
    for (parameter, source) in others.query.iter().zip(&source.query) {
        if !parameter.holds(head) {
            let what = format!("query parameter {}", parameter.name);
            let found = query_value(head.query(), &parameter.name);
            let found = found.map(|value| show(value.as_bytes()));
            return Some(unfulfilled(&what, found, &source.value));
        }
    }
    None
}

/// Why the first of two matches of one hostname comes before the second.
pub(super) fn precedence(winner: &RuleMatch, loser: &RuleMatch) -> String {
    let (first, second) = (&winner.order, &loser.order);
    if first.rank != second.rank {
        let (winner, loser) = (&winner.conditions, &loser.conditions);
        let by_specificity = match (first.object.kind, second.object.kind) {
            (ObjectKind::HttpRoute, ObjectKind::HttpRoute) => by_specificity(winner, loser),
            (ObjectKind::GrpcRoute, ObjectKind::GrpcRoute) => by_method(winner, loser),
            (ObjectKind::GrpcRoute, ObjectKind::HttpRoute) => {
                Some("of an HTTPRoute: GRPCRoutes come first for gRPC requests".to_owned())
            }
            _ => None,
        };
        return by_specificity.unwrap_or_else(|| "later in the order of rules".to_owned());
    }
    if first.created != second.created {
        return "newer: the winner's object was created earlier".to_owned();
    }
    if first.object != second.object {
        return format!(
            "equal until the name: {}/{} sorts before {}/{}",
            first.object.namespace, first.object.name, second.object.namespace, second.object.name
        );
    }
    if first.rule != second.rule {
        return format!(
            "later: rule {} comes after rule {}",
            second.rule, first.rule
        );
    }
    format!(
        "later: match {} of the rule comes after match {}",
        second.alternative, first.alternative
    )
}

/// The first criterion of Gateway API v1 `HTTPRouteRule.matches` in which two matches differ, if it speaks for the winner.
fn by_specificity(winner: &HttpMatch, loser: &HttpMatch) -> Option<String> {
    let kind = |path: &PathMatch| match path {
        PathMatch::Exact(_) => 0,
        PathMatch::Prefix(_) => 1,
        PathMatch::Regex(_) => 2,
    };
    if kind(&winner.path) != kind(&loser.path) {
        let name =
            |path: &PathMatch| ["an exact path", "a prefix", "a regular expression"][kind(path)];
        return Some(format!(
            "less specific: {} comes after {}",
            name(&loser.path),
            name(&winner.path)
        ));
    }
    let (long, short) = (path_text(&winner.path), path_text(&loser.path));
    if long.len() != short.len() {
        return (long.len() > short.len()).then(|| match &winner.path {
            PathMatch::Prefix(_) => format!(
                "less specific: prefix {} is shorter than {}",
                prefix(short),
                prefix(long)
            ),
            _ => format!("less specific: {short:?} is shorter than {long:?}"),
        });
    }
    if winner.method.is_some() != loser.method.is_some() {
        return winner
            .method
            .is_some()
            .then(|| "less specific: it has no method condition".to_owned());
    }
    for (what, more, fewer) in [
        ("header", winner.headers.len(), loser.headers.len()),
        ("query parameter", winner.query.len(), loser.query.len()),
    ] {
        if more != fewer {
            return (more > fewer).then(|| {
                format!("less specific: {fewer} {what} conditions are fewer than {more}")
            });
        }
    }
    None
}

/// The same of Gateway API v1 `GRPCRouteRule.matches`.
fn by_method(winner: &HttpMatch, loser: &HttpMatch) -> Option<String> {
    if winner.path != loser.path {
        return Some(format!(
            "less specific: {:?} says less of service and method than {:?}",
            prefix(path_text(&loser.path)),
            prefix(path_text(&winner.path))
        ));
    }
    let (more, fewer) = (winner.headers.len(), loser.headers.len());
    (more > fewer).then(|| "less specific: it has fewer header conditions".to_owned())
}

fn path_text(path: &PathMatch) -> &str {
    match path {
        PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Regex(text) => text,
    }
}

/// A prefix as users write it: the empty one is `/`.
fn prefix(text: &str) -> &str {
    if text.is_empty() { "/" } else { text }
}

fn wanted(value: &ValueMatch) -> String {
    match value {
        ValueMatch::Exact(value) => format!("exactly {value:?}"),
        ValueMatch::Prefix(value) => format!("something that begins with {value:?}"),
        ValueMatch::Regex(pattern) => format!("matching {pattern:?}"),
    }
}

fn unfulfilled(what: &str, found: Option<String>, value: &ValueMatch) -> String {
    match found {
        Some(found) => format!("{what} is {found}, wanted {}", wanted(value)),
        None => format!("{what} is absent, wanted {}", wanted(value)),
    }
}

fn show(value: &[u8]) -> String {
    let cut = &value[..value.len().min(SHOWN)];
    let more = if cut.len() < value.len() { "…" } else { "" };
    format!("{:?}{more}", String::from_utf8_lossy(cut))
}
