//! An API server: every kind is listed and then watched, and what changes is passed on at once.
//!
//! One task for each kind ([`watcher`]) hears; one ([`join`]) knows what there is and passes on
//! what is new. No object is kept here: what is passed on is kept by who takes it, and on disk
//! ([`last_good`]) for a start without an API server.

mod api;
mod backoff;
mod catalog;
mod connect;
mod definitions;
mod feed;
mod health;
mod join;
mod last_good;
mod message;
#[cfg(test)]
mod scripted;
mod trim;
mod watcher;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::Update;
use api::KINDS;
use definitions::{Definitions, Release};
use feed::Patience;
use join::Join;
use watcher::{Shared, Watcher};

pub use api::KINDS as FOLLOWED;
pub use connect::{Access, connect};
pub use health::{Health, KindHealth};

/// How a cluster is followed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `spec.controllerName` of the classes that are ours.
    pub controller: Arc<str>,
    /// Where the last good objects are kept; none keeps none.
    pub last_good: Option<PathBuf>,
    /// How long the first lists may take before the last good objects are served.
    pub last_good_after: Duration,
}

/// What runs, and ends when this is dropped.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How well it is followed.
    pub health: Arc<Health>,
    rescan: Arc<watch::Sender<u64>>,
}

impl Cluster {
    /// Lists everything again.
    pub fn rescan(&self) {
        self.rescan.send_modify(|count| *count += 1);
    }
}

/// Follows the API server, on tasks of the running runtime, until the receiver is dropped.
pub fn start(access: &Access, settings: &Settings) -> (mpsc::Receiver<Update>, Cluster) {
    start_patiently(access, settings, Patience::default())
}

fn start_patiently(
    access: &Access,
    settings: &Settings,
    patience: Patience,
) -> (mpsc::Receiver<Update>, Cluster) {
    let (updates, receiver) = mpsc::channel(1);
    let (words, inbox) = mpsc::channel(64);
    let (rescan, asked) = watch::channel(0);
    let (changes, defined) = watch::channel(0);
    let (release, released) = watch::channel(Release::default());
    let health = Arc::new(Health::new());
    let shared = Shared {
        controller: Arc::clone(&settings.controller),
        health: Arc::clone(&health),
        rescan: asked,
        defined,
        revived: Arc::new(watch::channel(0).0),
        patience,
    };
    let definitions = Definitions {
        revived: shared.revived.subscribe(),
        changes,
        release,
    };
    tokio::spawn(definitions.follow(access.client.clone(), patience));
    for kind in KINDS {
        let watcher = Watcher::new(&access.client, kind, shared.clone(), words.clone());
        tokio::spawn(watcher.run());
    }
    let join = Join::new(access.server.clone(), Arc::clone(&health), settings);
    tokio::spawn(join.run(inbox, released, updates));
    let rescan = Arc::new(rescan);
    (receiver, Cluster { health, rescan })
}

#[cfg(test)]
mod tests;
