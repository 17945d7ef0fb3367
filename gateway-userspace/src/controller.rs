//! Joins the parts: what the source says is translated, compiled, applied to the proxy and to the
//! packet path, and answered with statuses. One task; one change at a time.

mod stages;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use gateway_l4::L4;
use gateway_model::names::{ListenerKey, ObjectRef, Revision};
use gateway_model::snapshot::{PortTable, Snapshot};
use gateway_proxy::{ListenerFailure, Proxy};
use gateway_translate::Applied;
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};

use crate::pipeline::{Outcome, Pipeline};
use crate::source::{Report, Source, Update};
use crate::status::StatusStore;
use crate::telemetry::chain;
use crate::world::{Stages, World, micros, rejections};

pub use stages::{StageTimes, seconds};

/// The packet path, shared between the controller, the admin server and the one who detaches it;
/// nothing in sockets mode.
pub type PacketPath = Arc<Mutex<Option<Box<L4>>>>;

/// The controller's state.
#[derive(Debug)]
pub struct Controller {
    pipeline: Pipeline,
    statuses: StatusStore,
    proxy: Arc<Proxy>,
    l4: PacketPath,
    world: watch::Sender<Option<Arc<World>>>,
    times: Arc<StageTimes>,
    reported: Option<Arc<Report>>,
    failures: BTreeMap<ListenerKey, String>,
}

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
            statuses: StatusStore::default(),
            proxy,
            l4,
            world,
            times,
            reported: None,
            failures: BTreeMap::new(),
        }
    }

    /// Applies updates until the source ends.
    pub async fn run(mut self, mut source: Source) {
        while let Some(update) = source.updates.recv().await {
            self.apply(update).await;
        }
    }

    /// Carries one change through.
    pub async fn apply(&mut self, update: Update) {
        self.report(&update.report);
        let read = update.seen.elapsed();
        let outcome = self.pipeline.absorb(update.events);
        let rejected = rejections(&outcome);
        let mut stages = Stages {
            read_us: micros(read),
            translate_us: micros(outcome.translate),
            compile_us: micros(outcome.compile),
            ..Stages::default()
        };
        if outcome.is_new {
            self.publish(&outcome, &mut stages).await;
        }
        stages.total_us = micros(update.seen.elapsed());
        self.settle(&outcome, rejected, update.report, stages);
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
        let Err(error) = l4.apply(snapshot.l4_plan()).await else {
            return;
        };
        let reason = chain(&error);
        tracing::error!(revision = %snapshot.revision(), error = reason, "packet path keeps its previous tables");
        for listener in snapshot.ir().listeners.keys() {
            self.failures
                .entry(listener.clone())
                .or_insert_with(|| format!("packet path: {reason}"));
        }
    }

    fn settle(
        &mut self,
        outcome: &Outcome,
        rejected: BTreeMap<ObjectRef, String>,
        source: Arc<Report>,
        stages: Stages,
    ) {
        let applied = Applied {
            revision: outcome.snapshot.revision(),
            failures: self.failures.clone(),
            rejected: rejected.clone(),
        };
        let now = Timestamp::now();
        self.statuses.update(&outcome.statuses, applied, now);
        let before = self.world.borrow().clone();
        let kept = before.as_ref().filter(|_| !outcome.is_new);
        let world = World {
            snapshot: Arc::clone(&outcome.snapshot),
            statuses: self.statuses.statuses().clone(),
            source,
            rejected,
            failures: self.failures.clone(),
            stages: kept.map_or(stages, |world| world.stages),
            applied_at: kept.map_or(now, |world| world.applied_at),
        };
        if outcome.is_new {
            self.times.record(&stages);
            announce(&world, before.as_deref());
        }
        self.world.send_replace(Some(Arc::new(world)));
    }

    /// Says what is new in a report, once.
    fn report(&mut self, report: &Arc<Report>) {
        let before = self
            .reported
            .replace(Arc::clone(report))
            .unwrap_or_default();
        if let Some(error) = report
            .unreadable
            .as_ref()
            .filter(|e| before.unreadable.as_ref() != Some(e))
        {
            tracing::error!(directory = %report.directory.display(), error, "manifests cannot be read; serving what was good");
        }
        for finding in report
            .findings
            .iter()
            .filter(|f| !before.findings.contains(f))
        {
            tracing::warn!(
                file = %finding.file.display(),
                line = finding.line,
                document = finding.document,
                object = finding.object.as_ref().map(tracing::field::display),
                error = finding.message,
                "manifest is not used"
            );
        }
        for held in report
            .held
            .iter()
            .filter(|held| !before.held.contains(held))
        {
            tracing::warn!(object = %held.object, file = %held.file.display(), "file is broken; serving the last good form");
        }
        let healed = report.findings.is_empty() && report.held.is_empty();
        if healed && !(before.findings.is_empty() && before.held.is_empty()) {
            tracing::info!(files = report.files, "manifests are without mistakes");
        }
    }
}

fn announce(world: &World, before: Option<&World>) {
    let snapshot = &world.snapshot;
    tracing::info!(
        revision = %snapshot.revision(),
        listeners = listening(world),
        routes = snapshot.ir().routes.len(),
        upstreams = snapshot.ir().upstreams.len(),
        total_us = world.stages.total_us,
        "revision applied"
    );
    let is_empty = |world: &World| world.snapshot.ir().listeners.is_empty();
    if is_empty(world) && before.is_none_or(|before| !is_empty(before)) {
        tracing::warn!("no listeners: waiting for a Gateway of a class that is ours");
    }
    let known = before.map(|before| (&before.failures, &before.rejected));
    for (listener, reason) in &world.failures {
        if known.is_none_or(|(failures, _)| failures.get(listener) != Some(reason)) {
            tracing::error!(%listener, error = reason, "listener is not served");
        }
    }
    for (object, reason) in &world.rejected {
        if known.is_none_or(|(_, rejected)| rejected.get(object) != Some(reason)) {
            tracing::warn!(%object, error = reason, "object keeps its last good form");
        }
    }
}

/// The ports that are served: `80 http, 443 https`.
fn listening(world: &World) -> String {
    let port = |table: &Arc<PortTable>| {
        let protocol = if table.tls { "https" } else { "http" };
        match table.address {
            Some(address) => format!("{} {protocol}", SocketAddr::new(address, table.port)),
            None => format!("{} {protocol}", table.port),
        }
    };
    world
        .snapshot
        .port_tables()
        .map(port)
        .collect::<Vec<_>>()
        .join(", ")
}

fn by_listener(failure: ListenerFailure) -> (ListenerKey, String) {
    (failure.listener, failure.reason)
}
