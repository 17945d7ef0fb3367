//! The few system calls that the harness makes by itself, each behind a safe function.
#![expect(
    unsafe_code,
    reason = "libc calls and pre_exec have no safe form in std"
)]

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Moves the calling thread into a network namespace; its mount namespace stays.
///
/// # Errors
/// What `setns(2)` says.
pub fn enter_network_namespace(namespace: impl AsFd) -> io::Result<()> {
    // SAFETY: the descriptor is open for the length of the call.
    check(unsafe { libc::setns(namespace.as_fd().as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Gives the calling thread a network namespace of its own.
///
/// # Errors
/// What `unshare(2)` says.
pub fn unshare_network() -> io::Result<()> {
    // SAFETY: no pointers; the effect is on the calling thread alone.
    check(unsafe { libc::unshare(libc::CLONE_NEWNET) }).map(drop)
}

/// The network namespace of the calling thread.
///
/// # Errors
/// What `open(2)` says.
pub fn this_network_namespace() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// `mount(2)` without options.
///
/// # Errors
/// What `mount(2)` says.
pub fn mount(source: &Path, target: &Path, fs_type: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    let fs_type = CString::new(fs_type).map_err(io::Error::other)?;
    // SAFETY: three NUL-terminated strings that outlive the call, and no data.
    check(unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            fs_type.as_ptr(),
            flags,
            std::ptr::null(),
        )
    })
    .map(drop)
}

/// `umount2(2)`, detaching at once.
///
/// # Errors
/// What `umount2(2)` says.
pub fn unmount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: a NUL-terminated string that outlives the call.
    check(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) }).map(drop)
}

/// Whether the file system at `path` has this magic number.
#[must_use]
pub fn has_fs_magic(path: &Path, magic: i64) -> bool {
    let Ok(path) = c_path(path) else { return false };
    let mut stat = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: a NUL-terminated string and room for one statfs, read only after success.
    unsafe {
        libc::statfs(path.as_ptr(), stat.as_mut_ptr()) == 0 && stat.assume_init().f_type == magic
    }
}

/// Makes the child of this command die when the thread that spawns it ends.
pub fn die_with_parent(command: &mut Command) {
    // SAFETY: getpid's sibling and prctl are async-signal-safe; nothing is allocated.
    let set = || check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }).map(drop);
    // SAFETY: the closure does only what is allowed between fork and exec.
    unsafe { command.pre_exec(set) };
}

/// Starts a command in a PID namespace of its own, where its id is 1 and other processes have none.
///
/// # Errors
/// When there can be no such namespace, or the program cannot be started.
pub fn spawn_apart(command: &mut Command) -> io::Result<Child> {
    let own = File::open("/proc/thread-self/ns/pid")?;
    // SAFETY: no pointers. Only children of this thread are concerned.
    check(unsafe { libc::unshare(libc::CLONE_NEWPID) })?;
    let child = command.spawn();
    // SAFETY: the descriptor is open.
    check(unsafe { libc::setns(own.as_raw_fd(), libc::CLONE_NEWPID) })?;
    child
}

/// Makes the child of this command run as another user and group, without capabilities.
pub fn run_as(command: &mut Command, id: u32) {
    command.uid(id).gid(id);
}

/// Sends a signal to one process.
///
/// # Errors
/// What `kill(2)` says.
pub fn kill(pid: u32, signal: libc::c_int) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    // SAFETY: no pointers.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Whether a process with this id exists.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    match kill(pid, 0) {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(libc::EPERM),
    }
}

/// The process id on the other side of a Unix socket, as it was when it listened or connected.
///
/// # Errors
/// What `getsockopt(2)` says.
pub fn peer_pid(socket: impl AsFd) -> io::Result<u32> {
    let mut credentials = libc::ucred {
        pid: 0,
        uid: 0,
        gid: 0,
    };
    let mut length =
        libc::socklen_t::try_from(size_of::<libc::ucred>()).map_err(io::Error::other)?;
    // SAFETY: room for one ucred, and its length.
    check(unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut credentials).cast(),
            &raw mut length,
        )
    })?;
    u32::try_from(credentials.pid).map_err(io::Error::other)
}

/// Ends the process at once, without running destructors.
pub fn exit_now(code: libc::c_int) -> ! {
    // SAFETY: `_exit` never returns.
    unsafe { libc::_exit(code) }
}

static SIGNAL_PIPE: std::sync::atomic::AtomicI32 = std::sync::atomic::AtomicI32::new(-1);

extern "C" fn on_signal(signal: libc::c_int) {
    let byte = u8::try_from(signal).unwrap_or(0);
    let fd = SIGNAL_PIPE.load(std::sync::atomic::Ordering::Relaxed);
    // SAFETY: one byte from the stack; write is async-signal-safe.
    unsafe { libc::write(fd, (&raw const byte).cast(), 1) };
}

/// Routes SIGINT, SIGTERM and SIGHUP into a pipe, one byte per signal, and gives its read end.
///
/// # Errors
/// What `pipe2(2)` or `sigaction(2)` says.
pub fn signal_pipe() -> io::Result<File> {
    let mut ends = [0; 2];
    // SAFETY: room for two descriptors.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    SIGNAL_PIPE.store(ends[1], std::sync::atomic::Ordering::Relaxed);
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: an all-zero sigaction is valid; the handler does only a write.
        check(unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
            action.sa_flags = libc::SA_RESTART;
            libc::sigaction(signal, &raw const action, std::ptr::null_mut())
        })?;
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    Ok(unsafe { File::from_raw_fd(ends[0]) })
}

/// Makes closing this socket send a reset instead of a FIN.
///
/// # Errors
/// What `setsockopt(2)` says.
pub fn reset_on_close(socket: impl AsFd) -> io::Result<()> {
    socket2::SockRef::from(&socket).set_linger(Some(std::time::Duration::ZERO))
}

/// CPU time of a process so far (user and system), and its resident memory in bytes.
///
/// # Errors
/// When `/proc/PID/stat` cannot be read.
pub fn usage(pid: u32) -> io::Result<(std::time::Duration, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field = |n: usize| -> u64 {
        let text = after_name.split(' ').nth(n - 3).unwrap_or("0");
        text.parse().unwrap_or(0)
    };
    // SAFETY: sysconf has no preconditions.
    let (ticks, page) = unsafe {
        (
            libc::sysconf(libc::_SC_CLK_TCK),
            libc::sysconf(libc::_SC_PAGESIZE),
        )
    };
    let per_second = u64::try_from(ticks).unwrap_or(100).max(1);
    let cpu = std::time::Duration::from_nanos((field(14) + field(15)) * 1_000_000_000 / per_second);
    Ok((cpu, field(24) * u64::try_from(page).unwrap_or(4096)))
}

/// Loads an XDP program of two instructions that passes every packet, and pins it: what another
/// owner of an interface might have attached.
///
/// # Errors
/// What `bpf(2)` says.
pub fn pin_xdp_pass(path: &Path) -> io::Result<()> {
    const PROG_LOAD: libc::c_int = 5;
    const OBJ_PIN: libc::c_int = 6;
    const XDP: u32 = 6;
    // linux include/uapi/linux/bpf.h, union bpf_attr: the fields of the two commands used here.
    #[repr(C)]
    struct Load {
        prog_type: u32,
        count: u32,
        instructions: *const u64,
        license: *const libc::c_char,
        rest: [u64; 12],
    }
    #[repr(C)]
    struct Pin {
        path: *const libc::c_char,
        fd: u32,
        flags: u32,
    }
    // r0 = 2 (XDP_PASS); exit
    let code = [0x0000_0002_0000_00b7_u64, 0x95];
    let load = Load {
        prog_type: XDP,
        count: 2,
        instructions: code.as_ptr(),
        license: c"Apache-2.0".as_ptr(),
        rest: [0; 12],
    };
    // SAFETY: the structure is as long as told and its pointers outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size_of::<Load>()) };
    let fd = check(libc::c_int::try_from(fd).map_err(io::Error::other)?)?;
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let path = c_path(path)?;
    let number = u32::try_from(fd.as_raw_fd()).map_err(io::Error::other)?;
    let pin = Pin {
        path: path.as_ptr(),
        fd: number,
        flags: 0,
    };
    // SAFETY: the structure is as long as told and its pointer outlives the call.
    let done = unsafe { libc::syscall(libc::SYS_bpf, OBJ_PIN, &raw const pin, size_of::<Pin>()) };
    check(libc::c_int::try_from(done).map_err(io::Error::other)?).map(drop)
}
