//! When a request is tried again, whatever the client speaks: Gateway API v1
//! `HTTPRoute.spec.rules.retry` (GEP-1731), and what no endpoint has heard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_model::ir::Retry;
use gateway_model::snapshot::CompiledRule;

use super::inbound::{Inbound, NoHead};
use crate::error::{Kind, ProxyError};
use crate::h1::ResponseHead;
use crate::worker::Worker;

/// gRPC's status `UNAVAILABLE`.
const UNAVAILABLE: &[u8] = b"14";

/// The attempts that one request has left.
pub(super) struct Retries {
    policy: Option<Arc<Retry>>,
    /// Attempts that the rule still allows.
    left: u32,
    /// How often what no endpoint has heard may still be said again.
    repeats: u32,
    made: u32,
    /// Endpoints that have failed this request; others are preferred.
    pub(super) tried: Vec<SocketAddr>,
    base: Duration,
    most: Duration,
}

impl Retries {
    pub(super) fn new(worker: &Worker, rule: Option<&CompiledRule>) -> Self {
        let policy = rule.and_then(|rule| rule.retry.as_ref());
        let limits = &worker.limits().upstream;
        let own = policy.and_then(|policy| policy.backoff);
        let base = own.unwrap_or(limits.retry_backoff);
        Self {
            left: policy.map_or(0, |policy| policy.attempts),
            policy: policy.cloned(),
            repeats: limits.connect_attempts,
            made: 0,
            tried: Vec::new(),
            base,
            most: limits.retry_backoff_max.max(base),
        }
    }

    /// Whether what is sent has to be kept, for it may be sent again.
    pub(super) fn keeps(rule: Option<&CompiledRule>) -> bool {
        let policy = rule.and_then(|rule| rule.retry.as_ref());
        policy.is_some_and(|policy| policy.attempts > 0)
    }

    /// How many endpoints one attempt may dial. A rule's own count is exact.
    pub(super) fn dials(&self, worker: &Worker) -> u32 {
        match self.policy {
            Some(_) => 1,
            None => worker.limits().upstream.connect_attempts,
        }
    }

    /// Whether a request that got no answer may be said again at once, which is counted: an idle
    /// connection was closed (`stale`), or the endpoint declined it and the rule does not count that.
    pub(super) fn may_repeat(&mut self, no_head: &NoHead, stale: bool) -> bool {
        let counted = self.policy.is_some() && no_head.is_declined();
        let may = self.repeats > 0 && !counted && no_head.is_unheard(stale);
        self.repeats -= u32::from(may);
        may
    }

    /// The longest pause before the next attempt after a failure; none when there is none.
    pub(super) fn after_failure(&mut self, error: &ProxyError) -> Option<Duration> {
        let unheard = matches!(
            error.kind,
            Kind::Connect | Kind::ConnectTimeout | Kind::Declined | Kind::BackendTimeout
        );
        self.next().filter(|_| unheard)
    }

    /// The same after a response, which is the client's otherwise.
    pub(super) fn after_response(
        &mut self,
        head: &ResponseHead,
        inbound: &Inbound,
    ) -> Option<Duration> {
        let policy = self.policy.as_ref()?;
        let listed = policy.codes.contains(&head.status());
        // Trailers alone: the call has not reached the method.
        let declined = || {
            let buffer = inbound.buffer.filled();
            head.ended_with_head() && head.first(buffer, b"grpc-status") == Some(UNAVAILABLE)
        };
        if listed || declined() {
            self.next()
        } else {
            None
        }
    }

    /// Counts an attempt that is begun; says how many there have been.
    pub(super) fn begin(&mut self) -> u32 {
        self.made += 1;
        self.made
    }

    /// Another endpoint is preferred from now on, if there may be another attempt.
    pub(super) fn failed_at(&mut self, endpoint: SocketAddr) {
        if self.left > 0 {
            self.tried.push(endpoint);
        }
    }

    /// Takes the next attempt up: waits for a time between the base and `longest`, drawn evenly.
    pub(super) async fn pause(
        &mut self,
        worker: &Worker,
        longest: Duration,
    ) -> Result<(), ProxyError> {
        self.left = self.left.saturating_sub(1);
        worker.counters.upstream_retries.up();
        tokio::time::sleep(self.drawn(longest, worker.draw())).await;
        Ok(())
    }

    /// The longest pause before the next attempt, if there is one: doubled after each, up to a limit.
    fn next(&self) -> Option<Duration> {
        (self.left > 0).then(|| {
            let doubled = 1_u32.checked_shl(self.made.min(16)).unwrap_or(u32::MAX);
            self.base.saturating_mul(doubled).min(self.most)
        })
    }

    /// A pause between the base and `longest`, by a number drawn from all of `u32`.
    fn drawn(&self, longest: Duration, drawn: u32) -> Duration {
        let spread = longest.saturating_sub(self.base);
        self.base + spread.mul_f64(f64::from(drawn) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Side;

    fn retries(attempts: u32, backoff: Option<Duration>) -> Retries {
        let worker = Worker::alone();
        let mut retries = Retries::new(&worker, None);
        let base = backoff.unwrap_or(retries.base);
        retries.left = attempts;
        retries.base = base;
        retries.most = retries.most.max(base);
        retries
    }

    #[test]
    fn a_pause_is_never_below_the_base_and_grows_to_a_limit() {
        let ms = Duration::from_millis;
        for (backoff, longest) in [(None, [50, 100, 200, 250]), (Some(ms(400)), [400; 4])] {
            let mut retries = retries(9, backoff);
            let error = ProxyError::new(Side::Upstream, Kind::Connect);
            for longest in longest {
                retries.begin();
                let most = retries.after_failure(&error).expect("another attempt");
                assert_eq!(most, ms(longest));
                assert_eq!(retries.drawn(most, 0), retries.base);
                assert_eq!(retries.drawn(most, u32::MAX), most);
            }
        }
    }

    #[test]
    fn what_may_have_been_processed_is_not_tried_again() {
        let mut retries = retries(1, None);
        for (kind, again) in [
            (Kind::Connect, true),
            (Kind::ConnectTimeout, true),
            (Kind::Declined, true),
            (Kind::BackendTimeout, true),
            (Kind::Reset(h2::Reason::CANCEL.into()), false),
            (Kind::Closed, false),
            (Kind::RequestTimeout, false),
        ] {
            let error = ProxyError::new(Side::Upstream, kind);
            assert_eq!(retries.after_failure(&error).is_some(), again, "{kind:?}");
        }
        retries.left = 0;
        let error = ProxyError::new(Side::Upstream, Kind::Connect);
        assert_eq!(retries.after_failure(&error), None);
    }
}
