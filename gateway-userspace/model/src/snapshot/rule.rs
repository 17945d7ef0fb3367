//! A rule with everything resolved: what is done with a request once it has matched.

use std::sync::Arc;

use super::{CompiledFilters, RuleStats, UpstreamId};
use crate::ir::{Cors, CorsOrigin, Redirect, Retry, Timeouts};
use crate::names::ObjectRef;

/// One rule, ready to be carried out.
#[derive(Debug)]
pub struct CompiledRule {
    /// The route object.
    pub route: ObjectRef,
    /// The rule's position in the route, from 0.
    pub index: u32,
    /// Whether the rule has a name of its own.
    pub(crate) is_named: bool,
    /// Texts for logs and metrics.
    pub labels: RuleLabels,
    /// What is done.
    pub action: CompiledAction,
    /// The rule's filters, for answers that Sluice makes itself and for mirrors. What is forwarded
    /// uses [`CompiledBackend::filters`], which begins with these.
    pub filters: Arc<CompiledFilters>,
    /// CORS.
    pub cors: Option<Arc<CompiledCors>>,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Retries.
    pub retry: Option<Arc<Retry>>,
    /// Counters; they outlive a recompilation of the rule.
    pub stats: Arc<RuleStats>,
}

impl CompiledRule {
    /// The rule's name, which is its label too.
    #[must_use]
    pub fn name(&self) -> Option<&Arc<str>> {
        self.is_named.then_some(&self.labels.rule)
    }
}

/// A rule's texts for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleLabels {
    /// The route's [`ObjectRef::route_label`].
    pub route: Arc<str>,
    /// The rule's name, or its position if it has none.
    pub rule: Arc<str>,
}

/// What is done with a matching request.
#[derive(Debug, PartialEq, Eq)]
pub enum CompiledAction {
    /// Sent to one of these backends.
    Forward(Forward),
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

/// A rule's backends and their shares.
#[derive(Debug, PartialEq, Eq)]
pub struct Forward {
    backends: Box<[CompiledBackend]>,
}

/// One of a rule's backends.
#[derive(Debug, PartialEq, Eq)]
pub struct CompiledBackend {
    /// Its share; 0 gets nothing.
    pub weight: u32,
    /// The weights up to and with this one.
    up_to: u64,
    /// Where it goes.
    pub target: CompiledTarget,
    /// The rule's filters and then this backend's, as one.
    pub filters: Arc<CompiledFilters>,
}

/// Where a backend's share goes.
#[derive(Debug, PartialEq, Eq)]
pub enum CompiledTarget {
    /// To the upstream of that number in the same snapshot.
    Upstream {
        /// The number.
        id: UpstreamId,
        /// `namespace/name:port`.
        label: Arc<str>,
    },
    /// Nowhere: answered with this status.
    Unavailable {
        /// 500 or 503.
        status: u16,
        /// Why, for the operator's log.
        reason: Arc<str>,
    },
}

impl Forward {
    /// Gives each of these its share.
    pub(crate) fn new(
        shares: impl IntoIterator<Item = (u32, CompiledTarget, Arc<CompiledFilters>)>,
    ) -> Self {
        let mut total = 0;
        let backends = shares
            .into_iter()
            .map(|(weight, target, filters)| {
                total += u64::from(weight);
                CompiledBackend {
                    weight,
                    up_to: total,
                    target,
                    filters,
                }
            })
            .collect();
        Self { backends }
    }

    /// Every backend, in the order written.
    #[must_use]
    pub fn backends(&self) -> &[CompiledBackend] {
        &self.backends
    }

    /// The sum of the weights.
    #[must_use]
    pub fn total_weight(&self) -> u64 {
        self.backends.last().map_or(0, |last| last.up_to)
    }

    /// The backend for a point that the caller draws evenly from all of `u32`, for instance by
    /// [`super::StatsSlot::draw`]. Nothing when no backend has a weight: the answer is 500.
    #[must_use]
    pub fn pick(&self, point: u32) -> Option<&CompiledBackend> {
        let at = (u128::from(point) * u128::from(self.total_weight())) >> 32;
        self.backends
            .iter()
            .find(|backend| at < u128::from(backend.up_to))
    }
}

/// A CORS policy with its lists joined as the response's header wants them.
#[derive(Debug, PartialEq, Eq)]
pub struct CompiledCors {
    /// What was written.
    pub policy: Cors,
    /// `Access-Control-Allow-Methods`; empty if there is none, `*` if every one is allowed.
    pub allow_methods: Arc<str>,
    /// `Access-Control-Allow-Headers`, likewise.
    pub allow_headers: Arc<str>,
    /// `Access-Control-Expose-Headers`, likewise.
    pub expose_headers: Arc<str>,
    /// `Access-Control-Max-Age`.
    pub max_age: Arc<str>,
}

impl CompiledCors {
    /// Joins the lists of a policy.
    #[must_use]
    pub fn new(policy: &Cors) -> Self {
        Self {
            allow_methods: joined(&policy.allow_methods),
            allow_headers: joined(&policy.allow_headers),
            expose_headers: joined(&policy.expose_headers),
            max_age: policy.max_age_s.to_string().into(),
            policy: policy.clone(),
        }
    }

    /// Whether a request's `Origin` is allowed. Compared without case: an origin is a scheme and a host.
    #[must_use]
    pub fn allows_origin(&self, origin: &[u8]) -> bool {
        self.policy
            .allow_origins
            .iter()
            .any(|allowed| match allowed {
                CorsOrigin::Any => true,
                CorsOrigin::Exact(text) => text.as_bytes().eq_ignore_ascii_case(origin),
                CorsOrigin::Wildcard { before, after } => {
                    origin.len() > before.len() + after.len()
                        && origin[..before.len()].eq_ignore_ascii_case(before.as_bytes())
                        && origin[origin.len() - after.len()..]
                            .eq_ignore_ascii_case(after.as_bytes())
                }
            })
    }

    /// Whether `*` is among the allowed origins.
    #[must_use]
    pub fn allows_any_origin(&self) -> bool {
        self.policy.allow_origins.contains(&CorsOrigin::Any)
    }
}

fn joined(list: &[Arc<str>]) -> Arc<str> {
    if list.iter().any(|entry| &**entry == "*") {
        return "*".into();
    }
    list.join(", ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forward(weights: &[u32]) -> Forward {
        Forward::new(weights.iter().map(|&weight| {
            let target = CompiledTarget::Unavailable {
                status: 500,
                reason: "test".into(),
            };
            (weight, target, Arc::default())
        }))
    }

    #[test]
    fn shares_follow_the_weights() {
        let forward = forward(&[70, 0, 30]);
        let mut hits = [0; 3];
        for i in 0..1000u32 {
            let picked = forward
                .pick(i.wrapping_mul(0x9E37_79B9))
                .expect("a backend");
            let at = forward
                .backends()
                .iter()
                .position(|b| std::ptr::eq(b, picked))
                .expect("one of them");
            hits[at] += 1;
        }
        assert!((698..=702).contains(&hits[0]), "{hits:?}");
        assert_eq!(hits[1], 0);
    }

    #[test]
    fn every_point_has_a_backend_unless_all_weights_are_zero() {
        let some = forward(&[1, u32::MAX]);
        assert!(some.pick(0).is_some() && some.pick(u32::MAX).is_some());
        assert!(forward(&[0, 0]).pick(7).is_none());
        assert!(forward(&[]).pick(7).is_none());
    }

    #[test]
    fn wildcard_origin_covers_labels_and_not_the_apex() {
        let cors = CompiledCors::new(&Cors {
            allow_origins: vec![CorsOrigin::Wildcard {
                before: "https://".into(),
                after: ".example.com".into(),
            }],
            allow_credentials: false,
            allow_methods: vec!["GET".into(), "PUT".into()],
            allow_headers: vec!["*".into()],
            expose_headers: Vec::new(),
            max_age_s: 5,
        });
        assert!(cors.allows_origin(b"https://A.example.com"));
        assert!(!cors.allows_origin(b"https://.example.com"));
        assert!(!cors.allows_origin(b"http://a.example.com"));
        assert_eq!(&*cors.allow_methods, "GET, PUT");
        assert_eq!(&*cors.allow_headers, "*");
        assert_eq!(&*cors.expose_headers, "");
    }
}
