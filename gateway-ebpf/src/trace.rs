//! The packet trace: off, it costs one bit test of the control word; on, each verdict that the filter
//! covers becomes one record of aya-log, up to a limit per second and CPU.
//!
//! A record is a `TraceRecord` in hexadecimal: formatting single fields here would cost the verifier five times
//! the steps of all the rest.

use aya_ebpf::EbpfContext;
use aya_ebpf::helpers::bpf_ktime_get_ns;
use aya_log_ebpf::info;
use gateway_common::trace::EVENTS_PER_SECOND;
use gateway_common::{Reason, TraceRecord};

use crate::maps;
use crate::packet::Flow;

/// What a program runs on.
pub trait Hook: EbpfContext {
    /// `gateway_common::trace::HOOK_*`.
    const NUMBER: u8;

    /// The interface; 0 where there is none.
    fn ifindex(&self) -> u32;
}

/// Logs a packet's verdict if the filter covers it.
#[inline(never)]
pub fn packet<H: Hook>(context: &H, flow: &Flow, reason: Reason) {
    if !covers(flow, reason) || !affordable() {
        return;
    }
    let record = TraceRecord {
        source: flow.source,
        destination: flow.destination,
        source_port: flow.source_port,
        destination_port: flow.destination_port,
        protocol: flow.protocol,
        hook: H::NUMBER,
        reserved: [0; 2],
        reason: reason.0,
        ifindex: context.ifindex(),
    };
    // SAFETY: the record has no padding, as bytemuck::Pod proves.
    let bytes: [u8; size_of::<TraceRecord>()] = unsafe { core::mem::transmute(record) };
    info!(context, "{:x}", &bytes[..]);
}

/// Of an ICMP error the flow is what the error is about, which went from us to the peer.
#[inline(always)]
fn covers(flow: &Flow, reason: Reason) -> bool {
    let Some(filter) = maps::trace_filter() else {
        return false;
    };
    let (peer, port) = if reason == Reason::ICMP_ERROR {
        (flow.destination, flow.source_port)
    } else {
        (flow.source, flow.destination_port)
    };
    let any_peer = filter.peer == [0; 4];
    (any_peer || filter.peer == peer) && (filter.port == 0 || filter.port == port)
}

#[inline(always)]
fn affordable() -> bool {
    let Some(budget) = maps::trace_budget() else {
        return false;
    };
    // SAFETY: a helper without arguments.
    let second = unsafe { bpf_ktime_get_ns() } / 1_000_000_000;
    if budget[0] != second {
        *budget = [second, 0];
    }
    if budget[1] >= EVENTS_PER_SECOND {
        maps::count(Reason::TRACE_SUPPRESSED);
        return false;
    }
    budget[1] += 1;
    true
}
