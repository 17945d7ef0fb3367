//! Two network namespaces and a wire: a node with the packet path, and a client.

use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use gateway_l4::{Attach, Attachment, Hook, L4, Mode, Outcome, Settings, SteeringSocket};
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
        let name = cleanup::unique_name();
        let pin_dir = PathBuf::from(cleanup::BPFFS).join(format!("{name}-pins"));
        Self::with_pins(pin_dir)
    }

    pub fn with_pins(pin_dir: PathBuf) -> Self {
        cleanup::ensure_bpffs().expect("the BPF file system can be mounted: run this as root");
        let name = cleanup::unique_name();
        let node = Netns::create(&format!("{name}-node")).expect("a namespace");
        let client = Netns::create(&format!("{name}-client")).expect("a namespace");
        node.ip(&[&format!(
            "link add {INTERFACE} type veth peer name wire1 netns {}",
            client.name()
        )])
        .expect("a wire");
        for (ns, device, addresses) in [(&node, INTERFACE, NODE), (&client, "wire1", CLIENT)] {
            let [v4, v6] = addresses;
            ns.ip(&[
                &format!("addr add {v4}/24 dev {device}"),
                &format!("addr add {v6}/64 dev {device} nodad"),
                &format!("link set {device} up"),
            ])
            .expect("addresses");
        }
        for (vip, node) in VIP.iter().zip(NODE) {
            client
                .ip(&[&format!("route add {vip} via {node}")])
                .expect("a route");
        }
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
            ..Settings::default()
        }
    }

    /// Starts the packet path on the node; the calling thread must be there.
    pub async fn start(&self, attach: Attach) -> L4 {
        match L4::start(self.settings(attach)).await {
            Ok(Outcome::Bpf(l4)) => *l4,
            Ok(Outcome::Unavailable { reason }) => panic!("no packet path: {reason}"),
            Err(error) => panic!("no packet path: {}", chain(&error)),
        }
    }

    /// Connects the client to an address and port, waiting so long for an answer.
    pub fn try_connect(
        &self,
        address: &str,
        port: u16,
        patience: Duration,
    ) -> std::io::Result<TcpStream> {
        self.client
            .run(|| TcpStream::connect_timeout(&socket_address(address, port), patience))
    }

    /// Connects the client to an address and port.
    pub fn connect(&self, address: &str, port: u16) -> TcpStream {
        self.client
            .connect(socket_address(address, port))
            .expect("a connection")
    }

    /// Whether the kernel has an XDP program on the node's interface.
    pub fn has_xdp(&self) -> bool {
        self.ip_output(&["-details", "link", "show", INTERFACE])
            .contains("prog/xdp")
    }

    /// Waits until it has none: another test's child process has a copy of the link's descriptor until it executes its
    /// own program.
    pub fn has_no_xdp(&self) {
        let none = || (!self.has_xdp()).then_some(());
        gateway_tests::until("no program on the interface", none).expect("none");
    }

    /// What `ip` prints on the node.
    pub fn ip_output(&self, arguments: &[&str]) -> String {
        let output = self
            .node
            .run(|| std::process::Command::new("ip").args(arguments).output())
            .expect("ip");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Workers' listening sockets, on loopback and ports of the kernel's choice.
pub struct Workers {
    v4: Vec<TcpListener>,
    v6: Vec<TcpListener>,
}

impl Workers {
    /// Must be called on the node.
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

    /// One worker's socket of the family that this address has.
    pub fn socket(&self, worker: usize, address: &str) -> &TcpListener {
        if ip(address).is_ipv4() {
            &self.v4[worker]
        } else {
            &self.v6[worker]
        }
    }

    /// The worker that has a connection to this address waiting, and the connection.
    pub fn accept(&self, address: &str) -> (usize, TcpStream) {
        gateway_tests::until("a connection at some worker", || self.try_accept(address))
            .expect("a connection")
    }

    /// The same, if there is one now.
    pub fn try_accept(&self, address: &str) -> Option<(usize, TcpStream)> {
        (0..self.v4.len()).find_map(|worker| {
            let socket = self.socket(worker, address);
            socket.set_nonblocking(true).expect("a mode");
            socket.accept().ok().map(|(stream, _)| (worker, stream))
        })
    }
}

/// Where `front` hangs on the node's interface.
pub fn front(l4: &L4) -> Attachment {
    let status = l4.status().expect("status");
    let wanted = |attachment: &Attachment| attachment.interface == INTERFACE;
    status
        .attachments
        .into_iter()
        .find(wanted)
        .expect("the interface")
}

/// Where `steer` hangs.
pub fn steer_hook(l4: &L4) -> Hook {
    l4.status().expect("status").attachments[0].hook
}

/// How often a reason was counted.
pub fn counted(l4: &L4, reason: &str) -> u64 {
    l4.counters().expect("counters").reasons[reason]
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
