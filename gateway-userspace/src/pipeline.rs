//! From object events to a compiled snapshot: the part of the controller that touches nothing.
//!
//! `sluice run`, `sluice check` and the offline answers use this one path, which is why they agree.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_model::ir::Ir;
use gateway_model::names::{ObjectRef, Revision};
use gateway_model::snapshot::{Rejected, Snapshot, compile};
use gateway_translate::{Event, Objects, ProvisionedService, Settings, Status, Translator};
use imbl::OrdMap;

/// The Services that are to be kept, by Gateway.
pub type Provisions = OrdMap<ObjectRef, Arc<ProvisionedService>>;

/// Keeps a translation and its snapshot.
#[derive(Debug)]
pub struct Pipeline {
    translator: Translator,
    snapshot: Option<Arc<Snapshot>>,
    rejected: Vec<Rejected>,
    after: Revision,
}

/// What a change of the objects amounts to.
#[derive(Debug)]
pub struct Outcome {
    /// The snapshot to serve; its revision is the previous one's if nothing that is served changed.
    pub snapshot: Arc<Snapshot>,
    /// Whether it differs from the one before.
    pub is_new: bool,
    /// What every object's status should be once it is served.
    pub statuses: OrdMap<ObjectRef, Arc<Status>>,
    /// The Services that are to be kept for Gateways.
    pub provisions: Provisions,
    /// What keeps its last good form.
    pub rejected: Vec<Rejected>,
    /// Time taken by translation.
    pub translate: Duration,
    /// Time taken by compilation.
    pub compile: Duration,
}

impl Pipeline {
    /// Knows no object yet. The first revision is the one after `after`.
    pub fn new(settings: Settings, after: Revision) -> Self {
        Self {
            translator: Translator::new(settings),
            snapshot: None,
            rejected: Vec::new(),
            after,
        }
    }

    /// The CRDs are of this release from now on: [`Translator::set_crd_version`].
    pub fn set_crd_version(&mut self, version: Option<Arc<str>>) {
        self.translator.set_crd_version(version);
    }

    /// What is known.
    pub fn objects(&self) -> &Objects {
        self.translator.objects()
    }

    /// Takes a change of the objects.
    pub fn absorb(&mut self, events: Vec<Event>) -> Outcome {
        let start = Instant::now();
        self.translator.apply(events);
        let translation = self.translator.translate();
        let translated = Instant::now();
        let is_new = !self
            .snapshot
            .as_ref()
            .is_some_and(|old| is_same(old.ir(), &translation.ir));
        if is_new {
            let before = self
                .snapshot
                .as_ref()
                .map_or(self.after, |old| old.revision());
            let revision = Revision(before.0 + 1);
            let compiled = compile(&translation.ir, revision, self.snapshot.as_deref());
            self.snapshot = Some(compiled.snapshot);
            self.rejected = compiled.rejected;
        }
        let snapshot = self.snapshot.clone().unwrap_or_default();
        Outcome {
            snapshot,
            is_new,
            statuses: translation.statuses,
            provisions: translation.provisions,
            rejected: self.rejected.clone(),
            translate: translated - start,
            compile: translated.elapsed(),
        }
    }
}

/// Whether both mean the same; what they share is not looked at.
fn is_same(a: &Ir, b: &Ir) -> bool {
    a.listeners.diff(&b.listeners).next().is_none()
        && a.routes.diff(&b.routes).next().is_none()
        && a.upstreams.diff(&b.upstreams).next().is_none()
        && a.certificates.diff(&b.certificates).next().is_none()
}
