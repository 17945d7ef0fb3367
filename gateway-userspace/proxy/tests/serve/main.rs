//! The engine over real sockets on loopback: scripted backends, raw clients, real snapshots.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod access_log;
mod applying;
mod client_certificates;
mod datagrams;
mod draining;
mod grpc;
mod http1;
mod http2;
mod http2_limits;
mod http2_streams;
mod http2_upstreams;
mod limits;
mod local_answers;
mod mirrors;
mod refusals;
mod retries;
mod streams;
mod support;
mod tls;
mod tls_upstreams;
mod upgrades;
mod upstreams;
