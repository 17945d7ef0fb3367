//! Sends Events to the API server: few, each once, repetitions as a series.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::api::{Api, ApiError};
use super::elector::Leadership;
use super::lease::micro_time;
use super::notice::Notice;
use super::stats::{Count, Stats};
use crate::telemetry::chain;

/// Events a second at most, and how many may come at once after a quiet time.
const RATE: (f64, f64) = (10.0, 50.0);
/// Notices that wait at most; further ones are left out.
const MOST_WAITING: usize = 256;
/// The same again within this time goes on a series; events.k8s.io/v1 does it so.
const SERIES: Duration = Duration::from_secs(360);
/// Events that are remembered for that.
const MOST_REMEMBERED: usize = 1024;

/// Where notices go. Never waits.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Notice>,
    stats: Arc<Stats>,
}

impl Events {
    /// Tells of something, unless there is too much to tell.
    pub fn tell(&self, notice: Notice) {
        if self.sender.try_send(notice).is_err() {
            self.stats.count(Count::EventDropped);
        }
    }
}

/// Sends what it is told.
pub struct Herald {
    api: Api,
    controller: Arc<str>,
    instance: String,
    stats: Arc<Stats>,
    notices: mpsc::Receiver<Notice>,
    sent: HashMap<Notice, Sent>,
    leadership: Leadership,
    bucket: Bucket,
}

#[derive(Debug)]
struct Sent {
    path: String,
    count: i64,
    at: Instant,
}

impl Herald {
    /// A herald in the name of that Pod.
    pub fn new(
        api: Api,
        controller: Arc<str>,
        instance: String,
        leadership: Leadership,
        stats: Arc<Stats>,
    ) -> (Self, Events) {
        let (sender, notices) = mpsc::channel(MOST_WAITING);
        let events = Events {
            sender,
            stats: Arc::clone(&stats),
        };
        let herald = Self {
            api,
            controller,
            instance,
            stats,
            notices,
            sent: HashMap::new(),
            leadership,
            bucket: Bucket::new(Instant::now()),
        };
        (herald, events)
    }

    /// Sends until there is nobody left to tell anything.
    pub async fn run(mut self) {
        while let Some(notice) = self.notices.recv().await {
            tokio::time::sleep(self.bucket.spend(Instant::now())).await;
            if !self.leadership.is_held() {
                self.stats.count(Count::EventDropped);
                continue;
            }
            match self.send(&notice).await {
                Ok(()) => self.stats.count(Count::Event),
                Err(error) => {
                    let object = &notice.object;
                    tracing::debug!(%object, error = chain(&error), "event cannot be sent");
                    self.stats.count(Count::EventDropped);
                }
            }
        }
    }

    async fn send(&mut self, notice: &Notice) -> Result<(), ApiError> {
        let now = Instant::now();
        let known = self.sent.get_mut(notice);
        if let Some(known) = known.filter(|known| now < known.at + SERIES) {
            known.count += 1;
            known.at = now;
            let series =
                json!({"count": known.count, "lastObservedTime": micro_time(Timestamp::now())});
            match self
                .api
                .patch(&known.path, &json!({"series": series}))
                .await
            {
                Err(ApiError::NotFound) => {}
                answer => return answer.map(drop),
            }
        }
        let event = self.event(notice, Timestamp::now());
        let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
        let namespace = text("/metadata/namespace").unwrap_or_default();
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        self.api.post(&path, &event).await?;
        if self.sent.len() >= MOST_REMEMBERED {
            self.sent.retain(|_, sent| now < sent.at + SERIES);
        }
        if self.sent.len() < MOST_REMEMBERED {
            let name = text("/metadata/name").unwrap_or_default();
            let sent = Sent {
                path: format!("{path}/{name}"),
                count: 1,
                at: now,
            };
            self.sent.insert(notice.clone(), sent);
        }
        Ok(())
    }

    /// events.k8s.io/v1 `Event`. One of a cluster-scoped object stands in `default`.
    fn event(&self, notice: &Notice, now: Timestamp) -> Value {
        let object = &notice.object;
        let namespace = match &*object.namespace {
            "" => "default",
            namespace => namespace,
        };
        let mut regarding = json!({
            "apiVersion": object.kind.api_version(),
            "kind": object.kind.as_str(),
            "name": object.name,
        });
        if !object.namespace.is_empty() {
            regarding["namespace"] = json!(object.namespace);
        }
        if let Some(uid) = notice.uid {
            regarding["uid"] = json!(uid.to_string());
        }
        // A name has 253 characters at most, and the object's may have as many.
        let stem = &object.name[..object.name.floor_char_boundary(230)];
        let stem = stem.trim_end_matches(['.', '-']);
        json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": format!("{stem}.{:x}", now.as_nanosecond()), "namespace": namespace},
            "eventTime": micro_time(now),
            "reportingController": &*self.controller,
            "reportingInstance": self.instance,
            "action": "Reconcile",
            "type": if notice.is_warning { "Warning" } else { "Normal" },
            "reason": notice.reason,
            "regarding": regarding,
            "note": notice.note,
        })
    }
}

/// Lets [`RATE`] through.
#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(now: Instant) -> Self {
        Self {
            tokens: RATE.1,
            filled: now,
        }
    }

    /// How long to wait before the next one.
    fn spend(&mut self, now: Instant) -> Duration {
        let earned = now.saturating_duration_since(self.filled).as_secs_f64() * RATE.0;
        self.filled = now;
        self.tokens = (self.tokens + earned).min(RATE.1) - 1.0;
        Duration::from_secs_f64((-self.tokens / RATE.0).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_events_at_once_are_spread() {
        let start = Instant::now();
        let mut bucket = Bucket::new(start);
        let burst = (0..50).filter(|_| bucket.spend(start).is_zero()).count();
        assert_eq!(burst, 50);
        let mut now = start;
        for _ in 0..100 {
            now += bucket.spend(now);
        }
        let took = (now - start).as_secs_f64();
        assert!((took - 10.0).abs() < 0.2, "{took}");
    }
}
