//! The packet path in a namespace of its own, with its programs at hand to be run on frames.

use std::collections::BTreeMap;
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aya::programs::{Program, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use gateway_common::maps::{PINNED, PROGRAM_STEER, PROGRAM_TC, PROGRAM_XDP, PROGRAM_XDP_FRAGS};
use gateway_l4::{Attach, L4, Mode, Outcome, Settings, SteeringSocket, TraceFilter, TraceLines};
use gateway_model::ir::SourcePolicy;
use gateway_model::l4_plan::{Frontend, L4Plan, Transport};

use crate::cleanup::{self, Guard, Leftover};
use crate::netns::{self, Netns};

/// Every form of `front`.
pub const FRONTS: [&str; 3] = [PROGRAM_XDP, PROGRAM_XDP_FRAGS, PROGRAM_TC];

/// What a program answered.
#[derive(Debug)]
pub struct Answer {
    /// Whether the packet passes.
    pub passes: bool,
    /// The frame afterwards.
    pub frame: Vec<u8>,
}

/// The packet path, live, on a node without wires.
pub struct Bed {
    /// The path.
    pub l4: L4,
    /// The same object loaded once more, on the same maps.
    pub ebpf: Ebpf,
    /// The node.
    pub node: Netns,
    runtime: tokio::runtime::Runtime,
    sockets: Vec<(bool, TcpListener)>,
    pin_dir: PathBuf,
    _guard: Guard,
}

impl Bed {
    /// Makes it, with these addresses on an interface and this plan applied. The calling thread is in
    /// the node's namespace from then on.
    ///
    /// # Errors
    /// Without root, an eBPF object or a kernel that takes it; the error says which.
    pub fn new(addresses: &[&str], plan: &L4Plan) -> Result<Self> {
        cleanup::ensure_bpffs()
            .context("packet tests need root, to mount the BPF file system and load programs")?;
        let object =
            gateway_l4::object().context("no eBPF object: run `cargo xtask build-ebpf`")?;
        let name = cleanup::unique_name();
        let node = Netns::create(&format!("{name}-bed"))?;
        node.enter()?;
        let pin_dir = PathBuf::from(cleanup::BPFFS).join(format!("{name}-pins"));
        let guard = cleanup::register(Leftover::Directory(pin_dir.clone()));
        node.ip(&[
            "link add addresses0 type veth peer name peer0",
            "link set addresses0 up",
        ])?;
        for address in addresses {
            let prefix = if address.contains(':') { 128 } else { 32 };
            node.ip(&[&format!("addr add {address}/{prefix} dev addresses0")])?;
        }
        let runtime = netns::runtime()?;
        let sockets = listen(&["127.0.0.1", "::1"])?;
        let l4 = runtime.block_on(live(&pin_dir, plan, &sockets))?;
        let ebpf = load(object, &l4)?;
        Ok(Self {
            l4,
            ebpf,
            node,
            runtime,
            sockets,
            pin_dir,
            _guard: guard,
        })
    }

    /// Applies another plan.
    ///
    /// # Errors
    /// What the packet path says.
    pub fn apply(&mut self, plan: &L4Plan) -> Result<()> {
        Ok(self.runtime.block_on(self.l4.apply(plan))?)
    }

    /// Runs the program that the packet path itself has attached on a frame.
    ///
    /// # Errors
    /// When the kernel does not run it.
    pub fn run_attached(&self, frame: &[u8], repeat: u32) -> Result<()> {
        let wanted = |info: &aya::programs::ProgramInfo| {
            let status = self.l4.status().unwrap_or_default();
            status
                .programs
                .iter()
                .any(|p| p.name == PROGRAM_XDP_FRAGS && p.id == info.id())
        };
        let info = aya::programs::loaded_programs()
            .filter_map(Result::ok)
            .find(wanted);
        let info = info.context("the packet path has no program for XDP")?;
        crate::bpf::test_run(info.fd()?, frame, &[], repeat)?;
        Ok(())
    }

    /// Starts a packet trace.
    ///
    /// # Errors
    /// What the packet path says.
    pub fn trace(&mut self, filter: TraceFilter) -> Result<TraceLines> {
        Ok(self.runtime.block_on(self.l4.trace(filter))?)
    }

    /// Closes the workers' sockets, as the end of a process does.
    pub fn close_sockets(&mut self) {
        self.sockets.clear();
    }

    /// Runs something that needs the bed's runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Whether the kernel can be asked to run a program on this frame: for TC it wants a whole IP header behind
    /// the type of one (linux v6.18 net/bpf/test_run.c `bpf_prog_test_run_skb`).
    #[must_use]
    pub fn accepts(program: &str, frame: &[u8]) -> bool {
        let least = match frame[12..14] {
            [0x08, 0x00] => 34,
            [0x86, 0xdd] => 54,
            _ => 15,
        };
        program != PROGRAM_TC || frame.len() >= least
    }

    /// Runs a form of `front` on a frame.
    ///
    /// # Errors
    /// When the kernel does not run it, or it answers with something that is no verdict.
    pub fn run(&self, program: &str, frame: &[u8]) -> Result<Answer> {
        run(&self.ebpf, program, frame, 1).map(|(answer, _)| answer)
    }

    /// Runs a form of `front` on a frame many times; the kernel's own time per run.
    ///
    /// # Errors
    /// When the kernel does not run it.
    pub fn time(&self, program: &str, frame: &[u8], repeat: u32) -> Result<Duration> {
        run(&self.ebpf, program, frame, repeat).map(|(_, duration)| duration)
    }

    /// Packets by reason so far.
    ///
    /// # Errors
    /// When the counters cannot be read.
    pub fn reasons(&self) -> Result<BTreeMap<&'static str, u64>> {
        Ok(self.l4.counters()?.reasons)
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        // The guard removes the pins; the namespace takes what was attached with it.
        drop(std::fs::remove_dir_all(&self.pin_dir));
    }
}

/// A TCP frontend's part of a plan: address (none is every address), port, allow list, deny list. The lists hold
/// networks and single addresses.
pub type Wanted<'a> = (Option<&'a str>, u16, &'a [&'a str], &'a [&'a str]);

/// A plan of TCP frontends.
///
/// # Panics
/// When a text is no address or network.
#[must_use]
pub fn plan(frontends: &[Wanted<'_>], addresses: &[&str]) -> L4Plan {
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let network = |text: &&str| {
        text.parse()
            .unwrap_or_else(|_| ipnet::IpNet::from(address(text)))
    };
    let networks = |texts: &[&str]| texts.iter().map(network).collect();
    let frontends = frontends.iter().map(|(ip, port, allow, deny)| {
        let frontend = Frontend {
            address: ip.map(address),
            port: *port,
            transport: Transport::Tcp,
        };
        (
            frontend,
            vec![SourcePolicy {
                allow: networks(allow),
                deny: networks(deny),
            }],
        )
    });
    L4Plan {
        frontends: frontends.collect(),
        addresses: addresses.iter().map(|a| address(a)).collect(),
    }
}

/// Loads the object on the maps that the packet path has pinned.
///
/// # Errors
/// When the verifier refuses it.
pub fn load(object: &[u8], l4: &L4) -> Result<Ebpf> {
    let pins = l4.status()?.pin_dir;
    let mut loader = EbpfLoader::new();
    for name in PINNED {
        loader.map_pin_path(name, pins.join(name));
    }
    let mut ebpf = loader.load(object)?;
    for name in [PROGRAM_XDP, PROGRAM_XDP_FRAGS] {
        let program: &mut Xdp = ebpf.program_mut(name).context(name)?.try_into()?;
        program.load()?;
    }
    let program: &mut SchedClassifier = ebpf
        .program_mut(PROGRAM_TC)
        .context(PROGRAM_TC)?
        .try_into()?;
    program.load()?;
    let program: &mut aya::programs::SkLookup = ebpf
        .program_mut(PROGRAM_STEER)
        .context(PROGRAM_STEER)?
        .try_into()?;
    program.load()?;
    Ok(ebpf)
}

/// Runs a program on a frame, so many times over; what it answered last, and the time of one run.
///
/// # Errors
/// When the kernel does not run it, or it answers with something that is no verdict.
pub fn run(ebpf: &Ebpf, name: &str, frame: &[u8], repeat: u32) -> Result<(Answer, Duration)> {
    let mut out = vec![0; frame.len() + 256];
    let mut options = TestRunOptions::new();
    options.data_in = Some(frame);
    options.data_out = Some(&mut out);
    options.repeat = repeat;
    let program = ebpf
        .program(name)
        .with_context(|| format!("no program {name}"))?;
    let result = match program {
        Program::Xdp(program) => program.test_run(options),
        Program::SchedClassifier(program) => program.test_run(options),
        _ => bail!("not a program for packets"),
    }?;
    out.truncate(result.data_size_out as usize);
    let answer = Answer {
        passes: verdict(name, result.return_value)?,
        frame: out,
    };
    Ok((answer, result.duration))
}

async fn live(
    pin_dir: &std::path::Path,
    plan: &L4Plan,
    sockets: &[(bool, TcpListener)],
) -> Result<L4> {
    let settings = Settings {
        mode: Mode::Bpf,
        attach: Attach::Generic,
        pin_dir: pin_dir.to_owned(),
        ..Settings::default()
    };
    let mut l4 = match L4::start(settings).await? {
        Outcome::Bpf(l4) => *l4,
        Outcome::Unavailable { reason } => bail!("no packet path: {reason}"),
    };
    l4.apply(plan).await?;
    let mut steering = Vec::new();
    for (v6, socket) in sockets {
        steering.push(SteeringSocket {
            worker: 0,
            v6: *v6,
            fd: socket.as_fd(),
        });
    }
    l4.take_over(&steering).await?;
    Ok(l4)
}

fn listen(addresses: &[&str]) -> Result<Vec<(bool, TcpListener)>> {
    let listen = |address: &&str| Ok((address.contains(':'), TcpListener::bind((*address, 0))?));
    addresses.iter().map(listen).collect()
}

fn verdict(program: &str, value: u32) -> Result<bool> {
    // linux v6.6 include/uapi/linux: XDP_DROP 1, XDP_PASS 2; TCX_NEXT -1, TCX_DROP 2.
    match (program, value.cast_signed()) {
        (PROGRAM_TC, -1) | (PROGRAM_XDP | PROGRAM_XDP_FRAGS, 2) => Ok(true),
        (PROGRAM_TC, 2) | (PROGRAM_XDP | PROGRAM_XDP_FRAGS, 1) => Ok(false),
        _ => bail!("{program} answered {value}, which is no verdict"),
    }
}
