//! The packet path as a value: [`L4::start`] and what can be done with it afterwards.

use gateway_model::l4_plan::L4Plan;

use crate::object::object;
use crate::status::{Counters, Status};
use crate::trace::{TraceFilter, TraceLines};
use crate::{L4Error, Mode, Settings, SteeringSocket};

/// What [`L4::start`] found.
#[derive(Debug)]
pub enum Outcome {
    /// The programs are loaded and attached.
    Bpf(Box<L4>),
    /// There is no BPF to be had (or none was asked for): bind ordinary sockets, and tell why.
    Unavailable {
        /// Why, with the fix where there is one.
        reason: String,
    },
}

/// The loaded, attached and pinned packet path.
#[derive(Debug)]
pub struct L4 {}

impl L4 {
    /// Loads and attaches the programs. With a predecessor's pins there, its maps are shared and
    /// nothing of what it serves changes before [`L4::take_over`].
    ///
    /// # Errors
    /// In [`Mode::Bpf`], whatever prevents it; in [`Mode::Auto`] that is [`Outcome::Unavailable`].
    #[allow(
        clippy::unused_async,
        reason = "callers await it: loading asks the kernel by netlink"
    )]
    pub async fn start(settings: Settings) -> Result<Outcome, L4Error> {
        let reason = match (settings.mode, object()) {
            (Mode::Sockets, _) => {
                return Ok(Outcome::Unavailable {
                    reason: "sockets mode was asked for".to_owned(),
                });
            }
            (_, None) => {
                "this build has no eBPF object; run `cargo xtask build-ebpf` and build again"
            }
            (_, Some(_)) => "this build cannot load its eBPF object",
        };
        match settings.mode {
            Mode::Bpf => Err(L4Error::Unavailable {
                reason: reason.to_owned(),
            }),
            Mode::Auto | Mode::Sockets => Ok(Outcome::Unavailable {
                reason: reason.to_owned(),
            }),
        }
    }

    /// Makes a plan live: fills the idle half of the tables and flips the control word; routes addresses
    /// that no interface has to this node. Before [`L4::take_over`] the plan is only kept, and goes live with it.
    ///
    /// # Errors
    /// The tables that are live stay as they are.
    #[allow(clippy::unused_async, reason = "routes are set by netlink")]
    pub async fn apply(&mut self, plan: &L4Plan) -> Result<(), L4Error> {
        let _ = plan;
        Err(L4Error::Superseded)
    }

    /// Puts this process's sockets, one per worker and family, and its plan in the place of a
    /// predecessor's, by one store. Connections that the predecessor has taken, or has queued, stay with it.
    ///
    /// # Errors
    /// What was live stays live.
    #[allow(clippy::unused_async, reason = "routes are set by netlink")]
    pub async fn take_over(&mut self, sockets: &[SteeringSocket<'_>]) -> Result<(), L4Error> {
        let _ = sockets;
        Err(L4Error::Superseded)
    }

    /// Whether this process is the one that is live; false before [`L4::take_over`] and after a successor's.
    #[must_use]
    pub fn is_live(&self) -> bool {
        false
    }

    /// Detaches everything, unpins it and removes the local routes, unless a successor has taken over: then
    /// only this process's handles are dropped, as dropping the value does.
    ///
    /// # Errors
    /// What could not be removed; the rest is.
    #[allow(clippy::unused_async, reason = "routes are removed by netlink")]
    pub async fn detach(self) -> Result<(), L4Error> {
        Ok(())
    }

    /// The packet path as it stands.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn status(&self) -> Result<Status, L4Error> {
        Ok(Status::default())
    }

    /// What was counted.
    ///
    /// # Errors
    /// A map cannot be read.
    pub fn counters(&self) -> Result<Counters, L4Error> {
        Ok(Counters::default())
    }

    /// Switches the packet trace on; it goes off when the returned lines are dropped.
    ///
    /// # Errors
    /// A map cannot be written.
    pub fn trace(&mut self, filter: TraceFilter) -> Result<TraceLines, L4Error> {
        let _ = filter;
        Err(L4Error::Superseded)
    }
}
