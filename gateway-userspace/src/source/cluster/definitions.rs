//! Follows the definitions of kinds (Kubernetes API extensions v1 `CustomResourceDefinition`), for
//! what they say about Gateway API: that a kind came or went, and which release they are of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::Client;
use serde_json::Value;
use tokio::sync::watch;

use super::api::{DEFINITIONS, defined_by};
use super::backoff::{Backoff, random_below};
use super::feed::{End, Feed, Item, Patience};

/// Gateway API v1 "Implementer's Guide, CRD management": the release a definition is of.
const BUNDLE_VERSION: &str = "gateway.networking.k8s.io/bundle-version";
/// How long to wait when definitions may not be looked at.
const DENIED: Duration = Duration::from_mins(1);
/// How long that is only for the moment: an API server that has just started refuses what it will
/// allow.
const STARTING: Duration = Duration::from_secs(5);

/// What is known about definitions.
#[derive(Debug)]
pub struct Definitions {
    /// Counts how often a kind came back after it had failed.
    pub revived: watch::Receiver<u64>,
    /// Counts changes.
    pub changes: watch::Sender<u64>,
    /// Of which release they are.
    pub release: watch::Sender<Release>,
}

/// The release of Gateway API that an API server serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// Not known yet.
    #[default]
    Unknown,
    /// Definitions may not be looked at.
    Hidden,
    /// The oldest one that a definition is of; none if none says.
    Known(Option<Arc<str>>),
}

impl Definitions {
    /// Follows them until nobody is interested.
    pub async fn follow(mut self, client: Client, patience: Patience) {
        let feed = Feed::new(client, DEFINITIONS.to_owned(), None);
        let mut feed = feed.metadata_only().with_patience(patience);
        let mut backoff = Backoff::default();
        let mut releases = Releases::default();
        let mut denied_since = None;
        loop {
            let next = tokio::select! {
                next = feed.next() => next,
                () = self.changes.closed() => return,
            };
            match next {
                Ok(item) => {
                    backoff.reset();
                    denied_since = None;
                    if releases.hear(item) {
                        self.changes.send_modify(|count| *count += 1);
                    }
                    if releases.is_complete {
                        let release = Release::Known(releases.oldest());
                        self.release.send_if_modified(|known| {
                            let is_new = *known != release;
                            *known = release;
                            is_new
                        });
                    }
                }
                Err(End::Denied(reason))
                    if denied_since.get_or_insert_with(Instant::now).elapsed() >= STARTING =>
                {
                    tracing::debug!(
                        reason,
                        "definitions may not be watched; looking now and then"
                    );
                    self.release.send_if_modified(|known| {
                        let is_new = *known == Release::Unknown;
                        if is_new {
                            *known = Release::Hidden;
                        }
                        is_new
                    });
                    tokio::time::sleep(DENIED).await;
                }
                Err(_) => self.pause(backoff.pause()).await,
            }
        }
    }

    /// Waits before the next try, which comes soon if the API server is back.
    async fn pause(&mut self, pause: Duration) {
        self.revived.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = self.revived.changed() => {
                tokio::time::sleep(Duration::from_millis(random_below(200))).await;
            }
        }
    }
}

/// The releases of the definitions that are there.
#[derive(Debug, Default)]
struct Releases {
    by_name: BTreeMap<String, Option<Arc<str>>>,
    listed: BTreeMap<String, Option<Arc<str>>>,
    is_complete: bool,
}

impl Releases {
    /// Whether something was said about a kind that is ours.
    fn hear(&mut self, item: Item) -> bool {
        match item {
            Item::Begin => {
                self.is_complete = false;
                self.listed.clear();
            }
            Item::Complete(_) => {
                self.is_complete = true;
                self.by_name = std::mem::take(&mut self.listed);
            }
            Item::Object(object) => {
                if let Some((name, release)) = ours(&object) {
                    let into = if self.is_complete {
                        &mut self.by_name
                    } else {
                        &mut self.listed
                    };
                    into.insert(name, release);
                    return true;
                }
            }
            Item::Removed(object) => {
                if let Some((name, _)) = ours(&object) {
                    self.by_name.remove(&name);
                    return true;
                }
            }
            Item::Resumed | Item::Bookmark(_) => {}
        }
        false
    }

    fn oldest(&self) -> Option<Arc<str>> {
        let releases = self.by_name.values().flatten();
        releases.min_by_key(|release| numbers(release)).cloned()
    }
}

fn ours(object: &Value) -> Option<(String, Option<Arc<str>>)> {
    let metadata = object.get("metadata")?;
    let name = metadata.get("name")?.as_str()?;
    defined_by(name)?;
    let release = metadata["annotations"][BUNDLE_VERSION].as_str();
    Some((name.to_owned(), release.map(Into::into)))
}

/// The numbers of `v1.7.0`, in order.
fn numbers(release: &str) -> Vec<u64> {
    let parts = release.trim_start_matches('v').split(['.', '-', '+']);
    parts.map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn definition(name: &str, release: &str) -> Value {
        json!({"metadata": {"name": name, "annotations": {BUNDLE_VERSION: release}}})
    }

    #[test]
    fn the_oldest_release_counts_and_others_definitions_do_not() {
        let mut releases = Releases::default();
        releases.hear(Item::Begin);
        let route = definition("httproutes.gateway.networking.k8s.io", "v1.10.0");
        assert!(releases.hear(Item::Object(route)));
        let gateway = definition("gateways.gateway.networking.k8s.io", "v1.7.0");
        assert!(releases.hear(Item::Object(gateway.clone())));
        let other = definition("gateways.example.org", "v0.1.0");
        assert!(!releases.hear(Item::Object(other)));
        releases.hear(Item::Complete(1));
        assert_eq!(releases.oldest().as_deref(), Some("v1.7.0"));
        assert!(releases.hear(Item::Removed(gateway)));
        assert_eq!(releases.oldest().as_deref(), Some("v1.10.0"));
        releases.hear(Item::Begin);
        releases.hear(Item::Complete(2));
        assert_eq!(releases.oldest(), None);
    }
}
