//! The maps: name, limit, key → value, who writes, who reads, what happens when one is full.
//!
//! All are pinned below `PIN_DIR/net-<network namespace>/v<layout>/` and shared by a process and its
//! successor. Userspace writes under a lock on that directory.

/// `FRONTENDS`, hash, [`crate::FrontendKey`] → [`crate::FrontendValue`].
/// Written by userspace, always in the half that is not live. Read by `front` and `steer` for every
/// packet and every connection. No eviction: a plan that does not fit is refused as a whole.
pub const FRONTENDS: &str = "FRONTENDS";
/// Entries of [`FRONTENDS`], both halves together.
pub const FRONTENDS_MAX: u32 = 2 * FRONTEND_SLOTS;

/// `POLICIES`, longest-prefix trie, [`crate::PolicyKey`] → [`crate::Reason`] as `u32`.
/// Written by userspace in the half that is not live. Read by `front` when a frontend has a policy.
/// No eviction: a plan that does not fit is refused as a whole. Memory is taken per entry.
pub const POLICIES: &str = "POLICIES";
/// Entries of [`POLICIES`], both halves together.
pub const POLICIES_MAX: u32 = 262_144;

/// `NODE_ADDRESSES`, hash, [`crate::frontend::Address`] → `u32` (unused).
/// The addresses of this node's interfaces, and those that Sluice routes to it. Written by
/// userspace when they change. Read by `front` for a frontend without an address of its own, so that
/// forwarded packets to other hosts' ports are left alone. Full: what is missing is not filtered by `front`.
pub const NODE_ADDRESSES: &str = "NODE_ADDRESSES";
/// Entries of [`NODE_ADDRESSES`].
pub const NODE_ADDRESSES_MAX: u32 = 16_384;

/// `SOCKETS`, sockmap, [`socket_index`] → a listening socket of a worker.
/// Written by userspace in the half that is not live. Read by `steer`. The kernel removes a socket when
/// its process closes it or dies.
pub const SOCKETS: &str = "SOCKETS";
/// Workers that one process may have.
pub const WORKERS_MAX: u32 = 256;
/// Entries of [`SOCKETS`]: two halves of two families.
pub const SOCKETS_MAX: u32 = 4 * WORKERS_MAX;
/// Slots that `steer` tries before it leaves a connection to the ordinary lookup.
pub const STEER_ATTEMPTS: u32 = 8;

/// `CONTROL`, array of one, 0 → [`crate::Control`] as `u64`.
/// Written by userspace: the flip. Read by every program first.
pub const CONTROL: &str = "CONTROL";

/// `REASONS`, per-CPU array, [`crate::Reason`] → packets as `u64`.
/// Written by every program, once per packet or connection. Read by userspace, never reset.
pub const REASONS: &str = "REASONS";

/// `FRONTEND_COUNTERS`, per-CPU array, [`crate::FrontendValue::slot`] → [`crate::FrontendCounters`].
/// Written by every program. Read by userspace, which zeroes a slot before it gives it to another frontend.
pub const FRONTEND_COUNTERS: &str = "FRONTEND_COUNTERS";
/// Entries of [`FRONTEND_COUNTERS`]: frontends and whole-address entries that one revision may have.
pub const FRONTEND_SLOTS: u32 = 4096;

/// `TRACE`, array of one, 0 → [`crate::TraceFilter`]. Written by userspace before it switches the
/// trace on. Read by every program while it is on.
pub const TRACE: &str = "TRACE";

/// `TRACE_BUDGET`, per-CPU array of one, 0 → [`crate::trace::TraceBudget`]. Programs only.
pub const TRACE_BUDGET: &str = "TRACE_BUDGET";

/// Every map that is pinned, in the order of this file.
pub const PINNED: [&str; 9] = [
    FRONTENDS,
    POLICIES,
    NODE_ADDRESSES,
    SOCKETS,
    CONTROL,
    REASONS,
    FRONTEND_COUNTERS,
    TRACE,
    TRACE_BUDGET,
];

/// The program for XDP.
pub const PROGRAM_XDP: &str = "sluice_front";
/// The same for drivers that hand over packets in fragments (`xdp.frags`).
pub const PROGRAM_XDP_FRAGS: &str = "sluice_front_mb";
/// The program for TC.
pub const PROGRAM_TC: &str = "sluice_front_tc";
/// The program for `sk_lookup`.
pub const PROGRAM_STEER: &str = "sluice_steer";

/// The entry of [`SOCKETS`] for one worker and address family in one half.
#[inline(always)]
#[must_use]
pub const fn socket_index(half: u32, v6: bool, worker: u32) -> u32 {
    ((half & 1) * 2 + v6 as u32) * WORKERS_MAX + worker
}
