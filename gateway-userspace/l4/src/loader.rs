//! From the embedded object to verified programs and shared maps.

use std::hash::Hasher as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{fs, io};

use aya::programs::{Program, ProgramError};
use aya::{Ebpf, EbpfLoader, VerifierLogLevel};
use gateway_common::{
    FrontendCounters, FrontendKey, FrontendValue, LAYOUT, PolicyKey, Reason, TraceFilter,
    maps as abi,
};

use crate::fnv::Fnv;
use crate::pins::{self, Pins};
use crate::status::ProgramStatus;
use crate::{L4Error, sys};

/// The loaded programs.
pub struct Programs {
    ebpf: Ebpf,
    /// Which of the two forms of `front` for XDP the kernel took.
    xdp: &'static str,
    /// The pinned maps.
    maps: Vec<(&'static str, OwnedFd)>,
}

impl Programs {
    /// Loads the object; maps that a predecessor pinned are shared, the others are made and pinned.
    pub fn load(object: &[u8], pins: &Pins, notes: &mut Vec<String>) -> Result<Self, L4Error> {
        sys::lift_memlock();
        let mut loader = EbpfLoader::new();
        loader.verifier_log_level(VerifierLogLevel::DISABLE);
        for name in abi::PINNED {
            loader.map_pin_path(name, pins.map(name));
        }
        let mut ebpf = loader
            .load(object)
            .map_err(|error| refused("the eBPF object", error))?;
        let xdp = load_xdp(&mut ebpf, notes)?;
        load(&mut ebpf, abi::PROGRAM_TC)?;
        load(&mut ebpf, abi::PROGRAM_STEER)?;
        let open = |name| {
            let path = pins.map(name);
            let opened = sys::open_pin(&path);
            opened.map(|fd| (name, fd)).map_err(|source| L4Error::Pin {
                operation: "open",
                path,
                source,
            })
        };
        let maps = abi::PINNED
            .into_iter()
            .map(open)
            .collect::<Result<_, _>>()?;
        Ok(Self { ebpf, xdp, maps })
    }

    /// The object, to take maps from.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Pins the maps again where a predecessor that stopped meanwhile has removed them.
    pub fn repin_maps(&self, pins: &Pins) -> Result<(), L4Error> {
        for (name, fd) in &self.maps {
            pins::pin_if_absent(fd.as_fd(), &pins.map(name))?;
        }
        Ok(())
    }

    /// `front` for XDP.
    pub fn xdp(&self) -> Result<BorrowedFd<'_>, L4Error> {
        self.fd(self.xdp)
    }

    /// `front` for TC.
    pub fn tc(&self) -> Result<BorrowedFd<'_>, L4Error> {
        self.fd(abi::PROGRAM_TC)
    }

    /// `steer`.
    pub fn steer(&self) -> Result<BorrowedFd<'_>, L4Error> {
        self.fd(abi::PROGRAM_STEER)
    }

    /// What the kernel says about those that are loaded.
    pub fn status(&self) -> Vec<ProgramStatus> {
        let mut programs: Vec<_> = self
            .ebpf
            .programs()
            .filter_map(|(name, program)| {
                let info = program.info().ok()?;
                Some(ProgramStatus {
                    name: name.to_owned(),
                    id: info.id(),
                    verified_instructions: info.verified_instruction_count(),
                    jited_bytes: info.size_jitted(),
                })
            })
            .collect();
        programs.sort_by(|a, b| a.name.cmp(&b.name));
        programs
    }

    fn fd(&self, name: &'static str) -> Result<BorrowedFd<'_>, L4Error> {
        let program = self.ebpf.program(name).ok_or_else(|| missing(name))?;
        program
            .fd()
            .map(AsFd::as_fd)
            .map_err(|error| refused(name, error))
    }
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs")
            .field("xdp", &self.xdp)
            .finish_non_exhaustive()
    }
}

/// The name of the directory that pins of this ABI live in: a hash over its name and the size of all that
/// stands in maps.
pub fn layout() -> String {
    let mut hash = Fnv::default();
    hash.write(LAYOUT.as_bytes());
    let sizes = [
        size_of::<FrontendKey>(),
        size_of::<FrontendValue>(),
        size_of::<PolicyKey>(),
        size_of::<FrontendCounters>(),
        size_of::<TraceFilter>(),
    ];
    let limits = [
        abi::FRONTENDS_MAX,
        abi::POLICIES_MAX,
        abi::NODE_ADDRESSES_MAX,
        abi::SOCKETS_MAX,
        abi::FRONTEND_SLOTS,
        Reason::COUNT,
    ];
    for number in sizes
        .iter()
        .map(|size| *size as u64)
        .chain(limits.map(u64::from))
    {
        hash.write(&number.to_le_bytes());
    }
    format!("v{:016x}", hash.finish())
}

/// What BPF needs and this process or kernel lacks, if anything.
pub fn missing_privilege() -> Result<(), L4Error> {
    let status =
        fs::read_to_string("/proc/thread-self/status").map_err(|source| L4Error::System {
            operation: "read /proc/thread-self/status",
            source,
        })?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let has = |bit: u32| effective & (1 << bit) != 0;
    // linux v6.6 include/uapi/linux/capability.h; CAP_SYS_ADMIN stands for CAP_BPF and CAP_PERFMON.
    let (net_admin, sys_admin, perfmon, bpf) = (has(12), has(21), has(38), has(39));
    let wanted = [
        ("CAP_NET_ADMIN", net_admin),
        ("CAP_BPF", bpf || sys_admin),
        ("CAP_PERFMON", perfmon || sys_admin),
    ];
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(_, has)| !has)
        .map(|(name, _)| *name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let reason = format!(
        "this process has no {}; run it as root, or grant it those capabilities",
        missing.join(", ")
    );
    Err(L4Error::Unavailable { reason })
}

/// `front` with fragments where the kernel knows them (Linux 5.18), else without.
fn load_xdp(ebpf: &mut Ebpf, notes: &mut Vec<String>) -> Result<&'static str, L4Error> {
    match load(ebpf, abi::PROGRAM_XDP_FRAGS) {
        Ok(()) => Ok(abi::PROGRAM_XDP_FRAGS),
        Err(_) => {
            load(ebpf, abi::PROGRAM_XDP)?;
            notes.push("this kernel has no XDP fragments (Linux 5.18): some drivers need an MTU below a page".to_owned());
            Ok(abi::PROGRAM_XDP)
        }
    }
}

fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), L4Error> {
    let program = ebpf.program_mut(name).ok_or_else(|| missing(name))?;
    let loaded = match program {
        Program::Xdp(program) => program.load(),
        Program::SchedClassifier(program) => program.load(),
        Program::SkLookup(program) => program.load(),
        _ => return Err(missing(name)),
    };
    loaded.map_err(|error: ProgramError| refused(name, error))
}

fn missing(name: &'static str) -> L4Error {
    L4Error::Unavailable {
        reason: format!(
            "the eBPF object has no program {name}; build it again with `cargo xtask build-ebpf`"
        ),
    }
}

fn refused(what: &'static str, error: impl std::error::Error + Send + Sync + 'static) -> L4Error {
    L4Error::Load {
        what,
        hint: hint(&error),
        source: Box::new(error),
    }
}

/// The likely cause of a refusal, from the error number at the end of its chain.
fn hint(error: &(dyn std::error::Error + 'static)) -> &'static str {
    let mut next = Some(error);
    while let Some(error) = next {
        match error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            Some(libc::EPERM) => {
                return "bpf(2) is not permitted: a seccomp profile or the kernel's lockdown forbids it, or, before Linux 5.11, RLIMIT_MEMLOCK is too low";
            }
            Some(libc::EINVAL | libc::ENOTSUP) => {
                return "this kernel lacks what it needs (Linux 5.10 or newer)";
            }
            Some(libc::ENOMEM) => return "there is not enough memory",
            _ => next = error.source(),
        }
    }
    "the kernel's verifier or loader refused it"
}
