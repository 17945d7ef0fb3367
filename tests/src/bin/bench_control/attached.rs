//! Attached routes: how soon `status.listeners[].attachedRoutes` tells the truth after many routes came or went.

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use gateway_tests::api::Api;
use gateway_tests::{netns, wait};
use serde::Serialize;
use serde_json::Value;

use crate::routes::{self, GATEWAY};
use crate::world::World;

/// Routes that are attached besides those of the measurement: the probed ones and that of the traffic.
const PROBED: u64 = routes::PROBES as u64 + 1;
const PATIENCE: Duration = Duration::from_secs(300);

/// What was measured.
#[derive(Clone, Debug, Serialize)]
pub struct Attached {
    /// Routes that came and went.
    pub routes: usize,
    /// While they came.
    pub coming: Counted,
    /// While they went.
    pub going: Counted,
}

/// One direction.
#[derive(Clone, Debug, Serialize)]
pub struct Counted {
    /// Seconds from the first write to the last one's return.
    pub written_s: f64,
    /// Seconds from then until the number was right.
    pub right_after_s: f64,
    /// Writes of the Gateway's status meanwhile.
    pub gateway_writes: usize,
    /// How often the number went the wrong way, or past the mark.
    pub wrong_turns: usize,
}

/// Lets routes come and go; at the end they are gone.
pub fn measure(world: &mut World, routes: usize) -> Result<Attached> {
    let numbers = follow(world)?;
    let started = Instant::now();
    let settled = world.grow_to(routes)?;
    let written = started + Duration::from_secs_f64(settled.written_s);
    let mark = u64::try_from(routes)? + PROBED;
    let coming = count(&numbers, started, written, PROBED, mark)?;
    let started = Instant::now();
    world.shrink()?;
    let going = count(&numbers, started, Instant::now(), mark, PROBED)?;
    world.settle()?;
    Ok(Attached {
        routes,
        coming,
        going,
    })
}

/// Reads numbers until the mark is reached.
fn count(
    numbers: &Receiver<(Instant, u64)>,
    started: Instant,
    written: Instant,
    from: u64,
    mark: u64,
) -> Result<Counted> {
    let mut counted = Counted {
        written_s: (written - started).as_secs_f64(),
        right_after_s: 0.0,
        gateway_writes: 0,
        wrong_turns: 0,
    };
    let mut last = from;
    while last != mark {
        let deadline = (written + PATIENCE).saturating_duration_since(Instant::now());
        let (at, number) = numbers.recv_timeout(deadline).with_context(|| {
            format!(
                "attachedRoutes is {last} and not {mark} {} s after the last write",
                PATIENCE.as_secs()
            )
        })?;
        counted.gateway_writes += 1;
        let wrong = if from < mark {
            number < last || number > mark
        } else {
            number > last || number < mark
        };
        counted.wrong_turns += usize::from(wrong);
        counted.right_after_s = at.saturating_duration_since(written).as_secs_f64();
        last = number;
    }
    Ok(counted)
}

/// Follows the number on a thread of its own; every event is passed on, also when the number is as before.
fn follow(world: &World) -> Result<Receiver<(Instant, u64)>> {
    let gateway = wait::until("the Gateway counts the probed routes", || {
        let gateway = world
            .block_on(world.api.get(&routes::gateway_path()))
            .ok()?;
        (attached(&gateway) == Some(PROBED)).then_some(gateway)
    })?;
    let version = gateway
        .pointer("/metadata/resourceVersion")
        .and_then(Value::as_str)
        .unwrap_or("0")
        .to_owned();
    let (sender, receiver) = channel();
    let endpoint = world.site.endpoint.clone();
    let collection = routes::gateway_path().replace(&format!("/{GATEWAY}"), "");
    let work = async move {
        let api = Api::connect(&endpoint).await?;
        let mut watch = api
            .watch(
                &format!("{collection}?fieldSelector=metadata.name%3D{GATEWAY}"),
                &version,
            )
            .await?;
        while let Some(event) = watch.next().await? {
            let at = Instant::now();
            let number = event.get("object").and_then(attached);
            if sender.send((at, number.unwrap_or(0))).is_err() {
                break;
            }
        }
        anyhow::Ok(())
    };
    // Without a reader or a connection it ends, and the reader's wait says so.
    std::thread::Builder::new()
        .name("gateway".to_owned())
        .spawn(move || netns::runtime()?.block_on(work))?;
    Ok(receiver)
}

fn attached(gateway: &Value) -> Option<u64> {
    gateway
        .pointer("/status/listeners/0/attachedRoutes")?
        .as_u64()
}
