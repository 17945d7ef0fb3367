//! Frontends: the addresses and ports that connections are taken from.

use bytemuck::{Pod, Zeroable};

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form (`::ffff:a.b.c.d`), as four words in
/// network byte order. One form for both families makes one table serve both.
pub type Address = [u32; 4];

/// The address of a frontend that answers on every address of the node.
pub const ANY_ADDRESS: Address = [0; 4];

/// The port of an entry that stands for a whole address: what a fragment without a transport
/// header is looked up by.
pub const ANY_PORT: u16 = 0;

/// The third word of an IPv4-mapped address.
pub const MAPPED_PREFIX: u32 = 0xffff_u32.to_be();

/// IPv4-mapped form of an IPv4 address (a word in network byte order).
#[inline(always)]
#[must_use]
pub const fn mapped(v4: u32) -> Address {
    [0, 0, MAPPED_PREFIX, v4]
}

/// Whether this is an IPv4-mapped address.
#[inline(always)]
#[must_use]
pub const fn is_mapped(address: Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED_PREFIX
}

/// Key of [`crate::maps::FRONTENDS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct FrontendKey {
    /// The address, or [`ANY_ADDRESS`].
    pub address: Address,
    /// The port in network byte order, or [`ANY_PORT`].
    pub port: u16,
    /// The IP protocol: 6 or 17.
    pub protocol: u8,
    /// The table half this entry belongs to: 0 or 1.
    pub half: u8,
}

/// Connections go to a worker of the proxy on this node; the only mode so far, and 0, so that a
/// zeroed value is never something else.
pub const MODE_PROXY: u8 = 0;

/// [`FrontendValue::policy`] of a frontend that everyone may reach.
pub const NO_POLICY: u32 = 0;

/// Value of [`crate::maps::FRONTENDS`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct FrontendValue {
    /// Index into [`crate::maps::FRONTEND_COUNTERS`]; stays with the frontend over revisions.
    pub slot: u32,
    /// The policy that its sources are looked up in, or [`NO_POLICY`].
    pub policy: u32,
    /// [`crate::Reason`] for a source that no prefix of the policy covers.
    pub default_reason: u32,
    /// How connections are served: [`MODE_PROXY`].
    pub mode: u8,
    /// 1 if this node may dial from the port, so that the policy judges only what opens a connection; else 0.
    pub dials: u8,
    /// Zero.
    pub reserved: [u8; 2],
}
