//! Where the demo plays: a world of network namespaces, or without root this machine's loopback.
//!
//! The manifests are those of `deploy/examples/wildcard-canary`, with what depends on the place
//! written in: addresses, a certificate made now, and without root other ports than 80 and 443.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use gateway_tests::backend::Seen;
use gateway_tests::cleanup::{Guard, Leftover, register, unique_name};
use gateway_tests::http1::Response;
use gateway_tests::manifests::Manifests;
use gateway_tests::sluice::{Start, workspace};
use gateway_tests::tools::Curl;
use gateway_tests::{Authority, Backend, Load, Netns, World};

use crate::show::Evidence;

/// The host of the example's routes.
pub const HOST: &str = "myapp.k8s.lan";
/// The Services of the example, and the one that the live edit moves to.
pub const SERVICES: [&str; 3] = ["my-service", "my-service-canary", "my-service-v2"];

enum Place {
    World(Box<World>),
    Loopback {
        here: Netns,
        dir: PathBuf,
        _guard: Guard,
    },
}

/// Everything but Sluice itself.
pub struct Stage {
    pub manifests: Manifests,
    pub authority: Authority,
    http: SocketAddr,
    https: SocketAddr,
    _backends: Vec<Backend>,
    place: Place,
}

impl Stage {
    /// Builds it.
    pub fn build(loopback: bool) -> Result<Self> {
        let place = if loopback {
            Place::loopback()?
        } else {
            Place::World(Box::new(World::new()?))
        };
        let backends = place.backends()?;
        let (http, https) = place.frontends()?;
        let manifests = Manifests::new(place.dir().join("manifests"))?;
        let stage = Self {
            manifests,
            authority: Authority::new()?,
            http,
            https,
            _backends: backends,
            place,
        };
        stage.write_manifests()?;
        stage.write_curl_file()?;
        Ok(stage)
    }

    fn write_manifests(&self) -> Result<()> {
        let mut gateway = example("gateway.yaml")?;
        if self.has_packet_path() {
            let addresses = format!(
                "  addresses:\n  - value: {}\n  listeners:\n",
                self.http.ip()
            );
            gateway = gateway.replace("  listeners:\n", &addresses);
        } else {
            gateway = gateway.replace("port: 80\n", &format!("port: {}\n", self.http.port()));
            gateway = gateway.replace("port: 443\n", &format!("port: {}\n", self.https.port()));
            let port = format!("scheme: https\n        port: {}\n", self.https.port());
            gateway = gateway.replace("scheme: https\n", &port);
        }
        self.manifests.write("gateway.yaml", &[gateway])?;
        self.manifests
            .write("routes.yaml", &[example("routes.yaml")?])?;
        let service = |(name, backend): (&&str, &Backend)| {
            format!(
                "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\n  namespace: my-namespace\n  \
                 annotations:\n    sluice.dev/endpoints: \"{}\"\nspec:\n  ports:\n  - port: 8080\n",
                backend.address
            )
        };
        let services: Vec<String> = SERVICES.iter().zip(&self._backends).map(service).collect();
        self.manifests.write("services.yaml", &services)?;
        let identity = self.authority.issue(&["*.k8s.lan"])?;
        let secret = gateway_tests::manifests::tls_secret("wildcard-tls", &identity);
        self.manifests.write(
            "secret.yaml",
            &[secret.replace("namespace: default", "namespace: istio-system")],
        )
    }

    fn write_curl_file(&self) -> Result<()> {
        let ca = self.authority.write(self.place.dir())?;
        let resolve = |at: SocketAddr| format!("resolve = \"*:{}:{}\"\n", at.port(), at.ip());
        let text = format!(
            "silent\nshow-error\ninclude\nmax-time = 20\nnoproxy = \"*\"\ncacert = \"{}\"\n{}{}",
            ca.display(),
            resolve(self.http),
            resolve(self.https)
        );
        Ok(std::fs::write(self.curl_file(), text)?)
    }

    /// What curl is told with `-K`.
    pub fn curl_file(&self) -> PathBuf {
        self.place.dir().join("curlrc")
    }

    /// Whether connections come by BPF.
    pub fn has_packet_path(&self) -> bool {
        matches!(self.place, Place::World(_))
    }

    /// Where the client runs.
    pub fn client(&self) -> &Netns {
        match &self.place {
            Place::World(world) => &world.client.ns,
            Place::Loopback { here, .. } => here,
        }
    }

    /// The address that the client connects from.
    pub fn client_address(&self) -> IpAddr {
        match &self.place {
            Place::World(world) => world.client.v4.into(),
            Place::Loopback { .. } => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// The HTTPS listener's address.
    pub fn https_address(&self) -> SocketAddr {
        self.https
    }

    /// A URL of the HTTP listener.
    pub fn http(&self, path: &str) -> String {
        url("http", self.http.port(), 80, path)
    }

    /// A URL of the HTTPS listener.
    pub fn https(&self, path: &str) -> String {
        url("https", self.https.port(), 443, path)
    }

    /// The value of `Host` for the HTTPS listener.
    pub fn https_host(&self) -> String {
        self.https("").trim_start_matches("https://").to_owned()
    }

    /// How to start Sluice here.
    pub fn start(&self) -> Start {
        let start = match &self.place {
            Place::World(world) => Start::on(world).args(["--l4", "bpf"]),
            Place::Loopback { here, dir, .. } => Start::new(here, dir).args(["--l4", "sockets"]),
        };
        start
            .manifests(self.manifests.dir())
            .args(["--drain-timeout", "30s"])
    }

    /// A command line that does the same in the client's place.
    pub fn in_client(&self, command: &str) -> String {
        self.inside(&self.client().clone(), command)
    }

    fn inside(&self, ns: &Netns, command: &str) -> String {
        match self.place {
            Place::World(_) => format!("ip netns exec {} {command}", ns.name()),
            Place::Loopback { .. } => format!("command {command}"),
        }
    }

    /// A command line that upgrades the running process.
    pub fn upgrade_command(&self, binary: &str) -> String {
        let run = format!(
            "{binary} run --manifests {}",
            self.manifests.dir().display()
        );
        match &self.place {
            Place::World(world) => format!(
                "nsenter --net=/run/netns/{} {run} --pin-dir {} --interfaces {} --workers 2",
                world.node.ns.name(),
                world.pin_dir().display(),
                world.node_interfaces().join(",")
            ),
            Place::Loopback { .. } => format!("{run} --l4 sockets"),
        }
    }

    /// A picture of the stage, three lines.
    pub fn map(&self) -> [String; 3] {
        let (http, https) = (self.http.port(), self.https.port());
        let before = match &self.place {
            Place::World(world) => format!(
                "client {} ──▶ {} :{http} :{https}  XDP ▸ sk_lookup ▸ sluice ",
                world.client.v4,
                self.http.ip()
            ),
            Place::Loopback { .. } => format!("curl ──▶ 127.0.0.1 :{http} :{https}  sluice "),
        };
        let indent = " ".repeat(before.chars().count());
        [
            format!("{before}┬─▶ {}", SERVICES[0]),
            format!("{indent}├─▶ {}", SERVICES[1]),
            format!("{indent}└─▶ {}", SERVICES[2]),
        ]
    }

    /// Runs curl in the client's place and notes what one would have typed and what came.
    pub fn curl(&self, evidence: &mut Evidence, arguments: &[&str], url: &str) -> Result<Response> {
        let quoted = arguments.iter().map(|a| {
            if a.contains(' ') {
                format!("'{a}'")
            } else {
                (*a).to_owned()
            }
        });
        let typed: Vec<String> = std::iter::once("curl".to_owned()).chain(quoted).collect();
        evidence.typed("client", &format!("{} {url}", typed.join(" ")));
        let file = self.curl_file();
        let call = Curl::new(url).args(["-K", &file.display().to_string()]);
        call.args(arguments.iter().copied()).run(self.client())
    }

    /// A load of `GET /` on the HTTPS listener.
    pub fn load(&self) -> Result<Load> {
        let load = Load::new(self.https, HOST).tls(self.authority.client_config(&["http/1.1"])?);
        let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", self.https_host());
        Ok(load.requests(move |_| request.clone().into_bytes()))
    }
}

/// What the backend's answer says it received.
pub fn seen(response: &Response) -> Result<Seen> {
    Seen::from_json(&response.body)
}

fn url(scheme: &str, port: u16, default: u16, path: &str) -> String {
    if port == default {
        format!("{scheme}://{HOST}{path}")
    } else {
        format!("{scheme}://{HOST}:{port}{path}")
    }
}

fn example(name: &str) -> Result<String> {
    let path = workspace()
        .join("deploy/examples/wildcard-canary")
        .join(name);
    std::fs::read_to_string(&path).with_context(|| path.display().to_string())
}

impl Place {
    fn loopback() -> Result<Self> {
        let dir = std::env::temp_dir().join(unique_name());
        let guard = register(Leftover::Directory(dir.clone()));
        std::fs::create_dir_all(&dir)?;
        Ok(Self::Loopback {
            here: Netns::current()?,
            dir,
            _guard: guard,
        })
    }

    fn dir(&self) -> &Path {
        match self {
            Self::World(world) => world.dir(),
            Self::Loopback { dir, .. } => dir,
        }
    }

    fn backends(&self) -> Result<Vec<Backend>> {
        let backend = |(i, name): (usize, &&str)| match self {
            Self::World(world) => Backend::start(&world.backends[i], name),
            Self::Loopback { here, .. } => {
                Backend::start_in(here, name, (Ipv4Addr::LOCALHOST, 0).into(), false)
            }
        };
        SERVICES.iter().enumerate().map(backend).collect()
    }

    /// The addresses of the two listeners: in a world the virtual address and the usual ports, on
    /// loopback ports that are free now.
    fn frontends(&self) -> Result<(SocketAddr, SocketAddr)> {
        match self {
            Self::World(_) => {
                let at = |port| SocketAddr::from((World::VIP4, port));
                Ok((at(80), at(443)))
            }
            Self::Loopback { .. } => {
                let free = [
                    TcpListener::bind("127.0.0.1:0")?,
                    TcpListener::bind("127.0.0.1:0")?,
                ];
                Ok((free[0].local_addr()?, free[1].local_addr()?))
            }
        }
    }
}
