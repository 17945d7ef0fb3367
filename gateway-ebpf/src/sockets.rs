//! The workers' listening sockets.

use core::ffi::c_void;
use core::ptr::NonNull;

use aya_ebpf::bindings::bpf_sock;
use aya_ebpf::helpers::{bpf_get_smp_processor_id, bpf_map_lookup_elem, bpf_sk_release};
use gateway_common::Control;
use gateway_common::maps::{STEER_ATTEMPTS, WORKERS_MAX, socket_index};

use crate::maps::SOCKETS;
use crate::zero::Zero;

/// A reference to a socket, given back when dropped.
pub struct Socket(NonNull<bpf_sock>);

impl Socket {
    #[inline(always)]
    fn at(index: u32) -> Option<Self> {
        let map = (&raw const SOCKETS).cast_mut().cast::<c_void>();
        // SAFETY: the map's key is a u32; the kernel takes a reference for us, given back by `drop`.
        let socket = unsafe { bpf_map_lookup_elem(map, (&raw const index).cast()) };
        NonNull::new(socket.cast()).map(Self)
    }

    /// For helpers.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr().cast()
    }
}

impl Drop for Socket {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: the reference is ours and is given back once.
        unsafe { bpf_sk_release(self.as_ptr()) };
    }
}

/// The first socket that `take` accepts: that of the worker of this CPU (CPU modulo workers), else those of the
/// workers after it, up to `STEER_ATTEMPTS`. Says how many were passed over.
#[inline(always)]
pub fn find(control: Control, v6: bool, mut take: impl FnMut(&Socket) -> bool) -> Option<u32> {
    let half = control.sockets();
    let workers = control.workers(half);
    let zero = Zero::new(control);
    if workers == 0 {
        return None;
    }
    // SAFETY: a helper without arguments.
    let mut worker = unsafe { bpf_get_smp_processor_id() } % workers;
    for attempt in 0..STEER_ATTEMPTS {
        if let Some(socket) = Socket::at(socket_index(half, v6, worker % WORKERS_MAX))
            && take(&socket)
        {
            return Some(attempt);
        }
        worker += 1;
        if worker >= workers {
            worker = 0;
        }
        worker = zero.blur(worker as usize, WORKERS_MAX as usize - 1) as u32;
    }
    None
}

/// Whether somebody accepts connections.
#[inline(always)]
pub fn any_alive(control: Control, v6: bool) -> bool {
    find(control, v6, |_| true).is_some()
}
