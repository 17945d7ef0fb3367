//! A route changes, again and again, under traffic through all nodes: no request may fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use gateway_tests::http1::Response;
use gateway_tests::load::{Load, Running};
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
    let targets = world.site.targets();
    let mut loads = Vec::new();
    for target in &targets {
        let seen = Arc::clone(&newest);
        let load = Load::new(*target, TRAFFIC_HOST)
            .connections(CONNECTIONS / targets.len())
            .pause(PAUSE)
            .check(move |exchange| check(exchange.response, &seen));
        loads.push(load.clone().start(&world.site.client)?);
        loads.push(load.new_connections().start(&world.site.client)?);
    }
    let started = Instant::now();
    for turn in 1..=changes {
        world.apply(TRAFFIC, &routes::traffic(turn))?;
        wait::until(&format!("turn {turn} is met by traffic"), || {
            (newest.load(Ordering::Relaxed) >= turn).then_some(())
        })?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let reports = loads.into_iter().map(Running::stop);
    let reports = reports.collect::<Result<Vec<_>>>()?;
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

/// An answer has to be good and to say by which form of the route it was given.
fn check(response: &Response, newest: &AtomicUsize) -> Result<()> {
    let turn = response.header("x-turn");
    let turn = turn.context("an answer without x-turn")?;
    newest.fetch_max(turn.parse()?, Ordering::Relaxed);
    ensure!(response.status == 200, "status {}", response.status);
    Ok(())
}
