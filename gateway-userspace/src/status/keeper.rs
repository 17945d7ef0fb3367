//! Keeps the Services of Gateways as they should be, while this process holds the Lease.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use gateway_model::names::ObjectRef;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::api::{Api, ApiError};
use super::job::Desk;
use super::notice::Notice;
use super::provision::{Change, KEPT, change, is_kept, objects};
use super::stats::Count;
use crate::pipeline::Provisions;
use crate::telemetry::chain;
use crate::world::World;

/// After so long everything is listed again, for others may have changed what is kept.
const RESYNC: Duration = Duration::from_secs(300);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Where an object stands in the API.
type Path = String;

/// One term's knowledge of what is kept.
pub struct Keeper {
    desk: Desk,
    world: watch::Receiver<Option<Arc<World>>>,
    /// What stands; none before it was listed.
    stands: Option<BTreeMap<Path, Value>>,
    /// Foreign objects that were told of.
    told: HashSet<Path>,
}

impl Keeper {
    /// Knows nothing yet.
    pub fn new(desk: Desk, world: watch::Receiver<Option<Arc<World>>>) -> Self {
        Self {
            desk,
            world,
            stands: None,
            told: HashSet::new(),
        }
    }

    /// Keeps them for as long as it is polled.
    pub async fn run(mut self) {
        let mut kept: Option<Provisions> = None;
        let mut is_failing = false;
        let mut resync = tokio::time::Instant::now() + RESYNC;
        loop {
            let mut retry = None;
            let world = self.world.borrow_and_update().clone();
            if let Some(world) = world
                && kept
                    .as_ref()
                    .is_none_or(|kept| !kept.ptr_eq(&world.provisions))
            {
                match self.keep(&world).await {
                    Ok(()) => {
                        kept = Some(world.provisions.clone());
                        is_failing = false;
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut is_failing, true) {
                            tracing::warn!(error = chain(&error), "services cannot be kept");
                        }
                        self.stands = None;
                        retry = Some(tokio::time::Instant::now() + RETRY);
                    }
                }
            }
            tokio::select! {
                changed = self.world.changed(), if retry.is_none() => if changed.is_err() { return },
                () = tokio::time::sleep_until(retry.unwrap_or(resync)) => {
                    if retry.is_none() {
                        resync = tokio::time::Instant::now() + RESYNC;
                        self.stands = None;
                        kept = None;
                    }
                }
            }
        }
    }

    async fn keep(&mut self, world: &World) -> Result<(), ApiError> {
        // Who never kept anything need not have the right to.
        if self.stands.is_none() {
            self.stands = Some(list(&self.desk.api).await?);
        }
        let mut wanted = BTreeSet::new();
        for (gateway, service) in &world.provisions {
            for object in objects(gateway, service) {
                let path = path_of(&object);
                self.put(gateway, &path, &object).await?;
                wanted.insert(path);
            }
        }
        if !world.source.is_current() {
            return Ok(());
        }
        let stands = self.stands.get_or_insert_default();
        let gone: Vec<_> = stands
            .keys()
            .filter(|p| !wanted.contains(*p))
            .cloned()
            .collect();
        for path in gone {
            self.delete(&path).await?;
        }
        Ok(())
    }

    async fn put(
        &mut self,
        gateway: &ObjectRef,
        path: &str,
        wanted: &Value,
    ) -> Result<(), ApiError> {
        let current = self.stands.get_or_insert_default().get(path).cloned();
        let written = match current.map(|current| change(&current, wanted)) {
            Some(Change::None) => return Ok(()),
            Some(Change::Patch(patch)) => self.allowed()?.patch(path, &patch).await?,
            Some(Change::Replace) => {
                self.delete(path).await?;
                self.create(path, wanted).await?
            }
            None => match self.create(path, wanted).await {
                Err(ApiError::Conflict) => {
                    let standing = self.desk.api.get(path).await?;
                    if is_kept(&standing) {
                        return Err(ApiError::Conflict);
                    }
                    self.tell(gateway, path, wanted);
                    return Ok(());
                }
                answer => answer?,
            },
        };
        self.desk.stats.count(Count::Service);
        self.stands
            .get_or_insert_default()
            .insert(path.to_owned(), written);
        Ok(())
    }

    async fn create(&self, path: &str, wanted: &Value) -> Result<Value, ApiError> {
        let collection = path.rsplit_once('/').map_or(path, |(parent, _)| parent);
        self.allowed()?.post(collection, wanted).await
    }

    async fn delete(&mut self, path: &str) -> Result<(), ApiError> {
        let stands = self.stands.get_or_insert_default();
        let uid = stands
            .get(path)
            .map(|object| object["metadata"]["uid"].clone());
        let body = json!({"preconditions": {"uid": uid}});
        match self.allowed()?.delete(path, &body).await {
            Ok(_) => self.desk.stats.count(Count::Service),
            Err(ApiError::NotFound) => {}
            Err(error) => return Err(error),
        }
        self.stands.get_or_insert_default().remove(path);
        Ok(())
    }

    fn allowed(&self) -> Result<&Api, ApiError> {
        match self.desk.leadership.is_held() {
            true => Ok(&self.desk.api),
            false => Err(ApiError::Deposed),
        }
    }

    /// Somebody else's object has the name: it is left alone.
    fn tell(&mut self, gateway: &ObjectRef, path: &str, wanted: &Value) {
        if !self.told.insert(path.to_owned()) {
            return;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (kind, name) = (text(&wanted["kind"]), text(&wanted["metadata"]["name"]));
        let note = format!(
            "{kind} {name} is somebody else's, for it lacks the label {}={}; delete or rename it, \
             so that Sluice can keep its own for this Gateway",
            KEPT.0, KEPT.1
        );
        tracing::warn!(%gateway, kind, name, "the name is taken by an object of somebody else");
        let notice = Notice::warning(gateway.clone(), None, "NameTaken", &note);
        self.desk.events.tell(notice);
    }
}

async fn list(api: &Api) -> Result<BTreeMap<Path, Value>, ApiError> {
    let selector = format!("labelSelector={}%3D{}", KEPT.0.replace('/', "%2F"), KEPT.1);
    let mut all = BTreeMap::new();
    for (collection, api_version, kind) in [
        ("/api/v1/services", "v1", "Service"),
        (
            "/apis/discovery.k8s.io/v1/endpointslices",
            "discovery.k8s.io/v1",
            "EndpointSlice",
        ),
    ] {
        let mut list = api.get(&format!("{collection}?{selector}")).await?;
        let items = list["items"].take();
        for mut object in items.as_array().cloned().unwrap_or_default() {
            object["apiVersion"] = json!(api_version);
            object["kind"] = json!(kind);
            all.insert(path_of(&object), object);
        }
    }
    Ok(all)
}

fn path_of(object: &Value) -> Path {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let namespace = text(&object["metadata"]["namespace"]);
    let name = text(&object["metadata"]["name"]);
    match object["kind"].as_str() {
        Some("Service") => format!("/api/v1/namespaces/{namespace}/services/{name}"),
        _ => format!("/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices/{name}"),
    }
}
