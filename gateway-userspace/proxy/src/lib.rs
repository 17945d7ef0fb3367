//! Sluice's L7 engine: takes connections, terminates TLS, speaks HTTP/1.1 and HTTP/2, routes by the
//! snapshot it was last given, and drives backends. Knows neither Kubernetes nor BPF.

pub mod access_log;
mod admission;
mod buffer;
pub mod clock;
mod connection;
pub mod cors;
mod datagram;
mod delegate;
mod downstream;
pub mod error;
pub mod forwarded;
pub mod h1;
pub mod head;
pub mod limits;
mod listen;
mod log;
mod origin;
mod overload;
mod proxy;
pub mod respond;
pub mod rewrite;
mod routing;
mod settings;
mod shared;
mod stats;
mod stream;
mod timers;
mod tls;
mod upstream;
mod worker;

pub use limits::Limits;
pub use listen::{ListenMode, SteeringSocket};
pub use proxy::{Applied, ListenerFailure, Proxy, StartError};
pub use settings::{AccessLogFormat, AccessLogOutput, Settings};
pub use stats::{Metric, MetricKind, Stats};
