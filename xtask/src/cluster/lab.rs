//! What a cluster is called and where everything is: one description, kept as `lab.json` in the state directory.
//!
//! Users of a cluster (the tests, the benchmarks, a shell with `jq`) read the file and know no constants.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The network namespace of the control plane and of the router.
pub const ROUTER: &str = "sluice-lab";
/// The network namespace of clients.
pub const CLIENT: &str = "sluice-client";
/// The host's interface towards the router.
pub const HOST_LINK: &str = "sluice-lab";
/// Pools of virtual addresses, which the router sends to all nodes; the lab's overlay gives them to Sluice.
pub const VIPS4: &str = "172.31.200.0/24";
/// As [`VIPS4`].
pub const VIPS6: &str = "fd31:200::/120";
/// All Pods; node *N* has the *N*-th /24.
pub const PODS4: &str = "10.244.0.0/16";
/// All Pods; node *N* has the *N*-th /64.
pub const PODS6: &str = "fd31:244::/48";
/// All Services.
pub const SERVICES4: &str = "10.96.0.0/16";
/// All Services.
pub const SERVICES6: &str = "fd31:96::/112";
/// The Service of the API server.
pub const SERVICE4: &str = "10.96.0.1";
/// The router on the nodes' network; the API server listens here.
pub const ROUTER4: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 1);
/// As [`ROUTER4`].
pub const ROUTER6: Ipv6Addr = lan6(1);
/// Where the API server listens.
pub const API_PORT: u16 = 6443;

/// A running cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lab {
    /// The state directory.
    pub dir: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Where the API server listens, as its certificate says.
    pub server: SocketAddr,
    /// The built programs, `kubectl` among them.
    pub programs: PathBuf,
    /// The xtask that made it; users call it to stop, partition and heal.
    pub tool: PathBuf,
    /// The network namespace of the control plane and of the router.
    pub router: String,
    /// Where clients are.
    pub client: Client,
    /// Pools of virtual addresses, IPv4 first.
    pub vips: [String; 2],
    /// All nodes.
    pub nodes: Vec<Node>,
}

/// The namespace of clients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Client {
    /// Its network namespace.
    pub netns: String,
    /// Its own address; the router picks a node for each of its connections.
    pub ipv4: Ipv4Addr,
    /// As `ipv4`.
    pub ipv6: Ipv6Addr,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Node {
    /// Its name, in Kubernetes too.
    pub name: String,
    /// Its network namespace.
    pub netns: String,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address.
    pub ipv6: Ipv6Addr,
    /// A client's address whose connections to virtual addresses all go to this node.
    pub client_ipv4: Ipv4Addr,
    /// As `client_ipv4`.
    pub client_ipv6: Ipv6Addr,
    /// Its file systems as seen from outside: `run`, `lib` and `log` are its /run, /var/lib and /var/log.
    pub dir: PathBuf,
    /// A process that lives in all of its namespaces, for `nsenter --target PID --all`.
    pub pid: u32,
}

impl Lab {
    /// A cluster that is to be made.
    pub fn plan(dir: &Path, programs: &Path, nodes: u8) -> anyhow::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            kubeconfig: dir.join("admin.conf"),
            server: SocketAddr::from((ROUTER4, API_PORT)),
            programs: programs.to_owned(),
            tool: std::env::current_exe().context("where this program stands")?,
            router: ROUTER.to_owned(),
            client: Client {
                netns: CLIENT.to_owned(),
                ipv4: Ipv4Addr::new(172, 31, 1, 10),
                ipv6: client6(0x10),
            },
            vips: [VIPS4.to_owned(), VIPS6.to_owned()],
            nodes: (0..nodes).map(|n| Node::plan(dir, n)).collect(),
        })
    }

    /// The running cluster.
    pub fn read() -> anyhow::Result<Self> {
        let path = super::state_dir()?.join("lab.json");
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "no cluster: {} cannot be read; `cargo xtask cluster up` makes one",
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }

    /// Writes `lab.json`.
    pub fn write(&self) -> anyhow::Result<()> {
        let path = self.dir.join("lab.json");
        std::fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| path.display().to_string())
    }

    /// Which node this is.
    pub fn node(&self, name: &str) -> anyhow::Result<usize> {
        let at = self.nodes.iter().position(|node| node.name == name);
        at.with_context(|| {
            let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
            format!("no node {name:?}; there are {}", names.join(", "))
        })
    }

    /// One of the built programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// `kubectl` as the administrator.
    pub fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(self.program("kubectl"));
        kubectl.env("KUBECONFIG", &self.kubeconfig);
        kubectl
    }

    /// A file of the control plane's keys and certificates.
    pub fn pki(&self, file: &str) -> PathBuf {
        self.dir.join("pki").join(file)
    }
}

impl Node {
    fn plan(dir: &Path, n: u8) -> Self {
        let name = format!("node{n}");
        Self {
            netns: format!("sluice-{name}"),
            ipv4: Ipv4Addr::new(172, 31, 0, 10 + n),
            ipv6: lan6(0x10 + u16::from(n)),
            client_ipv4: Ipv4Addr::new(172, 31, 1, 100 + n),
            client_ipv6: client6(0x100 + u16::from(n)),
            dir: dir.join(&name),
            pid: 0,
            name,
        }
    }
}

const fn lan6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd31, 0, 0, 0, 0, 0, 0, host)
}

const fn client6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd31, 1, 0, 0, 0, 0, 0, host)
}

#[cfg(test)]
mod tests {
    use super::{VIPS4, VIPS6};

    #[test]
    fn the_manifests_of_the_lab_give_sluice_the_addresses_that_the_router_sends_to_it() {
        let pool = |path: &str, text: String| {
            let path = crate::workspace::root().join(path);
            let found = std::fs::read_to_string(&path).expect("what the lab deploys");
            assert!(found.contains(&text), "{}", path.display());
        };
        pool(
            "deploy/kustomize/overlays/lab/daemonset.yaml",
            format!("{VIPS4},{VIPS6}"),
        );
        pool(
            "deploy/helm/values-lab.yaml",
            format!("addressPool: [{VIPS4}, \"{VIPS6}\"]"),
        );
    }
}
