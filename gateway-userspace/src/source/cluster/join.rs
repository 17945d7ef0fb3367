//! Joins what is heard of all kinds and passes it on: at once while nobody is busy, and everything
//! that came meanwhile together when somebody was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::super::Update;
use super::Settings;
use super::catalog::Catalog;
use super::definitions::Release;
use super::health::Health;
use super::last_good::LastGood;
use super::message::Message;

/// How many messages are heard before it is asked whether somebody takes what they mean.
const BURST: usize = 1024;

/// How long to wait before what is to be kept is handed over again.
const BUSY: Duration = Duration::from_millis(50);

/// The one who joins.
pub struct Join {
    catalog: Catalog,
    last_good: Option<LastGood>,
    /// When the last good objects are to be served if not everything is listed by then; none if
    /// that was decided.
    remember_at: Option<Instant>,
    /// Whether the log on disk is whole.
    is_kept: bool,
}

impl Join {
    /// Has heard nothing.
    pub fn new(server: String, health: Arc<Health>, settings: &Settings) -> Self {
        Self {
            catalog: Catalog::new(server, health),
            last_good: settings.last_good.as_deref().map(LastGood::new),
            remember_at: Some(Instant::now() + settings.last_good_after),
            is_kept: false,
        }
    }

    /// Passes on what is heard until nobody takes it.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut release: watch::Receiver<Release>,
        updates: mpsc::Sender<Update>,
    ) {
        loop {
            let now = Instant::now();
            self.remember(now).await;
            let due = self.catalog.is_due(now);
            let waiting = [due.err().flatten(), self.remember_at, self.keep(now)];
            let later = waiting.into_iter().flatten().min();
            tokio::select! {
                permit = updates.reserve(), if due.is_ok() => match permit {
                    Ok(permit) => permit.send(self.catalog.take()),
                    Err(_) => return,
                },
                Some(message) = inbox.recv() => {
                    self.catalog.hear(message);
                    for _ in 0..BURST {
                        let Ok(message) = inbox.try_recv() else { break };
                        self.catalog.hear(message);
                    }
                }
                Ok(()) = release.changed() => {
                    let release = release.borrow_and_update().clone();
                    self.catalog.release(release);
                }
                () = until(later), if later.is_some() => {}
                () = updates.closed(), if due.is_err() => return,
            }
        }
    }
}

impl Join {
    /// Brings in what was good in an earlier life, if it is time for that.
    async fn remember(&mut self, now: Instant) {
        if self.remember_at.is_none_or(|at| at > now) {
            return;
        }
        self.remember_at = None;
        let Some(last_good) = self.last_good.as_ref() else {
            return;
        };
        if self.catalog.is_settled(now) {
            return;
        }
        let path = last_good.path().to_owned();
        let read = tokio::task::spawn_blocking(move || {
            let mut objects = Vec::new();
            LastGood::read(&path, |name, text| {
                objects.push((name.clone(), Box::<[u8]>::from(text)));
            });
            objects
        });
        let objects = read.await.unwrap_or_default();
        if objects.is_empty() {
            tracing::warn!(
                "the API server has not listed everything, and there is no last good configuration; waiting for it"
            );
            return;
        }
        tracing::warn!(
            objects = objects.len(),
            "the API server has not listed everything; serving the last good configuration"
        );
        for (name, text) in objects {
            self.catalog.remember(&name, &text, now);
        }
        self.catalog.remembered();
    }

    /// Hands over what is to be kept on disk; if that is not possible now, says when it may be.
    fn keep(&mut self, now: Instant) -> Option<Instant> {
        let is_whole = !self.is_kept && self.catalog.is_settled(now);
        let records = self.catalog.records();
        if records.is_empty() && !is_whole {
            return None;
        }
        let Some(last_good) = &self.last_good else {
            records.clear();
            return None;
        };
        if !last_good.hand_over(records, is_whole) {
            return Some(now + BUSY);
        }
        self.is_kept |= is_whole;
        None
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
