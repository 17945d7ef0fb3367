//! How long one request may take: in all, for one attempt, and without anything moving.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_model::ir::Timeouts;
use tokio::time::Sleep;

use crate::error::{Kind, ProxyError, Side};
use crate::limits::TimeLimits;
use crate::timers::{Deadline, NEVER, Timers};

/// Below this a rule's timeout gets a timer of its own; above, the coarse tick is exact enough.
const PRECISE_BELOW: Duration = Duration::from_secs(1);

/// What is left of a request's time. Times are those of [`Timers`].
#[derive(Debug)]
pub(super) struct Budget {
    began_ms: u64,
    total_ms: u64,
    /// What one attempt may take.
    attempt: Option<Duration>,
    attempt_ms: u64,
    /// Whether the total comes from the rule, and so binds the response to its end.
    total_is_ruled: bool,
    stream: bool,
    precise_total: Option<Pin<Box<Sleep>>>,
    precise_attempt: Option<Pin<Box<Sleep>>>,
}

/// A timer of its own for a limit that the coarse tick is too coarse for.
fn precise(limit: Option<Duration>) -> Option<Pin<Box<Sleep>>> {
    let short = limit.filter(|limit| *limit < PRECISE_BELOW);
    short.map(|limit| Box::pin(tokio::time::sleep(limit)))
}

impl Budget {
    /// A request's time from now on. A call of gRPC may be a `stream` that is silent for long.
    pub(super) fn new(timers: &Timers, rule: &Timeouts, limits: &TimeLimits, stream: bool) -> Self {
        let set = |limit: Option<Duration>| limit.filter(|limit| !limit.is_zero());
        let own = match stream {
            true => limits.tunnel_idle,
            false => limits.request,
        };
        let total = set(rule.request.or(Some(own)));
        let attempt = set(rule.backend_request);
        let mut budget = Self {
            began_ms: timers.now_ms(),
            total_ms: total.map_or(NEVER, |limit| timers.at(limit)),
            attempt,
            attempt_ms: NEVER,
            total_is_ruled: rule.request.is_some(),
            stream,
            precise_total: precise(total),
            precise_attempt: None,
        };
        budget.begin_attempt(timers);
        budget
    }

    /// An attempt begins.
    pub(super) fn begin_attempt(&mut self, timers: &Timers) {
        self.attempt_ms = self.attempt.map_or(NEVER, |limit| timers.at(limit));
        self.precise_attempt = precise(self.attempt);
    }

    /// The attempt is over, and another one has not begun.
    pub(super) fn end_attempt(&mut self) {
        self.attempt_ms = NEVER;
        self.precise_attempt = None;
    }

    /// Sets the deadline to whatever comes first, `stall` from now included.
    pub(super) fn arm(&self, deadline: &Deadline, stall: Option<Duration>) {
        let stall = stall.map_or(NEVER, |stall| deadline.timers().at(stall));
        deadline.set_at(stall.min(self.total_ms).min(self.attempt_ms));
    }

    /// Sets the deadline to a time that [`Timers::at`] gave, or whatever comes before it.
    pub(super) fn arm_at(&self, deadline: &Deadline, stall_ms: u64) {
        deadline.set_at(stall_ms.min(self.total_ms).min(self.attempt_ms));
    }

    /// Waits within the budget for a connection to be made.
    pub(super) async fn guard<T>(
        &mut self,
        deadline: &Deadline,
        waited: impl Future<Output = Result<T, ProxyError>>,
    ) -> Result<T, ProxyError> {
        let mut waited = pin!(waited);
        poll_fn(|cx| match waited.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => {
                let stalled = (Side::Upstream, Kind::ConnectTimeout);
                self.poll_over(cx, deadline, stalled).map(Err)
            }
        })
        .await
    }

    /// How long a body may pause.
    pub(super) fn body_idle(&self, limits: &TimeLimits) -> Duration {
        match self.stream {
            true => limits.tunnel_idle,
            false => limits.body_idle,
        }
    }

    /// When a request body of which `received` bytes have come is to be given up unless more comes:
    /// after a pause, or as soon as it falls behind the least rate.
    pub(super) fn body_stall_ms(&self, timers: &Timers, limits: &TimeLimits, received: u64) -> u64 {
        let idle = timers.at(self.body_idle(limits));
        if self.stream {
            return idle;
        }
        let Some(earned_ms) = received
            .saturating_mul(1_000)
            .checked_div(limits.body_min_rate)
        else {
            return idle;
        };
        let grace_ms = u64::try_from(limits.body_idle.as_millis()).unwrap_or(NEVER);
        idle.min(self.began_ms.saturating_add(earned_ms.max(grace_ms)))
    }

    /// The response has begun: from now on only a rule's own limits bind it.
    pub(super) fn response_began(&mut self) {
        if !self.total_is_ruled {
            self.total_ms = NEVER;
            self.precise_total = None;
        }
    }

    /// Ready once the deadline has passed, with whose fault that is. `stalled` says who was waited
    /// for without any limit of the rule having passed.
    pub(super) fn poll_over(
        &mut self,
        cx: &mut Context<'_>,
        deadline: &Deadline,
        stalled: (Side, Kind),
    ) -> Poll<ProxyError> {
        deadline.register(cx);
        for (sleep, kind) in [
            (&mut self.precise_total, Kind::RequestTimeout),
            (&mut self.precise_attempt, Kind::BackendTimeout),
        ] {
            if let Some(sleep) = sleep
                && sleep.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(ProxyError::new(Side::Gateway, kind));
            }
        }
        if !deadline.is_expired() {
            return Poll::Pending;
        }
        let now = deadline.timers().now_ms();
        let (side, kind) = if now >= self.total_ms {
            (Side::Gateway, Kind::RequestTimeout)
        } else if now >= self.attempt_ms {
            (Side::Gateway, Kind::BackendTimeout)
        } else {
            stalled
        };
        Poll::Ready(ProxyError::new(side, kind))
    }
}
