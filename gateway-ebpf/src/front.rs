//! The pipeline of every packet: parse, find the frontend, ask its policy, count, say so if traced.

use core::mem::MaybeUninit;

use gateway_common::{Control, FrontendValue, Reason};

use crate::packet::{self, Flow, Kind};
use crate::trace::{self, Hook};
use crate::verdict::Verdict;
use crate::zero::Zero;
use crate::{frontend, guard, maps};

/// A hook that has a packet.
pub trait PacketHook: Hook {
    /// Where the part of the packet that can be read begins and ends.
    fn bounds(&self) -> (usize, usize);
}

/// Judges one packet of `length` bytes on the wire.
#[inline(always)]
pub fn front(context: &impl PacketHook, length: u64) -> Verdict {
    let control = maps::control();
    let zero = Zero::new(control);
    let mut place = MaybeUninit::uninit();
    let flow = Flow::unknown(&mut place, zero);
    let found = match packet::parse(|| context.bounds(), zero, flow) {
        Ok(Kind::Transport) => transport(control, flow),
        Ok(Kind::LaterFragment) => later_fragment(control, flow),
        Ok(Kind::IcmpError) => Err(icmp_error(control, flow)),
        Err(reason) => Err(reason),
    };
    let reason = match &found {
        Ok(frontend) => guard::source_policy(control, frontend, flow),
        Err(reason) => *reason,
    };
    let reason = zero.blur_reason(reason);
    if let Ok(frontend) = &found {
        hit(frontend, reason, length);
    }
    if control.tracing() {
        trace::packet(context, flow, reason);
    }
    Verdict::counted(reason)
}

/// The frontend of a packet with ports.
#[inline(always)]
fn transport(control: Control, flow: &Flow) -> Result<FrontendValue, Reason> {
    let found = frontend::find(
        control,
        flow.destination,
        flow.destination_port,
        flow.protocol,
    );
    let found = found.ok_or(Reason::NOT_OURS)?;
    // "Every address" means those of this node, not of hosts that it forwards to.
    if found.any_address && !maps::is_node_address(&flow.destination) {
        return Err(Reason::NOT_LOCAL);
    }
    Ok(found.value)
}

/// What stands for all frontends of an address, if it is all ours: a later fragment has no port. The policy of
/// that entry denies what each of them denies; everything else is decided by the first fragment.
#[inline(always)]
fn later_fragment(control: Control, flow: &Flow) -> Result<FrontendValue, Reason> {
    frontend::whole_address(control, flow.destination, flow.protocol).ok_or(Reason::LATER_FRAGMENT)
}

/// An error about a packet of ours always passes; it is told apart for the counters alone.
#[inline(always)]
fn icmp_error(control: Control, flow: &Flow) -> Reason {
    match frontend::find(control, flow.source, flow.source_port, flow.protocol) {
        Some(_) => Reason::ICMP_ERROR,
        None => Reason::ICMP,
    }
}

#[inline(always)]
fn hit(frontend: &FrontendValue, reason: Reason, length: u64) {
    let Some(counters) = maps::frontend_counters(frontend.slot) else {
        return;
    };
    if reason.drops() {
        counters.dropped_packets += 1;
    } else {
        counters.passed_packets += 1;
        counters.passed_bytes += length;
    }
}
