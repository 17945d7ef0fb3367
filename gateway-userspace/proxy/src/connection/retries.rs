//! When a request is tried again, whatever the client speaks: Gateway API v1
//! `HTTPRoute.spec.rules.retry` (GEP-1731), and what no endpoint has heard.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_model::ir::Retry;
use gateway_model::snapshot::CompiledRule;

use super::inbound::{Inbound, NoHead};
use crate::error::{Kind, ProxyError, Side};
use crate::h1::ResponseHead;
use crate::worker::Worker;

/// gRPC's status `UNAVAILABLE`.
const UNAVAILABLE: &[u8] = b"14";

/// The attempts that one request has left.
pub(super) struct Retries {
    policy: Option<Arc<Retry>>,
    /// Whether a second request has the same effect as the first (RFC 9110 §9.2.2), as far as the rule asks.
    idempotent: bool,
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
            idempotent: false,
            repeats: limits.connect_attempts,
            made: 0,
            tried: Vec::new(),
            base,
            most: limits.retry_backoff_max.max(base),
        }
    }

    /// The same for a request with this method.
    pub(super) fn of_method(mut self, method: &str) -> Self {
        self.idempotent = self.policy.is_some()
            && matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE");
        self
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
    ///
    /// What the endpoint may have processed is said again only if that has the same effect, or if the rule lists
    /// what the client would be told of a timeout.
    pub(super) fn after_failure(&mut self, error: &ProxyError) -> Option<Duration> {
        let again = match (error.side, error.kind) {
            (_, Kind::Connect | Kind::ConnectTimeout | Kind::Declined) => true,
            (Side::Upstream, Kind::Closed | Kind::Io | Kind::Reset(_)) => self.idempotent,
            (_, Kind::BackendTimeout) => self.idempotent || self.lists(504),
            _ => false,
        };
        self.next().filter(|_| again)
    }

    /// The same after a response, which is the client's otherwise.
    pub(super) fn after_response(
        &mut self,
        head: &ResponseHead,
        inbound: &Inbound,
    ) -> Option<Duration> {
        self.policy.as_ref()?;
        let listed = self.lists(head.status());
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

    /// Whether the rule wants this status to be tried again.
    fn lists(&self, status: u16) -> bool {
        let policy = self.policy.as_ref();
        policy.is_some_and(|policy| policy.codes.contains(&status))
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
    fn what_may_have_been_processed_is_tried_again_only_if_that_does_no_harm() {
        use Kind::{BackendTimeout, Closed, Connect, ConnectTimeout, Declined, Io, RequestTimeout};
        let reset = Kind::Reset(h2::Reason::CANCEL.into());
        let policy = |codes: &[u16]| {
            Some(Arc::new(Retry {
                attempts: 1,
                codes: codes.into(),
                backoff: None,
            }))
        };
        let unheard = [Connect, ConnectTimeout, Declined];
        for (method, codes, heard) in [
            ("GET", &[][..], &[BackendTimeout, Closed, Io, reset][..]),
            ("PUT", &[], &[BackendTimeout, Closed, Io, reset]),
            ("POST", &[502], &[]),
            ("POST", &[504], &[BackendTimeout]),
            ("PATCH", &[], &[]),
        ] {
            for kind in [
                Connect,
                ConnectTimeout,
                Declined,
                BackendTimeout,
                Closed,
                Io,
                reset,
                RequestTimeout,
            ] {
                let mut retries = retries(1, None);
                retries.policy = policy(codes);
                let mut retries = retries.of_method(method);
                let again = unheard.contains(&kind) || heard.contains(&kind);
                let error = ProxyError::new(Side::Upstream, kind);
                let pause = retries.after_failure(&error);
                assert_eq!(pause.is_some(), again, "{method} {codes:?} {kind:?}");
                let gone = ProxyError::new(Side::Downstream, Closed);
                assert_eq!(retries.after_failure(&gone), None, "{method}: nobody asks");
                retries.left = 0;
                assert_eq!(retries.after_failure(&error), None, "{method} {kind:?}");
            }
        }
    }
}
