//! What a watch of our own hears of the routes: when a write is known, and when its status is written.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use gateway_tests::api::{Api, Endpoint, Watch};
use gateway_tests::netns;
use serde_json::Value;

use crate::routes;

/// The state of a route's status.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    generation: u64,
    /// The lowest `observedGeneration` of its parents; 0 without any.
    observed: u64,
}

/// All that was heard.
#[derive(Debug, Default)]
pub struct Ledger {
    routes: HashMap<String, Seen>,
    /// Routes whose status speaks of their present generation.
    settled: usize,
    /// When a probed route was heard of with this number.
    pub probes: HashMap<u64, Instant>,
    /// When the status of a probed route spoke of this generation.
    pub probe_statuses: HashMap<(String, u64), Instant>,
    /// Events that changed no specification.
    pub status_writes: u64,
    /// Why the watch ended, if it has.
    pub ended: Option<String>,
}

/// A ledger that a watch on a thread of its own keeps.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<Ledger>>);

impl Watched {
    /// Starts to watch the HTTPRoutes of the namespace.
    pub fn start(endpoint: &Endpoint) -> Result<Self> {
        let watched = Self::default();
        let (endpoint, ledger) = (endpoint.clone(), watched.clone());
        let (ready, started) = std::sync::mpsc::channel();
        let work = move || {
            let outcome = netns::runtime()
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.block_on(ledger.follow(&endpoint, &ready)));
            ledger.lock().ended = outcome.err().map(|error| format!("{error:#}"));
        };
        std::thread::Builder::new()
            .name("watch".to_owned())
            .spawn(work)?;
        started.recv().context("the watch did not start")?;
        Ok(watched)
    }

    /// A look into it.
    pub fn lock(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn follow(&self, endpoint: &Endpoint, ready: &std::sync::mpsc::Sender<()>) -> Result<()> {
        let api = Api::connect(endpoint).await?;
        let list = api.get(&routes::collection()).await?;
        for object in list
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            self.lock().note(object, false, Instant::now());
        }
        let mut version = version_of(&list)?;
        loop {
            // The API server ends a watch now and then; the next one goes on where it was.
            let mut watch: Watch = api.watch(&routes::collection(), &version).await?;
            ready.send(()).ok();
            while let Some(event) = watch.next().await? {
                let at = Instant::now();
                let deleted = event.get("type").and_then(Value::as_str) == Some("DELETED");
                let object = event.get("object").context("an event without object")?;
                version = version_of(object)?;
                self.lock().note(object, deleted, at);
            }
        }
    }
}

fn version_of(object: &Value) -> Result<String> {
    let version = object
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str);
    Ok(version.context("no resourceVersion")?.to_owned())
}

impl Ledger {
    /// How many routes there are, and how many of them have a status of their present generation.
    pub fn counts(&self) -> (usize, usize) {
        (self.routes.len(), self.settled)
    }

    fn note(&mut self, object: &Value, deleted: bool, at: Instant) {
        let Some(name) = object.pointer("/metadata/name").and_then(Value::as_str) else {
            return;
        };
        let before = self.routes.remove(name);
        self.settled -= usize::from(before.is_some_and(Seen::settled));
        if deleted {
            return;
        }
        let now = Seen::of(object);
        self.settled += usize::from(now.settled());
        self.status_writes +=
            u64::from(before.is_some_and(|before| before.generation == now.generation));
        if let Some(number) = routes::probe_number(object) {
            self.probes.entry(number).or_insert(at);
            if now.settled() {
                let key = (name.to_owned(), now.generation);
                self.probe_statuses.entry(key).or_insert(at);
            }
        }
        self.routes.insert(name.to_owned(), now);
    }
}

impl Seen {
    fn of(object: &Value) -> Self {
        let number =
            |at: &Value, pointer: &str| at.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let parents = object.pointer("/status/parents").and_then(Value::as_array);
        let observed = parents
            .into_iter()
            .flatten()
            .map(|parent| number(parent, "/conditions/0/observedGeneration"));
        Self {
            generation: number(object, "/metadata/generation"),
            observed: observed.min().unwrap_or(0),
        }
    }

    fn settled(self) -> bool {
        self.generation == self.observed
    }
}
