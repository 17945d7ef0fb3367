//! `HTTPRoute.spec.rules.matches`: what must hold, and in which order it is asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_model::ir::{
    HeaderMatch, HeaderName, HttpMatch, MatchOrder, PathMatch, QueryMatch, ValueMatch,
};
use gateway_model::names::ObjectRef;
use gateway_model::pattern::{self, PatternError};

use crate::objects::{HttpRouteMatch, Known, NamedMatch, PathMatchType, ValueMatchType};

/// Precedence of one match; greater wins. Field order *is* the order of Gateway API v1
/// `HTTPRouteRule.matches`: path, method, headers, query params.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Specificity {
    path: PathSpecificity,
    method: bool,
    headers: u32,
    query_params: u32,
}

/// Variant order is precedence order; the number is a length in bytes. The place of regular
/// expressions is the implementation's choice: here they come before every prefix, for a rule with
/// a regular expression would otherwise never be reached beside a rule for `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathSpecificity {
    Prefix(u32),
    Regex(u32),
    Exact(u32),
}

impl Specificity {
    /// That of an `HTTPRouteMatch`.
    pub(super) fn of(conditions: &HttpMatch) -> Self {
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            path: match &conditions.path {
                PathMatch::Prefix(text) => PathSpecificity::Prefix(length(text)),
                PathMatch::Regex(text) => PathSpecificity::Regex(length(text)),
                PathMatch::Exact(text) => PathSpecificity::Exact(length(text)),
            },
            method: conditions.method.is_some(),
            headers: count(conditions.headers.len()),
            query_params: count(conditions.query.len()),
        }
    }

    /// The complement, so that smaller is asked first. Ranks that begin with 0 are GRPCRoutes'.
    pub(super) fn rank(self) -> Rank {
        let (kind, length) = match self.path {
            PathSpecificity::Prefix(length) => (3, length),
            PathSpecificity::Regex(length) => (2, length),
            PathSpecificity::Exact(length) => (1, length),
        };
        [
            kind,
            !length,
            u32::from(!self.method),
            !self.headers,
            !self.query_params,
        ]
    }
}

/// [`MatchOrder::rank`].
pub(super) type Rank = [u32; 5];

/// Where a match stands: everything about its order that it does not say itself.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) object: &'a ObjectRef,
    pub(super) created: i64,
    pub(super) rule: u32,
    pub(super) alternative: u32,
}

impl Place<'_> {
    /// The place of a match among all of a hostname.
    pub(super) fn order(&self, rank: Rank) -> MatchOrder {
        MatchOrder {
            rank,
            created: self.created,
            object: self.object.clone(),
            rule: self.rule,
            alternative: self.alternative,
        }
    }
}

/// Gateway API v1 `HTTPRouteMatch`.
///
/// # Errors
/// A value that is not supported, in words.
pub(super) fn conditions(matched: &HttpRouteMatch) -> Result<HttpMatch, String> {
    let path = match &matched.path_type {
        Known::Known(PathMatchType::Exact) => PathMatch::Exact(PathMatch::normal(&matched.path)),
        // "When specified, a trailing `/` is ignored."
        Known::Known(PathMatchType::PathPrefix) => {
            PathMatch::Prefix(PathMatch::normal(&trimmed(&matched.path)))
        }
        Known::Known(PathMatchType::RegularExpression) => {
            PathMatch::Regex(regex("path.value", &matched.path)?)
        }
        Known::Unknown(kind) => return Err(format!("path.type {kind:?} is not known")),
    };
    let Some(more) = &matched.more else {
        return Ok(HttpMatch {
            path,
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
        });
    };
    let method = match &more.method {
        None => None,
        Some(Known::Known(method)) => Some(Arc::from(*method)),
        Some(Known::Unknown(method)) => return Err(format!("method {method:?} is not known")),
    };
    Ok(HttpMatch {
        path,
        method,
        headers: headers(&more.headers)?,
        query: query_params(&more.query_params)?,
    })
}

fn trimmed(path: &Arc<str>) -> Arc<str> {
    match path.trim_end_matches('/') {
        // Made once: it is what most routes have.
        "" => Arc::default(),
        trimmed if trimmed.len() == path.len() => Arc::clone(path),
        trimmed => trimmed.into(),
    }
}

/// "If multiple entries specify equivalent header names, only the first entry with an equivalent
/// name MUST be considered for a match."
pub(super) fn headers(matches: &[NamedMatch]) -> Result<Vec<HeaderMatch>, String> {
    let mut seen = BTreeSet::new();
    let mut headers = Vec::with_capacity(matches.len());
    for matched in matches {
        let Some(name) = HeaderName::sharing(&matched.name) else {
            return Err(format!("headers: {:?} is not a header name", matched.name));
        };
        if seen.insert(name.clone()) {
            let value = value("headers", matched)?;
            headers.push(HeaderMatch { name, value });
        }
    }
    Ok(headers)
}

/// The same for query parameters, whose names are compared byte for byte.
fn query_params(matches: &[NamedMatch]) -> Result<Vec<QueryMatch>, String> {
    let mut seen = BTreeSet::new();
    let mut query = Vec::with_capacity(matches.len());
    for matched in matches {
        if seen.insert(&matched.name) {
            query.push(QueryMatch {
                name: matched.name.clone(),
                value: value("queryParams", matched)?,
            });
        }
    }
    Ok(query)
}

fn value(field: &str, matched: &NamedMatch) -> Result<ValueMatch, String> {
    match &matched.kind {
        Known::Known(ValueMatchType::Exact) => Ok(ValueMatch::Exact(matched.value.clone())),
        Known::Known(ValueMatchType::RegularExpression) => {
            let field = format!("{field} {}", matched.name);
            Ok(ValueMatch::Regex(regex(&field, &matched.value)?))
        }
        Known::Unknown(kind) => Err(format!(
            "{field} {}: type {kind:?} is not known",
            matched.name
        )),
    }
}

pub(super) fn regex(field: &str, text: &Arc<str>) -> Result<Arc<str>, String> {
    match pattern::check(text) {
        Ok(()) => Ok(text.clone()),
        Err(PatternError::TooLarge) => Err(format!(
            "{field} {text:?} is too large a regular expression"
        )),
        Err(PatternError::Invalid(_)) => Err(format!(
            "{field} {text:?} is not a regular expression of the RE2 family"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(path: PathSpecificity, method: bool, headers: u32, query_params: u32) -> [u32; 5] {
        Specificity {
            path,
            method,
            headers,
            query_params,
        }
        .rank()
    }

    #[test]
    fn ranks_follow_the_order_of_the_specification() {
        let in_order = [
            rank(PathSpecificity::Exact(2), true, 0, 0),
            rank(PathSpecificity::Exact(2), false, 9, 9),
            rank(PathSpecificity::Regex(3), false, 0, 0),
            rank(PathSpecificity::Prefix(12), false, 0, 0),
            rank(PathSpecificity::Prefix(2), true, 0, 0),
            rank(PathSpecificity::Prefix(2), false, 2, 0),
            rank(PathSpecificity::Prefix(2), false, 1, 5),
            rank(PathSpecificity::Prefix(2), false, 1, 4),
            rank(PathSpecificity::Prefix(2), false, 0, 0),
        ];
        assert!(in_order.is_sorted_by(|a, b| a < b), "{in_order:?}");
    }

    #[test]
    fn rank_agrees_with_the_derived_order() {
        let all: Vec<_> = [
            PathSpecificity::Prefix(1),
            PathSpecificity::Prefix(2),
            PathSpecificity::Regex(1),
            PathSpecificity::Exact(1),
        ]
        .into_iter()
        .flat_map(|path| {
            [(false, 0), (true, 0), (false, 1)].map(|(method, headers)| Specificity {
                path,
                method,
                headers,
                query_params: 0,
            })
        })
        .collect();
        for a in &all {
            for b in &all {
                assert_eq!(a.cmp(b), b.rank().cmp(&a.rank()), "{a:?} {b:?}");
            }
        }
    }
}
