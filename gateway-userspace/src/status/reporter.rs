//! Says in this node's Lease what it has applied, soon after a change that concerns statuses and
//! otherwise as a sign of life.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_translate::Status;
use imbl::OrdMap;
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::api::{Api, ApiError, leases};
use super::cluster::Stop;
use super::node::{Identity, NodeReport, Pace};
use super::stats::{Count, Stats};
use crate::telemetry::chain;
use crate::world::World;
use gateway_model::names::ObjectRef;

/// For so long after a change of statuses every further position is reported too: the same changes
/// come to another node in another order, and the writer may have seen more when it saw the last.
const TAIL: Duration = Duration::from_secs(1);
/// For so long a report waits for what comes together with it; and the API server, which has just told all nodes of a
/// change, is not asked for anything before they have taken it in.
const GATHER: Duration = Duration::from_millis(5);
/// After a failure, unless nodes speak less often than that.
const PAUSE: Duration = Duration::from_millis(500);

/// Waits for the first revision; false if there will be none.
async fn known(world: &mut watch::Receiver<Option<Arc<World>>>) -> bool {
    world.wait_for(Option::is_some).await.is_ok()
}

/// This node's voice.
pub struct Reporter {
    api: Api,
    identity: Identity,
    world: watch::Receiver<Option<Arc<World>>>,
    pace: watch::Receiver<Pace>,
    stats: Arc<Stats>,
    said: Option<NodeReport>,
    statuses: OrdMap<ObjectRef, Arc<Status>>,
    /// Until when changes of the position alone are reported too.
    tail: Option<Instant>,
    /// When the next report is due.
    due: Option<Instant>,
    spoke: Instant,
    exists: bool,
}

impl Reporter {
    /// Reports for that Pod.
    pub fn new(
        api: Api,
        identity: Identity,
        world: watch::Receiver<Option<Arc<World>>>,
        pace: watch::Receiver<Pace>,
        stats: Arc<Stats>,
    ) -> Self {
        Self {
            api,
            identity,
            world,
            pace,
            stats,
            said: None,
            statuses: OrdMap::new(),
            tail: None,
            due: None,
            spoke: Instant::now(),
            exists: false,
        }
    }

    /// Reports until told to stop, and takes the Lease away then: nobody need wait for this node.
    pub async fn run(mut self, mut stop: Stop) {
        let mut stopped = std::pin::pin!(stop.told());
        tokio::select! {
            () = &mut stopped => return,
            is_known = known(&mut self.world) => if !is_known { return },
        }
        self.world.mark_changed();
        let mut is_followed = true;
        loop {
            let renewal = self.spoke + self.pace.borrow().renewal();
            let next = self.due.map_or(renewal, |due| due.min(renewal));
            tokio::select! {
                () = &mut stopped => break,
                changed = self.world.changed(), if is_followed => match changed {
                    Ok(()) => self.look(Instant::now()),
                    Err(_) => is_followed = false,
                },
                // A shorter interval than before counts at once.
                Ok(()) = self.pace.changed() => {}
                () = sleep_until(next.into()) => self.speak().await,
            }
        }
        self.leave().await;
    }

    /// Decides whether there is anything to report, and when.
    fn look(&mut self, now: Instant) {
        let Some(world) = self.world.borrow_and_update().clone() else {
            return;
        };
        let statuses = world.statuses.owed().unfinished();
        let report = NodeReport::new(world.position.clone(), &world.failures);
        let (has_moved, has_failed) = match &self.said {
            None => (true, true),
            Some(said) => (
                said.position != report.position,
                said.failures != report.failures,
            ),
        };
        if has_failed || !statuses.ptr_eq(&self.statuses) {
            self.statuses = statuses.clone();
            self.tail = Some(now + TAIL);
        }
        if has_failed || (has_moved && self.tail.is_some_and(|until| now < until)) {
            let pace = *self.pace.borrow();
            let earliest = self.spoke + pace.interval();
            let spread = pace.spread().mul_f64(self.share()).max(GATHER);
            self.due.get_or_insert_with(|| earliest.max(now + spread));
        }
    }

    /// A number from 0 to 1 of this Pod's own, so that many nodes do not speak at once.
    fn share(&self) -> f64 {
        let sum = self.identity.pod.bytes();
        let sum = sum.fold(0_u32, |sum, byte| {
            sum.wrapping_mul(31).wrapping_add(u32::from(byte))
        });
        f64::from(sum % 1_000) / 1_000.0
    }

    async fn speak(&mut self) {
        self.look(Instant::now());
        let Some(world) = self.world.borrow().clone() else {
            return;
        };
        let report = NodeReport::new(world.position.clone(), &world.failures);
        let pace = *self.pace.borrow();
        let body = self.identity.lease_of(&report, pace, Timestamp::now());
        self.spoke = Instant::now();
        match self.send(&body).await {
            Ok(()) => {
                self.stats.count(Count::Report);
                self.said = Some(report);
                self.due = None;
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "this node cannot report");
                self.due = Some(Instant::now() + PAUSE.max(pace.interval()));
            }
        }
    }

    async fn send(&mut self, body: &serde_json::Value) -> Result<(), ApiError> {
        let path = leases(&self.identity.namespace);
        let own = format!("{path}/{}", self.identity.lease());
        if self.exists {
            match self.api.patch(&own, body).await {
                Err(ApiError::NotFound) => self.exists = false,
                answer => return answer.map(drop),
            }
        }
        match self.api.post(&path, body).await {
            Err(ApiError::Conflict) => self.api.patch(&own, body).await?,
            answer => answer?,
        };
        self.exists = true;
        Ok(())
    }

    async fn leave(&self) {
        let path = leases(&self.identity.namespace);
        let own = format!("{path}/{}", self.identity.lease());
        if let Err(error) = self.api.delete(&own, &json!({})).await {
            tracing::debug!(
                error = chain(&error),
                "this node's lease stays until it is stale"
            );
        }
    }
}
