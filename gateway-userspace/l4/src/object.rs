//! The embedded eBPF object.

static OBJECT: Option<&[u8]> = include!(concat!(env!("OUT_DIR"), "/object.rs"));

/// The ELF object with the programs, if this build has it (`cargo xtask build-ebpf`).
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    OBJECT
}
