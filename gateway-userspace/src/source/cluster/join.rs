//! Joins what is heard of all kinds and passes it on: at once while nobody is busy, and everything
//! that came meanwhile together when somebody was.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};

use super::super::Update;
use super::Settings;
use super::catalog::Catalog;
use super::health::Health;
use super::message::Message;

/// How many messages are heard before it is asked whether somebody takes what they mean.
const BURST: usize = 1024;

/// The one who joins.
pub struct Join {
    catalog: Catalog,
    settings: Settings,
}

impl Join {
    /// Has heard nothing.
    pub fn new(server: String, health: Arc<Health>, settings: Settings) -> Self {
        Self {
            catalog: Catalog::new(server, health),
            settings,
        }
    }

    /// Passes on what is heard until nobody takes it.
    pub async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Message>,
        mut release: watch::Receiver<Option<Arc<str>>>,
        updates: mpsc::Sender<Update>,
    ) {
        loop {
            let due = self.catalog.is_due(Instant::now());
            let later = due.err().flatten();
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
                () = until(later), if later.is_some() => {}
                () = updates.closed(), if due.is_err() => return,
            }
        }
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}
