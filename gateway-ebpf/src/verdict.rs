//! The one verdict, and the one place where it becomes what a hook returns.

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, xdp_action};
use gateway_common::Reason;

use crate::maps;

/// What becomes of a packet.
#[derive(Clone, Copy)]
pub enum Verdict {
    /// To the stack, untouched.
    Pass,
    /// Nowhere.
    Drop,
}

impl Verdict {
    /// Counts the reason and says what it means.
    #[inline(always)]
    pub fn counted(reason: Reason) -> Self {
        maps::count(reason);
        if reason.drops() {
            Self::Drop
        } else {
            Self::Pass
        }
    }

    /// For XDP.
    #[inline(always)]
    pub fn xdp_action(self) -> u32 {
        match self {
            Self::Pass => xdp_action::XDP_PASS,
            Self::Drop => xdp_action::XDP_DROP,
        }
    }

    /// For TC, by tcx or clsact alike: "unspec" is tcx's "next", so that other programs have their say.
    #[inline(always)]
    pub fn tc_action(self) -> i32 {
        match self {
            Self::Pass => TC_ACT_UNSPEC,
            Self::Drop => TC_ACT_SHOT,
        }
    }
}
