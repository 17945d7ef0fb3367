//! The arguments of the commands that ask: `check`, `status`, `routes`, `listeners`, `explain`, `l4`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// Which running process is asked, or which directory instead of one.
#[derive(Clone, Debug, Args)]
pub struct Live {
    /// State directory of the running sluice [default: /run/sluice as root, else $XDG_RUNTIME_DIR/sluice]
    #[arg(long, env = "SLUICE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Ask this directory of manifests instead of a running process
    #[arg(long, value_name = "DIR")]
    pub manifests: Option<PathBuf>,
}

/// `status`, `routes` and `listeners`.
#[derive(Clone, Debug, Args)]
pub struct TableArgs {
    /// Whom to ask.
    #[command(flatten)]
    pub live: Live,

    /// Only this namespace
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,

    /// How to print the answer
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Output,
}

/// `explain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples
  sluice explain https://shop.example.com/cart
  sluice explain POST http://shop.example.com/cart -H 'x-canary: true' --manifests ./manifests
  sluice explain grpcs://shop.example.com/shop.v1.Cart/Add")]
pub struct ExplainArgs {
    /// A URL, or a method and a URL; grpc:// and grpcs:// stand for a gRPC call, tls://, tcp:// and
    /// udp:// for what is not HTTP
    #[arg(value_name = "[METHOD] URL", num_args = 1..=2, required = true)]
    pub request: Vec<String>,

    /// A header line of the request, as in 'x-canary: true'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    pub headers: Vec<String>,

    /// The address that the client dials, where Gateways answer on addresses of their own
    #[arg(long, value_name = "IP")]
    pub address: Option<IpAddr>,

    /// Whom to ask.
    #[command(flatten)]
    pub live: Live,

    /// How to print the answer
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Output,
}

/// `probe`.
#[derive(Clone, Debug, Args)]
pub struct ProbeArgs {
    /// What is asked
    #[arg(value_enum)]
    pub what: Probe,

    /// State directory of the running sluice [default: /run/sluice as root, else $XDG_RUNTIME_DIR/sluice]
    #[arg(long, env = "SLUICE_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// The Pod that is asked for; another one of the node may answer in its stead
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
}

/// What an orchestrator wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Probe {
    /// Whether it serves its configuration.
    Ready,
    /// Whether a restart would do it good if not.
    Live,
}

/// `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The directory, or one file
    #[arg(value_name = "DIR")]
    pub manifests: PathBuf,

    /// What is served now: say what would change if DIR replaced it
    #[arg(long, value_name = "DIR2")]
    pub against: Option<PathBuf>,

    /// How to print the answer
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT"
    )]
    pub output: Output,
}

/// `l4`.
#[derive(Clone, Debug, Args)]
pub struct L4Args {
    /// State directory of the running sluice [default: /run/sluice as root, else $XDG_RUNTIME_DIR/sluice]
    #[arg(long, env = "SLUICE_STATE_DIR", value_name = "DIR", global = true)]
    pub state_dir: Option<PathBuf>,

    /// How to print the answer
    #[arg(
        short,
        long,
        value_enum,
        default_value = "table",
        value_name = "FORMAT",
        global = true
    )]
    pub output: Output,

    /// What to do; without one, print attachments, frontends and counters.
    #[command(subcommand)]
    pub command: Option<L4Command>,
}

/// What `l4` can do besides printing.
#[derive(Clone, Debug, Subcommand)]
pub enum L4Command {
    /// Print the verdict on each packet of one peer or port, until interrupted
    Trace(TraceArgs),
    /// Remove what a killed process left in the kernel
    Clean {
        /// Directory in a BPF file system where maps and links are pinned
        #[arg(
            long,
            env = "SLUICE_PIN_DIR",
            default_value = "/sys/fs/bpf/sluice",
            value_name = "DIR"
        )]
        pin_dir: PathBuf,
    },
}

/// `l4 trace`.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = true)]
pub struct TraceArgs {
    /// Packets from this address
    #[arg(long, value_name = "IP")]
    pub peer: Option<IpAddr>,

    /// Packets to this port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

/// `completions`.
#[derive(Clone, Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}
