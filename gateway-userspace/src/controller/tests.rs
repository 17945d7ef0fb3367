//! Updates carried through to a real proxy in sockets mode.

use std::net::TcpListener;
use std::num::NonZeroUsize;

use gateway_proxy::{ListenMode, Settings};
use serde_json::json;

use super::*;

struct Plant {
    controller: Controller,
    world: watch::Receiver<Option<Arc<World>>>,
}

fn plant(after: u64) -> Plant {
    let settings = Settings {
        workers: NonZeroUsize::MIN,
        ..Settings::default()
    };
    let proxy = Proxy::start(
        settings,
        ListenMode::Sockets {
            inherited: Vec::new(),
        },
    )
    .expect("a proxy");
    let (sender, world) = watch::channel(None);
    let controller = Controller::new(
        gateway_translate::Settings::default(),
        Revision(after),
        Arc::new(proxy),
        PacketPath::default(),
        sender,
        Arc::default(),
    );
    Plant { controller, world }
}

fn update(objects: &[serde_json::Value]) -> Update {
    let events = objects.iter().map(|object| {
        let object = gateway_translate::decode(object.clone())
            .expect("decodes")
            .expect("is ours");
        gateway_translate::Event::Apply(object)
    });
    Update {
        events: events.collect(),
        seen: Some(Instant::now()),
        ..Update::default()
    }
}

fn gateway(port: u16) -> serde_json::Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "web", "namespace": "infra"},
        "spec": {"gatewayClassName": "sluice", "listeners": [{"name": "http", "port": port, "protocol": "HTTP"}]},
    })
}

impl Plant {
    fn now(&self) -> Arc<World> {
        self.world.borrow().clone().expect("a world")
    }

    fn programmed(&self) -> String {
        let world = self.now();
        let (_, status) = world.statuses.iter().next().expect("a status");
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        let programmed = conditions
            .iter()
            .find(|c| c["type"] == "Programmed")
            .expect("Programmed");
        programmed["status"].as_str().unwrap_or_default().to_owned()
    }
}

fn free_port() -> u16 {
    TcpListener::bind("0.0.0.0:0")
        .expect("bind")
        .local_addr()
        .expect("address")
        .port()
}

#[tokio::test]
async fn a_revision_is_published_when_it_is_served_and_only_when_something_changed() {
    let mut plant = plant(0);
    let port = free_port();
    plant.controller.apply(update(&[gateway(port)])).await;
    assert_eq!(plant.now().revision(), Revision(1));
    assert_eq!(plant.programmed(), "True");
    std::net::TcpStream::connect(("127.0.0.1", port)).expect("is served");
    let idle = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "idle"}});
    plant.controller.apply(update(&[idle])).await;
    assert_eq!(plant.now().revision(), Revision(1));
    plant
        .controller
        .apply(update(&[gateway(free_port())]))
        .await;
    assert_eq!(plant.now().revision(), Revision(2));
}

#[tokio::test]
async fn revisions_go_on_where_a_predecessor_ended() {
    let mut plant = plant(41);
    plant
        .controller
        .apply(update(&[gateway(free_port())]))
        .await;
    assert_eq!(plant.now().revision(), Revision(42));
}

#[tokio::test]
async fn nothing_to_serve_is_a_revision_too() {
    let mut plant = plant(0);
    plant.controller.apply(update(&[])).await;
    assert_eq!(plant.now().revision(), Revision(1));
    assert!(plant.now().is_founded());
}

#[tokio::test]
async fn a_listener_that_cannot_listen_is_not_programmed_and_heals() {
    let mut plant = plant(0);
    let taken = TcpListener::bind("0.0.0.0:0").expect("bind");
    let port = taken.local_addr().expect("address").port();
    plant.controller.apply(update(&[gateway(port)])).await;
    assert_eq!(plant.programmed(), "False");
    assert_eq!(plant.now().failures.len(), 1);
    plant
        .controller
        .apply(update(&[gateway(free_port())]))
        .await;
    assert_eq!(plant.programmed(), "True");
    assert!(plant.now().failures.is_empty());
}
