//! `aya::Pod` for the types that stand in maps; it rests on `bytemuck::Pod`.
#![cfg(feature = "user")]
#![allow(
    unsafe_code,
    reason = "aya::Pod is an unsafe marker; each type is bytemuck::Pod, which proves the same"
)]

use crate::{FrontendCounters, FrontendKey, FrontendValue, PolicyKey, TraceFilter};

macro_rules! pod {
    ($($name:ty),+ $(,)?) => {$(
        const _: () = {
            const fn assert_pod<T: bytemuck::Pod>() {}
            assert_pod::<$name>();
        };
        // SAFETY: bytemuck::Pod, asserted above, says that every byte pattern is valid and that
        // there is no padding.
        unsafe impl aya::Pod for $name {}
    )+};
}

pod!(
    FrontendCounters,
    FrontendKey,
    FrontendValue,
    PolicyKey,
    TraceFilter
);
