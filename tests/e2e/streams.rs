//! What is not HTTP, through the shipped binary: TCP, UDP, and TLS that is passed through or terminated, with
//! a real TLS client and server, on both address families, with BPF and with ordinary sockets.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_tests::manifests;
use gateway_tests::process::Process;
use gateway_tests::until;
use gateway_tests::world::Host;

use crate::edge::{Edge, Mode};

const TCP: u16 = 9000;
const UDP: u16 = 9001;
const TLS: u16 = 9443;
const PATIENCE: Duration = Duration::from_secs(10);

/// An [`Edge`] whose Gateway has listeners of every kind, and backends for them.
struct Streams {
    edge: Edge,
    _tls: Process,
}

impl Streams {
    fn start(mode: Mode) -> Result<Self> {
        let edge = Edge::plan(mode).args(["--drain-timeout", "60s"]).start()?;
        let host = edge.world.backends[0].clone();
        let (tcp, udp) = (tcp_echo(&host)?, udp_echo(&host)?);
        let tls = SocketAddr::new(host.v4.into(), 7443);
        let process = tls_server(&edge, &host, tls)?;
        let streams = Self {
            edge,
            _tls: process,
        };
        streams.write(tcp, udp, tls)?;
        until("UDP is served", || {
            let client = streams.client(false).ok()?;
            client
                .set_read_timeout(Some(Duration::from_millis(200)))
                .ok()?;
            client.send(b"ready?").ok()?;
            client.recv(&mut [0; 64]).ok()
        })?;
        // Connections are steered a moment after sockets are bound.
        until("TCP is served", || {
            let ports = [TCP, TLS].into_iter();
            let mut places =
                ports.flat_map(|port| [streams.at(port, false), streams.at(port, true)]);
            places
                .all(|place| streams.edge.client().connect(place).is_ok())
                .then_some(())
        })?;
        Ok(streams)
    }

    fn write(&self, tcp: SocketAddr, udp: SocketAddr, tls: SocketAddr) -> Result<()> {
        let edge = &self.edge;
        let identity = edge.authority.issue(&["end.example.com"])?;
        let service = |name: &str, protocol: &str, endpoint: SocketAddr| {
            manifests::service(name, &[endpoint]).replace(
                "  - port: 80\n",
                &format!("  - port: 80\n    protocol: {protocol}\n"),
            )
        };
        edge.manifests.write(
            "streams.yaml",
            &[
                manifests::tls_secret("end", &identity),
                service("tcp", "TCP", tcp),
                service("udp", "UDP", udp),
                service("tls", "TCP", tls),
                route("TCPRoute", "tcp", "tcp", None),
                route("UDPRoute", "udp", "udp", None),
                route("TLSRoute", "pass", "tls", Some("pass.example.com")),
                route("TLSRoute", "end", "tcp", Some("end.example.com")),
            ],
        )?;
        let vips = [edge.at(0).ip().to_string(), edge.at6(0).ip().to_string()];
        let addresses: Vec<&str> = match edge.mode {
            Mode::Sockets => Vec::new(),
            _ => vips.iter().map(String::as_str).collect(),
        };
        let listener = |name: &str, port: u16, protocol: &str, rest: &str| {
            format!(
                "  - name: {name}\n    port: {port}\n    protocol: {protocol}\n{rest}    \
                 allowedRoutes: {{namespaces: {{from: All}}}}\n"
            )
        };
        let named =
            |name: &str, tls: &str| format!("    hostname: {name}.example.com\n    tls: {tls}\n");
        let listeners = [
            manifests::http_listener("http", 80),
            manifests::https_listener("https", 443, None, "wildcard"),
            listener("tcp", TCP, "TCP", ""),
            listener("udp", UDP, "UDP", ""),
            listener("pass", TLS, "TLS", &named("pass", "{mode: Passthrough}")),
            listener(
                "end",
                TLS,
                "TLS",
                &named("end", "{mode: Terminate, certificateRefs: [{name: end}]}"),
            ),
        ];
        let gateway = manifests::gateway(&addresses, &listeners.concat());
        edge.manifests.write("gateway.yaml", &[gateway])
    }

    fn at(&self, port: u16, v6: bool) -> SocketAddr {
        match v6 {
            true => self.edge.at6(port),
            false => self.edge.at(port),
        }
    }

    /// A client's UDP socket; connected, so that an answer from any other address is not seen.
    fn client(&self, v6: bool) -> Result<UdpSocket> {
        let any: IpAddr = match v6 {
            true => Ipv6Addr::UNSPECIFIED.into(),
            false => Ipv4Addr::UNSPECIFIED.into(),
        };
        let to = self.at(UDP, v6);
        let client = self.edge.client().run(move || {
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            std::io::Result::Ok(socket)
        })?;
        client.set_read_timeout(Some(PATIENCE))?;
        Ok(client)
    }

    /// What `openssl s_client` prints after it has sent a line.
    fn s_client(&self, name: &str, v6: bool) -> Result<String> {
        let ca = self.edge.authority.write(self.edge.world.dir())?;
        let mut command = Command::new("openssl");
        command
            .args([
                "s_client",
                "-quiet",
                "-verify_return_error",
                "-servername",
                name,
            ])
            .args(["-verify_hostname", name, "-CAfile"])
            .arg(ca)
            .arg("-connect")
            .arg(self.at(TLS, v6).to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.edge.client().spawn(command)?;
        let mut input = child.stdin.take().context("its input")?;
        // When the handshake is refused openssl may be gone by now; what it printed tells why.
        match input.write_all(b"hello\n") {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            written => written?,
        }
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().context("its output")?);
        output.read_line(&mut line)?;
        drop(input);
        child.kill()?;
        let mut complaints = String::new();
        if let Some(mut errors) = child.stderr.take() {
            errors.read_to_string(&mut complaints)?;
        }
        child.wait()?;
        match line.is_empty() {
            true => Ok(complaints),
            false => Ok(line),
        }
    }
}

fn route(kind: &str, name: &str, service: &str, hostname: Option<&str>) -> String {
    let hostnames = hostname.map(|h| format!("  hostnames: [{h}]\n"));
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n  \
         namespace: default\nspec:\n  parentRefs: [{{name: edge, sectionName: {name}}}]\n{}  rules:\n  \
         - backendRefs: [{{name: {service}, port: 80}}]\n",
        hostnames.unwrap_or_default()
    )
}

/// Sends every byte back.
fn tcp_echo(host: &Host) -> Result<SocketAddr> {
    let ip = host.v4;
    let listener = host.ns.run(move || TcpListener::bind((ip, 0)))?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut from = stream.try_clone()?;
                let mut to = stream;
                std::io::copy(&mut from, &mut to)?;
                to.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    Ok(address)
}

/// Sends every datagram back.
fn udp_echo(host: &Host) -> Result<SocketAddr> {
    let ip = host.v4;
    let socket = host.ns.run(move || UdpSocket::bind((ip, 0)))?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut datagram = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let _ = socket.send_to(&datagram[..length], from);
        }
    });
    Ok(address)
}

/// A TLS server that sends every line back in reverse.
fn tls_server(edge: &Edge, host: &Host, address: SocketAddr) -> Result<Process> {
    let identity = edge.authority.issue(&["pass.example.com"])?;
    let dir = edge.world.dir();
    let (certificate, key) = (dir.join("pass.crt"), dir.join("pass.key"));
    std::fs::write(&certificate, &identity.certificate)?;
    std::fs::write(&key, &identity.key)?;
    let mut command = Command::new("openssl");
    command
        .args(["s_server", "-rev", "-accept", &address.to_string()])
        .arg("-cert")
        .arg(certificate)
        .arg("-key")
        .arg(key);
    let process = Process::start(&host.ns, "s_server", command, &dir.join("s_server.log"))?;
    until("the TLS server listens", || host.ns.connect(address).ok())?;
    Ok(process)
}

fn every_kind_is_carried(mode: Mode) -> Result<()> {
    let mut streams = Streams::start(mode)?;
    for v6 in [false, true] {
        let mut stream = streams.edge.client().connect(streams.at(TCP, v6))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"to and fro")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        assert_eq!(answer, "to and fro");

        let client = streams.client(v6)?;
        for size in [1, 1_200] {
            client.send(&vec![7; size])?;
            assert_eq!(client.recv(&mut [0; 2048])?, size, "{v6}");
        }
        assert_eq!(streams.s_client("pass.example.com", v6)?, "olleh\n");
        assert_eq!(streams.s_client("end.example.com", v6)?, "hello\n");
        let refused = streams.s_client("nobody.example.com", v6)?;
        assert!(refused.contains("unexpected eof"), "{refused}");
    }
    let listeners = streams.edge.sluice().cli(&["listeners"])?;
    for word in ["tcp", "udp", "tls passthrough"] {
        assert!(listeners.contains(word), "{listeners}");
    }
    let at = |port| format!("{}", streams.edge.at(port));
    let questions = [
        (format!("tcp://{}", at(TCP)), "default/tcp:80/tcp"),
        (format!("udp://{}", at(UDP)), "default/udp:80/udp"),
        (
            format!("tls://pass.example.com:{TLS}"),
            "default/tls:80/tls",
        ),
        (format!("tls://end.example.com:{TLS}"), "default/tcp:80/tcp"),
        (
            format!("tls://nobody.example.com:{TLS}"),
            "the handshake is refused",
        ),
    ];
    for (url, answer) in questions {
        let text = streams.edge.sluice().cli(&["explain", &url])?;
        assert!(text.contains(answer), "{url}: {text}");
    }
    if mode != Mode::Sockets {
        let l4 = streams.edge.sluice().cli_json(&["l4"])?;
        let text = l4.to_string();
        assert!(text.contains("\"udp\""), "{text}");
        let datagrams = packets(&streams, "steer_datagram")?;
        assert!(datagrams > 0.0, "datagrams are told apart");
    }
    Ok(())
}

fn packets(streams: &Streams, reason: &str) -> Result<f64> {
    let Some(sluice) = streams.edge.peek_sluice() else {
        return Ok(0.0);
    };
    sluice.metric("sluice_l4_verdicts_total", &[reason])
}

#[test]
fn streams_and_datagrams_are_carried_with_bpf() -> Result<()> {
    every_kind_is_carried(Mode::Native)
}

#[test]
fn streams_and_datagrams_are_carried_by_tc() -> Result<()> {
    every_kind_is_carried(Mode::Tc)
}

#[test]
fn streams_and_datagrams_are_carried_with_sockets() -> Result<()> {
    every_kind_is_carried(Mode::Sockets)
}

/// Clients that ask and wait for the answer, over and over; a lost answer is an error.
struct Askers {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Askers {
    fn start(streams: &Streams) -> Result<Self> {
        let (stop, asked) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let mut threads = Vec::new();
        for v6 in [false, true, false] {
            let client = streams.client(v6)?;
            let (stop, asked) = (Arc::clone(&stop), Arc::clone(&asked));
            threads.push(std::thread::spawn(move || {
                let mut answer = [0; 64];
                for n in 0_u64.. {
                    let question = n.to_be_bytes();
                    client.send(&question)?;
                    let length = client.recv(&mut answer).context("a datagram is lost")?;
                    ensure!(answer[..length] == question, "not the answer to {n}");
                    asked.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Ok(())
            }));
        }
        Ok(Self {
            stop,
            asked,
            threads,
        })
    }

    fn wait_more(&self, more: u64) -> Result<()> {
        let until_then = self.asked.load(Ordering::Relaxed) + more;
        until("more questions are answered", || {
            let is_lost = self.threads.iter().any(JoinHandle::is_finished);
            let enough = self.asked.load(Ordering::Relaxed) >= until_then;
            (is_lost || enough).then_some(())
        })
    }

    fn stop(self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        Ok(())
    }
}

fn echo(stream: &mut TcpStream, text: &str) -> Result<()> {
    stream.write_all(text.as_bytes())?;
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer)?;
    ensure!(answer == text.as_bytes(), "{answer:?} is not {text}");
    Ok(())
}

fn upgrades_lose_nothing(mode: Mode) -> Result<()> {
    let mut streams = Streams::start(mode)?;
    let askers = Askers::start(&streams)?;
    let mut open = Vec::new();
    let mut predecessors = Vec::new();
    for round in 0..5 {
        let mut stream = streams
            .edge
            .client()
            .connect(streams.at(TCP, round % 2 == 1))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        echo(&mut stream, "first")?;
        open.push(stream);
        askers.wait_more(200)?;
        predecessors.push(streams.edge.sluice().upgrade()?);
        for (n, stream) in open.iter_mut().enumerate() {
            echo(stream, &format!("stream {n} in round {round}"))?;
        }
        let late = streams.client(false)?;
        late.send(b"late")?;
        assert_eq!(late.recv(&mut [0; 8])?, 4);
    }
    askers.wait_more(200)?;
    askers.stop()?;
    // Every client of datagrams has stayed with the process that it began with.
    let sessions = streams
        .edge
        .sluice()
        .metric("sluice_datagram_sessions_total", &[])?;
    assert!(sessions <= 1.0, "{sessions} sessions began anew");
    drop(open);
    Ok(())
}

#[test]
fn upgrades_lose_no_stream_and_no_datagram_with_bpf() -> Result<()> {
    upgrades_lose_nothing(Mode::Native)
}

#[test]
fn upgrades_lose_no_stream_and_no_datagram_with_sockets() -> Result<()> {
    upgrades_lose_nothing(Mode::Sockets)
}
