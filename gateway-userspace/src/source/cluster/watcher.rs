//! Follows one kind: keeps its feed going, whatever happens, and tells what it heard.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_model::names::ObjectKind;
use kube::Client;
use serde_json::Value;
use tokio::sync::{mpsc, watch};

use super::super::KindState;
use super::api::{resources, selector};
use super::backoff::{Backoff, random_below};
use super::feed::{End, Feed, Item, Patience, version_of};
use super::health::{Health, count};
use super::message::{Message, Raw, Trouble, Word};
use super::trim::{name_of, trim};
use crate::status::observed::observe;

/// How long to wait before a kind that is not served is asked for again without a reason.
const ABSENT: Duration = Duration::from_secs(30);
/// How long after a change of definitions a kind is asked for often.
const DEFINING: Duration = Duration::from_secs(15);

/// What all watchers of a source share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// Whose status is ours.
    pub controller: Arc<str>,
    /// Figures.
    pub health: Arc<Health>,
    /// Counts requests to list everything again.
    pub rescan: watch::Receiver<u64>,
    /// Counts changes of definitions of kinds.
    pub defined: watch::Receiver<u64>,
    /// Counts how often a kind came back after it had failed: others need not wait any longer.
    pub revived: Arc<watch::Sender<u64>>,
    /// How much patience there is.
    pub patience: Patience,
}

/// Follows one kind.
pub struct Watcher {
    kind: ObjectKind,
    shared: Shared,
    revived: watch::Receiver<u64>,
    words: mpsc::Sender<Message>,
    /// One for each version, the one preferred first.
    feeds: Vec<(&'static str, Feed)>,
    at: usize,
    backoff: Backoff,
    failures: u32,
    defined_at: Option<Instant>,
}

/// Nobody listens any more.
struct Unheard;

impl Watcher {
    /// A watcher that has not begun.
    pub fn new(
        client: &Client,
        kind: ObjectKind,
        shared: Shared,
        words: mpsc::Sender<Message>,
    ) -> Self {
        let feed = |resource: super::api::Resource| {
            let feed = Feed::new(client.clone(), resource.path, selector(kind));
            (resource.api_version, feed.with_patience(shared.patience))
        };
        Self {
            kind,
            revived: shared.revived.subscribe(),
            feeds: resources(kind).into_iter().map(feed).collect(),
            shared,
            words,
            at: 0,
            backoff: Backoff::default(),
            failures: 0,
            defined_at: None,
        }
    }

    /// Follows the kind until nobody listens.
    pub async fn run(mut self) {
        while let Ok(()) = self.step().await {}
    }

    async fn step(&mut self) -> Result<(), Unheard> {
        let (_, feed) = &mut self.feeds[self.at];
        let next = tokio::select! {
            next = feed.next() => next,
            Ok(()) = self.shared.rescan.changed() => {
                feed.restart();
                return Ok(());
            }
            () = self.words.closed() => return Err(Unheard),
        };
        match next {
            Ok(item) => self.heard(item).await,
            Err(end) => self.ended(end).await,
        }
    }

    async fn heard(&mut self, item: Item) -> Result<(), Unheard> {
        self.shared.health.heard(self.kind);
        let heard = Instant::now();
        let word = match item {
            Item::Begin => {
                count(&self.shared.health.of(self.kind).lists);
                Word::Begin
            }
            Item::Resumed => {
                self.works();
                Word::State(KindState::Watched, None)
            }
            Item::Complete(version) => {
                self.works();
                Word::Complete(version)
            }
            Item::Bookmark(version) => Word::Bookmark(version),
            Item::Object(object) => match self.raw(object) {
                Some(raw) => Word::Object(Box::new(raw)),
                None => return Ok(()),
            },
            Item::Removed(object) => match name_of(self.kind, &object) {
                Some(name) => Word::Removed(name, version_of(&object).unwrap_or(0)),
                None => return Ok(()),
            },
        };
        if matches!(word, Word::Object(_) | Word::Removed(..)) {
            count(&self.shared.health.of(self.kind).changes);
        }
        self.say(heard, word).await
    }

    fn works(&mut self) {
        self.shared.health.set(self.kind, true, true);
        self.backoff.reset();
        if std::mem::take(&mut self.failures) > 0 {
            self.shared.revived.send_modify(|count| *count += 1);
        }
    }

    fn raw(&self, mut object: Value) -> Option<Raw> {
        let name = name_of(self.kind, &object)?;
        let version = version_of(&object).unwrap_or(0);
        let observed = has_status(self.kind)
            .then(|| observe(self.kind, &object, &self.shared.controller))
            .flatten();
        let (api_version, _) = self.feeds[self.at];
        trim(self.kind, api_version, &mut object);
        Some(Raw {
            name,
            version,
            observed,
            text: serde_json::to_vec(&object).ok()?.into(),
            value: object,
        })
    }

    async fn ended(&mut self, end: End) -> Result<(), Unheard> {
        let now = Instant::now();
        tracing::debug!(kind = %self.kind, ?end, "watch ended");
        match end {
            End::Closed | End::Expired => {
                // Somebody who closes everything at once is not asked without a pause.
                let pause = self.backoff.pause();
                if self.failures > 0 || pause > Duration::from_millis(200) {
                    tokio::time::sleep(pause).await;
                }
                Ok(())
            }
            End::NotServed if self.at + 1 < self.feeds.len() => {
                self.at += 1;
                Ok(())
            }
            End::NotServed => {
                self.at = 0;
                self.shared.health.set(self.kind, false, false);
                self.shared.health.heard(self.kind);
                self.say(now, Word::State(KindState::NotServed, None))
                    .await?;
                self.await_definition().await;
                Ok(())
            }
            End::Denied(reason) => self.troubled(now, reason, true).await,
            End::Failed(reason) => self.troubled(now, reason, false).await,
        }
    }

    async fn troubled(
        &mut self,
        now: Instant,
        reason: String,
        is_denied: bool,
    ) -> Result<(), Unheard> {
        self.shared.health.set(self.kind, false, true);
        count(&self.shared.health.of(self.kind).errors);
        self.failures += 1;
        // The first failure of a watch may be no more than a connection that was closed.
        if self.failures > 1 || is_denied {
            let trouble = Trouble { reason, is_denied };
            self.say(now, Word::State(KindState::Stale, Some(trouble)))
                .await?;
        }
        let pause = self.backoff.pause();
        self.revived.mark_unchanged();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // What an API server that starts refuses it allows a moment later.
            Ok(()) = self.revived.changed() => {
                tokio::time::sleep(Duration::from_millis(random_below(200))).await;
            }
        }
        Ok(())
    }

    /// Waits until the kind may be served.
    async fn await_definition(&mut self) {
        let is_defining = self.defined_at.is_some_and(|at| at.elapsed() < DEFINING);
        let pause = if is_defining {
            self.backoff.pause()
        } else {
            self.backoff.reset();
            ABSENT / 2 + Duration::from_millis(random_below(15_000))
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            Ok(()) = self.shared.defined.changed() => {
                self.backoff.reset();
                self.defined_at = Some(Instant::now());
            }
            Ok(()) = self.shared.rescan.changed() => {}
        }
    }

    async fn say(&mut self, heard: Instant, word: Word) -> Result<(), Unheard> {
        let kind = self.kind;
        let message = Message { kind, heard, word };
        self.words.send(message).await.map_err(|_| Unheard)
    }
}

/// Whether Sluice writes into the status of a kind.
fn has_status(kind: ObjectKind) -> bool {
    matches!(
        kind,
        ObjectKind::GatewayClass
            | ObjectKind::Gateway
            | ObjectKind::ListenerSet
            | ObjectKind::HttpRoute
            | ObjectKind::GrpcRoute
            | ObjectKind::TlsRoute
            | ObjectKind::TcpRoute
            | ObjectKind::UdpRoute
            | ObjectKind::BackendTlsPolicy
    )
}
