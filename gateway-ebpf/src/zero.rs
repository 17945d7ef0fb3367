//! What keeps the verifier's work small.

use gateway_common::{Control, Reason};

/// A zero that neither the compiler nor the verifier can know to be one.
///
/// The verifier walks on from every distinct value that it knows of; mixed with an unknown, offsets and
/// reasons of all paths are one value to it, and the paths end where they meet. Without, the programs take it
/// 340 000 steps, with it a few thousand.
#[derive(Clone, Copy)]
pub struct Zero(u64);

impl Zero {
    /// From the unused bits of the control word.
    #[inline(always)]
    pub fn new(control: Control) -> Self {
        Self(control.0 >> 48)
    }

    /// It.
    #[inline(always)]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The same reason.
    #[inline(always)]
    pub fn blur_reason(self, reason: Reason) -> Reason {
        const MASK: usize = 31;
        const _: () = assert!(Reason::COUNT as usize <= MASK + 1);
        Reason(self.blur(reason.0 as usize, MASK) as u32)
    }

    /// The same value, of which all that is known is that it has no bits outside the mask.
    #[inline(always)]
    pub fn blur(self, value: usize, mask: usize) -> usize {
        (value ^ self.0 as usize) & mask
    }
}
