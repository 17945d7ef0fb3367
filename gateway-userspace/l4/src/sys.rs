//! The few bpf(2) commands for links that aya has no plain form of, and the system calls beside them.
//!
//! aya attaches XDP by netlink when a link is refused; such an attachment outlives its process. Here
//! a link is created or the kernel's answer is returned.
#![allow(
    unsafe_code,
    reason = "raw bpf(2), mount(2), statfs(2), flock(2) and membarrier(2)"
)]

use std::ffi::CString;
use std::io;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

// linux v6.6 include/uapi/linux/bpf.h, enum bpf_cmd and enum bpf_attach_type.
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;
const BPF_SK_LOOKUP: u32 = 36;
const BPF_XDP: u32 = 37;
const BPF_TCX_INGRESS: u32 = 46;
const BPF_F_BEFORE: u32 = 1 << 3;
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const BPF_LINK_TYPE_NETNS: u32 = 5;
const BPF_LINK_TYPE_XDP: u32 = 6;
const BPF_LINK_TYPE_TCX: u32 = 11;
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// What a link holds a program on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// XDP of an interface, in the driver.
    XdpNative(u32),
    /// XDP of an interface, in the stack.
    XdpGeneric(u32),
    /// TC ingress of an interface, first in the chain.
    Tcx(u32),
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// The program's id.
    pub program_id: u32,
    /// Where it hangs.
    pub place: Place,
}

/// Where a link hangs; an index or inode of 0 is a place that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// XDP of this interface.
    Xdp(u32),
    /// TC of this interface.
    Tcx(u32),
    /// The network namespace with this inode.
    Netns(u32),
    /// Something else.
    Other,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkCreate {
    prog_fd: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
    relative_fd: u32,
    padding: u32,
    expected_revision: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct LinkUpdate {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Object {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct InfoByFd {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// `struct bpf_link_info`: the head, and the first words of the union.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    padding: u32,
    /// `xdp.ifindex`, `tcx.ifindex` or `netns.netns_ino`.
    target: u32,
    rest: [u32; 11],
}

/// Attaches a program to an interface by a link.
pub fn link_interface(program: BorrowedFd<'_>, target: Target) -> io::Result<OwnedFd> {
    let (ifindex, attach_type, flags) = match target {
        Target::XdpNative(ifindex) => (ifindex, BPF_XDP, XDP_FLAGS_DRV_MODE),
        Target::XdpGeneric(ifindex) => (ifindex, BPF_XDP, XDP_FLAGS_SKB_MODE),
        Target::Tcx(ifindex) => (ifindex, BPF_TCX_INGRESS, BPF_F_BEFORE),
    };
    link(program, ifindex, attach_type, flags)
}

/// Attaches a program to a network namespace's socket lookup by a link.
pub fn link_netns(program: BorrowedFd<'_>, netns: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    link(program, netns.as_raw_fd().cast_unsigned(), BPF_SK_LOOKUP, 0)
}

fn link(program: BorrowedFd<'_>, target: u32, attach_type: u32, flags: u32) -> io::Result<OwnedFd> {
    let attr = LinkCreate {
        prog_fd: raw(program),
        target,
        attach_type,
        flags,
        ..Zeroable::zeroed()
    };
    bpf(BPF_LINK_CREATE, &attr).map(owned)
}

/// Puts another program in a link's place, atomically.
pub fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate {
        link_fd: raw(link),
        new_prog_fd: raw(program),
        ..Zeroable::zeroed()
    };
    bpf(BPF_LINK_UPDATE, &attr).map(drop)
}

/// Asks about a link.
pub fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = RawLinkInfo::default();
    let attr = InfoByFd {
        bpf_fd: raw(link),
        info_len: size_of::<RawLinkInfo>() as u32,
        info: (&raw mut info).expose_provenance() as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attr)?;
    let place = match info.kind {
        BPF_LINK_TYPE_XDP => Place::Xdp(info.target),
        BPF_LINK_TYPE_TCX => Place::Tcx(info.target),
        BPF_LINK_TYPE_NETNS => Place::Netns(info.target),
        _ => Place::Other,
    };
    Ok(LinkInfo {
        program_id: info.prog_id,
        place,
    })
}

/// Pins an object.
pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = Object {
        pathname: name.as_ptr().expose_provenance() as u64,
        bpf_fd: raw(object),
        file_flags: 0,
    };
    bpf(BPF_OBJ_PIN, &attr).map(drop)
}

/// Opens a pinned object.
pub fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attr = Object {
        pathname: name.as_ptr().expose_provenance() as u64,
        ..Zeroable::zeroed()
    };
    bpf(BPF_OBJ_GET, &attr).map(owned)
}

/// Refuses what is not a listening TCP socket; the kernel would take other sockets into the map, and fail to steer
/// to them.
pub fn check_listening_tcp(socket: BorrowedFd<'_>) -> io::Result<()> {
    let protocol = socket_option(socket, libc::SO_PROTOCOL)?;
    let listens = socket_option(socket, libc::SO_ACCEPTCONN)?;
    if protocol != libc::IPPROTO_TCP || listens == 0 {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    Ok(())
}

fn socket_option(socket: BorrowedFd<'_>, option: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the value and its length outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    check(result.into()).map(|_| value)
}

/// Whether a path lies on a BPF file system.
pub fn is_bpffs(path: &Path) -> io::Result<bool> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the name is terminated, the buffer is of the right type and is read after success alone.
    let magic = unsafe {
        check(libc::statfs(name.as_ptr(), stat.as_mut_ptr()).into())?;
        stat.assume_init().f_type
    };
    Ok(magic == BPF_FS_MAGIC)
}

/// Mounts a BPF file system.
pub fn mount_bpffs(path: &Path) -> io::Result<()> {
    let target = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all strings are terminated; no data is passed.
    let result = unsafe {
        libc::mount(
            c"bpf".as_ptr(),
            target.as_ptr(),
            c"bpf".as_ptr(),
            0,
            std::ptr::null(),
        )
    };
    check(result.into()).map(drop)
}

/// Locks a file or directory for this process alone, until it is closed.
pub fn lock(file: impl AsFd) -> io::Result<()> {
    // SAFETY: no memory is passed.
    check(unsafe { libc::flock(file.as_fd().as_raw_fd(), libc::LOCK_EX) }.into()).map(drop)
}

/// Whether another open file has such a lock. Who asks at the same time is not taken for one.
pub fn is_locked(file: impl AsFd) -> bool {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: no memory is passed. A lock that is got is given up when the caller closes the file.
    let result = unsafe { libc::flock(fd, libc::LOCK_SH | libc::LOCK_NB) };
    matches!(check(result.into()), Err(error) if error.raw_os_error() == Some(libc::EWOULDBLOCK))
}

/// The ports that the kernel chooses from for a connection of this network namespace; unknown, its default.
pub fn local_ports() -> RangeInclusive<u16> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let mut numbers = text.split_whitespace().filter_map(|word| word.parse().ok());
    match (numbers.next(), numbers.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 32_768..=60_999,
    }
}

/// Waits until every BPF program that runs now has ended: an RCU grace period.
pub fn wait_for_running_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: no memory is passed.
    check(unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) }).map(drop)
}

/// Lifts the limit on locked memory, which BPF maps count to before Linux 5.11. May be refused.
pub fn lift_memlock() {
    let limit = libc::rlimit {
        rlim_cur: libc::RLIM_INFINITY,
        rlim_max: libc::RLIM_INFINITY,
    };
    // SAFETY: the struct lives for the call. A refusal does not matter where memory is counted otherwise.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

fn bpf<T: Pod>(command: libc::c_int, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: attr is initialised memory of the size given; what it points to outlives the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attr, size_of::<T>()) })
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

fn owned(fd: libc::c_long) -> OwnedFd {
    // SAFETY: the kernel has just given us this descriptor.
    unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}
