//! Holds the Lease of the status writer when it can, and says until when.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use super::api::{Api, ApiError, leases};
use super::cluster::Stop;
use super::follow::{Seen, follow};
use super::lease::{Election, Lease, Step, Terms};
use super::node::{NODES, Pace};
use super::stats::Stats;
use crate::telemetry::chain;

/// Who may write, as others ask it.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Instant>>);

impl Leadership {
    /// Whether this process may write at this moment.
    pub fn is_held(&self) -> bool {
        self.0.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Until when, as far as is known; none if it may not.
    pub fn held_until(&self) -> Option<Instant> {
        let now = Instant::now();
        self.0.borrow().filter(|until| now < *until)
    }

    /// Waits for news; an error means that there will be none.
    pub async fn changed(&mut self) -> Result<(), watch::error::RecvError> {
        self.0.changed().await
    }
}

/// One candidate.
pub struct Elector {
    api: Api,
    namespace: String,
    name: String,
    election: Election,
    terms: Terms,
    held: watch::Sender<Option<Instant>>,
    /// How many nodes there are, as the writer counts them.
    counted: watch::Receiver<Pace>,
    /// What the holder's Lease says about it.
    published: watch::Sender<Pace>,
    stats: Arc<Stats>,
}

impl Elector {
    /// A candidate for the Lease of that name.
    pub fn new(
        api: Api,
        (namespace, name): (String, String),
        identity: String,
        terms: Terms,
        counted: watch::Receiver<Pace>,
        stats: Arc<Stats>,
    ) -> (Self, Leadership, watch::Receiver<Pace>) {
        let (held, leadership) = watch::channel(None);
        let (published, pace) = watch::channel(*counted.borrow());
        let elector = Self {
            api,
            namespace,
            name,
            election: Election::new(identity, terms),
            terms,
            held,
            counted,
            published,
            stats,
        };
        (elector, Leadership(leadership), pace)
    }

    /// Stands for election until told to stop, and gives the Lease up then.
    pub async fn run(mut self, mut stop: Stop) {
        let (sender, mut seen) = mpsc::channel(16);
        let selector = format!("fieldSelector=metadata.name%3D{}", self.name);
        let follower = follow(self.api.clone(), leases(&self.namespace), selector, sender);
        let follower = tokio::spawn(follower);
        // Nothing is known before the first list.
        while let Some(first) = seen.recv().await {
            let is_known = matches!(first, Seen::All(_));
            self.see(first);
            if is_known {
                break;
            }
        }
        let mut not_before = Instant::now();
        loop {
            self.announce();
            let due = match self.election.step(Instant::now()) {
                Step::Wait(until) => until.max(not_before),
                Step::Create | Step::Replace if not_before > Instant::now() => not_before,
                Step::Create | Step::Replace => {
                    not_before = Instant::now() + self.claim().await;
                    continue;
                }
            };
            let due = self.lost_at().map_or(due, |lost| due.min(lost));
            tokio::select! {
                () = stop.told() => break,
                Some(seen) = seen.recv() => self.see(seen),
                Ok(()) = self.counted.changed() => {
                    if self.election.held_until(Instant::now()).is_some() {
                        not_before = not_before.max(Instant::now() + self.claim().await);
                    }
                }
                () = sleep_until(due.into()) => {}
            }
        }
        follower.abort();
        self.held.send_replace(None);
        self.release().await;
    }

    fn see(&mut self, seen: Seen) {
        let now = Instant::now();
        match seen {
            Seen::All(mut leases) => self.election.see(leases.pop(), now),
            Seen::Is(lease) => self.election.see(Some(lease), now),
            Seen::Gone(_) => self.election.see(None, now),
            Seen::Still | Seen::Lost => {}
        }
        let pace = self.election.seen().and_then(|lease| {
            let annotation = lease.annotation(NODES)?;
            Pace::parse(annotation)
        });
        if let Some(pace) = pace {
            self.publish(pace);
        }
    }

    fn publish(&self, pace: Pace) {
        self.published.send_if_modified(|published| {
            let is_new = *published != pace;
            *published = pace;
            is_new
        });
    }

    /// When the Lease must be taken for lost; it is announced then.
    fn lost_at(&self) -> Option<Instant> {
        *self.held.borrow()
    }

    fn announce(&self) {
        let until = self.election.held_until(Instant::now());
        let was = self.held.send_replace(until);
        if was.is_some() != until.is_some() {
            self.stats.led(until.is_some());
            match until {
                Some(_) => tracing::info!(lease = self.name, "this sluice writes the statuses"),
                None => tracing::warn!(lease = self.name, "this sluice stops writing statuses"),
            }
        }
    }

    /// Creates or replaces the Lease. Returns how long to wait before the next try.
    async fn claim(&mut self) -> Duration {
        let asked = Instant::now();
        let pace = *self.counted.borrow_and_update();
        let mut body = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": self.name,
                "namespace": self.namespace,
                "labels": {"app.kubernetes.io/name": "sluice"},
                "annotations": {NODES: pace.annotation()},
            },
            "spec": self.election.spec(Timestamp::now()),
        });
        let path = leases(&self.namespace);
        let written = match self.election.seen() {
            None => self.api.post(&path, &body).await,
            Some(lease) => {
                body["metadata"]["resourceVersion"] = Value::from(lease.resource_version.clone());
                self.api.put(&format!("{path}/{}", self.name), &body).await
            }
        };
        match written {
            Ok(lease) => {
                self.election.written(Lease::read(&lease), asked);
                self.publish(pace);
                Duration::ZERO
            }
            Err(ApiError::Conflict | ApiError::NotFound) => {
                self.look().await;
                // Many candidates see a Lease go stale at the same time.
                Duration::from_millis(50)
            }
            Err(error) => {
                tracing::debug!(error = chain(&error), "lease cannot be written");
                self.terms.period() / 2
            }
        }
    }

    async fn look(&mut self) {
        let path = format!("{}/{}", leases(&self.namespace), self.name);
        match self.api.get(&path).await {
            Ok(lease) => self.election.see(Some(Lease::read(&lease)), Instant::now()),
            Err(ApiError::NotFound) => self.election.see(None, Instant::now()),
            Err(error) => tracing::debug!(error = chain(&error), "lease cannot be read"),
        }
    }

    async fn release(&self) {
        let (Some(spec), Some(lease)) = (
            self.election.release(Timestamp::now()),
            self.election.seen(),
        ) else {
            return;
        };
        let body = json!({
            "metadata": {"resourceVersion": lease.resource_version},
            "spec": spec,
        });
        let path = format!("{}/{}", leases(&self.namespace), self.name);
        match self.api.patch(&path, &body).await {
            Ok(_) => tracing::info!(lease = self.name, "gave up writing statuses"),
            Err(error) => tracing::debug!(error = chain(&error), "lease cannot be given up"),
        }
    }
}
