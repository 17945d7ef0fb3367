//! The control word: the one place that says which half of the tables and of the sockets is live.
//!
//! It is a single aligned `u64`, read once per packet and written in one store, so that a packet
//! sees the tables of one revision and the sockets of one process.

/// The control word in parts. Bits: 0 tables half, 1 sockets half, 2 trace on, 16-31 workers of
/// sockets half 0, 32-47 workers of sockets half 1; the rest is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Control(pub u64);

const SOCKETS_BIT: u32 = 1;
const TRACE_BIT: u32 = 2;
const WORKERS_SHIFT: u32 = 16;

impl Control {
    /// Which half of the frontends and policies is live: 0 or 1.
    #[inline(always)]
    #[must_use]
    pub const fn tables(self) -> u8 {
        (self.0 & 1) as u8
    }

    /// Which half of the socket map is live: 0 or 1.
    #[inline(always)]
    #[must_use]
    pub const fn sockets(self) -> u32 {
        ((self.0 >> SOCKETS_BIT) & 1) as u32
    }

    /// Whether verdicts are compared with the trace filter.
    #[inline(always)]
    #[must_use]
    pub const fn tracing(self) -> bool {
        self.0 & (1 << TRACE_BIT) != 0
    }

    /// How many workers have sockets in this half; 0 before the first take-over.
    #[inline(always)]
    #[must_use]
    pub const fn workers(self, half: u32) -> u32 {
        ((self.0 >> (WORKERS_SHIFT + 16 * (half & 1))) & 0xffff) as u32
    }

    /// The same word with the other half of the tables live.
    #[must_use]
    pub const fn with_tables(self, half: u8) -> Self {
        Self((self.0 & !1) | (half & 1) as u64)
    }

    /// The same word with this half of the sockets live, filled by so many workers.
    #[must_use]
    pub const fn with_sockets(self, half: u32, workers: u16) -> Self {
        let shift = WORKERS_SHIFT + 16 * (half & 1);
        let live = (self.0 & !(1 << SOCKETS_BIT)) | (((half & 1) as u64) << SOCKETS_BIT);
        Self((live & !(0xffff << shift)) | ((workers as u64) << shift))
    }

    /// The same word with the trace on or off.
    #[must_use]
    pub const fn with_tracing(self, on: bool) -> Self {
        Self((self.0 & !(1 << TRACE_BIT)) | ((on as u64) << TRACE_BIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_disturb_each_other() {
        let word = Control::default()
            .with_sockets(1, 4)
            .with_tables(1)
            .with_tracing(true)
            .with_sockets(0, 65535);
        assert_eq!(
            (word.tables(), word.sockets(), word.tracing()),
            (1, 0, true)
        );
        assert_eq!((word.workers(0), word.workers(1)), (65535, 4));
        let back = word.with_tables(0).with_tracing(false).with_sockets(1, 0);
        assert_eq!(
            (back.tables(), back.sockets(), back.tracing()),
            (0, 1, false)
        );
        assert_eq!((back.workers(0), back.workers(1)), (65535, 0));
    }
}
