//! A site with the measurement's objects in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::api::Api;
use gateway_tests::wait;
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::ledger::Watched;
use crate::routes;
use crate::site::Site;

/// Writes under way at once while routes are made.
const WRITERS: usize = 16;
/// How long thousands of routes may take to settle.
const PATIENCE: Duration = Duration::from_secs(600);

/// Everything that a measurement needs.
pub struct World {
    /// Where it is.
    pub site: Site,
    /// A connection to its API server.
    pub api: Api,
    /// What a watch of our own hears.
    pub watched: Watched,
    /// Routes made so far, the probed ones not counted.
    pub routes: usize,
    runtime: Runtime,
}

/// How long it took until so many routes had a status.
#[derive(Clone, Debug, Serialize)]
pub struct Settled {
    /// Routes made.
    pub made: usize,
    /// Routes then.
    pub routes: usize,
    /// Seconds until the last write had returned.
    pub written_s: f64,
    /// Seconds from then until every route's status spoke of it.
    pub settled_s: f64,
    /// Status writes meanwhile, by the API server's count: of routes and of the Gateway.
    pub status_writes: [u64; 2],
}

impl World {
    /// Makes the Gateway and the routes that are probed; what an earlier run left is removed first.
    pub fn new(mut site: Site) -> Result<Self> {
        site.remove()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let api = runtime.block_on(Api::connect(&site.endpoint))?;
        site.furnish(&runtime, &api)?;
        let world = Self {
            watched: Watched::start(&site.endpoint)?,
            routes: 0,
            runtime,
            site,
            api,
        };
        for index in 0..routes::PROBES {
            world.apply(&routes::probe_name(index), &routes::probe(index, 0))?;
        }
        world.apply(routes::TRAFFIC, &routes::traffic(0))?;
        world.settle()?;
        Ok(world)
    }

    /// Removes it all.
    pub fn remove(&self) -> Result<()> {
        self.site.remove()
    }

    /// Drives a future to its end.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Starts a task beside the measurement.
    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.spawn(future)
    }

    /// Writes a route; gives its generation and the moment at which the answer was read.
    pub fn apply(&self, name: &str, object: &Value) -> Result<(u64, Instant)> {
        self.block_on(async {
            let answer = self.api.apply(&routes::path(name), object).await?;
            let returned = Instant::now();
            let generation = answer
                .pointer("/metadata/generation")
                .and_then(Value::as_u64);
            Ok((generation.context("a route without generation")?, returned))
        })
    }

    /// Makes routes until there are so many, and waits until all of them have a status.
    pub fn grow_to(&mut self, routes: usize) -> Result<Settled> {
        let before = crate::meter::writes(self)?;
        let started = Instant::now();
        let first = self.routes;
        let (api, mut next) = (self.api.clone(), first);
        self.runtime.block_on(async {
            let mut writers: JoinSet<Result<Value>> = JoinSet::new();
            let object = |index| Arc::new(routes::other(index, 0));
            while next < routes || !writers.is_empty() {
                while next < routes && writers.len() < WRITERS {
                    let (api, object) = (api.clone(), object(next));
                    writers.spawn(async move { api.create(&routes::collection(), &object).await });
                    next += 1;
                }
                writers.join_next().await.transpose()?.transpose()?;
            }
            anyhow::Ok(())
        })?;
        self.routes = routes;
        let written = Instant::now();
        self.settle()?;
        let settled = written.elapsed();
        let writes = crate::meter::writes(self)? - before;
        Ok(Settled {
            made: routes - first,
            routes,
            written_s: (written - started).as_secs_f64(),
            settled_s: settled.as_secs_f64(),
            status_writes: [writes.routes, writes.gateways],
        })
    }

    /// Removes all routes but the probed ones, and waits until they are gone.
    pub fn shrink(&mut self) -> Result<()> {
        let (api, routes) = (self.api.clone(), self.routes);
        self.runtime.block_on(async {
            let mut left: JoinSet<Result<Value>> = JoinSet::new();
            for index in 0..routes {
                let api = api.clone();
                left.spawn(async move { api.delete(&routes::path(&routes::name(index))).await });
                if left.len() >= WRITERS {
                    left.join_next().await.transpose()?.transpose()?;
                }
            }
            while let Some(done) = left.join_next().await {
                done??;
            }
            anyhow::Ok(())
        })?;
        self.routes = 0;
        Ok(())
    }

    /// Waits until the status of every route speaks of the route as it is.
    pub fn settle(&self) -> Result<()> {
        let wanted = self.routes + routes::PROBES + 1;
        let mut last = (0, 0);
        let settled = wait::until_within(PATIENCE, "every route has a status", || {
            let ledger = self.watched.lock();
            last = ledger.counts();
            (ledger.ended.is_some() || last == (wanted, wanted)).then_some(())
        });
        let ended = self.watched.lock().ended.clone();
        ensure!(
            ended.is_none(),
            "the watch has ended: {}",
            ended.unwrap_or_default()
        );
        settled.with_context(|| {
            format!(
                "of {wanted} routes {} are known and {} have a status",
                last.0, last.1
            )
        })
    }
}
