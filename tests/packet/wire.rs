//! Two network namespaces and a wire: a node with the packet path, and a client.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;

use gateway_l4::{Attach, L4, Mode, Outcome, Settings, SteeringSocket};
use gateway_model::ir::SourcePolicy;
use gateway_model::l4_plan::{Frontend, L4Plan, Transport};
use gateway_tests::cleanup::{Guard, Leftover};
use gateway_tests::{Netns, cleanup};

/// The node's addresses on the wire.
pub const NODE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
/// The client's.
pub const CLIENT: [&str; 2] = ["192.0.2.2", "2001:db8::2"];
/// Virtual addresses, which the client routes to the node and no interface has.
pub const VIP: [&str; 2] = ["198.51.100.1", "2001:db8:100::1"];
/// The node's interface.
pub const INTERFACE: &str = "wire0";

/// A node and a client.
pub struct Wire {
    pub node: Netns,
    pub client: Netns,
    pub pin_dir: PathBuf,
    _guard: Guard,
}

impl Wire {
    pub fn new() -> Self {
        cleanup::ensure_bpffs().expect("the BPF file system can be mounted: run this as root");
        let name = cleanup::unique_name();
        let node = Netns::create(&format!("{name}-node")).expect("a namespace");
        let client = Netns::create(&format!("{name}-client")).expect("a namespace");
        node.ip(&[&format!(
            "link add {INTERFACE} type veth peer name wire1 netns {}",
            client.name()
        )])
        .expect("a wire");
        let address = |device: &str, [v4, v6]: [&str; 2]| {
            vec![
                format!("addr add {v4}/24 dev {device}"),
                format!("addr add {v6}/64 dev {device} nodad"),
                format!("link set {device} up"),
            ]
        };
        run(&node, &address(INTERFACE, NODE));
        run(&client, &address("wire1", CLIENT));
        run(
            &client,
            &VIP.iter()
                .zip(NODE)
                .map(|(vip, node)| format!("route add {vip} via {node}"))
                .collect::<Vec<_>>(),
        );
        let pin_dir = PathBuf::from(cleanup::BPFFS).join(format!("{name}-pins"));
        let guard = cleanup::register(Leftover::Directory(pin_dir.clone()));
        Self {
            node,
            client,
            pin_dir,
            _guard: guard,
        }
    }

    pub fn settings(&self, attach: Attach) -> Settings {
        Settings {
            mode: Mode::Bpf,
            interfaces: vec![INTERFACE.to_owned()],
            attach,
            pin_dir: self.pin_dir.clone(),
        }
    }

    /// Starts the packet path on the node.
    pub async fn start(&self, attach: Attach) -> L4 {
        match L4::start(self.settings(attach)).await {
            Ok(Outcome::Bpf(l4)) => *l4,
            Ok(Outcome::Unavailable { reason }) => panic!("no packet path: {reason}"),
            Err(error) => panic!("no packet path: {}", chain(&error)),
        }
    }
}

/// Two workers' listening sockets, on ports of the kernel's choice.
pub struct Workers {
    v4: Vec<TcpListener>,
    v6: Vec<TcpListener>,
}

impl Workers {
    pub fn listen(count: usize) -> Self {
        let listen = |address: &str| {
            (0..count)
                .map(|_| TcpListener::bind((address, 0)).expect("a socket"))
                .collect()
        };
        Self {
            v4: listen("127.0.0.1"),
            v6: listen("::1"),
        }
    }

    pub fn steering(&self) -> Vec<SteeringSocket<'_>> {
        let families = [(false, &self.v4), (true, &self.v6)];
        families
            .into_iter()
            .flat_map(|(v6, sockets)| {
                let numbered = (0_u32..).zip(sockets);
                numbered.map(move |(worker, socket)| SteeringSocket {
                    worker,
                    v6,
                    fd: socket.as_fd(),
                })
            })
            .collect()
    }

    /// Every socket with its worker.
    pub fn sockets(&self) -> impl Iterator<Item = (usize, &TcpListener)> {
        self.v4.iter().enumerate().chain(self.v6.iter().enumerate())
    }
}

/// A plan: frontends with their deny lists, and addresses.
pub fn plan(frontends: &[(Option<&str>, u16, &[&str])], addresses: &[&str]) -> L4Plan {
    let frontends = frontends.iter().map(|(address, port, deny)| {
        let frontend = Frontend {
            address: address.map(ip),
            port: *port,
            transport: Transport::Tcp,
        };
        let deny = deny
            .iter()
            .map(|net| net.parse().expect("a network"))
            .collect();
        (
            frontend,
            vec![SourcePolicy {
                allow: Vec::new(),
                deny,
            }],
        )
    });
    L4Plan {
        frontends: frontends.collect(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub fn socket_address(text: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip(text), port)
}

/// An error with its causes.
pub fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// Whether an address is of IPv4.
pub fn is_v4(address: &str) -> bool {
    address.parse::<Ipv4Addr>().is_ok()
}

fn run(ns: &Netns, lines: &[String]) {
    ns.ip(&lines.iter().map(String::as_str).collect::<Vec<_>>())
        .expect("ip");
}
