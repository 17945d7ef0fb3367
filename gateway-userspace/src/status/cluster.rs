//! The tasks that tell an API server what this node has applied, and, on one node, what became of
//! every object. On a thread of their own: however much there is to write, no change waits for it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::api::Api;
use super::elector::Elector;
use super::events::Herald;
use super::job::Desk;
use super::lease::Terms;
use super::node::{Identity, Pace};
use super::reporter::Reporter;
use super::stats::Stats;
use super::writer::Writer;
use crate::world::World;

/// How long the tasks may take to give up what they hold.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the tasks need to know.
pub struct Setup {
    /// The API server, by a connection that nothing else uses.
    pub client: Client,
    /// Whose Pod this is.
    pub identity: Identity,
    /// The name of the writer's Lease.
    pub lease: String,
    /// How it is held.
    pub terms: Terms,
    /// Whose entries are ours.
    pub controller: Arc<str>,
    /// What is known.
    pub world: watch::Receiver<Option<Arc<World>>>,
    /// What is counted.
    pub stats: Arc<Stats>,
}

/// Tells a task when to end.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Waits for it.
    pub async fn told(&mut self) {
        // Who could tell is gone: that means the same.
        let _ = self.0.wait_for(|stop| *stop).await.map(drop);
    }
}

/// The running tasks.
#[derive(Debug)]
pub struct Clerks {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    _thread: oneshot::Sender<()>,
}

impl Clerks {
    /// Starts them.
    ///
    /// # Errors
    /// The thread cannot be made.
    pub fn start(setup: Setup) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let (thread, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("status".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(ended);
            })?;
        let (stop, stopped) = watch::channel(false);
        let stopped = Stop(stopped);
        let (counted, count) = watch::channel(Pace::of(1));
        let api = Api::new(setup.client);
        let (elector, leadership, pace) = Elector::new(
            api.clone(),
            (setup.identity.namespace.clone(), setup.lease),
            setup.identity.pod.clone(),
            setup.terms,
            count,
            Arc::clone(&setup.stats),
        );
        let reporter = Reporter::new(
            api.clone(),
            setup.identity.clone(),
            setup.world.clone(),
            pace,
            Arc::clone(&setup.stats),
        );
        let (herald, events) = Herald::new(
            api.clone(),
            Arc::clone(&setup.controller),
            setup.identity.pod.clone(),
            leadership.clone(),
            Arc::clone(&setup.stats),
        );
        let writer = Writer {
            desk: Desk {
                api,
                controller: setup.controller,
                events,
                leadership,
                stats: setup.stats,
            },
            identity: setup.identity,
            world: setup.world,
            counted,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn_on(elector.run(stopped.clone()), &handle);
        tasks.spawn_on(reporter.run(stopped.clone()), &handle);
        tasks.spawn_on(herald.run(), &handle);
        tasks.spawn_on(writer.run(stopped), &handle);
        Ok(Self {
            stop,
            tasks,
            _thread: thread,
        })
    }

    /// Ends them; what they hold is given up, so that another node goes on at once.
    pub async fn end(mut self) {
        self.stop.send_replace(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, all).await.is_err() {
            tracing::warn!("leases could not be given up in time; they will grow stale");
        }
    }
}
