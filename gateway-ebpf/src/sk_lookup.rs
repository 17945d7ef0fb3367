//! `sluice_steer`: gives a connection for a frontend to a worker's socket, whatever address and port
//! that socket is bound to. What has no frontend or no socket goes the ordinary way, and so do datagrams.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{bpf_sk_lookup, sk_action};
use aya_ebpf::helpers::bpf_sk_assign;
use aya_ebpf::macros::sk_lookup;
use aya_ebpf::programs::SkLookupContext;
use gateway_common::frontend::{is_mapped, mapped};
use gateway_common::trace::HOOK_SK_LOOKUP;
use gateway_common::{Control, Reason};

use crate::packet::Flow;
use crate::trace::{self, Hook};
use crate::zero::Zero;
use crate::{frontend, maps, sockets};

const AF_INET: u32 = 2;
const UDP: u8 = 17;

/// Runs once per new connection, after established ones were looked up, and once per datagram.
#[sk_lookup]
pub fn sluice_steer(context: SkLookupContext) -> u32 {
    let control = maps::control();
    let flow = flow(&context);
    let reason = match flow.protocol {
        UDP => Reason::STEER_DATAGRAM,
        _ => steer(&context, control, &flow),
    };
    let reason = Zero::new(control).blur_reason(reason);
    if control.tracing() {
        trace::packet(&context, &flow, reason);
    }
    maps::count(reason);
    sk_action::SK_PASS
}

/// Gives a connection to a worker, if it is for a frontend.
#[inline(always)]
fn steer(context: &SkLookupContext, control: Control, flow: &Flow) -> Reason {
    let found = frontend::find(
        control,
        flow.destination,
        flow.destination_port,
        flow.protocol,
    );
    let Some(found) = found else {
        return Reason::STEER_NOT_OURS;
    };
    let v6 = !is_mapped(flow.destination);
    let steered = sockets::find(control, v6, |socket| {
        // SAFETY: the context is the one we were given, the socket a live reference.
        unsafe { bpf_sk_assign(context.as_ptr(), socket.as_ptr(), 0) == 0 }
    });
    let Some(passed_over) = steered else {
        return Reason::STEER_NO_SOCKET;
    };
    hit(found.value.slot);
    match passed_over {
        0 => Reason::STEERED,
        _ => Reason::STEERED_NEXT,
    }
}

impl Hook for SkLookupContext {
    const NUMBER: u8 = HOOK_SK_LOOKUP;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        0
    }
}

#[inline(always)]
fn hit(slot: u32) {
    if let Some(counters) = maps::frontend_counters(slot) {
        counters.steered += 1;
    }
}

#[inline(always)]
fn flow(context: &SkLookupContext) -> Flow {
    let lookup: *const bpf_sk_lookup = context.lookup;
    // Every field is read whatever the family, each at its own offset, which is all that the verifier allows;
    // what the family has not reads as zero.
    // SAFETY: the kernel gives a valid context.
    unsafe {
        let word = |field: *const u32| field.read_volatile();
        let words = |field: *const [u32; 4]| {
            let first = field.cast::<u32>();
            [
                word(first),
                word(first.add(1)),
                word(first.add(2)),
                word(first.add(3)),
            ]
        };
        let v4 = (
            word(&raw const (*lookup).remote_ip4),
            word(&raw const (*lookup).local_ip4),
        );
        let v6 = (
            words(&raw const (*lookup).remote_ip6),
            words(&raw const (*lookup).local_ip6),
        );
        let (source, destination) = if word(&raw const (*lookup).family) == AF_INET {
            (mapped(v4.0), mapped(v4.1))
        } else {
            v6
        };
        Flow {
            source,
            destination,
            source_port: (&raw const (*lookup).remote_port).read_volatile() as u16,
            destination_port: (word(&raw const (*lookup).local_port) as u16).to_be(),
            protocol: word(&raw const (*lookup).protocol) as u8,
            opens_nothing: 0,
            reserved: [0; 2],
        }
    }
}
