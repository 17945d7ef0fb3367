//! Joins the parts: what the source says is translated, compiled, applied to the proxy and to the
//! packet path, and answered with statuses. One task; one change at a time.

mod announce;
mod packets;
mod stages;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_heap::Garbage;
use gateway_l4::L4;
use gateway_model::failure::Failure;
use gateway_model::names::{ListenerKey, Revision};
use gateway_model::snapshot::Snapshot;
use gateway_proxy::{ListenerFailure, Proxy};
use gateway_translate::Applied;
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};

use crate::pipeline::{Outcome, Pipeline};
use crate::source::{Position, Report, Source, Update};
use crate::status::observed::{self, Observations};
use crate::status::{Owed, Statuses};
use crate::telemetry::chain;
use crate::world::{Stages, World, micros, rejections};

pub use packets::steer;
pub use stages::{StageTimes, seconds};

/// The packet path, shared between the controller, the admin server and the one who detaches it;
/// nothing in sockets mode.
pub type PacketPath = Arc<Mutex<Option<Box<L4>>>>;

/// The controller's state.
#[derive(Debug)]
pub struct Controller {
    pipeline: Pipeline,
    statuses: Statuses,
    proxy: Arc<Proxy>,
    l4: PacketPath,
    world: watch::Sender<Option<Arc<World>>>,
    times: Arc<StageTimes>,
    reported: Option<Arc<Report>>,
    readable_since: Option<Instant>,
    reached: Reached,
    observed: Observations,
    failures: BTreeMap<ListenerKey, Failure>,
    l4_failure: Option<String>,
    last: Option<Outcome>,
    garbage: Garbage,
}

/// How far the source is with the last update.
#[derive(Clone, Debug, Default)]
struct Reached {
    position: Position,
    needed: Position,
}

/// The first and the longest pause before what failed is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

impl Controller {
    /// A controller that has seen nothing. `world` is where every applied revision is published;
    /// the first one is numbered after `after`, a predecessor's last.
    pub fn new(
        settings: gateway_translate::Settings,
        after: Revision,
        proxy: Arc<Proxy>,
        l4: PacketPath,
        world: watch::Sender<Option<Arc<World>>>,
        times: Arc<StageTimes>,
    ) -> Self {
        Self {
            pipeline: Pipeline::new(settings, after),
            statuses: Statuses::default(),
            proxy,
            l4,
            world,
            times,
            reported: None,
            readable_since: None,
            reached: Reached::default(),
            observed: Observations::default(),
            failures: BTreeMap::new(),
            l4_failure: None,
            last: None,
            garbage: Garbage::default(),
        }
    }

    /// Applies updates until the source ends. What the system refused is tried again, at doubling
    /// pauses, for the reason may lie outside: a port that another process gives up, a route.
    pub async fn run(mut self, mut source: Source) {
        let mut pause = RETRY.0;
        let mut refusals = packets::refusals(&self.l4).await;
        loop {
            if self.failures.is_empty() {
                pause = RETRY.0;
            }
            tokio::select! {
                update = source.updates.recv() => match update {
                    Some(update) => {
                        self.garbage.grow(update.events.len(), Instant::now());
                        self.apply(update).await;
                    }
                    None => return,
                },
                () = tokio::time::sleep(pause), if !self.failures.is_empty() => {
                    self.retry().await;
                    pause = (pause * 2).min(RETRY.1);
                }
                () = packets::changed(&mut refusals) => self.retry().await,
                now = reached(self.garbage.due()) => {
                    self.garbage.give_back(now);
                    gateway_heap::collapse_aside();
                }
            }
        }
    }

    /// Applies the last revision again.
    pub async fn retry(&mut self) {
        let (Some(outcome), Some(source)) = (self.last.take(), self.reported.clone()) else {
            return;
        };
        let before = self.failures.clone();
        let outcome = Outcome {
            is_new: false,
            ..outcome
        };
        self.publish(&outcome, &mut Stages::default()).await;
        if self.failures != before {
            for listener in before
                .keys()
                .filter(|listener| !self.failures.contains_key(listener))
            {
                tracing::info!(%listener, "listener is served now");
            }
            for (listener, failure) in &self.failures {
                if before.get(listener) != Some(failure) {
                    tracing::error!(%listener, error = %failure, "listener is not served everywhere");
                }
            }
            self.settle(outcome, source, Stages::default());
        } else {
            self.last = Some(outcome);
        }
    }

    /// Carries one change through.
    pub async fn apply(&mut self, update: Update) {
        let was_unreadable = self
            .reported
            .as_ref()
            .is_some_and(|r| r.unreadable.is_some());
        if was_unreadable && update.report.unreadable.is_none() {
            self.readable_since = Some(Instant::now());
        }
        announce::report(&mut self.reported, &update.report);
        self.reached = Reached {
            position: update.position,
            needed: update.needed,
        };
        observed::absorb(&mut self.observed, update.observed);
        let seen = update.seen.unwrap_or_else(Instant::now);
        let read = seen.elapsed();
        self.pipeline.set_crd_version(update.crd_version);
        let outcome = self.pipeline.absorb(update.events);
        let mut stages = Stages {
            read_us: micros(read),
            translate_us: micros(outcome.translate),
            compile_us: micros(outcome.compile),
            ..Stages::default()
        };
        if outcome.is_new {
            self.publish(&outcome, &mut stages).await;
        }
        stages.total_us = micros(seen.elapsed());
        self.settle(outcome, update.report, stages);
    }

    /// Make before break: certificates and sockets, then routes, then packets.
    async fn publish(&mut self, outcome: &Outcome, stages: &mut Stages) {
        let start = Instant::now();
        let applied = self.proxy.apply(Arc::clone(&outcome.snapshot)).await;
        let proxied = Instant::now();
        self.failures = applied.failures.into_iter().map(by_listener).collect();
        self.steer(&outcome.snapshot).await;
        stages.proxy_us = micros(proxied - start);
        stages.l4_us = micros(proxied.elapsed());
    }

    async fn steer(&mut self, snapshot: &Snapshot) {
        let mut l4 = self.l4.lock().await;
        let Some(l4) = l4.as_mut() else { return };
        let applied = packets::apply(l4, &self.proxy, snapshot.l4_plan()).await;
        let failed = applied.err().map(|error| chain(error.as_ref()));
        if failed != self.l4_failure {
            match &failed {
                Some(error) => {
                    tracing::error!(revision = %snapshot.revision(), error, "packet path keeps its previous tables");
                }
                None => {
                    tracing::info!(revision = %snapshot.revision(), "packet path follows again");
                }
            }
        }
        let refused = l4.refused().borrow().clone();
        for (listener, failure) in packets::failures(snapshot.ir(), failed.as_deref(), &refused) {
            self.failures.entry(listener).or_insert(failure);
        }
        self.l4_failure = failed;
    }

    fn settle(&mut self, outcome: Outcome, source: Arc<Report>, stages: Stages) {
        let rejected = rejections(&outcome);
        let applied = Applied {
            revision: outcome.snapshot.revision(),
            failures: self.failures.clone(),
            rejected: rejected.clone(),
            ..Applied::default()
        };
        let now = Timestamp::now();
        let owed = Owed::new(outcome.statuses.clone(), Arc::new(applied));
        self.statuses.update(owed, now);
        let before = self.world.borrow().clone();
        let kept = before.as_ref().filter(|_| !outcome.is_new);
        let world = World {
            snapshot: Arc::clone(&outcome.snapshot),
            statuses: self.statuses.clone(),
            source,
            readable_since: self.readable_since,
            provisions: outcome.provisions.clone(),
            observed: self.observed.clone(),
            position: self.reached.position.clone(),
            needed: self.reached.needed.clone(),
            rejected,
            failures: self.failures.clone(),
            stages: kept.map_or(stages, |world| world.stages),
            applied_at: kept.map_or(now, |world| world.applied_at),
        };
        if outcome.is_new {
            self.times.record(&stages);
            announce::announce(&world, before.as_deref());
        }
        self.world.send_replace(Some(Arc::new(world)));
        self.last = Some(outcome);
    }
}

/// Waits for a time, which may be never.
async fn reached(due: Option<Instant>) -> Instant {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
    Instant::now()
}

fn by_listener(failure: ListenerFailure) -> (ListenerKey, Failure) {
    (failure.listener, failure.failure)
}

#[cfg(test)]
mod tests;
