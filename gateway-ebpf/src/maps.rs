//! The maps of `gateway_common::maps`, and plain reads and counts on them.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_map_lookup_elem;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, PerCpuArray, SockMap};
use gateway_common::frontend::Address;
use gateway_common::maps as abi;
use gateway_common::policy::POLICY_FIXED_BITS;
use gateway_common::trace::TraceBudget;
use gateway_common::{
    Control, FrontendCounters, FrontendKey, FrontendValue, PolicyKey, Reason, TraceFilter,
};

#[map]
static FRONTENDS: HashMap<FrontendKey, FrontendValue> =
    HashMap::with_max_entries(abi::FRONTENDS_MAX, 0);
#[map]
static POLICIES: LpmTrie<PolicyKey, u32> = LpmTrie::with_max_entries(abi::POLICIES_MAX, 0);
#[map]
static NODE_ADDRESSES: HashMap<Address, u32> =
    HashMap::with_max_entries(abi::NODE_ADDRESSES_MAX, 0);
#[map]
pub static SOCKETS: SockMap = SockMap::with_max_entries(abi::SOCKETS_MAX, 0);
#[map]
static CONTROL: Array<u64> = Array::with_max_entries(1, 0);
#[map]
static REASONS: PerCpuArray<u64> = PerCpuArray::with_max_entries(Reason::COUNT, 0);
#[map]
static FRONTEND_COUNTERS: PerCpuArray<FrontendCounters> =
    PerCpuArray::with_max_entries(abi::FRONTEND_SLOTS, 0);
#[map]
static TRACE: Array<TraceFilter> = Array::with_max_entries(1, 0);
#[map]
static TRACE_BUDGET: PerCpuArray<TraceBudget> = PerCpuArray::with_max_entries(1, 0);

/// A key of `POLICIES` as the kernel wants it, from `bits` on. The stack allows aligned accesses alone, and the
/// compiler writes words in pairs.
#[repr(C, align(8))]
struct Prefixed {
    unused: u32,
    bits: u32,
    key: PolicyKey,
}

/// The control word; read once per packet, so that a packet sees one revision.
#[inline(always)]
pub fn control() -> Control {
    // SAFETY: the value is an aligned u64 that userspace replaces as a whole; volatile keeps the
    // compiler from reading it twice.
    Control(
        CONTROL
            .get_ptr(0)
            .map_or(0, |word| unsafe { word.read_volatile() }),
    )
}

/// The frontend with exactly this key.
#[inline(always)]
pub fn frontend(key: &FrontendKey) -> Option<FrontendValue> {
    // SAFETY: entries of the live half are not changed; a reader that is overtaken by two flips sees
    // another frontend's value at worst, for one packet.
    unsafe { FRONTENDS.get(key) }.copied()
}

/// What the policy says about a source, if a prefix covers it.
#[inline(always)]
pub fn policy(half: u8, policy: u32, source: Address) -> Option<Reason> {
    let key = PolicyKey {
        half: u32::from(half),
        policy,
        source,
    };
    let prefixed = Prefixed {
        unused: 0,
        bits: POLICY_FIXED_BITS + 128,
        key,
    };
    let map = (&raw const POLICIES).cast_mut().cast::<c_void>();
    // SAFETY: the map's key is a bits word followed by PolicyKey, its value a u32.
    let value = unsafe {
        bpf_map_lookup_elem(map, (&raw const prefixed.bits).cast())
            .cast::<u32>()
            .as_ref()
    };
    value.map(|reason| Reason(*reason))
}

/// Whether an address is one of this node's.
#[inline(always)]
pub fn is_node_address(address: &Address) -> bool {
    NODE_ADDRESSES.get_ptr(address).is_some()
}

/// Counts one packet or connection.
#[inline(always)]
pub fn count(reason: Reason) {
    if let Some(count) = REASONS.get_ptr_mut(reason.0) {
        // SAFETY: a per-CPU value; programs are not preempted by others that write it on this CPU
        // but for an interrupt's, which may cost one count.
        unsafe { *count += 1 }
    }
}

/// This CPU's counters of a frontend.
#[inline(always)]
pub fn frontend_counters(slot: u32) -> Option<&'static mut FrontendCounters> {
    // SAFETY: as for `count`; the reference does not outlive the program's run.
    FRONTEND_COUNTERS
        .get_ptr_mut(slot)
        .map(|counters| unsafe { &mut *counters })
}

/// The trace filter.
#[inline(always)]
pub fn trace_filter() -> Option<&'static TraceFilter> {
    TRACE.get(0)
}

/// This CPU's trace budget.
#[inline(always)]
pub fn trace_budget() -> Option<&'static mut TraceBudget> {
    // SAFETY: as for `count`.
    TRACE_BUDGET
        .get_ptr_mut(0)
        .map(|budget| unsafe { &mut *budget })
}
