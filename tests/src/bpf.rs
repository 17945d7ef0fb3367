//! Two commands of bpf(2) by hand: test runs of programs that aya has none for, and programs of two instructions.
#![expect(unsafe_code, reason = "bpf(2) has no safe form")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
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

/// What a program that does nothing is loaded as.
#[derive(Clone, Copy, Debug)]
pub enum Noop {
    /// XDP; passes.
    Xdp,
    /// TC; next.
    Tc,
    /// Socket lookup; passes.
    SkLookup,
}

/// Loads a program that does nothing.
///
/// # Errors
/// What `bpf(2)` says.
pub fn noop(kind: Noop, name: &str) -> io::Result<OwnedFd> {
    const BPF_PROG_LOAD: libc::c_int = 5;
    const MOVE_TO_R0: u64 = 0xb7;
    const EXIT: u64 = 0x95;
    // linux v6.6 include/uapi/linux/bpf.h: program type, attach type, and the value that passes.
    let (program_type, attach_type, value) = match kind {
        Noop::Xdp => (6, 0, 2_u32),
        Noop::Tc => (3, 0, u32::MAX),
        Noop::SkLookup => (30, 36, 1),
    };
    let instructions = [u64::from(value) << 32 | MOVE_TO_R0, EXIT];
    let mut attr = Load {
        program_type,
        instruction_count: 2,
        instructions: instructions.as_ptr().expose_provenance() as u64,
        license: c"GPL".as_ptr().expose_provenance() as u64,
        expected_attach_type: attach_type,
        ..Load::default()
    };
    let length = name.len().min(15);
    attr.name[..length].copy_from_slice(&name.as_bytes()[..length]);
    // SAFETY: the attributes and what they point to outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_LOAD,
            &raw const attr,
            size_of::<Load>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just given us this descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(result as libc::c_int) })
}

/// Pins an object.
///
/// # Errors
/// What `bpf(2)` says.
pub fn pin(object: impl AsFd, path: &Path) -> io::Result<()> {
    const BPF_OBJ_PIN: libc::c_int = 6;
    let name = CString::new(path.display().to_string())?;
    let fd = object.as_fd().as_raw_fd().cast_unsigned();
    let attr = [name.as_ptr().expose_provenance() as u64, u64::from(fd)];
    // SAFETY: the attributes and the name outlive the call.
    if unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, &raw const attr, 16) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// `struct bpf_attr`, the part for `BPF_PROG_LOAD`.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}
