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

/// One traced verdict, as it travels through aya-log: the bytes of this, in hexadecimal.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct TraceRecord {
    /// Where the packet came from; for [`crate::Reason::ICMP_ERROR`] these are of the packet that the error is about.
    pub source: Address,
    /// Where it went to.
    pub destination: Address,
    /// Network byte order; 0 if unknown.
    pub source_port: u16,
    /// Network byte order; 0 if unknown.
    pub destination_port: u16,
    /// The IP protocol; 0 if unknown.
    pub protocol: u8,
    /// [`HOOK_XDP`], [`HOOK_TC`] or [`HOOK_SK_LOOKUP`].
    pub hook: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// [`crate::Reason`].
    pub reason: u32,
    /// The interface; 0 for `sk_lookup`.
    pub ifindex: u32,
}

/// [`TraceRecord::hook`] of `front` on XDP.
pub const HOOK_XDP: u8 = 1;
/// [`TraceRecord::hook`] of `front` on TC.
pub const HOOK_TC: u8 = 2;
/// [`TraceRecord::hook`] of `steer`.
pub const HOOK_SK_LOOKUP: u8 = 3;
