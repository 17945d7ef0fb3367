//! `sluice_front` on XDP.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use gateway_common::trace::HOOK_XDP;

use crate::front::front;
use crate::trace::Program;

/// For drivers that hand over a packet as one buffer.
#[xdp]
pub fn sluice_front(context: XdpContext) -> u32 {
    let length = context.data_end() - context.data();
    run(&context, length as u64)
}

/// For drivers that may hand it over in fragments (Linux 5.18); the headers are in the first.
#[xdp(frags)]
pub fn sluice_front_mb(context: XdpContext) -> u32 {
    // SAFETY: the context is the one we were given.
    let length = unsafe { bpf_xdp_get_buff_len(context.ctx.cast::<xdp_md>()) };
    run(&context, length)
}

#[inline(always)]
fn run(context: &XdpContext, length: u64) -> u32 {
    let program = Program {
        context,
        hook: HOOK_XDP,
        ifindex: context.ingress_ifindex() as u32,
    };
    front(&program, (context.data(), context.data_end()), length).xdp_action()
}
