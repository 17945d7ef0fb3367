//! Processes that follow each other: upgrades, kills and stops, and what is left behind.

mod between;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use gateway_tests::raw::Raw;
use gateway_tests::sluice::Start;
use gateway_tests::websocket::WebSocket;
use gateway_tests::{Netns, Sluice, manifests, process, until, wait};

use crate::edge::{Edge, Mode};
use between::Between;

/// How often a process is replaced.
const UPGRADES: usize = 20;

fn upgrades_lose_nothing(mode: Mode) -> Result<()> {
    let edge = Edge::plan(mode).args(["--drain-timeout", "60s"]).start()?;
    lose_nothing(edge, UPGRADES)
}

fn lose_nothing(mut edge: Edge, upgrades: usize) -> Result<()> {
    let tls = edge.client_config(&["http/1.1"])?;
    let loads = [
        edge.load("a.example.com")
            .connections(2)
            .start(edge.client())?,
        edge.load("a.example.com")
            .connections(2)
            .new_connections()
            .start(edge.client())?,
        edge.tls_load("a.example.com")?
            .connections(2)
            .start(edge.client())?,
        edge.tls_load("a.example.com")?
            .tls(edge.client_config(&["h2"])?)
            .connections(2)
            .http2("/")
            .start(edge.client())?,
    ];
    let open = |port, tls| WebSocket::open(edge.client(), edge.at(port), "a.example.com", "/", tls);
    let mut sockets = vec![open(80, None)?, open(443, Some(tls.clone()))?];
    let mut predecessors: Vec<Sluice> = Vec::new();
    for round in 0..upgrades {
        for load in &loads {
            load.wait_more(20)?;
        }
        let old = edge.sluice().upgrade()?;
        predecessors.push(old);
        sockets.push(WebSocket::open(
            edge.client(),
            edge.at(80),
            "a.example.com",
            "/",
            None,
        )?);
        for (i, socket) in sockets.iter_mut().enumerate() {
            socket.echo(&format!("socket {i}, round {round}"))?;
        }
    }
    for load in loads {
        load.wait_more(20)?;
        let report = load.stop()?;
        report.expect_clean()?;
        assert_eq!(
            report.resent, 0,
            "a connection was closed under a request: {report}"
        );
    }
    // Each predecessor holds the WebSockets that were opened to it; without them it ends at once.
    for socket in sockets {
        socket.close()?;
    }
    for mut old in predecessors {
        let status = old.wait_exit(Duration::from_secs(30))?;
        assert!(status.success(), "{status}\n{}", old.log());
    }
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    Ok(())
}

#[test]
fn twenty_upgrades_under_load_lose_nothing_with_bpf() -> Result<()> {
    upgrades_lose_nothing(Mode::Native)
}

#[test]
fn twenty_upgrades_under_load_lose_nothing_with_sockets() -> Result<()> {
    upgrades_lose_nothing(Mode::Sockets)
}

#[test]
fn a_pod_takes_over_from_one_whose_processes_have_no_ids_in_its_eyes() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let plan = Edge::plan(mode).args(["--drain-timeout", "60s"]);
        let (mut edge, start) = plan.prepare()?;
        edge.put_sluice(start.apart().ready()?);
        lose_nothing(edge, 3)?;
    }
    Ok(())
}

#[test]
fn a_websocket_lives_until_the_drain_deadline_and_not_longer() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let mut edge = Edge::plan(mode).args(["--drain-timeout", "2s"]).start()?;
        let mut socket = WebSocket::open(edge.client(), edge.at(80), "a.example.com", "/", None)?;
        let mut old = edge.sluice().upgrade()?;
        let replaced = Instant::now();
        let mut last = replaced;
        while socket.echo("still there").is_ok() {
            last = Instant::now();
            anyhow::ensure!(
                last - replaced < Duration::from_secs(20),
                "the deadline is ignored"
            );
        }
        assert!(
            last - replaced > Duration::from_millis(1500),
            "cut after {:?}",
            last - replaced
        );
        old.wait_exit(Duration::from_secs(10))?;
    }
    Ok(())
}

#[test]
fn a_request_under_way_is_finished_by_the_old_process() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let mut raw = Raw::connect(edge.client(), edge.at(80))?;
    raw.send(b"GET /?bytes=100&chunks=30&pause-ms=100 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    until("the backend has the request", || {
        (edge.backends[0].requests() > 0).then_some(())
    })?;
    let mut old = edge.sluice().upgrade()?;
    assert_eq!(raw.response("GET")?.body.len(), 3000);
    old.wait_exit(Duration::from_secs(10))?;
    Ok(())
}

/// Where nobody is.
const ASTRAY: &str = "02:00:00:00:00:99";

/// Sends what goes to a neighbour astray, or no more.
fn neighbour(ns: &Netns, address: Ipv4Addr, reachable: bool) -> Result<()> {
    let entry = if reachable {
        format!("neigh del {address} dev eth0")
    } else {
        format!("neigh replace {address} lladdr {ASTRAY} dev eth0 nud permanent")
    };
    ns.ip(&[&entry])
}

/// How many handshakes wait for their last acknowledgement: `TCP_SYN_RECV` of linux v6.6 include/net/tcp_states.h.
fn half_open(ns: &Netns) -> Result<usize> {
    let sockets = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/tcp"))?;
    let is_half_open = |line: &&str| line.split_whitespace().nth(3) == Some("03");
    Ok(sockets.lines().filter(is_half_open).count())
}

#[test]
fn a_handshake_that_outlives_the_process_it_began_with_is_served_by_the_next() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let mut edge = Edge::plan(mode).start()?;
        let (node, client) = (edge.world.node.clone(), edge.world.client.clone());
        let address = edge.at(80);
        // The kernel answers, but is not heard …
        neighbour(&node.ns, client.v4, false)?;
        let ns = client.ns.clone();
        let dialling = std::thread::spawn(move || Raw::connect(&ns, address));
        until("a handshake has begun", || {
            (half_open(&node.ns).ok()? > 0).then_some(())
        })?;
        // … until the client's acknowledgement is lost: for the client the connection is there.
        neighbour(&client.ns, node.v4, false)?;
        neighbour(&node.ns, client.v4, true)?;
        let mut raw = dialling.join().expect("no panic")?;
        assert_eq!(half_open(&node.ns)?, 1, "{mode:?}");
        let mut old = edge.sluice().upgrade()?;
        let status = old.wait_exit(Duration::from_secs(10))?;
        assert!(status.success(), "{status}\n{}", old.log());
        neighbour(&client.ns, node.v4, true)?;
        let answer = raw.ask("GET / HTTP/1.1\r\nHost: a.example.com\r\n\r\n")?;
        assert_eq!(answer.status, 200, "{mode:?}");
    }
    Ok(())
}

#[test]
fn a_successor_that_dies_before_it_is_ready_changes_nothing() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    edge.put_sluice(start.clone().ready()?);
    let load = edge.load("a.example.com").start(edge.client())?;
    for _ in 0..5 {
        let successor = start.clone().spawn()?;
        drop(successor.kill()?);
        load.wait_more(20)?;
    }
    load.stop()?.expect_clean()
}

#[test]
fn a_successor_that_dies_before_it_is_heard_leaves_everything_to_its_predecessor() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    edge.put_sluice(start.clone().ready()?);
    let between = Between::step_in(edge.sluice())?;
    let successor = start.spawn()?;
    between.keep_the_last_word(|| successor.kill().map(drop))?;
    between.step_back()?;
    edge.sluice().wait_ready()?;
    edge.wait_served("http://a.example.com/", |answer| answer.status == 200)?;
    let mut old = edge.sluice().upgrade()?;
    let status = old.wait_exit(Duration::from_secs(10))?;
    assert!(status.success(), "{status}\n{}", old.log());
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    edge.sluice().terminate()?;
    edge.sluice().wait_exit(Duration::from_secs(10))?;
    assert_eq!(left_behind(&edge)?, BTreeSet::new());
    Ok(())
}

#[test]
fn a_successor_whose_predecessor_dies_gives_way_to_a_process_that_serves_already() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    let old = start.clone().ready()?;
    let between = Between::step_in(&old)?;
    let mut successor = start.clone().spawn()?;
    let third = between.keep_the_first_word(|| {
        drop(old.kill()?);
        start.ready()
    })?;
    edge.put_sluice(third);
    let status = successor.wait_exit(Duration::from_secs(10))?;
    assert_eq!(status.code(), Some(1), "{}", successor.log());
    edge.sluice().wait_ready()?;
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    let mut third = edge.sluice().upgrade()?;
    assert!(third.wait_exit(Duration::from_secs(10))?.success());
    Ok(())
}

#[test]
fn a_process_with_another_state_directory_takes_nothing_away() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let pin_dir = edge.world.pin_dir().display().to_string();
    let elsewhere = edge.world.dir().join("elsewhere");
    let mut stranger = Start::new(&edge.world.node.ns, &elsewhere)
        .args(["--l4", "bpf", "--pin-dir", &pin_dir, "--workers", "2"])
        .manifests(edge.manifests.dir())
        .spawn()?;
    let status = stranger.wait_exit(wait::PATIENCE)?;
    assert_eq!(status.code(), Some(1), "{}", stranger.log());
    assert!(stranger.log().contains("another --pin-dir"));
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    let mut old = edge.sluice().upgrade()?;
    assert!(old.wait_exit(Duration::from_secs(10))?.success());
    Ok(())
}

#[test]
fn a_process_whose_pins_were_removed_goes_on_with_the_next_change() -> Result<()> {
    let edge = Edge::plan(Mode::Native).start()?;
    std::fs::remove_dir_all(edge.world.pin_dir())?;
    let path = edge.manifests.path("gateway.yaml");
    let text = std::fs::read_to_string(&path)? + &manifests::http_listener("more", 8080);
    edge.manifests.write("gateway.yaml", &[text])?;
    edge.wait_served("http://a.example.com:8080/", |answer| answer.status == 200)
}

#[test]
fn an_upgrade_to_sockets_leaves_no_address_without_a_route() -> Result<()> {
    let (mut edge, start) = Edge::plan(Mode::Native).prepare()?;
    edge.put_sluice(start.clone().ready()?);
    let mut old = edge.take_sluice();
    edge.put_sluice(start.args(["--l4", "sockets"]).ready()?);
    assert!(old.wait_exit(Duration::from_secs(10))?.success());
    assert_eq!(edge.get("http://a.example.com/")?.status, 200);
    Ok(())
}

#[test]
fn an_upgrade_may_change_the_number_of_workers() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let (mut edge, start) = Edge::plan(mode).prepare()?;
        edge.put_sluice(start.clone().ready()?);
        let loads = [
            edge.load("a.example.com").start(edge.client())?,
            edge.load("a.example.com")
                .new_connections()
                .start(edge.client())?,
        ];
        for workers in ["1", "4", "3", "2"] {
            loads.iter().try_for_each(|load| load.wait_more(50))?;
            let successor = start.clone().args(["--workers", workers]).ready()?;
            let mut old = edge.take_sluice();
            edge.put_sluice(successor);
            let status = old.wait_exit(Duration::from_secs(10))?;
            assert!(
                status.success(),
                "{mode:?}, {workers} workers: {}",
                old.log()
            );
        }
        loads.iter().try_for_each(|load| load.wait_more(50))?;
        for load in loads {
            load.stop()?.expect_clean()?;
        }
    }
    Ok(())
}

#[test]
fn a_successor_killed_after_its_take_over_is_replaced_by_the_next() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let (mut edge, start) = Edge::plan(mode).prepare()?;
        edge.put_sluice(start.clone().ready()?);
        let mut socket = WebSocket::open(edge.client(), edge.at(80), "a.example.com", "/", None)?;
        let successor = start.clone().ready()?;
        drop(successor.kill()?);
        socket.echo("the drained process still holds this")?;
        let mut old = edge.take_sluice();
        edge.put_sluice(start.ready()?);
        assert_eq!(edge.get("http://a.example.com/")?.status, 200, "{mode:?}");
        socket.echo("and still does")?;
        socket.close()?;
        old.wait_exit(Duration::from_secs(10))?;
        assert_eq!(edge.get("https://a.example.com/")?.status, 200, "{mode:?}");
        edge.sluice().terminate()?;
        edge.sluice().wait_exit(Duration::from_secs(10))?;
        assert_eq!(left_behind(&edge)?, BTreeSet::new(), "{mode:?}");
    }
    Ok(())
}

#[test]
fn an_upgrade_may_switch_between_bpf_and_sockets() -> Result<()> {
    let mut edge = Edge::plan(Mode::Sockets).start()?;
    let start = edge.sluice().restart();
    for mode in ["bpf", "sockets", "bpf"] {
        let successor = start.clone().args(["--l4", mode]).ready()?;
        let mut old = edge.take_sluice();
        edge.put_sluice(successor);
        old.wait_exit(Duration::from_secs(10))?;
        for url in ["http://a.example.com/", "https://a.example.com/"] {
            assert_eq!(edge.get(url)?.status, 200, "after the switch to {mode}");
        }
        let l4 = edge.sluice().cli(&["l4"])?;
        assert_eq!(l4.contains("sk-lookup"), mode == "bpf", "{l4}");
    }
    edge.sluice().terminate()?;
    edge.sluice().wait_exit(Duration::from_secs(10))?;
    assert_eq!(left_behind(&edge)?, BTreeSet::new());
    Ok(())
}

#[test]
fn routes_may_change_while_a_predecessor_drains() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let mut socket = WebSocket::open(edge.client(), edge.at(80), "a.example.com", "/", None)?;
    let mut old = edge.sluice().upgrade()?;
    for number in 0..3 {
        let route = manifests::route("all", &[], &manifests::forward(&format!("b{number}")));
        edge.apply(&[route], "http://a.example.com/", |answer| {
            answer.header("x-backend") == Some(&format!("b{number}"))
        })?;
        socket.echo("still there")?;
    }
    socket.close()?;
    assert!(old.wait_exit(Duration::from_secs(10))?.success());
    Ok(())
}

/// What the kernel keeps of a namespace and of the pin directory.
fn left_behind(edge: &Edge) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let node = &edge.world.node.ns;
    let shown = |ns: &Netns, program: &str, arguments: &[&str]| -> Result<Vec<String>> {
        let mut command = Command::new(program);
        command.args(arguments);
        let output = process::output(ns, command)?;
        Ok(String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(|l| l.trim().to_owned())
            .collect())
    };
    let attached = shown(node, "ip", &["-d", "link"])?
        .into_iter()
        .filter(|l| l.contains("xdp"));
    found.extend(attached.map(|line| format!("link: {line}")));
    for interface in edge.world.node_interfaces() {
        let filters = shown(
            node,
            "tc",
            &["filter", "show", "dev", &interface, "ingress"],
        )?;
        found.extend(
            filters
                .into_iter()
                .filter(|l| !l.is_empty())
                .map(|l| format!("tc: {l}")),
        );
    }
    let routes = shown(node, "ip", &["route", "show", "table", "local"])?;
    found.extend(
        routes
            .into_iter()
            .filter(|l| l.contains("192.0.2.10"))
            .map(|l| format!("route: {l}")),
    );
    let listening = shown(node, "ss", &["-Htln"])?;
    found.extend(listening.into_iter().map(|l| format!("socket: {l}")));
    let pins = std::fs::read_dir(edge.world.pin_dir())
        .into_iter()
        .flatten()
        .flatten();
    found.extend(pins.map(|pin| format!("pin: {}", pin.path().display())));
    Ok(found)
}

#[test]
fn a_clean_stop_answers_what_is_under_way_and_leaves_nothing() -> Result<()> {
    for mode in [Mode::Native, Mode::Tc, Mode::Sockets] {
        let mut edge = Edge::plan(mode).start()?;
        let nothing = BTreeSet::new();
        assert_ne!(left_behind(&edge)?, nothing, "{mode:?}");
        let mut raw = Raw::connect(edge.client(), edge.at(80))?;
        raw.send(b"GET /?delay-ms=300 HTTP/1.1\r\nHost: a\r\n\r\n")?;
        until("the backend has the request", || {
            (edge.backends[0].requests() > 0).then_some(())
        })?;
        edge.sluice().terminate()?;
        assert_eq!(raw.response("GET")?.status, 200, "{mode:?}");
        let status = edge.sluice().wait_exit(Duration::from_secs(10))?;
        assert_eq!(status.code(), Some(0), "{mode:?}: {}", edge.sluice().log());
        assert_eq!(left_behind(&edge)?, nothing, "{mode:?}");
        assert!(!edge.sluice().admin_socket().exists());
    }
    Ok(())
}

#[test]
fn after_a_kill_new_connections_are_refused_at_once_and_the_next_process_serves() -> Result<()> {
    for mode in [Mode::Native, Mode::Sockets] {
        let mut edge = Edge::plan(mode).start()?;
        assert_eq!(edge.get("http://a.example.com/")?.status, 200);
        let start = edge.take_sluice().kill()?;
        let killed = Instant::now();
        let refused = until("a new connection is refused", || {
            edge.client().connect(edge.at(80)).err()
        })?;
        assert!(
            killed.elapsed() < Duration::from_secs(1),
            "{refused} after {:?}",
            killed.elapsed()
        );
        edge.put_sluice(start.spawn()?);
        let served = wait::until_within(Duration::from_secs(10), "the next process serves", || {
            edge.get("http://a.example.com/")
                .ok()
                .filter(|answer| answer.status == 200)
        });
        served.map_err(|error| error.context(edge.sluice().log()))?;
        edge.sluice().wait_ready()?;
        edge.sluice().terminate()?;
        edge.sluice().wait_exit(Duration::from_secs(10))?;
        assert_eq!(left_behind(&edge)?, BTreeSet::new(), "{mode:?}");
    }
    Ok(())
}

#[test]
fn a_killed_process_harms_no_traffic_of_others() -> Result<()> {
    let mut edge = Edge::plan(Mode::Native).start()?;
    let own = gateway_tests::Backend::start(&edge.world.node, "own")?;
    drop(edge.take_sluice().kill()?);
    let url = format!("http://{}/", own.address);
    let answer = gateway_tests::tools::Curl::new(&url).run(edge.client())?;
    assert_eq!(answer.header("x-backend"), Some("own"));
    Ok(())
}
