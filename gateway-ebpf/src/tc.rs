//! `sluice_front` on TC ingress.

use aya_ebpf::helpers::bpf_skb_pull_data;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use gateway_common::trace::HOOK_TC;

use crate::front::front;
use crate::trace::Program;

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
    // SAFETY: the context is the one we were given.
    let ifindex = unsafe { (*context.skb.skb).ingress_ifindex };
    let program = Program {
        context: &context,
        hook: HOOK_TC,
        ifindex,
    };
    front(
        &program,
        (context.data(), context.data_end()),
        u64::from(length),
    )
    .tc_action()
}
