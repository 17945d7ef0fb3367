//! Follows Leases of a namespace: the writer's, or those of all nodes.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc;

use super::api::{Api, ApiError, Change};
use super::lease::Lease;
use crate::telemetry::chain;

/// A watch that says nothing, not even a bookmark, for so long is dead.
const SILENCE: Duration = Duration::from_secs(90);
/// The first and the longest pause after a failure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(8));

/// What was seen.
#[derive(Debug)]
pub enum Seen {
    /// These are all.
    All(Vec<Lease>),
    /// One is new or changed.
    Is(Lease),
    /// One is gone.
    Gone(String),
    /// Nothing changed, and that is known for certain.
    Still,
    /// Nothing can be seen until the next [`Seen::All`].
    Lost,
}

/// Sends what is seen until nobody listens. `selector` is a query such as `labelSelector=a%3Db`.
pub async fn follow(api: Api, path: String, selector: String, to: mpsc::Sender<Seen>) {
    let mut pause = PAUSE.0;
    let mut is_failing = false;
    loop {
        let mut is_listed = false;
        let ended = list_and_watch(&api, &path, &selector, &to, &mut is_listed).await;
        if is_listed {
            pause = PAUSE.0;
            is_failing = false;
        }
        match ended {
            Ok(Ended::Watch) => continue,
            Ok(Ended::Listener) => return,
            Err(error) => {
                if !is_failing {
                    tracing::warn!(error = chain(&error), "leases cannot be followed");
                    if to.send(Seen::Lost).await.is_err() {
                        return;
                    }
                }
                is_failing = true;
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE.1);
    }
}

enum Ended {
    Watch,
    Listener,
}

async fn list_and_watch(
    api: &Api,
    path: &str,
    selector: &str,
    to: &mpsc::Sender<Seen>,
    is_listed: &mut bool,
) -> Result<Ended, ApiError> {
    let list = api.get(&format!("{path}?{selector}")).await?;
    let version = list.pointer("/metadata/resourceVersion");
    let mut version = version
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let items = list.get("items").and_then(Value::as_array);
    let all = items.into_iter().flatten().map(Lease::read).collect();
    if to.send(Seen::All(all)).await.is_err() {
        return Ok(Ended::Listener);
    }
    *is_listed = true;
    loop {
        let events = api.watch(path, selector, &version).await?;
        let mut events = std::pin::pin!(events);
        while let Ok(Some(event)) = tokio::time::timeout(SILENCE, events.next()).await {
            let seen = match event {
                Ok(Change::Is(lease)) => Seen::Is(Lease::read(&lease)),
                Ok(Change::Gone(lease)) => Seen::Gone(Lease::read(&lease).name),
                Ok(Change::Mark(mark)) => {
                    version = mark;
                    Seen::Still
                }
                Err(ApiError::Expired) => return Ok(Ended::Watch),
                Err(error) => return Err(error),
            };
            if let Seen::Is(lease) = &seen {
                version.clone_from(&lease.resource_version);
            }
            if to.send(seen).await.is_err() {
                return Ok(Ended::Listener);
            }
        }
        if to.is_closed() {
            return Ok(Ended::Listener);
        }
    }
}
