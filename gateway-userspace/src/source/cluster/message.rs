//! What the watchers of single kinds tell the one who joins them.

use std::time::Instant;

use gateway_model::names::{ObjectKind, ObjectRef};
use serde_json::Value;

use super::super::KindState;
use crate::status::observed::Observed;

/// One thing that was heard of one kind.
#[derive(Debug)]
pub struct Message {
    /// The kind.
    pub kind: ObjectKind,
    /// When it was heard.
    pub heard: Instant,
    /// What.
    pub word: Word,
}

/// What was heard.
#[derive(Debug)]
pub enum Word {
    /// A list begins.
    Begin,
    /// An object is there.
    Object(Box<Raw>),
    /// An object is gone, since this version.
    Removed(ObjectRef, u64),
    /// The list is complete and true of this version.
    Complete(u64),
    /// Nothing else changed up to this version.
    Bookmark(u64),
    /// How the kind is followed from now on.
    State(KindState, Option<Trouble>),
}

/// Why a kind is not followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Why, in words.
    pub reason: String,
    /// Whether it is a matter of permission, which nobody but a human changes.
    pub is_denied: bool,
}

/// An object as it came, without what does not matter.
#[derive(Debug)]
pub struct Raw {
    /// Its name.
    pub name: ObjectRef,
    /// `metadata.resourceVersion`.
    pub version: u64,
    /// What the API server keeps of our status, for kinds that have one.
    pub observed: Option<Observed>,
    /// As JSON.
    pub text: Box<[u8]>,
    /// The same, parsed.
    pub value: Value,
}
