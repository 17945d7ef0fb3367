//! Sluice's eBPF programs: `sluice_front` (XDP; the same pipeline for TC) judges packets,
//! `sluice_steer` (sk_lookup) gives connections to workers.
//!
//! They read the maps of gateway-common and write nothing but counters; no packet is ever changed.
#![no_std]
#![no_main]

mod front;
mod frontend;
mod guard;
mod maps;
mod packet;
mod sk_lookup;
mod sockets;
mod tc;
mod trace;
mod verdict;
mod xdp;
mod zero;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses programs that could get here.
    loop {}
}

/// `bpf_sk_release`, `bpf_sk_assign` and `bpf_skb_pull_data` are open to every licence; the trace's ring
/// buffer and clock are too. The kernel wants a text all the same.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
