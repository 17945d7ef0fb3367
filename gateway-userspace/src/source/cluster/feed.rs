//! One collection of an API server as a sequence of items: first a list of everything, then what
//! changes. Speaks the watch protocol of Kubernetes API concepts "Efficient detection of changes".
//!
//! The list is streamed where the API server can ("Streaming lists"), so that no more than one
//! object is in memory at a time, and fetched in pages where it cannot. Objects stay raw values:
//! one that cannot be understood never spoils the others.

mod lines;

use std::collections::VecDeque;
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use serde_json::Value;

use crate::admin::encode;
use lines::Lines;

/// What an API server says of a collection.
#[derive(Debug, PartialEq)]
pub enum Item {
    /// A watch goes on where it was.
    Resumed,
    /// A list begins: what it does not name is gone.
    Begin,
    /// An object is there, new or changed.
    Object(Value),
    /// An object is gone, in its last form.
    Removed(Value),
    /// The list is complete and true of this version.
    Complete(u64),
    /// Nothing else changed up to this version.
    Bookmark(u64),
}

/// Why a sequence ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The API server closed the watch, as it does now and then. It goes on where it was.
    Closed,
    /// What was seen last is too old to go on from: a list follows.
    Expired,
    /// There is no such collection.
    NotServed,
    /// It is not allowed, with what the API server said about it.
    Denied(String),
    /// It does not work now.
    Failed(String),
}

/// How much patience there is with an API server.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the head of an answer, and between the parts of a list.
    pub answer: Duration,
    /// For the next event or bookmark of a watch. API servers send a bookmark every minute.
    pub silence: Duration,
    /// How long one watch is asked to last. Each one lasts between this and twice as long.
    pub watch: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(30),
            silence: Duration::from_secs(150),
            watch: Duration::from_mins(15),
        }
    }
}

/// How many objects one page of a list has.
const PAGE: usize = 500;
/// What an answer that is not streamed may hold; a page of the largest objects that etcd takes.
const MAX_ANSWER_BYTES: usize = PAGE * 1536 * 1024;
/// After so many refusals to go on from a version it is given up.
const MAX_REFUSALS: u32 = 5;
const JSON: &str = "application/json";

/// A collection that is followed.
pub struct Feed {
    client: Client,
    path: String,
    selector: Option<&'static str>,
    accept: &'static str,
    patience: Patience,
    cannot_stream_lists: bool,
    resume: Option<u64>,
    refusals: u32,
    stage: Stage,
}

enum Stage {
    Idle,
    Pages {
        items: VecDeque<Value>,
        next: Option<String>,
        version: u64,
    },
    Watch {
        lines: Box<Lines>,
        is_listing: bool,
    },
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Value,
}

impl Feed {
    /// A collection of which nothing is known.
    pub fn new(client: Client, path: String, selector: Option<&'static str>) -> Self {
        Self {
            client,
            path,
            selector,
            accept: JSON,
            patience: Patience::default(),
            cannot_stream_lists: false,
            resume: None,
            refusals: 0,
            stage: Stage::Idle,
        }
    }

    /// Asks for the metadata of objects only.
    pub fn metadata_only(mut self) -> Self {
        self.accept = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,\
                       application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        self
    }

    /// With other patience.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Forgets where it was: the next item begins a list.
    pub fn restart(&mut self) {
        self.resume = None;
        self.stage = Stage::Idle;
    }

    /// The next item; waits for it. May be dropped while it waits, and called again.
    ///
    /// # Errors
    /// Why there is none; after that it may be called again.
    pub async fn next(&mut self) -> Result<Item, End> {
        let item = self.try_next().await;
        match &item {
            Ok(Item::Complete(version) | Item::Bookmark(version)) => {
                self.resume = Some(*version);
                self.refusals = 0;
            }
            Ok(Item::Object(object) | Item::Removed(object)) if self.is_watching() => {
                self.resume = version_of(object).or(self.resume);
                self.refusals = 0;
            }
            Ok(_) => {}
            Err(end) => self.ended(end),
        }
        item
    }

    fn is_watching(&self) -> bool {
        let Stage::Watch { is_listing, .. } = &self.stage else {
            return false;
        };
        !is_listing
    }

    fn ended(&mut self, end: &End) {
        match end {
            End::Expired | End::NotServed => self.resume = None,
            End::Failed(_) => {
                let was_listing = matches!(
                    self.stage,
                    Stage::Watch {
                        is_listing: true,
                        ..
                    }
                );
                if was_listing {
                    // One way to list may work where the other one does not.
                    self.cannot_stream_lists = true;
                }
                self.refusals += 1;
                if self.refusals >= MAX_REFUSALS {
                    self.resume = None;
                }
            }
            End::Closed | End::Denied(_) => {}
        }
        self.stage = Stage::Idle;
    }

    async fn try_next(&mut self) -> Result<Item, End> {
        loop {
            match &mut self.stage {
                Stage::Idle => return self.open().await,
                Stage::Pages {
                    items,
                    next,
                    version,
                } => {
                    if let Some(item) = items.pop_front() {
                        return Ok(Item::Object(item));
                    }
                    let version = *version;
                    let Some(next) = next.take() else {
                        self.stage = Stage::Idle;
                        return Ok(Item::Complete(version));
                    };
                    self.page(Some(next)).await?;
                }
                Stage::Watch { lines, is_listing } => {
                    let patience = if *is_listing {
                        self.patience.answer
                    } else {
                        self.patience.silence
                    };
                    let line = tokio::time::timeout(patience, lines.next())
                        .await
                        .map_err(|_| End::Failed(silent(patience)))?
                        .map_err(End::Failed)?
                        .ok_or(End::Closed)?;
                    if let Some(item) = item(&line, is_listing)? {
                        return Ok(item);
                    }
                }
            }
        }
    }

    /// Begins a list, or goes on with a watch.
    async fn open(&mut self) -> Result<Item, End> {
        if let Some(version) = self.resume {
            let lines = self
                .watch(&[("resourceVersion", version.to_string())])
                .await?;
            self.stage = Stage::Watch {
                lines,
                is_listing: false,
            };
            return Ok(Item::Resumed);
        }
        if !self.cannot_stream_lists {
            let streaming = [
                ("sendInitialEvents", "true".to_owned()),
                ("resourceVersionMatch", "NotOlderThan".to_owned()),
            ];
            match self.watch(&streaming).await {
                Ok(lines) => {
                    self.stage = Stage::Watch {
                        lines,
                        is_listing: true,
                    };
                    return Ok(Item::Begin);
                }
                Err(End::Failed(reason)) if reason.starts_with(REFUSED) => {
                    self.cannot_stream_lists = true;
                }
                Err(end) => return Err(end),
            }
        }
        self.page(None).await?;
        Ok(Item::Begin)
    }

    async fn watch(&mut self, more: &[(&str, String)]) -> Result<Box<Lines>, End> {
        let base = self.patience.watch.as_secs();
        let seconds = base + super::backoff::random_below(base);
        let mut parameters = vec![
            ("watch", "true".to_owned()),
            ("allowWatchBookmarks", "true".to_owned()),
            ("timeoutSeconds", seconds.to_string()),
        ];
        parameters.extend_from_slice(more);
        let response = self.ask(parameters).await?;
        Ok(Box::new(Lines::new(response.into_body())))
    }

    async fn page(&mut self, token: Option<String>) -> Result<(), End> {
        let mut parameters = vec![("limit", PAGE.to_string())];
        parameters.extend(token.map(|token| ("continue", token)));
        let response = self.ask(parameters).await?;
        let body = self.body(response).await?;
        let broken = |e: serde_json::Error| End::Failed(format!("the list is no JSON: {e}"));
        let list: List = serde_json::from_slice(&body).map_err(broken)?;
        self.stage = Stage::Pages {
            items: list.items.into(),
            next: list.metadata.next.filter(|token| !token.is_empty()),
            version: list.metadata.version.parse().unwrap_or(0),
        };
        Ok(())
    }

    async fn ask(&mut self, parameters: Vec<(&str, String)>) -> Result<Response<Body>, End> {
        let mut parameters = parameters;
        let selector = self.selector.map(|s| ("fieldSelector", s.to_owned()));
        parameters.extend(selector);
        let request = Request::get(encode(&self.path, &parameters))
            .header(hyper::header::ACCEPT, self.accept)
            .body(Body::empty())
            .map_err(|e| End::Failed(e.to_string()))?;
        let patience = self.patience.answer;
        let response = tokio::time::timeout(patience, self.client.send(request))
            .await
            .map_err(|_| End::Failed(silent(patience)))?
            .map_err(|e| End::Failed(crate::telemetry::chain(&e)))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = self.body(response).await.unwrap_or_default();
        Err(refusal(status, &body))
    }

    async fn body(&mut self, response: Response<Body>) -> Result<Vec<u8>, End> {
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        loop {
            let frame = tokio::time::timeout(self.patience.answer, body.frame())
                .await
                .map_err(|_| End::Failed(silent(self.patience.answer)))?;
            let Some(frame) = frame else {
                return Ok(bytes);
            };
            let frame = frame.map_err(|e| End::Failed(crate::telemetry::chain(&e)))?;
            bytes.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(End::Failed("the answer is too large".to_owned()));
            }
        }
    }
}

/// How a refusal of the request itself begins.
const REFUSED: &str = "the request is refused";

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    #[serde(default)]
    items: Vec<Value>,
}

#[derive(Deserialize)]
struct ListMeta {
    #[serde(rename = "resourceVersion", default)]
    version: String,
    #[serde(rename = "continue", default)]
    next: Option<String>,
}

fn silent(patience: Duration) -> String {
    format!("no answer within {} s", patience.as_secs_f32())
}

fn refusal(status: StatusCode, body: &[u8]) -> End {
    let value: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let message = value.get("message").and_then(Value::as_str);
    let said = message.map_or_else(
        || String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned(),
        str::to_owned,
    );
    failure(status.as_u16(), said.trim())
}

fn failure(code: u16, said: &str) -> End {
    match code {
        404 => End::NotServed,
        403 => End::Denied(said.to_owned()),
        410 => End::Expired,
        400 | 422 => End::Failed(format!("{REFUSED}: {said}")),
        _ => End::Failed(format!("the API server answers {code}: {said}")),
    }
}

/// What a line of a watch says; nothing if it is of no interest.
fn item(line: &[u8], is_listing: &mut bool) -> Result<Option<Item>, End> {
    let broken = |e: serde_json::Error| End::Failed(format!("the watch sends no JSON: {e}"));
    let Event { kind, object } = serde_json::from_slice(line).map_err(broken)?;
    match kind.as_str() {
        "ADDED" | "MODIFIED" => Ok(Some(Item::Object(object))),
        "DELETED" => Ok(Some(Item::Removed(object))),
        "BOOKMARK" => {
            let Some(version) = version_of(&object) else {
                return Ok(None);
            };
            let mark = &object["metadata"]["annotations"]["k8s.io/initial-events-end"];
            if *is_listing && mark == "true" {
                *is_listing = false;
                return Ok(Some(Item::Complete(version)));
            }
            Ok((!*is_listing).then_some(Item::Bookmark(version)))
        }
        "ERROR" => {
            let code = object["code"].as_u64().and_then(|c| u16::try_from(c).ok());
            let said = object["message"].as_str().unwrap_or_default();
            Err(failure(code.unwrap_or(500), said))
        }
        _ => Ok(None),
    }
}

/// `metadata.resourceVersion` as a number.
pub fn version_of(object: &Value) -> Option<u64> {
    object["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

#[cfg(test)]
mod tests;
