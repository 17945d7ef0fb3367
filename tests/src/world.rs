//! A small world: a client, the node that runs Sluice, and backends, each in a namespace of its own.
//!
//! ```text
//! routed                                   bridged
//!
//!   client                                   client   node   backends…
//!     │ eth0                                    │ eth0   │ eth0   │ eth0
//!     │ eth0                                  ──┴────────┴────────┴──  switch
//!   node
//!     │ b0      │ b1      │ b2
//!     │ eth0    │ eth0    │ eth0
//!   backend0  backend1  backend2
//! ```
//!
//! Routed, the client is in 10.10.0.0/24 and fd10:10::/64 and backend *i* in 10.10.(i+1).0/24 and
//! fd10:10:i+1::/64; bridged, all are in the client's networks. [`World::VIP4`] and [`World::VIP6`]
//! are routed to the node and configured nowhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cleanup::{self, Guard, Leftover};
use crate::netns::{Netns, ip_batch};

/// One namespace and its addresses on `eth0`.
#[derive(Clone, Debug)]
pub struct Host {
    /// Where it is.
    pub ns: Netns,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

/// How the namespaces are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// The node stands between the client and the backends and has a link to each.
    #[default]
    Routed,
    /// All are ports of one switch, and the node has one link.
    Bridged,
}

/// What a world is to look like.
#[derive(Clone, Debug)]
pub struct Plan {
    topology: Topology,
    backends: u8,
    mtu: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            topology: Topology::Routed,
            backends: 3,
            mtu: 1500,
        }
    }
}

impl Plan {
    /// Chooses how the namespaces are connected.
    #[must_use]
    pub fn topology(mut self, topology: Topology) -> Self {
        self.topology = topology;
        self
    }

    /// Chooses how many backends there are; 3 unless said otherwise.
    #[must_use]
    pub fn backends(mut self, count: u8) -> Self {
        self.backends = count;
        self
    }

    /// Chooses the MTU of every link; 1500 unless said otherwise.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Self {
        self.mtu = mtu;
        self
    }

    /// Makes it.
    ///
    /// # Errors
    /// When this process is not root or the kernel says no.
    pub fn build(&self) -> Result<World> {
        World::build(self)
    }
}

/// Namespaces, their links, and a directory for what a test writes. All of it goes when dropped.
#[derive(Debug)]
pub struct World {
    /// Where clients run. Besides [`Host::v4`] it has [`World::CLIENTS4`] and [`World::CLIENTS6`].
    pub client: Host,
    /// Where Sluice runs.
    pub node: Host,
    /// Where backends run.
    pub backends: Vec<Host>,
    name: String,
    dir: PathBuf,
    pin_dir: PathBuf,
    _switch: Option<Netns>,
    _guards: [Guard; 2],
}

impl World {
    /// An address routed to the node and configured on no interface.
    pub const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
    /// An address routed to the node and configured on no interface.
    pub const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0x10);
    /// Further addresses of the client.
    pub const CLIENTS4: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 10, 0, 3), Ipv4Addr::new(10, 10, 0, 4)];
    /// Further addresses of the client.
    pub const CLIENTS6: [Ipv6Addr; 2] = [client6(3), client6(4)];

    /// A routed world with three backends.
    ///
    /// # Errors
    /// When this process is not root or the kernel says no.
    pub fn new() -> Result<Self> {
        Plan::default().build()
    }

    /// A world by plan.
    #[must_use]
    pub fn plan() -> Plan {
        Plan::default()
    }

    fn build(plan: &Plan) -> Result<Self> {
        let name = cleanup::unique_name();
        cleanup::ensure_bpffs().context("cannot mount the BPF file system")?;
        let dir = std::env::temp_dir().join(&name);
        let pin_dir = Path::new(cleanup::BPFFS).join(&name);
        let guards = [
            cleanup::register(Leftover::Directory(pin_dir.clone())),
            cleanup::register(Leftover::Directory(dir.clone())),
        ];
        std::fs::create_dir_all(&dir)?;
        let host = |role: &str, v4, v6| -> Result<Host> {
            Ok(Host {
                ns: Netns::create(&format!("{name}-{role}"))?,
                v4,
                v6,
            })
        };
        let routed = plan.topology == Topology::Routed;
        let backend = |i: u8| {
            let (v4, v6) = if routed {
                (Ipv4Addr::new(10, 10, i + 1, 2), backend6(i, 2))
            } else {
                (
                    Ipv4Addr::new(10, 10, 0, 11 + i),
                    client6(0x11 + u16::from(i)),
                )
            };
            host(&format!("backend{i}"), v4, v6)
        };
        let world = Self {
            client: host("client", Ipv4Addr::new(10, 10, 0, 2), client6(2))?,
            node: host("node", Ipv4Addr::new(10, 10, 0, 1), client6(1))?,
            backends: (0..plan.backends).map(backend).collect::<Result<_>>()?,
            _switch: (!routed)
                .then(|| Netns::create(&format!("{name}-switch")))
                .transpose()?,
            name,
            dir,
            pin_dir,
            _guards: guards,
        };
        world.connect(plan)?;
        Ok(world)
    }

    /// A directory of this world's own, gone with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A directory in the BPF file system of this world's own; not made yet, removed at the end.
    #[must_use]
    pub fn pin_dir(&self) -> &Path {
        &self.pin_dir
    }

    /// The interfaces of the node that packets come in by, in the order client, backends.
    #[must_use]
    pub fn node_interfaces(&self) -> Vec<String> {
        let links = if self._switch.is_some() {
            0
        } else {
            self.backends.len()
        };
        let to_backends = (0..links).map(|i| format!("b{i}"));
        std::iter::once("eth0".to_owned())
            .chain(to_backends)
            .collect()
    }

    /// The addresses that clients dial: the node's own and the virtual ones.
    #[must_use]
    pub fn frontends(&self) -> [IpAddr; 4] {
        [
            self.node.v4.into(),
            self.node.v6.into(),
            Self::VIP4.into(),
            Self::VIP6.into(),
        ]
    }

    fn connect(&self, plan: &Plan) -> Result<()> {
        match plan.topology {
            Topology::Routed => self.connect_routed(plan.mtu)?,
            Topology::Bridged => self.connect_bridged(plan.mtu)?,
        }
        let more4 = Self::CLIENTS4.map(|a| format!("addr add {a}/24 dev eth0"));
        let more6 =
            Self::CLIENTS6.map(|a| format!("addr add {a}/64 dev eth0 nodad preferred_lft 0"));
        let more: Vec<&str> = more4.iter().chain(&more6).map(String::as_str).collect();
        self.client.ns.ip(&more)?;
        let to_vips = [
            format!("route add {} via {}", Self::VIP4, self.node.v4),
            format!("route add {} via {}", Self::VIP6, self.node.v6),
        ];
        self.client.ns.ip(&to_vips.each_ref().map(String::as_str))
    }

    fn connect_routed(&self, mtu: u32) -> Result<()> {
        self.link(&self.client.ns, "eth0", &self.node.ns, "eth0", mtu)?;
        self.address(&self.client.ns, "eth0", self.client.v4, self.client.v6)?;
        self.address(&self.node.ns, "eth0", self.node.v4, self.node.v6)?;
        for (i, backend) in (0_u8..).zip(&self.backends) {
            let port = format!("b{i}");
            let (v4, v6) = (Ipv4Addr::new(10, 10, i + 1, 1), backend6(i, 1));
            self.link(&backend.ns, "eth0", &self.node.ns, &port, mtu)?;
            self.address(&self.node.ns, &port, v4, v6)?;
            self.address(&backend.ns, "eth0", backend.v4, backend.v6)?;
            let routes = [
                format!("route add default via {v4}"),
                format!("route add ::/0 via {v6}"),
            ];
            backend.ns.ip(&routes.each_ref().map(String::as_str))?;
        }
        // A node has a default route; Sluice finds the interfaces to attach to by it.
        self.node
            .ns
            .ip(&["route add default dev eth0", "route add ::/0 dev eth0"])?;
        self.client.ns.ip(&[
            &format!("route add default via {}", self.node.v4),
            &format!("route add ::/0 via {}", self.node.v6),
        ])
    }

    fn connect_bridged(&self, mtu: u32) -> Result<()> {
        let switch = self
            ._switch
            .as_ref()
            .context("a bridged world has a switch")?;
        switch.ip(&["link add switch type bridge", "link set switch up"])?;
        let hosts = [&self.client, &self.node].into_iter().chain(&self.backends);
        for (i, host) in hosts.enumerate() {
            let port = format!("p{i}");
            self.link(&host.ns, "eth0", switch, &port, mtu)?;
            switch.ip(&[&format!("link set {port} master switch")])?;
            self.address(&host.ns, "eth0", host.v4, host.v6)?;
        }
        self.node
            .ns
            .ip(&["route add default dev eth0", "route add ::/0 dev eth0"])
    }

    /// A veth pair, up on both ends. Native XDP works on either end: one queue pair per CPU and an
    /// MTU that leaves room in a page.
    fn link(&self, a: &Netns, a_name: &str, b: &Netns, b_name: &str, mtu: u32) -> Result<()> {
        ip_batch(&[&format!(
            "link add {a_name} netns {} mtu {mtu} type veth peer name {b_name} netns {} mtu {mtu}",
            a.name(),
            b.name()
        )])
        .with_context(|| format!("veth {a_name}-{b_name} of {}", self.name))?;
        a.ip(&[&format!("link set {a_name} up")])?;
        b.ip(&[&format!("link set {b_name} up")])
    }

    fn address(&self, ns: &Netns, interface: &str, v4: Ipv4Addr, v6: Ipv6Addr) -> Result<()> {
        ns.ip(&[
            &format!("addr add {v4}/24 dev {interface}"),
            &format!("addr add {v6}/64 dev {interface} nodad"),
        ])
    }
}

const fn client6(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd10, 0x10, 0, 0, 0, 0, 0, host)
}

const fn backend6(backend: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd10, 0x10, backend as u16 + 1, 0, 0, 0, 0, host)
}
