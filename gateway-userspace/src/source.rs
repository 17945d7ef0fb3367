//! Where objects come from: a directory of manifests ([`files`]) or an API server ([`cluster`]).
//!
//! A source sends the difference to what it said before, as [`Event`]s, and a report of what it
//! could not understand or cannot see. Nothing here knows what an object means.

pub mod cluster;
mod files;
mod position;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use gateway_model::names::{ObjectKind, ObjectRef};
use gateway_translate::Event;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::status::observed::Observed;

pub use files::Follower;
pub use position::Position;

/// A change of the object set.
#[derive(Debug, Default)]
pub struct Update {
    /// What changed.
    pub events: Vec<Event>,
    /// What the API server was seen to keep, for every object whose [`Observed`] may have changed;
    /// none for objects that are gone. Empty from files.
    pub observed: Vec<(ObjectRef, Option<Observed>)>,
    /// Everything up to here has been delivered with this update or before.
    pub position: Position,
    /// What a node must have reached to serve what this update and those before it say: the
    /// resource versions of the objects alone, so that two nodes that saw the same changes agree
    /// on it whatever lists and bookmarks they got. Never beyond `position`.
    pub needed: Position,
    /// The release of Gateway API whose definitions the API server has; none if that is not known.
    pub crd_version: Option<Arc<str>>,
    /// The state of the source after it.
    pub report: Arc<Report>,
    /// When the change was first seen; none means that it is nobody's change (a position alone).
    pub seen: Option<Instant>,
}

/// What a source says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// What kind of source it is.
    pub origin: Origin,
    /// Why the source as a whole cannot be read; what it said before is still served.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unreadable: Option<String>,
    /// Objects in force.
    pub objects: usize,
    /// What is wrong, in the order of files, or of objects in a cluster.
    pub findings: Vec<Finding>,
    /// What has no effect as it is written, in the order of files; none of a cluster, whose API server sees to it.
    #[serde(default)]
    pub doubts: Vec<Finding>,
    /// Objects that are served in their last good form.
    pub held: Vec<Held>,
    /// Whether files run Pods: they are meant for a cluster, which says where those are.
    #[serde(default)]
    pub has_workloads: bool,
}

impl Report {
    /// Whether it is founded on anything: a source that cannot be read, with nothing kept from
    /// better times, is no reason to serve nothing.
    pub fn is_founded(&self) -> bool {
        match &self.origin {
            Origin::Directory { .. } => self.unreadable.is_none() || self.objects > 0,
            Origin::Cluster { is_founded, .. } => *is_founded,
        }
    }

    /// Whether what it says is what is there now, nothing of it remembered from an earlier life.
    pub fn is_current(&self) -> bool {
        match &self.origin {
            Origin::Directory { .. } => self.unreadable.is_none(),
            Origin::Cluster {
                remembers,
                is_founded,
                ..
            } => *is_founded && !remembers,
        }
    }

    /// The manifests, if it is about files.
    pub fn files(&self) -> usize {
        match self.origin {
            Origin::Directory { files, .. } => files,
            Origin::Cluster { .. } => 0,
        }
    }
}

/// Where objects come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// A directory of manifests.
    Directory {
        /// Its path.
        path: PathBuf,
        /// The manifests in it.
        files: usize,
    },
    /// An API server.
    Cluster {
        /// Its URL.
        server: String,
        /// Every kind that is asked for.
        kinds: Vec<KindReport>,
        /// Whether objects of an earlier life stand in for what could not be listed yet.
        #[serde(default)]
        remembers: bool,
        /// Whether it is known what GatewayClasses and Gateways there are, now or in an earlier life.
        #[serde(default)]
        is_founded: bool,
    },
}

/// How one kind is followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindReport {
    /// The kind.
    pub kind: ObjectKind,
    /// How it is followed.
    pub state: KindState,
    /// Why it is not, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
}

/// How one kind of a cluster is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KindState {
    /// Not listed yet.
    #[default]
    Unknown,
    /// Listed and watched.
    Watched,
    /// The API server does not serve it; it is asked for when that may have changed.
    NotServed,
    /// It cannot be listed or watched; the objects that are known stay.
    Stale,
}

/// A mistake in an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Finding {
    /// The file, relative to the directory; none for an object of a cluster.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<PathBuf>,
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

/// An object that is broken where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The object.
    pub object: ObjectRef,
    /// The file it was last read from, relative to the directory; none for an object of a cluster.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub file: Option<PathBuf>,
}

impl Default for Origin {
    fn default() -> Self {
        Self::Directory {
            path: PathBuf::new(),
            files: 0,
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory { path, .. } => write!(f, "{}", path.display()),
            Self::Cluster { server, .. } => f.write_str(server),
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut separator = "";
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            if let Some(document) = self.document {
                write!(f, " (document {document})")?;
            }
            separator = ": ";
        }
        if let Some(object) = &self.object {
            write!(f, "{separator}{object}")?;
            separator = ": ";
        }
        write!(f, "{separator}{}", self.message)
    }
}

/// A running source. Dropping it ends it.
#[derive(Debug)]
pub struct Source {
    /// What changed; the next change is sent when this one was taken.
    pub updates: mpsc::Receiver<Update>,
    control: Control,
}

#[derive(Clone, Debug)]
enum Control {
    Files(Arc<files::Wake>),
    Cluster(cluster::Cluster),
}

/// Asks a source to look at everything again.
#[derive(Clone, Debug)]
pub struct Rescan(Control);

impl Rescan {
    /// Asks; one request is enough for any number of them.
    pub fn request(&self) {
        match &self.0 {
            Control::Files(wake) => wake.rescan(),
            Control::Cluster(cluster) => cluster.rescan(),
        }
    }
}

impl Source {
    /// Starts following a directory, on a thread of its own. `last_good` is where the last good
    /// configuration is kept; what it holds stands in for files that are broken now.
    ///
    /// # Errors
    /// The thread or its event descriptor cannot be made.
    pub fn files(directory: &Path, last_good: Option<PathBuf>) -> std::io::Result<Self> {
        let (updates, wake) = files::start(directory, last_good)?;
        Ok(Self {
            updates,
            control: Control::Files(wake),
        })
    }

    /// Starts following an API server, on tasks of the running runtime.
    pub fn cluster(access: &cluster::Access, settings: &cluster::Settings) -> Self {
        let (updates, cluster) = cluster::start(access, settings);
        Self {
            updates,
            control: Control::Cluster(cluster),
        }
    }

    /// How well an API server is followed; none for files.
    pub fn health(&self) -> Option<Arc<cluster::Health>> {
        match &self.control {
            Control::Files(_) => None,
            Control::Cluster(cluster) => Some(Arc::clone(&cluster.health)),
        }
    }

    /// A handle to ask for a rescan.
    pub fn rescan(&self) -> Rescan {
        Rescan(self.control.clone())
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        match &self.control {
            Control::Files(wake) => wake.stop(),
            // Its tasks end when nobody takes updates.
            Control::Cluster(_) => {}
        }
    }
}
