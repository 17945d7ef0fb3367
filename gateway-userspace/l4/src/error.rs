//! What the kernel may refuse, with what would help.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

/// A failed operation of the packet path: the operation, its object and, where known, the fix.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum L4Error {
    /// `--l4 bpf` was asked for and is not to be had.
    #[error("the BPF packet path is not available: {reason}")]
    Unavailable {
        /// Why, and the fix.
        reason: String,
    },
    /// A plan has more entries than a map holds.
    #[error("the plan needs {needed} {what}, but only {limit} fit")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many the plan has.
        needed: usize,
        /// How many fit.
        limit: usize,
    },
    /// Another process has taken over: its tables and sockets are live, and nothing here is written any more.
    #[error("a successor has taken over the packet path")]
    Superseded,
    /// A process that is no predecessor of this one is live.
    #[error(
        "a sluice with another state directory steers connections by the pins in {}; give this one the same --state-dir to take over, or another --pin-dir", pin_dir.display()
    )]
    Occupied {
        /// The directory of the pins.
        pin_dir: PathBuf,
    },
    /// A map operation failed.
    #[error("cannot {operation} map {map}")]
    Map {
        /// What was tried.
        operation: &'static str,
        /// The map.
        map: &'static str,
        /// What the kernel said.
        #[source]
        source: aya::maps::MapError,
    },
    /// A socket cannot be steered to.
    #[error(
        "cannot steer to the {family} socket of worker {worker}: it must be a listening TCP socket"
    )]
    Socket {
        /// The worker.
        worker: u32,
        /// `IPv4` or `IPv6`.
        family: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An interface that was asked for is not there.
    #[error("there is no interface {name}; `ip link` lists them")]
    NoInterface {
        /// Its name.
        name: String,
    },
    /// More workers than the socket map has slots for.
    #[error("worker {worker} is over the limit of {limit} workers")]
    TooManyWorkers {
        /// Its number.
        worker: u32,
        /// The limit.
        limit: u32,
    },
    /// A route for an address of the plan could not be changed.
    #[error(
        "cannot {operation} the local route for {address}; this needs CAP_NET_ADMIN and its address family"
    )]
    Route {
        /// `add` or `remove`.
        operation: &'static str,
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// rtnetlink refused something.
    #[error("cannot {operation} by rtnetlink")]
    Netlink {
        /// What was tried.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        source: rtnetlink::Error,
    },
    /// The object could not be loaded.
    #[error("cannot load {what}; {hint}")]
    Load {
        /// The object or program.
        what: &'static str,
        /// The likely cause and its fix.
        hint: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something on the BPF file system could not be changed.
    #[error("cannot {operation} {}", path.display())]
    Pin {
        /// What was tried.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A program could not be attached or replaced.
    #[error("cannot attach {program} to {target}")]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface or namespace.
        target: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else that the system refused.
    #[error("cannot {operation}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// An error with its causes, on one line.
pub fn chain(error: &L4Error) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
