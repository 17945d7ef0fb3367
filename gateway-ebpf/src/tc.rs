//! `sluice_front` on TC ingress.

use aya_ebpf::helpers::bpf_skb_pull_data;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use gateway_common::trace::HOOK_TC;

use crate::front::{PacketHook, front};
use crate::trace::Hook;

/// Bytes that all headers we read fit in, but for the longest of extension headers.
const HEADERS: u32 = 128;

/// For interfaces that XDP is not to be had on.
#[classifier]
pub fn sluice_front_tc(context: TcContext) -> i32 {
    let length = context.len();
    let readable = context.data_end() - context.data();
    if readable < HEADERS as usize && length > readable as u32 {
        // Headers may lie in page fragments; if they cannot be had, the packet reads as truncated and passes.
        // SAFETY: the context is the one we were given; packet bounds are read again below.
        unsafe { bpf_skb_pull_data(context.skb.skb, length.min(HEADERS)) };
    }
    front(&context, u64::from(length)).tc_action()
}

impl Hook for TcContext {
    const NUMBER: u8 = HOOK_TC;

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the context is the one that the program was given.
        unsafe { (*self.skb.skb).ingress_ifindex }
    }
}

impl PacketHook for TcContext {
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        // SAFETY: the context is the one that the program was given.
        let read = |field: *const u32| unsafe { field.read_volatile() } as usize;
        let skb = self.skb.skb;
        // SAFETY: no more than addresses within it.
        unsafe {
            (
                read(&raw const (*skb).data),
                read(&raw const (*skb).data_end),
            )
        }
    }
}
