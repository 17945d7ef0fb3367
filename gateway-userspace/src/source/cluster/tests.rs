//! The whole source, against a server that is told what to say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use gateway_model::names::{ObjectKind, ObjectRef};
use gateway_translate::Event;
use serde_json::{Value, json};

use super::super::{KindState, Origin};
use super::scripted::{Reply, Scripted, Then, client};
use super::*;

/// No event of a healthy system takes this long.
const TOO_LONG: Duration = Duration::from_secs(20);

/// An API server's contents, by collection, and what it refuses.
#[derive(Debug, Default)]
struct Contents {
    objects: BTreeMap<&'static str, Vec<Value>>,
    refused: BTreeMap<&'static str, u16>,
}

type Shelf = Arc<Mutex<Contents>>;

/// What has been passed on.
struct Taker {
    updates: mpsc::Receiver<Update>,
    names: Vec<String>,
    last: Update,
}

fn route(name: &str, version: u64) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "shop", "uid": name, "resourceVersion": version.to_string()},
        "spec": {"rules": [{}]},
    })
}

fn script(shelf: &Shelf) -> impl FnMut(&str) -> Reply + Send + 'static {
    let shelf = Arc::clone(shelf);
    move |target| {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let collection = path.rsplit('/').next().unwrap_or_default();
        let shelf = shelf.lock().expect("lock");
        if let Some(status) = shelf.refused.get(collection) {
            return Reply::Status(*status, json!({"message": "refused"}).to_string());
        }
        let mut text = String::new();
        if query.contains("sendInitialEvents") {
            for object in shelf.objects.get(collection).into_iter().flatten() {
                text += &(json!({"type": "ADDED", "object": object}).to_string() + "\n");
            }
            text += &(json!({"type": "BOOKMARK", "object": {"metadata": {
                "resourceVersion": "100", "annotations": {"k8s.io/initial-events-end": "true"},
            }}})
            .to_string()
                + "\n");
        }
        Reply::Stream(text, Then::Hang)
    }
}

fn follow(address: SocketAddr, last_good: Option<PathBuf>) -> (Taker, Cluster) {
    let access = Access {
        client: client(address),
        clerks: client(address),
        server: format!("http://{address}"),
    };
    let settings = Settings {
        controller: "sluice.dev/gateway-controller".into(),
        last_good,
        last_good_after: Duration::from_millis(50),
    };
    let patience = Patience {
        answer: Duration::from_secs(5),
        silence: TOO_LONG,
        watch: Duration::from_secs(60),
    };
    let (updates, cluster) = start_patiently(&access, &settings, patience);
    let taker = Taker {
        updates,
        names: Vec::new(),
        last: Update::default(),
    };
    (taker, cluster)
}

impl Taker {
    async fn until(&mut self, what: impl Fn(&Self) -> bool) {
        while !what(self) {
            let update = tokio::time::timeout(TOO_LONG, self.updates.recv());
            let update = update.await.expect("in time").expect("a source");
            for event in &update.events {
                match event {
                    Event::Apply(object) => self.names.push(object.meta().object.name.to_string()),
                    Event::Delete(name) => self.names.retain(|n| **n != *name.name),
                }
            }
            self.names.sort();
            self.names.dedup();
            self.last = update;
        }
    }

    fn state(&self, kind: ObjectKind) -> Option<KindState> {
        let Origin::Cluster { kinds, .. } = &self.last.report.origin else {
            return None;
        };
        kinds.iter().find(|k| k.kind == kind).map(|k| k.state)
    }
}

fn anywhere() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

#[tokio::test]
async fn a_start_without_an_api_server_serves_what_an_earlier_life_knew() {
    let dir = tempfile::tempdir().expect("tempdir");
    let kept = dir.path().join("last-good");
    let shelf = Shelf::default();
    let routes = vec![route("stays", 3), route("goes", 4)];
    shelf
        .lock()
        .expect("lock")
        .objects
        .insert("httproutes", routes);
    let server = Scripted::answering(anywhere(), script(&shelf)).await;
    let address = server.address();
    let (mut first, _) = follow(address, Some(kept.clone()));
    first.until(|taker| taker.names == ["goes", "stays"]).await;
    assert_eq!(first.last.position.of(ObjectKind::HttpRoute), 100);
    while !kept.join("cluster.log").exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop((first, server));

    let (mut second, cluster) = follow(address, Some(kept.clone()));
    second.until(|taker| taker.names == ["goes", "stays"]).await;
    assert!(second.last.position.is_empty());
    assert!(second.last.report.unreadable.is_some());
    assert!(cluster.health.stale() > Duration::ZERO);

    let routes = vec![route("stays", 3), route("comes", 9)];
    shelf
        .lock()
        .expect("lock")
        .objects
        .insert("httproutes", routes);
    let server = Scripted::answering(address, script(&shelf)).await;
    second
        .until(|taker| taker.names == ["comes", "stays"])
        .await;
    second
        .until(|taker| taker.last.report.unreadable.is_none())
        .await;
    assert_eq!(cluster.health.stale(), Duration::ZERO);
    drop(server);
}

#[tokio::test]
async fn a_kind_that_is_defined_later_is_followed_without_a_restart() {
    let shelf = Shelf::default();
    shelf
        .lock()
        .expect("lock")
        .refused
        .insert("httproutes", 404);
    let server = Scripted::answering(anywhere(), script(&shelf)).await;
    let (mut taker, cluster) = follow(server.address(), None);
    taker
        .until(|taker| taker.state(ObjectKind::HttpRoute) == Some(KindState::NotServed))
        .await;
    assert!(taker.last.report.is_founded());
    {
        let mut shelf = shelf.lock().expect("lock");
        shelf.refused.clear();
        shelf.objects.insert("httproutes", vec![route("a", 3)]);
    }
    cluster.rescan();
    taker.until(|taker| taker.names == ["a"]).await;
    assert_eq!(taker.state(ObjectKind::HttpRoute), Some(KindState::Watched));
}

#[tokio::test]
async fn one_kind_that_fails_keeps_its_objects_and_comes_back() {
    let shelf = Shelf::default();
    shelf
        .lock()
        .expect("lock")
        .objects
        .insert("httproutes", vec![route("a", 3)]);
    let server = Scripted::answering(anywhere(), script(&shelf)).await;
    let (mut taker, cluster) = follow(server.address(), None);
    taker.until(|taker| taker.names == ["a"]).await;
    shelf
        .lock()
        .expect("lock")
        .refused
        .insert("httproutes", 403);
    cluster.rescan();
    taker
        .until(|taker| taker.state(ObjectKind::HttpRoute) == Some(KindState::Stale))
        .await;
    assert_eq!(taker.names, ["a"]);
    assert_eq!(taker.last.report.unreadable, None);
    shelf.lock().expect("lock").refused.clear();
    taker
        .until(|taker| taker.state(ObjectKind::HttpRoute) == Some(KindState::Watched))
        .await;
    assert_eq!(taker.names, ["a"]);
}

#[tokio::test]
async fn objects_are_observed_before_they_are_decoded() {
    let shelf = Shelf::default();
    let mut broken = route("broken", 7);
    broken["spec"] = json!("none");
    shelf
        .lock()
        .expect("lock")
        .objects
        .insert("httproutes", vec![broken]);
    let server = Scripted::answering(anywhere(), script(&shelf)).await;
    let (mut taker, _) = follow(server.address(), None);
    taker.until(|taker| !taker.last.observed.is_empty()).await;
    let name = ObjectRef::new(ObjectKind::HttpRoute, "shop", "broken");
    let (observed, seen) = &taker.last.observed[0];
    assert_eq!(*observed, name);
    assert_eq!(seen.map(|seen| seen.resource_version), Some(7));
    assert_eq!(taker.last.report.findings[0].object, Some(name));
}
