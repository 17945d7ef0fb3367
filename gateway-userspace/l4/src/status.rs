//! What `sluice l4`, the admin endpoint and the metrics say about the packet path.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::Serialize;

/// The packet path as it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The directory of the pins.
    pub pin_dir: PathBuf,
    /// Whether this process is the one whose tables and sockets are live.
    pub live: bool,
    /// Whether another process's are. Neither is the case before the first take-over, and after a process was
    /// killed: then what it left is attached and does nothing.
    pub another_is_live: bool,
    /// The half of the tables that is live: 0 or 1.
    pub tables_half: u8,
    /// The half of the socket map that is live: 0 or 1.
    pub sockets_half: u32,
    /// Workers that this half was filled by.
    pub workers: u32,
    /// Whether a packet trace is running.
    pub tracing: bool,
    /// Where `front` is attached, and why not otherwise.
    pub attachments: Vec<Attachment>,
    /// The programs of this process.
    pub programs: Vec<ProgramStatus>,
    /// The maps and how full they are.
    pub maps: Vec<MapStatus>,
    /// The frontends of the live tables.
    pub frontends: Vec<FrontendStatus>,
    /// Addresses that this process routes to the node because no interface has them.
    pub local_routes: Vec<IpAddr>,
    /// What an operator should know: fallbacks taken, leftovers removed.
    pub notes: Vec<String>,
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attachment {
    /// Its name.
    pub interface: String,
    /// Its index.
    pub ifindex: u32,
    /// Where in the kernel.
    pub hook: Hook,
    /// The program's id.
    pub program_id: u32,
    /// Why it is not a better hook, if it is not.
    pub note: Option<String>,
}

/// A place that a program hangs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// XDP in the driver.
    XdpNative,
    /// XDP in the stack.
    XdpGeneric,
    /// TC by link, first in the chain (Linux 6.6).
    Tcx,
    /// TC by a clsact filter.
    Tc,
    /// Socket lookup of the network namespace.
    SkLookup,
    /// Nowhere.
    None,
}

/// One loaded program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramStatus {
    /// Its name in the kernel.
    pub name: String,
    /// Its id.
    pub id: u32,
    /// Instructions that the verifier walked; none if the kernel does not tell (before Linux 5.16).
    pub verified_instructions: Option<u32>,
    /// Its size as machine code.
    pub jited_bytes: u32,
}

/// One map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MapStatus {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u32,
    /// Entries in use; none where every entry always exists.
    pub entries: Option<u32>,
    /// Entries that fit.
    pub limit: u32,
}

/// One frontend of the live tables with its counters, summed over the CPUs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FrontendStatus {
    /// The address; none means every address of the node.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// Whether sources are looked up in a policy.
    pub restricted: bool,
    /// Packets let through to the stack.
    pub passed_packets: u64,
    /// Bytes of those, link layer included.
    pub passed_bytes: u64,
    /// Packets dropped by the source policy.
    pub dropped_packets: u64,
    /// Connections handed to a worker.
    pub steered: u64,
}

/// What the programs counted since the maps were made; an upgrade keeps the maps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets (connections for `steer*`) by [`gateway_common::Reason`], each reason by its name.
    pub reasons: BTreeMap<&'static str, u64>,
    /// The frontends of the live tables.
    pub frontends: Vec<FrontendStatus>,
}
