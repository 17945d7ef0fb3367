//! The filter of the packet trace.

use bytemuck::{Pod, Zeroable};

use crate::frontend::Address;

/// Events that one CPU may log per second; what is over is counted by `trace_suppressed`.
pub const EVENTS_PER_SECOND: u64 = 1000;

/// Value of [`crate::maps::TRACE`]: which packets are logged while the control word says so.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TraceFilter {
    /// The remote address; all zero means every one.
    pub peer: Address,
    /// The local port in network byte order; 0 means every one.
    pub port: u16,
    /// Zero.
    pub reserved: [u8; 6],
}

/// Value of [`crate::maps::TRACE_BUDGET`], per CPU: `[second the budget is for, events spent]`.
pub type TraceBudget = [u64; 2];
