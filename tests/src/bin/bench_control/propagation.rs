//! Route propagation: a route changes, and every node is asked for it until it answers as it was told.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::http1::Wire;
use gateway_tests::netns::runtime;
use gateway_tests::numbered::{self, Spread};
use gateway_tests::wait;
use serde::Serialize;
use tokio::net::TcpSocket;

use crate::meter::{self, Writes};
use crate::routes::{self, PROBES};
use crate::world::World;

/// Between two questions to a node: shorter takes the processor from those that are measured.
const PAUSE: Duration = Duration::from_micros(500);
/// Between two changes of other routes.
const CHURN_PAUSE: Duration = Duration::from_millis(20);
/// How long a change may take before the measurement gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was measured at one number of routes. All times are milliseconds after the write had returned; what was seen
/// before counts as 0.
#[derive(Clone, Debug, Serialize)]
pub struct Propagation {
    /// Routes beside the probed one.
    pub routes: usize,
    /// Changes of other routes during the measurement.
    pub churn: u64,
    /// Until a watch of our own heard of it.
    pub watch: Spread,
    /// Until each node answered right.
    pub nodes: Vec<Spread>,
    /// Until the last node did.
    pub every_node: Spread,
    /// How much later than the watch that was.
    pub beyond_watch: Spread,
    /// Until the route's status spoke of the change.
    pub status: Spread,
    /// Status writes during the measurement, by the API server's count.
    pub writes: Writes,
    /// Changes of routes during the measurement, the probed one's included.
    pub changes: u64,
}

/// What all nodes are asked for: the number that a probed route is to carry. Whoever has seen it asks no more until
/// there is another one, which leaves the processor to those that are measured.
#[derive(Debug, Default)]
struct Asked {
    /// Which of the probed routes.
    probe: AtomicUsize,
    /// The number that has not been served everywhere yet.
    number: AtomicU64,
    stop: AtomicBool,
}

/// What was seen of one node.
#[derive(Debug, Default)]
struct Seen {
    /// When the first answer with this number was read.
    numbers: HashMap<u64, Instant>,
    failed: Option<String>,
}

/// Changes the probed route so many times, idle or while other routes change.
pub fn measure(world: &World, changes: usize, churn: bool) -> Result<Propagation> {
    let asked = Arc::new(Asked::default());
    let nodes = pollers(world, &asked)?;
    let others = churn.then(|| churn_routes(world, &asked));
    let before = meter::writes(world)?;
    let outcome = change(world, changes, &nodes, &asked);
    asked.stop.store(true, Ordering::Relaxed);
    let churned = match others {
        Some(task) => world.block_on(task)??,
        None => 0,
    };
    world.settle()?;
    let mut measured = outcome?;
    measured.writes = meter::writes(world)? - before;
    measured.churn = churned;
    measured.changes += churned;
    Ok(measured)
}

fn change(
    world: &World,
    changes: usize,
    nodes: &[Arc<Mutex<Seen>>],
    asked: &Asked,
) -> Result<Propagation> {
    let mut number = first_number(world);
    let mut times = Times::new(nodes.len());
    for turn in 0..changes {
        number += 1;
        let index = turn % PROBES;
        asked.probe.store(index, Ordering::Relaxed);
        asked.number.store(number, Ordering::Release);
        let (generation, returned) =
            world.apply(&routes::probe_name(index), &routes::probe(index, number))?;
        let written = Written {
            number,
            name: routes::probe_name(index),
            generation,
            returned,
        };
        let what = format!("number {number} is served by every node and in the status");
        let waited = wait::until_within(PATIENCE, &what, || times.add(world, nodes, &written));
        waited.with_context(|| state(nodes, number))?;
    }
    let [watch, every_node, beyond_watch, status] =
        [times.watch, times.every, times.beyond, times.status].map(Spread::of);
    Ok(Propagation {
        routes: world.routes,
        churn: 0,
        watch,
        nodes: times.nodes.into_iter().map(Spread::of).collect(),
        every_node,
        beyond_watch,
        status,
        writes: Writes::default(),
        changes: u64::try_from(changes)?,
    })
}

/// A write of a probed route.
struct Written {
    number: u64,
    name: String,
    generation: u64,
    /// When the API server's answer was read.
    returned: Instant,
}

/// Milliseconds of every change.
struct Times {
    watch: Vec<f64>,
    nodes: Vec<Vec<f64>>,
    every: Vec<f64>,
    beyond: Vec<f64>,
    status: Vec<f64>,
}

impl Times {
    fn new(nodes: usize) -> Self {
        Self {
            watch: Vec::new(),
            nodes: vec![Vec::new(); nodes],
            every: Vec::new(),
            beyond: Vec::new(),
            status: Vec::new(),
        }
    }

    /// Adds a change, once everybody has seen it.
    fn add(&mut self, world: &World, nodes: &[Arc<Mutex<Seen>>], written: &Written) -> Option<()> {
        let (watch, status) = {
            let ledger = world.watched.lock();
            (
                *ledger.probes.get(&written.number)?,
                *ledger
                    .probe_statuses
                    .get(&(written.name.clone(), written.generation))?,
            )
        };
        let served: Option<Vec<Instant>> = nodes
            .iter()
            .map(|seen| lock(seen).numbers.get(&written.number).copied())
            .collect();
        let served = served?;
        let returned = written.returned;
        let after = |at: Instant| at.saturating_duration_since(returned).as_secs_f64() * 1e3;
        let last = served.iter().copied().max().unwrap_or(returned);
        for (times, at) in self.nodes.iter_mut().zip(served) {
            times.push(after(at));
        }
        self.watch.push(after(watch));
        self.every.push(after(last));
        self.beyond.push(
            last.saturating_duration_since(watch.max(returned))
                .as_secs_f64()
                * 1e3,
        );
        self.status.push(after(status));
        Some(())
    }
}

/// One thread per node that asks it for the probed route whose turn it is.
fn pollers(world: &World, asked: &Arc<Asked>) -> Result<Vec<Arc<Mutex<Seen>>>> {
    let mut all = Vec::new();
    for node in &world.site.nodes {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (source, to) = (node.source, node.to);
        let (state, asked) = (Arc::clone(&seen), Arc::clone(asked));
        world
            .site
            .client
            .spawn_thread(&format!("ask-{}", node.name), move || {
                let outcome = runtime()
                    .map_err(anyhow::Error::from)
                    .and_then(|r| r.block_on(poll(source, to, &state, &asked)));
                lock(&state).failed = outcome.err().map(|error| format!("{error:#}"));
            })?;
        let ready = wait::until(&format!("{} answers", node.name), || {
            let seen = lock(&seen);
            (seen.failed.is_some() || !seen.numbers.is_empty()).then_some(())
        });
        ready?;
        ensure!(
            lock(&seen).failed.is_none(),
            "{}: {:?}",
            node.name,
            lock(&seen).failed
        );
        all.push(seen);
    }
    Ok(all)
}

async fn poll(
    source: Option<IpAddr>,
    to: SocketAddr,
    seen: &Mutex<Seen>,
    asked: &Asked,
) -> Result<()> {
    let socket = if to.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(source) = source {
        socket.bind(SocketAddr::new(source, 0))?;
    }
    let stream = socket.connect(to).await.context("connect")?;
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    let mut newest = None;
    while !asked.stop.load(Ordering::Relaxed) {
        let wanted = asked.number.load(Ordering::Acquire);
        if newest.is_none_or(|newest| newest < wanted) {
            let host = routes::probe_host(asked.probe.load(Ordering::Relaxed));
            let number = numbered::ask(&mut wire, &host).await?;
            let at = Instant::now();
            lock(seen).numbers.entry(number).or_insert(at);
            newest = newest.max(Some(number));
        }
        // Nothing else runs on this thread, and the runtime's own clock counts in milliseconds.
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Changes other routes, one after another, until told to stop; gives how many.
fn churn_routes(world: &World, asked: &Arc<Asked>) -> tokio::task::JoinHandle<Result<u64>> {
    let (api, asked, count) = (world.api.clone(), Arc::clone(asked), world.routes);
    world.spawn(async move {
        let mut changed = 0;
        while !asked.stop.load(Ordering::Relaxed) {
            // A stride that meets every route before any of them again, and not in order.
            let index = usize::try_from(changed)? * 7919 % count;
            let number = 1 + usize::try_from(changed)?;
            api.apply(
                &routes::path(&routes::name(index)),
                &routes::other(index, number),
            )
            .await?;
            changed += 1;
            tokio::time::sleep(CHURN_PAUSE).await;
        }
        Ok(changed)
    })
}

/// A number that no earlier measurement has used.
fn first_number(world: &World) -> u64 {
    world
        .watched
        .lock()
        .probes
        .keys()
        .copied()
        .max()
        .unwrap_or(0)
}

fn state(nodes: &[Arc<Mutex<Seen>>], number: u64) -> String {
    let each = nodes.iter().enumerate().map(|(n, seen)| {
        let seen = lock(seen);
        let last = seen.numbers.keys().max();
        format!(
            "node{n}: {:?}, newest answer {last:?}, of {number}",
            seen.failed
        )
    });
    each.collect::<Vec<_>>().join("; ")
}

fn lock(seen: &Mutex<Seen>) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
