//! `BPF_PROG_TEST_RUN` by hand, for programs that aya has no test run for.
#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// `struct bpf_attr`, the part for `BPF_PROG_TEST_RUN` (linux v6.6 include/uapi/linux/bpf.h).
#[repr(C)]
#[derive(Default)]
struct TestRun {
    prog_fd: u32,
    retval: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    ctx_size_in: u32,
    ctx_size_out: u32,
    ctx_in: u64,
    ctx_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Runs a program so many times over on this packet (or none) and this context (or none); what it
/// returned last, and the time of one run.
///
/// # Errors
/// What `bpf(2)` says.
pub fn test_run(
    program: impl AsFd,
    data: &[u8],
    context: &[u8],
    repeat: u32,
) -> io::Result<(u32, Duration)> {
    const BPF_PROG_TEST_RUN: libc::c_int = 10;
    let address = |bytes: &[u8]| {
        if bytes.is_empty() {
            0
        } else {
            bytes.as_ptr().expose_provenance() as u64
        }
    };
    let mut attr = TestRun {
        prog_fd: program.as_fd().as_raw_fd().cast_unsigned(),
        data_size_in: data.len() as u32,
        data_in: address(data),
        ctx_size_in: context.len() as u32,
        ctx_in: address(context),
        repeat,
        ..TestRun::default()
    };
    // SAFETY: the attributes, the packet and the context outlive the call, with the sizes given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            &raw mut attr,
            size_of::<TestRun>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((attr.retval, Duration::from_nanos(attr.duration.into())))
}
