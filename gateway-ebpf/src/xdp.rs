//! `sluice_front` on XDP.

use core::hint::black_box;

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::bpf_xdp_get_buff_len;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use gateway_common::trace::HOOK_XDP;

use crate::front::{PacketHook, front};
use crate::trace::Hook;

/// For drivers that hand over a packet as one buffer.
#[xdp]
pub fn sluice_front(context: XdpContext) -> u32 {
    let (start, end) = context.bounds();
    // Computed now, or the verifier would carry both addresses to where it is counted.
    run(&context, black_box((end - start) as u64))
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
    front(context, length).xdp_action()
}

impl Hook for XdpContext {
    const NUMBER: u8 = HOOK_XDP;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.ingress_ifindex() as u32
    }
}

impl PacketHook for XdpContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is the one that the program was given.
        let read = |field: *const u32| unsafe { field.read_volatile() } as usize;
        // SAFETY: no more than addresses within it.
        unsafe {
            (
                read(&raw const (*self.ctx).data),
                read(&raw const (*self.ctx).data_end),
            )
        }
    }
}
