//! Sluice's only user of bpf(2): loads the programs of gateway-ebpf, attaches them, feeds their maps
//! from an [`L4Plan`](gateway_model::l4_plan::L4Plan), and tells what they counted.
//!
//! Knows nothing of HTTP, of Kubernetes or of the proxy beyond its listening sockets.

mod error;
mod object;
mod settings;
mod start;
mod status;
mod trace;

pub use error::L4Error;
pub use object::object;
pub use settings::{Attach, Mode, Settings, SteeringSocket};
pub use start::{L4, Outcome};
pub use status::{Attachment, Counters, FrontendStatus, Hook, MapStatus, ProgramStatus, Status};
pub use trace::{TraceFilter, TraceLines};
