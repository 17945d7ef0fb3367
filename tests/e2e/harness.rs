//! The harness against itself: what the other tests lean on holds.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use anyhow::Result;
use gateway_tests::backend::{Seen, body_hash, pattern};
use gateway_tests::load::Failure;
use gateway_tests::raw::{End, Raw};
use gateway_tests::tools::Curl;
use gateway_tests::websocket::WebSocket;
use gateway_tests::world::Topology;
use gateway_tests::{Backend, Load, World, process, wait};

/// A world whose client can reach a backend by itself, since no gateway stands between them.
fn forwarding_world() -> Result<World> {
    let world = World::new()?;
    world.node.ns.sysctl("ipv4/ip_forward", "1")?;
    world.node.ns.sysctl("ipv6/conf/all/forwarding", "1")?;
    Ok(world)
}

#[test]
fn a_routed_world_carries_both_address_families() -> Result<()> {
    let world = forwarding_world()?;
    let host = &world.backends[2];
    let backend = Backend::start(host, "two")?;
    for ip in [IpAddr::from(host.v4), IpAddr::from(host.v6)] {
        let address = SocketAddr::new(ip, backend.address.port());
        let answer = Curl::new(&format!("http://{address}/hello?a=b")).run(&world.client.ns)?;
        let seen = Seen::from_json(&answer.body)?;
        assert_eq!(
            (seen.backend.as_str(), seen.target.as_str()),
            ("two", "/hello?a=b")
        );
        let client: IpAddr = seen.peer.parse()?;
        assert!(
            [IpAddr::from(world.client.v4), world.client.v6.into()].contains(&client),
            "{client}"
        );
    }
    Ok(())
}

#[test]
fn a_bridged_world_carries_both_address_families() -> Result<()> {
    let world = World::plan()
        .topology(Topology::Bridged)
        .backends(1)
        .build()?;
    let backend = Backend::start(&world.backends[0], "zero")?;
    for ip in [
        IpAddr::from(world.backends[0].v4),
        IpAddr::from(world.backends[0].v6),
    ] {
        let address = SocketAddr::new(ip, backend.address.port());
        assert_eq!(
            Curl::new(&format!("http://{address}/"))
                .run(&world.client.ns)?
                .status,
            200
        );
    }
    Ok(())
}

#[test]
fn a_backend_records_every_byte_and_behaves_as_asked() -> Result<()> {
    let world = forwarding_world()?;
    let backend = Backend::recording(&world.backends[0], "zero")?;
    let mut raw = Raw::connect(&world.client.ns, backend.address)?;

    let head =
        "POST /x?chunked HTTP/1.1\r\nHOST: a\r\nx-Odd: 1 \r\nX-odd: 2\r\nContent-Length: 3\r\n\r\n";
    let answer = raw.ask(&format!("{head}abc"))?;
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let seen = Seen::from_json(&answer.body)?;
    assert_eq!((seen.body_bytes, seen.body_hash), (3, body_hash(b"abc")));
    assert_eq!(seen.headers[1], ("x-Odd".to_owned(), "1".to_owned()));
    assert_eq!(backend.recorded()[0].raw_head, head.as_bytes());

    let answer = raw.ask("GET /?bytes=50000&status=404 HTTP/1.1\r\nHost: a\r\n\r\n")?;
    assert_eq!((answer.status, answer.body), (404, pattern(50_000)));

    raw.send(b"GET /?bytes=100&cut=10 HTTP/1.1\r\nHost: a\r\n\r\nGET /never")?;
    assert!(raw.response("GET").is_err(), "a cut body is no response");
    wait::until("leftover bytes are kept", || {
        (backend.take_stray() == [b"GET /never"]).then_some(())
    })?;

    let mut raw = Raw::connect(&world.client.ns, backend.address)?;
    raw.send(b"GET /?reset HTTP/1.1\r\nHost: a\r\n\r\n")?;
    assert_eq!(raw.read_to_end(wait::PATIENCE)?, End::Reset);
    Ok(())
}

#[test]
fn load_counts_what_it_meets() -> Result<()> {
    let world = forwarding_world()?;
    let mut backend = Backend::start(&world.backends[0], "zero")?;
    let ns = &world.client.ns;
    let load = Load::new(backend.address, "a").limit(500);

    let report = load.clone().run(ns)?;
    report.expect_clean()?;
    assert_eq!(
        (report.ok, report.connections, report.backends["zero"]),
        (500, 4, 500)
    );

    let report = load.clone().new_connections().run(ns)?;
    report.expect_clean()?;
    assert_eq!(report.connections, 500);

    let report = load.clone().get("/?status=503").limit(10).run(ns)?;
    assert_eq!((report.ok, report.failed[&Failure::Status]), (0, 10));
    let report = load.clone().get("/?reset").limit(10).run(ns)?;
    assert_eq!(report.failed[&Failure::Reset], 10);
    let report = load.clone().get("/?bytes=10&cut=5").limit(10).run(ns)?;
    assert_eq!(report.failed[&Failure::Closed], 10);
    let report = load
        .clone()
        .check(|_| anyhow::bail!("no"))
        .limit(10)
        .run(ns)?;
    assert_eq!(report.failed[&Failure::Wrong], 10);
    backend.stop();
    let report = load.limit(10).run(ns)?;
    assert_eq!(report.failed[&Failure::Refused], 10);
    assert!(report.expect_clean().is_err());
    Ok(())
}

#[test]
fn a_websocket_echoes_and_notices_its_end() -> Result<()> {
    let world = forwarding_world()?;
    let mut backend = Backend::start(&world.backends[0], "zero")?;
    let mut socket = WebSocket::open(&world.client.ns, backend.address, "a", "/ws", None)?;
    assert_eq!(socket.backend, "zero");
    socket.echo("one")?;
    socket.echo("two")?;
    backend.stop();
    socket.wait_closed(wait::PATIENCE)
}

#[test]
fn a_dropped_world_leaves_nothing() -> Result<()> {
    let (name, dir, pid);
    {
        let world = World::new()?;
        let mut command = Command::new("sleep");
        command.arg("1000");
        name = world.node.ns.name().to_owned();
        dir = world.dir().to_owned();
        let child = world.node.ns.spawn(command)?;
        pid = child.id();
    }
    wait::until("the process dies with its namespace", || {
        is_gone(pid).then_some(())
    })?;
    assert!(!dir.exists());
    assert!(!std::path::Path::new("/run/netns").join(name).exists());
    Ok(())
}

#[test]
fn a_long_running_process_keeps_its_output() -> Result<()> {
    let world = World::new()?;
    let mut command = Command::new("sh");
    command.args(["-c", "echo out; echo err >&2; exit 3"]);
    let log = world.dir().join("log");
    let mut child = process::Process::start(&world.node.ns, "sh", command, &log)?;
    assert_eq!(child.wait_exit(wait::PATIENCE)?.code(), Some(3));
    assert_eq!(child.output(), "out\nerr\n");
    Ok(())
}

/// Gone, or dead and not collected.
fn is_gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}
