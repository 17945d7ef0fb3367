//! The server over its real sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;

use gateway_proxy::{ListenMode, Settings};
use serde_json::Value;

use super::*;
use crate::world::World;

struct Server {
    dir: tempfile::TempDir,
    world: watch::Sender<Option<Arc<World>>>,
    life: watch::Sender<Life>,
    admin: Admin,
}

fn config(dir: &Path) -> Config {
    use clap::{CommandFactory as _, FromArgMatches as _};
    let words = [
        "sluice",
        "run",
        "--manifests",
        dir.to_str().expect("a path"),
        "--l4",
        "sockets",
    ];
    let matches = crate::args::Cli::command().get_matches_from(words);
    let cli = crate::args::Cli::from_arg_matches(&matches).expect("arguments");
    let (crate::args::Command::Run(args), Some((_, matches))) =
        (&cli.command, matches.subcommand())
    else {
        panic!("not run");
    };
    Config::load(args, matches).expect("a configuration")
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        let manifest = "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: web, namespace: infra}\n\
                        spec:\n  gatewayClassName: sluice\n  listeners:\n  - {name: http, port: 80, protocol: HTTP}\n";
        std::fs::write(dir.path().join("gateway.yaml"), manifest).expect("written");
        let settings = Settings {
            workers: std::num::NonZeroUsize::MIN,
            ..Settings::default()
        };
        let mode = ListenMode::Sockets {
            inherited: Vec::new(),
        };
        let (world, published) = watch::channel(None);
        let life = watch::channel(Life::Starting).0;
        let state = AdminState {
            world: published,
            proxy: Arc::new(Proxy::start(settings, mode).expect("a proxy")),
            l4: PacketPath::default(),
            times: Arc::new(StageTimes::default()),
            config: Arc::new(config(dir.path())),
            health: None,
            statuses: None,
            l4_reason: Some("sockets mode was asked for".to_owned()),
            pod: Some("sluice-a".to_owned()),
            started_at: Timestamp::now(),
            life: life.clone(),
        };
        let mut admin = Admin::start(&dir.path().join("admin.sock"), state).expect("a server");
        admin.publish().expect("published");
        Self {
            dir,
            world,
            life,
            admin,
        }
    }

    fn publish(&self) {
        let settings = gateway_translate::Settings::default();
        let world = World::offline(self.dir.path(), settings)
            .expect("a world")
            .world;
        self.world.send_replace(Some(Arc::new(world)));
        self.life.send_replace(Life::Serving);
    }

    fn ask(&self, request: &str) -> (u16, String) {
        let stream = UnixStream::connect(self.dir.path().join("admin.sock")).expect("connects");
        exchange(stream, request)
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.ask(&format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"))
    }

    fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect(path)
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).expect("asks");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .expect("a status");
    (status, body.to_owned())
}

#[test]
fn it_is_ready_when_a_revision_is_applied_and_until_it_drains() {
    let server = Server::start();
    assert_eq!(server.get("/healthz/live").0, 200);
    assert_eq!(server.get("/healthz/ready"), (503, "starting\n".to_owned()));
    assert_eq!(server.get("/status").0, 503);
    server.publish();
    assert_eq!(server.get("/healthz/ready"), (200, "ready\n".to_owned()));
    server.life.send_replace(Life::Draining);
    assert_eq!(server.get("/healthz/ready"), (503, "draining\n".to_owned()));
}

#[test]
fn a_pod_is_not_ready_because_another_one_of_the_node_is() {
    let server = Server::start();
    server.publish();
    assert_eq!(server.get("/healthz/ready?pod=sluice-a").0, 200);
    let another = "another Pod serves\n".to_owned();
    assert_eq!(
        server.get("/healthz/ready?pod=sluice-b"),
        (503, another.clone())
    );
    assert_eq!(server.get("/healthz/live?pod=sluice-b"), (200, another));
}

#[test]
fn a_process_whose_controller_is_gone_asks_to_be_restarted() {
    let server = Server::start();
    server.publish();
    assert_eq!(server.get("/healthz/live").0, 200);
    let Server {
        dir,
        world,
        life,
        admin,
    } = server;
    drop(world);
    let get = |path: &str| {
        let stream = UnixStream::connect(dir.path().join("admin.sock")).expect("connects");
        exchange(
            stream,
            &format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"),
        )
        .0
    };
    assert_eq!((get("/healthz/live"), get("/healthz/ready")), (500, 200));
    life.send_replace(Life::Draining);
    assert_eq!(get("/healthz/live"), 200);
    drop(admin);
}

#[test]
fn every_path_answers() {
    let server = Server::start();
    server.publish();
    assert_eq!(server.json("/listeners")[0]["port"], 80);
    assert_eq!(server.json("/routes"), serde_json::json!([]));
    assert_eq!(server.json("/snapshot")["revision"], 1);
    assert_eq!(server.json("/status")["process"]["l4"], "sockets");
    let warned = server.json("/status")["warnings"].to_string();
    assert!(
        warned.contains("listener infra/web#http has no route"),
        "{warned}"
    );
    assert_eq!(server.json("/l4")["mode"], "sockets");
    let settings = server.json("/config");
    let workers = settings
        .as_array()
        .into_iter()
        .flatten()
        .find(|s| s["name"] == "workers");
    assert_eq!(workers.map(|s| &s["origin"]), Some(&Value::from("default")));
    let answer = server.json("/explain?url=http%3A%2F%2Fshop.example.com%2F");
    assert_eq!(answer["outcome"], "no_rule");
    assert_eq!(server.get("/explain").0, 400);
    assert_eq!(server.get("/l4/trace?port=80").0, 503);
    assert_eq!(server.get("/nothing").0, 404);
    assert_eq!(
        server
            .ask("POST /status HTTP/1.0\r\nHost: localhost\r\n\r\n")
            .0,
        405
    );
}

#[test]
fn metrics_are_text_that_prometheus_reads() {
    let server = Server::start();
    server.publish();
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    let mut typed = std::collections::BTreeSet::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            assert!(
                typed.insert(rest.split(' ').next().unwrap_or_default().to_owned()),
                "{line} again"
            );
            continue;
        }
        if line.starts_with('#') {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').expect(line);
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap_or_default();
        let base = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| name.strip_suffix(suffix));
        assert!(
            typed.contains(name) || base.is_some_and(|base| typed.contains(base)),
            "{line}"
        );
    }
    assert!(text.contains("sluice_listener_up{gateway=\"infra/web\",listener=\"http\"} 1\n"));
    assert!(text.contains("sluice_config_revision 1\n"));
    assert!(text.contains("sluice_requests_refused_total{reason=\"host-missing\"} 0\n"));
}

#[test]
fn only_this_user_may_ask_and_only_by_a_local_name() {
    let mut server = Server::start();
    server.publish();
    let mode = std::fs::metadata(server.dir.path().join("admin.sock"))
        .expect("stat")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("bind")
        .local_addr()
        .expect("address")
        .port();
    let address: SocketAddr = ([127, 0, 0, 1], port).into();
    server.admin.listen(address).expect("listens");
    let ask = |host: &str| {
        let stream = TcpStream::connect(address).expect("connects");
        exchange(
            stream,
            &format!("GET /healthz/ready HTTP/1.0\r\nHost: {host}\r\n\r\n"),
        )
        .0
    };
    assert_eq!(ask("localhost:1"), 200);
    assert_eq!(ask(&address.to_string()), 200);
    assert_eq!(ask("[::1]:1"), 200);
    assert_eq!(ask("rebound.example.com"), 403);
    assert_eq!(ask("192.0.2.1"), 403);
    server.admin.close_address();
    let mut next = Server::start();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while next.admin.listen(address).is_err() {
        assert!(
            std::time::Instant::now() < deadline,
            "the address is not given up"
        );
        std::thread::yield_now();
    }
}
