//! The Kubernetes cluster that `cargo xtask cluster up` has left running, as a value.
//!
//! A test does not make a cluster and does not end one. What it does to it (a node cut off, a program stopped) it
//! gets back as a guard, and dropping the guard undoes it. Kubernetes itself is spoken to by `kubectl`, as users do;
//! where time is measured, [`crate::api`] speaks to the API server directly.

mod kubectl;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;

use crate::api::Endpoint;
use crate::netns::Netns;
use crate::process;

pub use kubectl::TestNamespace;

/// A running cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    lab: Lab,
    client: Netns,
    nodes: Vec<Node>,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name in Kubernetes.
    pub name: String,
    /// Its network namespace.
    pub ns: Netns,
    /// Its address.
    pub ipv4: Ipv4Addr,
    /// Its address.
    pub ipv6: Ipv6Addr,
    /// An address of the client's namespace; the router sends what comes from it to this node alone.
    pub client_ipv4: Ipv4Addr,
    /// As `client_ipv4`.
    pub client_ipv6: Ipv6Addr,
    /// Its directories as seen from here: `run`, `lib` and `log` are its /run, /var/lib and /var/log.
    pub dir: PathBuf,
    pid: u32,
}

/// `lab.json`, as far as tests need it.
#[derive(Clone, Debug, Deserialize)]
struct Lab {
    dir: PathBuf,
    kubeconfig: PathBuf,
    server: SocketAddr,
    programs: PathBuf,
    tool: PathBuf,
    client: LabClient,
    vips: [String; 2],
    nodes: Vec<LabNode>,
}

#[derive(Clone, Debug, Deserialize)]
struct LabClient {
    netns: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
}

#[derive(Clone, Debug, Deserialize)]
struct LabNode {
    name: String,
    netns: String,
    ipv4: Ipv4Addr,
    ipv6: Ipv6Addr,
    client_ipv4: Ipv4Addr,
    client_ipv6: Ipv6Addr,
    dir: PathBuf,
    pid: u32,
}

/// Something done to a cluster; dropping it undoes it.
#[derive(Debug)]
#[must_use = "dropping it undoes it at once"]
pub struct Undo {
    cluster: Cluster,
    command: Option<Vec<String>>,
}

impl Undo {
    /// Undoes it now.
    ///
    /// # Errors
    /// With what the tool printed.
    pub fn now(mut self) -> Result<()> {
        self.undo()
    }

    fn undo(&mut self) -> Result<()> {
        match self.command.take() {
            Some(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                self.cluster.tool(&words)
            }
            None => Ok(()),
        }
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        if let Err(error) = self.undo() {
            eprintln!("the cluster is not as it was: {error:#}");
        }
    }
}

impl Cluster {
    /// The cluster that runs on this machine.
    ///
    /// # Errors
    /// When there is none; the error says how to get one.
    pub fn running() -> Result<Self> {
        let path = state_dir()?.join("lab.json");
        let text = std::fs::read(&path).with_context(|| {
            format!(
                "no cluster: {} cannot be read; `cargo xtask cluster up` makes one",
                path.display()
            )
        })?;
        let lab: Lab = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let node = |node: &LabNode| -> Result<Node> {
            Ok(Node {
                name: node.name.clone(),
                ns: Netns::open(&node.netns)?,
                ipv4: node.ipv4,
                ipv6: node.ipv6,
                client_ipv4: node.client_ipv4,
                client_ipv6: node.client_ipv6,
                dir: node.dir.clone(),
                pid: node.pid,
            })
        };
        Ok(Self {
            client: Netns::open(&lab.client.netns)?,
            nodes: lab.nodes.iter().map(node).collect::<Result<_>>()?,
            lab,
        })
    }

    /// All nodes, by number.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name == name);
        found.with_context(|| format!("no node {name:?}"))
    }

    /// Where clients run: behind the router, which picks a node for each connection to a virtual address.
    #[must_use]
    pub fn client(&self) -> &Netns {
        &self.client
    }

    /// The client's own addresses, IPv4 first.
    #[must_use]
    pub fn client_addresses(&self) -> [IpAddr; 2] {
        [self.lab.client.ipv4.into(), self.lab.client.ipv6.into()]
    }

    /// Pools of addresses that the router sends to the nodes, IPv4 first, in CIDR notation.
    #[must_use]
    pub fn vips(&self) -> &[String; 2] {
        &self.lab.vips
    }

    /// The administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.lab.kubeconfig
    }

    /// Its API server, for the administrator.
    ///
    /// # Errors
    /// When the lab's certificates cannot be read.
    pub fn endpoint(&self) -> Result<Endpoint> {
        let file = |name: &str| self.lab.dir.join("pki").join(name);
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(file("ca.crt"))?)?;
        let certificate = CertificateDer::from_pem_file(file("admin.crt"))?;
        let key = PrivateKeyDer::from_pem_file(file("admin.key"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Endpoint {
            server: self.lab.server,
            ns: Netns::current()?,
            tls: Arc::new(tls),
            token: None,
        })
    }

    /// Cuts a node off: nothing passes its switch port, and the router sends no more connections to it.
    ///
    /// # Errors
    /// With what the tool printed.
    pub fn partition(&self, node: &str) -> Result<Undo> {
        self.done("partition", "heal", &[node])
    }

    /// Takes a node out of the router's choice, as before it is drained.
    ///
    /// # Errors
    /// With what the tool printed.
    pub fn withdraw(&self, node: &str) -> Result<Undo> {
        self.done("withdraw", "announce", &[node])
    }

    /// Stops a program of the control plane: `apiserver`, `etcd`, `controller-manager` or `scheduler`.
    ///
    /// # Errors
    /// With what the tool printed.
    pub fn stop(&self, program: &str) -> Result<Undo> {
        self.done("stop", "start", &[program])
    }

    /// Stops `kubelet` or `kube-proxy` on a node.
    ///
    /// # Errors
    /// With what the tool printed.
    pub fn stop_on(&self, node: &str, program: &str) -> Result<Undo> {
        self.done("stop", "start", &[program, node])
    }

    /// Freezes a program of the control plane: its connections stay open, and nothing comes any more.
    ///
    /// # Errors
    /// With what the tool printed.
    pub fn pause(&self, program: &str) -> Result<Undo> {
        self.done("pause", "resume", &[program])
    }

    /// Imports an archive of images on every node.
    ///
    /// # Errors
    /// With what the tool printed.
    pub fn load(&self, archive: &Path) -> Result<()> {
        self.tool(&["load", &archive.to_string_lossy()])
    }

    fn done(&self, verb: &str, reverse: &str, objects: &[&str]) -> Result<Undo> {
        let words = |verb| [&[verb], objects].concat();
        self.tool(&words(verb))?;
        Ok(Undo {
            cluster: self.clone(),
            command: Some(words(reverse).into_iter().map(str::to_owned).collect()),
        })
    }

    fn tool(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new(&self.lab.tool);
        command
            .env("SLUICE_CLUSTER_DIR", &self.lab.dir)
            .arg("cluster")
            .args(arguments);
        let shown = format!("cargo xtask cluster {}", arguments.join(" "));
        let output = command
            .stdin(Stdio::null())
            .output()
            .with_context(|| shown.clone())?;
        ensure!(
            output.status.success(),
            "{shown}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

impl Node {
    /// The client's addresses whose connections go to this node alone, IPv4 first.
    #[must_use]
    pub fn client_addresses(&self) -> [IpAddr; 2] {
        [self.client_ipv4.into(), self.client_ipv6.into()]
    }

    /// Runs a command to its end in the node's network, mount and UTS namespaces.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn exec(&self, program: &str, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.pid.to_string(),
            "--mount",
            "--net",
            "--uts",
            "--",
            program,
        ]);
        command.args(arguments);
        process::output(&Netns::current()?, command)
    }

    /// The first processes of containers on this node, where the program has this name. What else runs in a
    /// container, as probes do, is none of them.
    #[must_use]
    pub fn pids_of(&self, program: &str) -> Vec<u32> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let here = |pid: &u32| {
            let read = |file: &str| {
                std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
            };
            let is_first = |status: String| {
                let ids = status
                    .lines()
                    .find_map(|line| line.strip_prefix("NSpid:"))
                    .unwrap_or_default();
                ids.split_whitespace().next_back() == Some("1")
            };
            read("comm").trim() == program
                && is_first(read("status"))
                && read("cgroup").contains(&format!("/sluice-lab/{}/", self.name))
        };
        pids.filter(here).collect()
    }
}

/// `$SLUICE_CLUSTER_DIR`, else below `$XDG_STATE_HOME` or `~/.local/state`.
fn state_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("SLUICE_CLUSTER_DIR") {
        return Ok(dir.into());
    }
    let set = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty());
    let state = match set {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("set HOME or SLUICE_CLUSTER_DIR")?)
            .join(".local/state"),
    };
    Ok(state.join("sluice-cluster"))
}
