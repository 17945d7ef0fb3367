//! The state of the process and the statuses of its objects: `/status` and `sluice status`.

use std::collections::BTreeMap;

use gateway_model::names::Revision;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::warnings::warnings;
use crate::source::Report;
use crate::status::manifest;
use crate::world::{Stages, World};

/// `/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusView {
    /// The process; none when a directory was asked instead of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<ProcessView>,
    /// The revision in force.
    pub revision: Revision,
    /// What the source says about itself.
    pub source: Report,
    /// Objects that keep their last good form, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<String, String>,
    /// Listeners that are not served, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failures: BTreeMap<String, String>,
    /// What is allowed, but hardly meant.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Objects with the status that Kubernetes would keep.
    pub objects: Vec<Value>,
}

/// A running process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessView {
    /// Its version.
    pub version: String,
    /// Its id.
    pub pid: u32,
    /// When it started.
    pub started_at: Timestamp,
    /// `starting`, `serving` or `draining`.
    pub state: Life,
    /// `bpf` or `sockets`.
    pub l4: String,
    /// Why it is not `bpf`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub l4_reason: Option<String>,
    /// Worker threads.
    pub workers: usize,
    /// When the revision in force was applied.
    pub applied_at: Option<Timestamp>,
    /// How long that took.
    pub stages: Stages,
    /// How old what is known of a cluster may be, in seconds: 0 while everything is watched. None
    /// for files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_seconds: Option<u64>,
}

/// What a process is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Life {
    /// Not serving yet.
    #[default]
    Starting,
    /// Serving.
    Serving,
    /// Ending what it has; a successor or nobody takes what is new.
    Draining,
}

impl Life {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// The statuses of everything in a world.
pub fn status(world: &World, process: Option<ProcessView>, now: Timestamp) -> StatusView {
    let text = |(key, reason): (String, &String)| (key, reason.clone());
    StatusView {
        process,
        revision: world.revision(),
        source: (*world.source).clone(),
        rejected: world
            .rejected
            .iter()
            .map(|(o, r)| text((o.to_string(), r)))
            .collect(),
        failures: world
            .failures
            .iter()
            .map(|(l, failure)| (l.to_string(), failure.to_string()))
            .collect(),
        warnings: warnings(world, None, now),
        objects: world
            .statuses
            .iter()
            .map(|(object, status)| manifest(object, &status))
            .collect(),
    }
}
