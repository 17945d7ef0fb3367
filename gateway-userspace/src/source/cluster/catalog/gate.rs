//! When something is passed on for the first time: not before everything has been listed, so that
//! no half of a cluster is ever taken for the whole.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use gateway_model::names::ObjectKind;

use super::super::super::KindState;
use super::Kind;

/// How often it is asked whether the gate opens.
pub const LOOK: Duration = Duration::from_millis(100);
/// How long a kind that is not allowed may keep others waiting: an API server that has just
/// started refuses what it will allow.
const DENIED: Duration = Duration::from_secs(5);
/// How long a kind that fails may keep others waiting.
const FAILED: Duration = Duration::from_secs(30);
/// How long definitions of kinds may keep others waiting.
pub const DEFINITIONS: Duration = Duration::from_secs(6);
/// How long lists of this life may take before what they have said is added to an earlier life's.
const MIXED: Duration = Duration::from_secs(10);

/// Whether anything is passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Not before all lists are complete.
    Waiting,
    /// An earlier life's objects go through at once.
    Remembering,
    /// They have; what this life says follows when all lists are complete, or some time after the
    /// first one was.
    Holding {
        /// When the first list was seen to be complete.
        since: Option<Instant>,
    },
    /// Everything at once.
    Open,
}

impl Gate {
    /// An earlier life's objects are there, if there are any.
    pub fn remembered(&mut self, any: bool) {
        if *self == Self::Waiting && any {
            *self = Self::Remembering;
        }
    }

    /// Whether something may pass now.
    pub fn is_open(&mut self, settled: bool, any_listed: bool, now: Instant) -> bool {
        if settled {
            *self = Self::Open;
        }
        match self {
            Self::Waiting => false,
            Self::Remembering | Self::Open => true,
            Self::Holding { since } => {
                if any_listed {
                    since.get_or_insert(now);
                }
                let is_over = since.is_some_and(|since| now.duration_since(since) >= MIXED);
                if is_over {
                    *self = Self::Open;
                }
                is_over
            }
        }
    }

    /// Something has passed.
    pub fn passed(&mut self) {
        if *self == Self::Remembering {
            *self = Self::Holding { since: None };
        }
    }
}

/// Whether no kind keeps the others waiting.
pub fn is_settled(kinds: &BTreeMap<ObjectKind, Kind>, now: Instant) -> bool {
    let works = kinds.values().any(|k| k.state == KindState::Watched);
    kinds.values().all(|kind| match kind.state {
        KindState::Watched | KindState::NotServed => true,
        KindState::Unknown => false,
        KindState::Stale => {
            let is_denied = kind.trouble.as_ref().is_some_and(|t| t.is_denied);
            let patience = if is_denied { DENIED } else { FAILED };
            let since = kind.troubled_since;
            kind.was_listed || works && since.is_some_and(|s| now.duration_since(s) >= patience)
        }
    })
}
