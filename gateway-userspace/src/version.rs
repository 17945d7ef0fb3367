//! Which build this is.

/// The version.
pub const LONG: &str = env!("CARGO_PKG_VERSION");

/// Whether the packet path's object is in this build.
pub fn has_ebpf() -> bool {
    gateway_l4::object().is_some()
}
