//! Where Sluice is measured: in the running cluster, or as processes beside an API server of their own.
//!
//! The cluster is what is reported. Processes need no lab and no image, so that a change to Sluice is measured minutes
//! after it was made: each has a network namespace of its own on one switch, as nodes have.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use gateway_tests::api::{Api, Endpoint};
use gateway_tests::control_plane::ControlPlane;
use gateway_tests::netns::Netns;
use gateway_tests::sluice::Start;
use gateway_tests::world::{Topology, World};
use gateway_tests::{Backend, Cluster, Sluice, wait};
use serde_json::Value;

use crate::routes::{self, GATEWAY, NAMESPACE};

/// How long a Gateway may take to be programmed.
const PATIENCE: Duration = Duration::from_secs(120);

/// Nodes with Sluice on them, their API server, and who asks them.
pub struct Site {
    /// The API server.
    pub endpoint: Endpoint,
    /// The nodes, by number.
    pub nodes: Vec<Node>,
    /// Where clients run.
    pub client: Netns,
    place: Place,
}

/// A node as a client reaches it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The client's address to ask from; none if any will do.
    pub source: Option<IpAddr>,
    /// Where the Gateway is asked for.
    pub to: SocketAddr,
}

enum Place {
    Cluster(Box<Cluster>),
    Own(Box<Own>),
}

/// Dropped in this order.
struct Own {
    sluices: Vec<Sluice>,
    control: ControlPlane,
    backend: Backend,
    _world: World,
}

impl Site {
    /// The cluster that runs on this machine, with the Sluice that is deployed in it.
    pub fn cluster() -> Result<Self> {
        let cluster = Cluster::running()?;
        let pods = cluster.kubectl(&[
            "get",
            "pods",
            "--all-namespaces",
            "--selector=app.kubernetes.io/name=sluice",
            "--output=name",
        ])?;
        ensure!(
            pods.lines().count() >= cluster.nodes().len(),
            "Sluice does not run on every node: deploy it with `cargo xtask cluster deploy`"
        );
        Ok(Self {
            endpoint: cluster.endpoint()?,
            nodes: Vec::new(),
            client: cluster.client().clone(),
            place: Place::Cluster(Box::new(cluster)),
        })
    }

    /// So many processes and an API server.
    pub fn own(nodes: u8) -> Result<Self> {
        let world = World::plan()
            .topology(Topology::Bridged)
            .backends(nodes)
            .build()?;
        let address = world.node.v4.into();
        let control = ControlPlane::start_at(&world.node.ns, address, world.dir())?;
        control.install_gateway_api()?;
        control.kubectl(&["wait", "--for=condition=Established", "crd", "--all"])?;
        control.apply(&routes::class())?;
        let kubeconfig = control.kubeconfig().display().to_string();
        let hosts = (0..).zip(&world.backends);
        let node = |(number, host): (usize, &gateway_tests::world::Host)| {
            let name = format!("node{number}");
            let dir = world.dir().join(&name);
            std::fs::create_dir_all(&dir)?;
            let sluice = sluice(host, &dir, &name).args(["--kubeconfig", &kubeconfig]);
            let to = (host.v4, routes::PORT).into();
            let source = None;
            anyhow::Ok((sluice.ready()?, Node { name, source, to }))
        };
        let started = hosts.map(node).collect::<Result<Vec<_>>>()?;
        let (sluices, nodes) = started.into_iter().unzip();
        Ok(Self {
            endpoint: control.endpoint()?,
            nodes,
            client: world.client.ns.clone(),
            place: Place::Own(Box::new(Own {
                sluices,
                control,
                backend: Backend::start(&world.client, "echo")?,
                _world: world,
            })),
        })
    }

    /// Makes the Gateway and what its traffic is sent to.
    pub fn furnish(&mut self, runtime: &tokio::runtime::Runtime, api: &Api) -> Result<()> {
        match &self.place {
            Place::Cluster(cluster) => {
                cluster.apply(&(routes::fixtures() + &routes::pods()))?;
                cluster.wait_rollout("deployment/echo", NAMESPACE)?;
            }
            Place::Own(own) => own
                .control
                .apply(&(routes::fixtures() + &routes::endpoints(own.backend.address)))?,
        }
        let gateway = wait::until_within(PATIENCE, "the Gateway is programmed", || {
            let gateway = runtime.block_on(api.get(&routes::gateway_path())).ok()?;
            is_programmed(&gateway).then_some(gateway)
        })?;
        let Place::Cluster(cluster) = &self.place else {
            return Ok(());
        };
        let address = gateway.pointer("/status/addresses/0/value");
        let address = address.and_then(Value::as_str);
        let address = address.context("the Gateway has no address")?;
        let address: IpAddr = address.parse().context("the Gateway's address")?;
        let node = |node: &gateway_tests::cluster::Node| {
            let [v4, v6] = node.client_addresses();
            Node {
                name: node.name.clone(),
                source: Some(if address.is_ipv4() { v4 } else { v6 }),
                to: (address, routes::PORT).into(),
            }
        };
        self.nodes = cluster.nodes().iter().map(node).collect();
        Ok(())
    }

    /// Removes what the measurement made, or an earlier one left.
    pub fn remove(&self) -> Result<()> {
        let Place::Cluster(cluster) = &self.place else {
            return Ok(());
        };
        let arguments = ["delete", "namespace", NAMESPACE, "--ignore-not-found"];
        let removed = cluster.kubectl(&[&arguments[..], &["--timeout=10m"]].concat());
        removed.map(drop)
    }

    /// Sluice's processes on a node.
    pub fn pids(&self, number: usize) -> Result<Vec<u32>> {
        let pids = match &self.place {
            Place::Cluster(cluster) => cluster.nodes()[number].pids_of("sluice"),
            Place::Own(own) => vec![own.sluices[number].pid()],
        };
        ensure!(!pids.is_empty(), "no sluice runs on node {number}");
        Ok(pids)
    }

    /// Where traffic is sent: one address that the network spreads over the nodes, or those of all nodes.
    pub fn targets(&self) -> Vec<SocketAddr> {
        let mut all: Vec<_> = self.nodes.iter().map(|node| node.to).collect();
        all.dedup();
        all
    }

    /// What is measured, in words.
    pub fn name(&self) -> &'static str {
        match self.place {
            Place::Cluster(_) => "cluster",
            Place::Own(_) => "processes",
        }
    }
}

fn sluice(host: &gateway_tests::world::Host, dir: &Path, name: &str) -> Start {
    let address = host.v4.to_string();
    Start::new(&host.ns, dir)
        .args(["--l4", "sockets", "--workers", "2", "--drain-timeout", "1s"])
        .args(["--pod-name", name, "--node-name", name])
        .args(["--node-addresses", &address])
}

/// Whether the Gateway, as it is now, is programmed.
fn is_programmed(gateway: &Value) -> bool {
    let generation = gateway.pointer("/metadata/generation");
    let conditions = gateway.pointer("/status/conditions");
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    conditions.any(|condition| {
        condition["type"] == "Programmed"
            && condition["status"] == "True"
            && condition.get("observedGeneration") == generation
            && gateway["metadata"]["name"] == GATEWAY
    })
}
