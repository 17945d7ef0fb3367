//! One write of one status: read, put our part in, write with the version that was read.

use std::sync::Arc;

use gateway_model::names::{ObjectKind, ObjectRef};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::api::{Api, ApiError, place};
use super::elector::Leadership;
use super::events::Events;
use super::merge::{Merged, merge};
use super::observed::{Observed, observe};
use super::ours::{Digest, digest};
use super::stats::{Count, Stats};

/// Times an object is read again at once because somebody else changed it.
const MOST_CONFLICTS: usize = 5;

/// What is to be written.
#[derive(Debug)]
pub struct Job {
    /// Of which object.
    pub object: ObjectRef,
    /// Which of those that had its name, and what it said.
    pub observed: Observed,
    /// Our part, without times.
    pub owed: Value,
}

/// What came of it.
#[derive(Debug)]
pub enum Ending {
    /// It stands now: what the API server answered, and the status before.
    Written {
        /// What stands.
        observed: Observed,
        /// The status before.
        before: Value,
        /// The status now.
        after: Value,
        /// What found no room.
        left_out: Vec<String>,
    },
    /// It stood already.
    Stood {
        /// What stands.
        observed: Observed,
    },
    /// The object is gone, or another one has its name.
    Gone,
    /// This process may not write any more.
    Deposed,
    /// It is not written.
    Failed(ApiError),
}

/// A write that has ended.
#[derive(Debug)]
pub struct Done {
    /// Of which object.
    pub object: ObjectRef,
    /// What was to be written.
    pub owed: Digest,
    /// What came of it.
    pub ending: Ending,
}

/// What all writes share.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The API server.
    pub api: Api,
    /// Whose entries are ours.
    pub controller: Arc<str>,
    /// Who tells of it.
    pub events: Events,
    /// Whether we may write.
    pub leadership: Leadership,
    /// What is counted.
    pub stats: Arc<Stats>,
}

impl Desk {
    /// Carries one write out.
    pub async fn write(self, job: Job) -> Done {
        let ending = match self.first_write(&job).await {
            Some(ending) => ending,
            None => self.read_and_write(&job).await,
        };
        self.stats.count(match &ending {
            Ending::Written { .. } => Count::Written,
            Ending::Stood { .. } | Ending::Deposed => Count::Skipped,
            Ending::Gone => Count::Gone,
            Ending::Failed(_) => Count::Failed,
        });
        Done {
            owed: digest(job.object.kind, &job.owed, &self.controller),
            object: job.object,
            ending,
        }
    }

    /// Where nobody has written a status yet there is nothing to keep, so the object need not be
    /// read: one patch that holds only if it is still as it was seen. None if it is not.
    async fn first_write(&self, job: &Job) -> Option<Ending> {
        if !job.observed.is_vacant {
            return None;
        }
        let merged = self.merged(job, &Value::Null);
        let body = json!({
            "metadata": {
                "uid": job.observed.uid.to_string(),
                "resourceVersion": job.observed.resource_version.to_string(),
            },
            "status": merged.status,
        });
        if !self.leadership.is_held() {
            return Some(Ending::Deposed);
        }
        let path = format!("{}/status", place(&job.object));
        match self.api.patch(&path, &body).await {
            Ok(after) => Some(self.written(job, Value::Null, &after, merged.left_out)),
            Err(ApiError::Conflict) => {
                self.stats.count(Count::Conflict);
                None
            }
            Err(ApiError::NotFound) => Some(Ending::Gone),
            Err(error) => Some(Ending::Failed(error)),
        }
    }

    async fn read_and_write(&self, job: &Job) -> Ending {
        let path = place(&job.object);
        for _ in 0..MOST_CONFLICTS {
            let mut object = match self.api.get(&path).await {
                Ok(object) => object,
                Err(ApiError::NotFound) => return Ending::Gone,
                Err(error) => return Ending::Failed(error),
            };
            let Some(observed) = self.observe(job.object.kind, &object) else {
                return Ending::Gone;
            };
            if observed.uid != job.observed.uid {
                return Ending::Gone;
            }
            if observed.ours == digest(job.object.kind, &job.owed, &self.controller) {
                return Ending::Stood { observed };
            }
            let before = object["status"].take();
            let merged = self.merged(job, &before);
            if merged.status == before {
                return Ending::Stood { observed };
            }
            object["status"] = merged.status;
            if !self.leadership.is_held() {
                return Ending::Deposed;
            }
            match self.api.put(&format!("{path}/status"), &object).await {
                Ok(after) => return self.written(job, before, &after, merged.left_out),
                Err(ApiError::Conflict) => self.stats.count(Count::Conflict),
                Err(ApiError::NotFound) => return Ending::Gone,
                Err(error) => return Ending::Failed(error),
            }
        }
        Ending::Failed(ApiError::Conflict)
    }

    fn merged(&self, job: &Job, before: &Value) -> Merged {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        merge(job.object.kind, before, &job.owed, &self.controller, &now)
    }

    fn observe(&self, kind: ObjectKind, object: &Value) -> Option<Observed> {
        observe(kind, object, &self.controller)
    }

    fn written(&self, job: &Job, before: Value, after: &Value, left_out: Vec<String>) -> Ending {
        match self.observe(job.object.kind, after) {
            Some(observed) => Ending::Written {
                observed,
                before,
                after: after.get("status").cloned().unwrap_or_default(),
                left_out,
            },
            None => Ending::Gone,
        }
    }
}
