//! A route changes, again and again, under traffic through all nodes: no request may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::Load;
use gateway_tests::wait;
use serde::Serialize;

use crate::routes::{self, TRAFFIC, TRAFFIC_HOST};
use crate::world::World;

/// Connections of each kind of traffic.
const CONNECTIONS: usize = 6;
/// After each answer, so that the load leaves the processor to those that are measured.
const PAUSE: Duration = Duration::from_millis(5);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Traffic {
    /// Changes of the route.
    pub changes: usize,
    /// Requests answered well.
    pub answered: u64,
    /// Requests that failed, in whatever way.
    pub failed: u64,
    /// The first failures, in words.
    pub examples: Vec<String>,
    /// How long all of it took.
    pub seconds: f64,
}

/// Changes the route so many times. Each change waits until traffic has met it.
pub fn measure(world: &World, changes: usize) -> Result<Traffic> {
    let newest = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&newest);
    let load = Load::new(world.address, TRAFFIC_HOST)
        .connections(CONNECTIONS)
        .pause(PAUSE)
        .check(move |exchange| {
            let turn = exchange
                .response
                .header("x-turn")
                .context("an answer without x-turn")?;
            seen.fetch_max(turn.parse()?, Ordering::Relaxed);
            ensure!(
                exchange.response.status == 200,
                "status {}",
                exchange.response.status
            );
            Ok(())
        });
    let client = world.cluster.client();
    let kept = load.clone().start(client)?;
    let fresh = load.new_connections().start(client)?;
    let started = Instant::now();
    for turn in 1..=changes {
        world.apply(TRAFFIC, &routes::traffic(turn))?;
        wait::until(&format!("turn {turn} is met by traffic"), || {
            (newest.load(Ordering::Relaxed) >= turn).then_some(())
        })?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let reports = [kept.stop()?, fresh.stop()?];
    Ok(Traffic {
        changes,
        answered: reports.iter().map(|report| report.ok).sum(),
        failed: reports
            .iter()
            .map(gateway_tests::load::Report::failures)
            .sum(),
        examples: reports
            .iter()
            .flat_map(|report| report.examples.clone())
            .collect(),
        seconds,
    })
}
