//! The world that most tests start from: a node with Sluice, a Gateway for HTTP and HTTPS, and
//! three backends behind the Services `b0`, `b1` and `b2`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use gateway_tests::http1::Response;
use gateway_tests::manifests::{self, Manifests};
use gateway_tests::sluice::Start;
use gateway_tests::tools::Curl;
use gateway_tests::world::Topology;
use gateway_tests::{Authority, Backend, Load, Netns, Sluice, World, until};

/// How connections reach the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The best hook that there is, and `sk_lookup`.
    Auto,
    /// XDP in the driver and `sk_lookup`.
    Native,
    /// XDP in the kernel's generic path and `sk_lookup`.
    Generic,
    /// TC and `sk_lookup`.
    Tc,
    /// Ordinary sockets on the node's own addresses.
    Sockets,
}

impl Mode {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &["--l4", "auto"],
            Self::Native => &["--l4", "bpf", "--attach", "native"],
            Self::Generic => &["--l4", "bpf", "--attach", "generic"],
            Self::Tc => &["--l4", "bpf", "--attach", "tc"],
            Self::Sockets => &["--l4", "sockets"],
        }
    }
}

/// What an [`Edge`] is to look like.
#[derive(Clone, Debug)]
pub struct Plan {
    mode: Mode,
    topology: Topology,
    mtu: u32,
    arguments: Vec<String>,
    recording: bool,
    documents: Vec<String>,
}

impl Plan {
    /// Passes these arguments to `sluice run`.
    pub fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments
            .extend(arguments.into_iter().map(str::to_owned));
        self
    }

    /// Has the backends remember every byte.
    pub fn recording(mut self) -> Self {
        self.recording = true;
        self
    }

    /// Connects the world otherwise than routed.
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Chooses the MTU of every link.
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Adds documents to `routes.yaml`; without any, everything goes to `b0`.
    pub fn documents(mut self, documents: impl IntoIterator<Item = String>) -> Self {
        self.documents.extend(documents);
        self
    }

    /// Builds the world and starts Sluice in it.
    pub fn start(self) -> Result<Edge> {
        let (mut edge, start) = self.prepare()?;
        let sluice = start.ready()?;
        edge.put_sluice(sluice);
        Ok(edge)
    }

    /// Builds the world and the manifests, and leaves it to the test to start Sluice.
    pub fn prepare(self) -> Result<(Edge, Start)> {
        let world = World::plan()
            .topology(self.topology)
            .mtu(self.mtu)
            .build()?;
        let backend = |(i, host)| {
            let name = format!("b{i}");
            if self.recording {
                Backend::recording(host, &name)
            } else {
                Backend::start(host, &name)
            }
        };
        let backends: Vec<_> = world
            .backends
            .iter()
            .enumerate()
            .map(backend)
            .collect::<Result<_>>()?;
        let manifests = Manifests::new(world.dir().join("manifests"))?;
        let authority = Authority::new()?;
        let start = Start::on(&world)
            .manifests(manifests.dir())
            .args(self.mode.arguments().iter().copied());
        let start = start.args(self.arguments.iter().map(String::as_str));
        let edge = Edge {
            sluice: Logged(None),
            backends,
            manifests,
            authority,
            mode: self.mode,
            world,
        };
        edge.write_base()?;
        let all = || vec![manifests::route("all", &[], &manifests::forward("b0"))];
        let documents = if self.documents.is_empty() {
            all()
        } else {
            self.documents
        };
        edge.manifests.write("routes.yaml", &documents)?;
        Ok((edge, start))
    }
}

/// Prints the log in the end; the test's runner shows it if the test failed.
#[derive(Debug)]
struct Logged(Option<Sluice>);

impl Drop for Logged {
    fn drop(&mut self) {
        if let Some(sluice) = &self.0 {
            println!("---- log of sluice ----\n{}---- end ----", sluice.log());
        }
    }
}

/// A node with Sluice between a client and three backends.
#[derive(Debug)]
pub struct Edge {
    sluice: Logged,
    pub backends: Vec<Backend>,
    pub manifests: Manifests,
    pub authority: Authority,
    pub mode: Mode,
    pub world: World,
}

impl Edge {
    /// A routed world.
    pub fn plan(mode: Mode) -> Plan {
        Plan {
            mode,
            topology: Topology::Routed,
            mtu: 1500,
            arguments: Vec::new(),
            recording: false,
            documents: Vec::new(),
        }
    }

    fn write_base(&self) -> Result<()> {
        let vips = [World::VIP4.to_string(), World::VIP6.to_string()];
        let addresses: Vec<&str> = match self.mode {
            Mode::Sockets => Vec::new(),
            _ => vips.iter().map(String::as_str).collect(),
        };
        let listeners = [
            manifests::http_listener("http", 80),
            manifests::https_listener("https", 443, None, "wildcard"),
            manifests::https_listener("shop", 443, Some("shop.example.com"), "shop"),
        ];
        self.manifests.write(
            "gateway.yaml",
            &[manifests::gateway(&addresses, &listeners.concat())],
        )?;
        let secrets = [
            manifests::tls_secret("wildcard", &self.authority.issue(&["*.example.com"])?),
            manifests::tls_secret("shop", &self.authority.issue(&["shop.example.com"])?),
        ];
        self.manifests.write("secrets.yaml", &secrets)?;
        let services: Vec<_> = self
            .backends
            .iter()
            .map(|b| manifests::service(b.name(), &[b.address]))
            .collect();
        self.manifests.write("services.yaml", &services)
    }

    /// The running process.
    pub fn sluice(&mut self) -> &mut Sluice {
        self.sluice.0.as_mut().expect("started and not taken")
    }

    /// The running process, to be looked at.
    pub fn peek_sluice(&self) -> Option<&Sluice> {
        self.sluice.0.as_ref()
    }

    /// Takes the running process, to end it in a way of the test's own.
    pub fn take_sluice(&mut self) -> Sluice {
        self.sluice.0.take().expect("started and not taken")
    }

    /// Puts a process in the place of the one that was taken.
    pub fn put_sluice(&mut self, sluice: Sluice) {
        self.sluice.0 = Some(sluice);
    }

    /// The namespace of the client.
    pub fn client(&self) -> &Netns {
        &self.world.client.ns
    }

    /// The address that clients dial for this port.
    pub fn at(&self, port: u16) -> SocketAddr {
        let ip = match self.mode {
            Mode::Sockets => self.world.node.v4,
            _ => World::VIP4,
        };
        SocketAddr::new(ip.into(), port)
    }

    /// The IPv6 address that clients dial for this port.
    pub fn at6(&self, port: u16) -> SocketAddr {
        let ip = match self.mode {
            Mode::Sockets => self.world.node.v6,
            _ => World::VIP6,
        };
        SocketAddr::new(IpAddr::from(ip), port)
    }

    /// A curl call for a URL below `example.com` or any other host, by IPv4, trusting the authority.
    pub fn curl(&self, url: &str) -> Result<Curl> {
        self.curl_at(url, |port| self.at(port))
    }

    /// As [`Edge::curl`], by IPv6.
    pub fn curl6(&self, url: &str) -> Result<Curl> {
        self.curl_at(url, |port| self.at6(port))
    }

    fn curl_at(&self, url: &str, at: impl Fn(u16) -> SocketAddr) -> Result<Curl> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        let default = if scheme == "https" { 443 } else { 80 };
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, port.parse()?),
            None => (authority, default),
        };
        let ca = self
            .authority
            .write(self.world.dir())?
            .display()
            .to_string();
        Ok(Curl::new(url)
            .resolve(host, at(port))
            .args(["--cacert", &ca]))
    }

    /// Asks for a URL with curl.
    pub fn get(&self, url: &str) -> Result<Response> {
        self.curl(url)?.run(self.client())
    }

    /// A load on the HTTP listener.
    pub fn load(&self, host: &str) -> Load {
        Load::new(self.at(80), host)
    }

    /// A load on the HTTPS listener.
    pub fn tls_load(&self, host: &str) -> Result<Load> {
        Ok(Load::new(self.at(443), host).tls(self.client_config(&["http/1.1"])?))
    }

    /// A TLS configuration that trusts the authority.
    pub fn client_config(&self, alpn: &[&str]) -> Result<Arc<rustls::ClientConfig>> {
        self.authority.client_config(alpn)
    }

    /// Writes routes and waits until a request shows that they are served.
    pub fn apply(
        &self,
        documents: &[String],
        url: &str,
        served: impl Fn(&Response) -> bool,
    ) -> Result<()> {
        self.manifests.write("routes.yaml", documents)?;
        self.wait_served(url, served)
    }

    /// Waits until a request is answered as wanted.
    pub fn wait_served(&self, url: &str, served: impl Fn(&Response) -> bool) -> Result<()> {
        let mut last = None;
        until(&format!("the answer to {url} is the wanted one"), || {
            let answer = self.get(url);
            let found = answer.as_ref().is_ok_and(&served);
            last = Some(answer);
            found.then_some(())
        })
        .map_err(|error| error.context(format!("last answer: {last:?}")))
    }
}
