//! Where objects come from: a directory of manifests, read once and then followed.
//!
//! A source sends the difference to what it said before, as the events that a cluster's watch
//! would send, and a report of what it could not understand. Nothing here knows what an object
//! means.
//!
//! Files have no `metadata.creationTimestamp` unless somebody wrote one. An object without it counts
//! as older than every object with one, so among files all ties of precedence end by namespace and
//! name; the time of a file is never taken for it, for a copy of a directory must mean the same.

mod claims;
mod document;
mod follow;
pub mod last_good;
mod links;
mod position;
mod scan;
mod wake;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use gateway_model::names::ObjectRef;
use gateway_translate::Event;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use follow::Follower;
pub use position::Position;
use wake::Wake;

/// A change of the object set.
#[derive(Debug)]
pub struct Update {
    /// What changed.
    pub events: Vec<Event>,
    /// The state of the source after it.
    pub report: Arc<Report>,
    /// When the change was first seen.
    pub seen: Instant,
}

/// What a source says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The directory.
    pub directory: PathBuf,
    /// Why the directory itself cannot be read; what it said before is still served.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unreadable: Option<String>,
    /// Manifests.
    pub files: usize,
    /// Objects in force.
    pub objects: usize,
    /// What is wrong, in the order of files.
    pub findings: Vec<Finding>,
    /// Objects that are served in their last good form.
    pub held: Vec<Held>,
}

/// A mistake in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The file, relative to the directory.
    pub file: PathBuf,
    /// The line, from 1, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u32>,
    /// Which document of the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub document: Option<usize>,
    /// The object, where known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object: Option<ObjectRef>,
    /// What is wrong.
    pub message: String,
}

/// An object whose file is broken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The object.
    pub object: ObjectRef,
    /// The file it was last read from, relative to the directory.
    pub file: PathBuf,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(document) = self.document {
            write!(f, " (document {document})")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// A running source. Dropping it ends its thread.
#[derive(Debug)]
pub struct Source {
    /// What changed; the next change is sent when this one was taken.
    pub updates: mpsc::Receiver<Update>,
    wake: Arc<Wake>,
}

/// Asks a source to look at everything again.
#[derive(Clone, Debug)]
pub struct Rescan(Arc<Wake>);

impl Rescan {
    /// Asks; one request is enough for any number of them.
    pub fn request(&self) {
        self.0.rescan();
    }
}

impl Source {
    /// Starts following a directory, on a thread of its own. `last_good` is where the last good
    /// configuration is kept; what it holds stands in for files that are broken now.
    ///
    /// # Errors
    /// The thread or its event descriptor cannot be made.
    pub fn start(directory: &Path, last_good: Option<PathBuf>) -> std::io::Result<Self> {
        let (updates, receiver) = mpsc::channel(1);
        let wake = Arc::new(Wake::new()?);
        let directory = directory.to_owned();
        let theirs = Arc::clone(&wake);
        std::thread::Builder::new()
            .name("files".to_owned())
            .spawn(move || follow::run(&directory, last_good, &updates, &theirs))?;
        Ok(Self {
            updates: receiver,
            wake,
        })
    }

    /// A handle to ask for a rescan.
    pub fn rescan(&self) -> Rescan {
        Rescan(Arc::clone(&self.wake))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.wake.stop();
    }
}
