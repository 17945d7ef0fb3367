//! `cargo xtask bench http`: Sluice beside NGINX, HAProxy, Envoy and a null relay.
//!
//! Every proxy has one thread on core 0; load and backend share core 1. What is compared is CPU time
//! per request, the only figure that survives other work on the machine: the sum of the threads'
//! `schedstat` over a window, by the requests answered in it. Rounds are interleaved, so that a
//! disturbance hits all alike, and ratios are of one run. As root everything happens in a network
//! namespace of its own with reno; otherwise on the loopback, and the report says so.

mod backend;
mod epoll;
mod handshakes;
mod load;
mod peers;
mod process;
mod relay;
mod report;
mod scenario;
mod world;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::peers::{Kind, Peer, Running, Setting};
use self::process::{LOAD_CORE, Process, pinned};
use self::report::{Row, Window};
use self::scenario::{ONE_HOST, Protocol, SCENARIOS, Scenario, host};

const USAGE: &str =
    "bench_http [--quick] [--rounds N] [--seconds N] [--scenario A,B] [--except A,B] [--peers A,B] [-o json]
    [--sluice [NAME=]PATH]... [--envoy PATH] [--other NAME:http|https|h2=COMMAND]...";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["relay", listen, upstream] => Ok(relay::run(listen.parse()?, upstream.parse()?)?),
        ["backend"] => {
            let listener = backend::listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            println!("{}", listener.local_addr()?);
            Ok(backend::run(&listener)?)
        }
        ["handshakes", address, path, connections, seconds] => handshakes::run(
            address.parse()?,
            path,
            connections.parse()?,
            seconds.parse()?,
        ),
        _ => bench(&Options::parse(&arguments)?),
    }
}

/// What was asked for.
struct Options {
    rounds: usize,
    seconds: u64,
    scenarios: Vec<&'static Scenario>,
    peers: Vec<Peer>,
    json: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> anyhow::Result<Options> {
        let mut options = Options {
            rounds: 5,
            seconds: 3,
            scenarios: SCENARIOS.iter().collect(),
            peers: Vec::new(),
            json: false,
        };
        let mut names: Option<Vec<String>> = None;
        let (mut sluices, mut others) = (Vec::new(), Vec::new());
        let mut envoy = PathBuf::from("envoy");
        let mut words = arguments.iter();
        while let Some(word) = words.next() {
            let mut value = || {
                words
                    .next()
                    .with_context(|| format!("{word} needs a value\n{USAGE}"))
            };
            match word.as_str() {
                "--quick" => (options.rounds, options.seconds) = (3, 1),
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--scenario" => options.scenarios = scenarios(value()?)?,
                "--except" => {
                    let left_out = scenarios(value()?)?;
                    let out = |name| left_out.iter().any(|scenario| scenario.name == name);
                    options.scenarios.retain(|scenario| !out(scenario.name));
                }
                "--peers" => names = Some(value()?.split(',').map(str::to_owned).collect()),
                "--sluice" => sluices.push(named(value()?)),
                "--envoy" => envoy = PathBuf::from(value()?),
                "--other" => others.push(other(value()?)?),
                "-o" => options.json = value()? == "json",
                _ => bail!("unknown argument {word}\n{USAGE}"),
            }
        }
        ensure!(
            options.rounds > 0 && options.seconds > 0,
            "rounds and seconds are at least 1"
        );
        let fixed = [
            ("null", Kind::Null),
            ("nginx", Kind::Nginx),
            ("haproxy", Kind::Haproxy),
            ("envoy", Kind::Envoy(envoy)),
        ];
        let fixed = fixed.map(|(name, kind)| Peer {
            name: name.to_owned(),
            kind,
        });
        options.peers = fixed.into_iter().chain(others).chain(sluices).collect();
        if let Some(names) = names {
            let known = |name: &String| options.peers.iter().any(|peer| peer.name == *name);
            if let Some(name) = names.iter().find(|name| !known(name)) {
                bail!("no peer is called {name}");
            }
            // What the command line names by itself is wanted.
            let own = |peer: &Peer| matches!(peer.kind, Kind::Sluice(_) | Kind::Other(..));
            let wanted = |peer: &Peer| own(peer) || names.contains(&peer.name);
            options.peers.retain(wanted);
        }
        Ok(options)
    }
}

fn scenarios(names: &str) -> anyhow::Result<Vec<&'static Scenario>> {
    let find = |name| {
        let all: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        let found = SCENARIOS.iter().find(|scenario| scenario.name == name);
        found.with_context(|| format!("no scenario is called {name}; there are {}", all.join(", ")))
    };
    names.split(',').map(find).collect()
}

fn named(value: &str) -> Peer {
    let (name, path) = value.split_once('=').unwrap_or(("sluice", value));
    Peer {
        name: name.to_owned(),
        kind: Kind::Sluice(PathBuf::from(path)),
    }
}

fn other(value: &str) -> anyhow::Result<Peer> {
    let (name, command) = value.split_once('=').context(USAGE)?;
    let (name, protocol) = name.split_once(':').context(USAGE)?;
    let protocol = match protocol {
        "http" => Protocol::Http,
        "https" => Protocol::Https,
        "h2" => Protocol::H2,
        _ => bail!("{USAGE}"),
    };
    Ok(Peer {
        name: name.to_owned(),
        kind: Kind::Other(protocol, command.to_owned()),
    })
}

fn bench(options: &Options) -> anyhow::Result<()> {
    let network = world::enter()?;
    let world = world::World::make()?;
    let (_backend, backend) = start_backend(&world)?;
    let setting = Setting {
        dir: world.dir(),
        backend,
        certificate: world.certificate(),
        key: world.key(),
        hosts: 0,
    };
    eprintln!(
        "bench http: {network}; proxies on core {}, load and backend on core {LOAD_CORE}; {} rounds of {} s",
        process::PROXY_CORE,
        options.rounds,
        options.seconds
    );
    let mut running = Vec::new();
    for peer in &options.peers {
        running.push(peer.start(&setting)?);
    }
    let mut results = Vec::new();
    for scenario in &options.scenarios {
        let rows = match scenario.hosts {
            0 => measure(scenario, &mut running, options, &setting)?,
            hosts => {
                let mut running = with_hosts(&options.peers, hosts, &setting)?;
                measure(scenario, &mut running, options, &setting)?
            }
        };
        let verdicts = report::judge(scenario, &rows);
        let result = report::Result {
            scenario: scenario.name,
            title: scenario.title,
            rows,
            verdicts,
        };
        if !options.json {
            print!("{}", report::table(&result));
        }
        results.push(result);
    }
    if options.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    }
    let short = results
        .iter()
        .flat_map(|result| &result.verdicts)
        .filter(|verdict| !verdict.pass)
        .count();
    eprintln!("bench http: {short} ratio(s) fall short");
    Ok(())
}

/// Every peer that can be told of so many hosts, and Sluice with one of them.
fn with_hosts(peers: &[Peer], hosts: usize, setting: &Setting) -> anyhow::Result<Vec<Running>> {
    let of = |hosts: usize| Setting {
        dir: setting.dir.join(format!("hosts-{hosts}")),
        hosts,
        ..setting.clone()
    };
    let (one, many) = (of(1), of(hosts));
    let mut running = Vec::new();
    for peer in peers {
        match &peer.kind {
            Kind::Other(..) => continue,
            Kind::Sluice(_) if peer.name == "sluice" => {
                let named = |name: &str| Peer {
                    name: name.to_owned(),
                    ..peer.clone()
                };
                running.push(named(ONE_HOST).start(&one)?);
            }
            _ => {}
        }
        running.push(peer.start(&many)?);
    }
    Ok(running)
}

fn start_backend(world: &world::World) -> anyhow::Result<(Process, SocketAddr)> {
    let output = world.dir().join("backend");
    let this = std::env::current_exe()?;
    let mut command = pinned(LOAD_CORE, &this.to_string_lossy());
    command.arg("backend");
    let mut process = Process::start("backend", command, &output)?;
    let address = until("the backend's address", || {
        process.alive()?;
        let said = std::fs::read_to_string(&output)?;
        Ok(said
            .strip_suffix('\n')
            .and_then(|address| address.parse().ok()))
    })?;
    Ok((process, address))
}

/// All rounds of one scenario.
fn measure(
    scenario: &Scenario,
    running: &mut [Running],
    options: &Options,
    setting: &Setting,
) -> anyhow::Result<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    let mut served = Vec::new();
    for proxy in running.iter_mut() {
        // A relay has no new TLS connection to make.
        let Some(address) = proxy
            .address(scenario.protocol)
            .filter(|_| !(scenario.fresh && proxy.is_plain()))
        else {
            continue;
        };
        ready(proxy, address)?;
        rows.push(Row {
            name: proxy.name.clone(),
            windows: Vec::new(),
            latency: None,
        });
        served.push((&*proxy, address));
    }
    for (proxy, address) in &served {
        // What has read many routes has more to do once it serves them.
        idle(proxy)?;
        // Fills pools and caches; what is measured is the steady state.
        send(scenario, proxy, *address, 1, setting)?;
    }
    for round in 0..options.rounds {
        for turn in 0..served.len() {
            // Each round begins with another proxy, so that none always follows the same neighbour.
            let index = (turn + round) % served.len();
            let (proxy, address) = served[index];
            rows[index]
                .windows
                .push(window(scenario, proxy, address, options.seconds, setting)?);
        }
    }
    // h2load tells single latencies only by writing a log, which costs the core it shares with the backend.
    if scenario.protocol == Protocol::H2 {
        for (row, (_, address)) in rows.iter_mut().zip(&served) {
            row.latency = load::h2_latency(scenario, *address, &setting.dir)?;
        }
    }
    Ok(rows)
}

fn send(
    scenario: &Scenario,
    proxy: &Running,
    address: SocketAddr,
    seconds: u64,
    setting: &Setting,
) -> anyhow::Result<load::Seen> {
    let (plain, hosts) = (proxy.is_plain(), proxy.hosts);
    load::send(scenario, plain, hosts, address, seconds, &setting.dir)
}

fn window(
    scenario: &Scenario,
    proxy: &Running,
    address: SocketAddr,
    seconds: u64,
    setting: &Setting,
) -> anyhow::Result<Window> {
    let (before, started) = (proxy.process.cpu()?, Instant::now());
    let seen = send(scenario, proxy, address, seconds, setting)?;
    let (after, elapsed) = (proxy.process.cpu()?, started.elapsed().as_secs_f64());
    let ran = (after.ran_ns - before.ran_ns) as f64 / 1e9;
    let waited = (after.waited_ns - before.waited_ns) as f64 / 1e9;
    Ok(Window {
        // Without an answer there is no cost per request; infinity fails every goal.
        us: if seen.answered == 0 {
            f64::INFINITY
        } else {
            ran * 1e6 / seen.answered as f64
        },
        rps: seen.answered as f64 / seconds as f64,
        utilisation: ran / (elapsed - waited).max(ran),
        failed: seen.failed,
        p50_us: seen.p50_us,
        p99_us: seen.p99_us,
        rss_bytes: proxy.process.rss_bytes()?,
    })
}

/// Waits until the proxy accepts, and, where it is plain, answers with 200.
fn ready(proxy: &mut Running, address: SocketAddr) -> anyhow::Result<()> {
    let name = proxy.name.clone();
    until(&format!("{name} on {address}"), || {
        proxy.process.alive()?;
        Ok(answers(address).then_some(()))
    })
}

/// Waits until a proxy that nobody asks for anything does nothing.
fn idle(proxy: &Running) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_millis(200);
    until(&format!("{} to come to rest", proxy.name), || {
        let before = proxy.process.cpu()?.ran_ns;
        std::thread::sleep(LOOK);
        let ran = Duration::from_nanos(proxy.process.cpu()?.ran_ns - before);
        Ok((ran < LOOK / 20).then_some(()))
    })
}

fn answers(address: SocketAddr) -> bool {
    let host = host(0);
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("GET /64 HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        let mut answer = [0; 16];
        let read = stream.read(&mut answer)?;
        // A TLS port answers plain text with an alert, an error or a close: it is up all the same.
        let plain = answer.starts_with(b"HTTP/1.1 ");
        Ok(!plain
            || answer[..read].starts_with(b"HTTP/1.1 200")
            || answer.starts_with(b"HTTP/1.1 400"))
    };
    ask().unwrap_or_else(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
}

/// Asks until there is an answer. Two minutes at most: some take one to read what many hosts are.
fn until<T>(what: &str, mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("waited two minutes for {what}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
