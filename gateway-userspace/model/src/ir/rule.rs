//! Routes: who they attach to, what they match, and what then happens.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::{Cors, Filter, HeaderName, Redirect};
use crate::names::{Hostname, ListenerKey, ObjectRef, UpstreamKey};

/// One route object with its rules in the order they were written.
///
/// Routes of every kind are this. A GRPCRoute's methods are paths. A TLSRoute, TCPRoute or UDPRoute
/// has one rule with one match that covers every path, an [`Action::Forward`], and no filters; it is
/// found by [`crate::snapshot::CompiledListener::find_stream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The object it came from.
    pub object: ObjectRef,
    /// The listeners it is reachable through, sorted by listener.
    pub attachments: Box<[RouteAttachment]>,
    /// Gateway API v1 `HTTPRoute.spec.rules`.
    pub rules: Vec<Arc<Rule>>,
}

/// One listener that serves a route, and the route's hostnames that fall under that listener's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteAttachment {
    /// The listener.
    pub listener: ListenerKey,
    /// The hostnames **as the route wrote them**, for that is what precedence compares; empty means every host.
    pub hostnames: Vec<Hostname>,
}

/// One rule: alternatives to match, then one action with its policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Gateway API v1 `HTTPRoute.spec.rules.name`.
    pub name: Option<Arc<str>>,
    /// Its position in the route, from 0.
    pub index: u32,
    /// Alternatives; never empty (a rule without matches has one that matches every path).
    pub matches: Box<[RuleMatch]>,
    /// What is done with a matching request.
    pub action: Action,
    /// Edits and mirrors of the rule, in the order they were written.
    pub filters: Box<[Filter]>,
    /// Gateway API v1 `HTTPRoute.spec.rules.filters` of type `CORS`, which answers preflights by itself.
    pub cors: Option<Box<Cors>>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// When an attempt is made again; none means never.
    pub retry: Option<Arc<Retry>>,
}

impl Rule {
    /// The backends it forwards to; empty for every other action.
    #[must_use]
    pub fn backends(&self) -> &[WeightedBackend] {
        match &self.action {
            Action::Forward(backends) => backends,
            Action::Redirect(_) | Action::Respond { .. } => &[],
        }
    }
}

/// One alternative of a rule and its place among all matches of a hostname.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleMatch {
    /// What must hold.
    pub conditions: HttpMatch,
    /// Smaller is asked first.
    pub order: MatchOrder,
}

/// A place in the order of matches; smaller is asked first, and no two matches of one hostname are equal.
///
/// Field order is precedence order. A Gateway API translator writes the *complement* of the
/// specificity into `rank` (method, headers, query; path specificity too), the creation time
/// into `created`, then object, rule and match index. An Istio translator writes positions.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MatchOrder {
    /// The dialect's own ranking, smaller first.
    pub rank: [u32; 5],
    /// `metadata.creationTimestamp`, seconds since the Unix epoch; older first.
    pub created: i64,
    /// The object, so that ties end by namespace and name.
    pub object: ObjectRef,
    /// The rule's position in the object.
    pub rule: u32,
    /// The alternative's position in the rule.
    pub alternative: u32,
}

/// Conditions that must all hold. Gateway API v1 `HTTPRouteMatch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpMatch {
    /// What the normalised path must be.
    pub path: PathMatch,
    /// The method, exactly; none means every one.
    pub method: Option<Arc<str>>,
    /// Header conditions; each must hold.
    pub headers: Vec<HeaderMatch>,
    /// Query parameter conditions; each must hold.
    pub query: Vec<QueryMatch>,
}

/// A condition on the path, query excluded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The whole path, byte for byte.
    Exact(Arc<str>),
    /// Whole path elements: `/a/b` covers `/a/b`, `/a/b/` and `/a/b/c`, not `/a/bc`. Kept without a
    /// trailing slash, so that `/` is the empty string and covers everything.
    Prefix(Arc<str>),
    /// A regular expression that must cover the whole path.
    Regex(Arc<str>),
}

impl PathMatch {
    /// A path as a user wrote it, with its escapes in the one form that requests are matched in
    /// (RFC 3986 §6.2.2): those of unreserved characters decoded, the digits of others in upper case.
    #[must_use]
    pub fn normal(text: &Arc<str>) -> Arc<str> {
        if !text.contains('%') {
            return Arc::clone(text);
        }
        let mut normal = String::with_capacity(text.len());
        let mut rest: &str = text;
        while let Some(at) = rest.find('%') {
            normal.push_str(&rest[..at]);
            let escape = rest.get(at..at + 3).unwrap_or(&rest[at..]);
            match u8::from_str_radix(escape.get(1..).unwrap_or_default(), 16) {
                Ok(b) if b.is_ascii_alphanumeric() || b"-._~".contains(&b) => {
                    normal.push(b.into());
                }
                _ => normal.push_str(&escape.to_ascii_uppercase()),
            }
            rest = &rest[at + escape.len()..];
        }
        normal.push_str(rest);
        normal.into()
    }
}

/// A condition on one header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// The name; compared without case.
    pub name: HeaderName,
    /// What its value must be; several lines of one name count as joined by `,`.
    pub value: ValueMatch,
}

/// A condition on one query parameter; the first one of that name counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryMatch {
    /// The name, compared byte for byte.
    pub name: Arc<str>,
    /// What its value must be.
    pub value: ValueMatch,
}

/// A condition on a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ValueMatch {
    /// Equal, byte for byte.
    Exact(Arc<str>),
    /// Begins with this, byte for byte.
    Prefix(Arc<str>),
    /// A regular expression that must cover the whole value.
    Regex(Arc<str>),
}

/// What is done with a matching request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sent to one of these backends, chosen by weight. Empty means that there is nowhere to go: 500.
    Forward(Box<[WeightedBackend]>),
    /// Answered with a redirect.
    Redirect(Box<Redirect>),
    /// Answered with this status and no body; `reason` is for the operator's log.
    Respond {
        /// 200-599.
        status: u16,
        /// Why, in a few words.
        reason: Arc<str>,
    },
}

/// One of a rule's backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedBackend {
    /// Its share; 0 gets nothing.
    pub weight: u32,
    /// Where it goes.
    pub target: BackendTarget,
    /// Filters of this backend alone, applied after the rule's.
    pub filters: Box<[Filter]>,
}

/// Where a backend's share goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BackendTarget {
    /// To an upstream of the same [`super::Ir`].
    Upstream(UpstreamKey),
    /// Nowhere: the reference does not resolve, and its share of requests is answered with this status.
    Unavailable {
        /// 500 for what Gateway API v1 calls an invalid `BackendRef`, 503 for a Service without endpoints.
        status: u16,
        /// Why, naming the object, for the operator's log.
        reason: Arc<str>,
    },
}

impl BackendTarget {
    /// The upstream, if there is one.
    #[must_use]
    pub fn upstream(&self) -> Option<&UpstreamKey> {
        match self {
            Self::Upstream(key) => Some(key),
            Self::Unavailable { .. } => None,
        }
    }
}

/// Gateway API v1 `HTTPRoute.spec.rules.timeouts`; none means the process's default, zero means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// From the whole request head to the whole response.
    pub request: Option<Duration>,
    /// One attempt at one endpoint.
    pub backend_request: Option<Duration>,
}

/// Gateway API v1 `HTTPRoute.spec.rules.retry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further attempts after the first; 0 switches retries off.
    pub attempts: u32,
    /// Response codes that are tried again, besides what no endpoint has processed and, for methods that are
    /// idempotent (RFC 9110 §9.2.2), connections that ended and attempts that took too long.
    pub codes: Box<[u16]>,
    /// Pause before the first retry; none means the process's default.
    pub backoff: Option<Duration>,
}

/// A share of requests: `numerator` of `denominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    /// How many.
    pub numerator: u32,
    /// Of how many.
    pub denominator: NonZeroU32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_have_one_form() {
        for (text, normal) in [
            ("/a/b", "/a/b"),
            ("/%61dmin", "/admin"),
            ("/caf%c3%a9/x", "/caf%C3%A9/x"),
            ("/a%20b%7E", "/a%20b~"),
            ("/a%", "/a%"),
            ("/é%4", "/é%4"),
        ] {
            assert_eq!(&*PathMatch::normal(&text.into()), normal, "{text}");
        }
    }
}
