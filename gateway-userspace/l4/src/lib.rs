//! Sluice's only user of bpf(2): loads the programs of gateway-ebpf, attaches them, feeds their maps
//! from an [`L4Plan`](gateway_model::l4_plan::L4Plan), and tells what they counted.
//!
//! Knows nothing of HTTP, of Kubernetes or of the proxy beyond its listening sockets.

mod addresses;
mod attach;
mod error;
mod fnv;
mod l4;
mod loader;
mod maps;
mod netlink;
mod object;
mod pins;
mod policy;
mod publish;
mod routes;
mod settings;
mod status;
mod sys;
mod tables;
mod trace;

pub use error::L4Error;
pub use gateway_common::maps::WORKERS_MAX;
pub use l4::{L4, Outcome};
pub use object::object;
pub use routes::Refused;
pub use settings::{Attach, Mode, Settings, SteeringSocket};

pub use status::{Attachment, Counters, FrontendStatus, Hook, MapStatus, ProgramStatus, Status};
pub use trace::{TraceFilter, TraceLines};
