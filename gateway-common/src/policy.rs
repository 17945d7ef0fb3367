//! Source policies as longest-prefix tables.
//!
//! A policy's lists (any number of allow and deny lists, in any overlap) are compiled to prefixes
//! whose value is the outcome for sources that no longer prefix covers, so that one lookup decides.

use bytemuck::{Pod, Zeroable};

use crate::frontend::Address;

/// Bits of [`PolicyKey`] before the address: half and policy, always compared in full.
pub const POLICY_FIXED_BITS: u32 = 64;

/// Data of a key of [`crate::maps::POLICIES`]; the kernel's `bpf_lpm_trie_key` puts the prefix length
/// before it: [`POLICY_FIXED_BITS`] plus the bits of the address (IPv4 counted within its mapped form: 96 + n).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct PolicyKey {
    /// The table half this entry belongs to: 0 or 1.
    pub half: u32,
    /// The policy, as in [`crate::FrontendValue::policy`].
    pub policy: u32,
    /// The source.
    pub source: Address,
}
