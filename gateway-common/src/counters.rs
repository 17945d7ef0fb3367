//! What is counted per frontend.

use bytemuck::{Pod, Zeroable};

/// Value of [`crate::maps::FRONTEND_COUNTERS`]: one CPU's counts for one frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FrontendCounters {
    /// Packets let through to the stack.
    pub passed_packets: u64,
    /// Bytes of those, link layer included.
    pub passed_bytes: u64,
    /// Packets dropped by the source policy.
    pub dropped_packets: u64,
    /// Connections handed to a worker's socket.
    pub steered: u64,
}
