//! What the operator chose, and what the proxy hands over.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How the packet path is set up.
///
/// A frontend on every address of the node includes loopback, as a socket bound to no address does: `steer` comes
/// before a process that listens on `127.0.0.1` and the same port. A link that a predecessor left is kept with its
/// hook, whatever [`Settings::attach`] says; interfaces that are not wanted any more are let go at the take-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether to use BPF at all. Default: auto.
    pub mode: Mode,
    /// The interfaces that `front` is attached to; empty means all that are up at the start, without
    /// loopback. Interfaces that appear later are left alone until the next start: what arrives there
    /// is steered all the same, and the proxy asks the source policies itself.
    pub interfaces: Vec<String>,
    /// How `front` is attached. Default: auto.
    pub attach: Attach,
    /// Where maps and links are pinned; below it, each network namespace and layout has a directory of its
    /// own. Default: `/sys/fs/bpf/sluice`.
    pub pin_dir: PathBuf,
    /// Which processes follow each other; those of another lineage are not taken over from while they live.
    /// Default: 0.
    pub lineage: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            interfaces: Vec::new(),
            attach: Attach::Auto,
            pin_dir: "/sys/fs/bpf/sluice".into(),
            lineage: 0,
        }
    }
}

/// Whether BPF is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// If it is to be had; otherwise ordinary sockets.
    #[default]
    Auto,
    /// Yes; what prevents it is an error.
    Bpf,
    /// No.
    Sockets,
}

/// How `front` is attached to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attach {
    /// Native XDP, else generic XDP, else TC.
    #[default]
    Auto,
    /// Native XDP only: in the driver.
    Native,
    /// Generic XDP only: in the stack, for every driver.
    Generic,
    /// TC only.
    Tc,
}

/// A listening TCP socket that connections can be steered to.
#[derive(Clone, Copy, Debug)]
pub struct SteeringSocket<'a> {
    /// The worker that accepts from it, counted from 0.
    pub worker: u32,
    /// Whether it is an IPv6 socket.
    pub v6: bool,
    /// The socket.
    pub fd: BorrowedFd<'a>,
}
