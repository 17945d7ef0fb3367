//! What a sluice knows about itself at one moment: the answer to every question of the CLI.
//!
//! A running process publishes one after each revision; the CLI makes one from a directory when it
//! is asked offline. Every view is computed from it, so that both give the same answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_model::failure::Failure;
use gateway_model::names::{ListenerKey, ObjectRef, Revision};
use gateway_model::snapshot::Snapshot;
use gateway_translate::{Applied, Objects};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::pipeline::{Outcome, Pipeline, Provisions};
use crate::source::{Follower, Position, Report};
use crate::status::observed::Observations;
use crate::status::{Owed, Statuses};

/// One moment of a sluice.
#[derive(Clone, Debug)]
pub struct World {
    /// What is served.
    pub snapshot: Arc<Snapshot>,
    /// The objects' statuses.
    pub statuses: Statuses,
    /// What the source says about itself.
    pub source: Arc<Report>,
    /// When the source could be read again after it could not.
    pub readable_since: Option<Instant>,
    /// The Services that are to be kept for Gateways.
    pub provisions: Provisions,
    /// What the API server keeps of them.
    pub observed: Observations,
    /// How far the source had come.
    pub position: Position,
    /// What another node must have reached to serve the same.
    pub needed: Position,
    /// What keeps its last good form, and why.
    pub rejected: BTreeMap<ObjectRef, String>,
    /// The listeners that are not served, and why.
    pub failures: BTreeMap<ListenerKey, Failure>,
    /// How long the last revision took.
    pub stages: Stages,
    /// When the last revision was applied.
    pub applied_at: Timestamp,
}

/// A directory that nobody serves.
#[derive(Clone, Debug)]
pub struct Offline {
    /// What a sluice that served it would know.
    pub world: World,
    /// Every object in it.
    pub objects: Objects,
}

/// How long each step from a change to its being served took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stages {
    /// From the file event to typed objects, in microseconds.
    pub read_us: u64,
    /// Translation, in microseconds.
    pub translate_us: u64,
    /// Compilation, in microseconds.
    pub compile_us: u64,
    /// Until every worker served it, in microseconds.
    pub proxy_us: u64,
    /// Until the packet path had it, in microseconds.
    pub l4_us: u64,
    /// From the file event until all of it was served, in microseconds.
    pub total_us: u64,
}

impl World {
    /// What a sluice that serves this directory would know.
    ///
    /// # Errors
    /// The directory cannot be read at all.
    pub fn offline(
        directory: &Path,
        settings: gateway_translate::Settings,
    ) -> anyhow::Result<Offline> {
        let mut follower = Follower::new(directory, None);
        let events = follower.read_all();
        let source = follower.report();
        if let Some(reason) = &source.unreadable {
            anyhow::bail!("{}: {reason}", directory.display());
        }
        let mut pipeline = Pipeline::new(settings, Revision::default());
        let outcome = pipeline.absorb(events);
        Ok(Offline {
            world: Self::assume_applied(outcome, source),
            objects: pipeline.objects().clone(),
        })
    }

    fn assume_applied(outcome: Outcome, source: Report) -> Self {
        let mut statuses = Statuses::default();
        let applied_at = Timestamp::now();
        let rejected = rejections(&outcome);
        let applied = Applied {
            revision: outcome.snapshot.revision(),
            failures: BTreeMap::new(),
            rejected: rejected.clone(),
            ..Applied::default()
        };
        let owed = Owed::new(outcome.statuses, Arc::new(applied));
        statuses.update(owed, applied_at);
        Self {
            snapshot: outcome.snapshot,
            statuses,
            source: Arc::new(source),
            readable_since: None,
            provisions: outcome.provisions,
            observed: Observations::default(),
            position: Position::default(),
            needed: Position::default(),
            rejected,
            failures: BTreeMap::new(),
            stages: Stages::default(),
            applied_at,
        }
    }

    /// Whether it is founded on anything: see [`Report::is_founded`].
    pub fn is_founded(&self) -> bool {
        self.source.is_founded()
    }

    /// The revision that is served.
    pub fn revision(&self) -> Revision {
        self.snapshot.revision()
    }
}

/// What was rejected, by object.
pub fn rejections(outcome: &Outcome) -> BTreeMap<ObjectRef, String> {
    outcome
        .rejected
        .iter()
        .map(|r| (r.object.clone(), r.reason.clone()))
        .collect()
}

/// Microseconds, which is how durations leave the process.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
