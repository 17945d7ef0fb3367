//! The settings of `sluice run` as flags, environment variables and keys of the settings file.
//!
//! One struct is all three: a key of the file is the long name of a flag, and an environment
//! variable is `SLUICE_` and that name in capitals. What is not given stays `None`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::config::{LogFilter, Network, Span};

/// Declares [`RunArgs`]: first its fields that are like no other, then the settings, each with its environment variable
/// and what its value is called.
macro_rules! run_args {
    (
        $(#[$of_struct:meta])*
        { $($plain:tt)* }
        $(in $heading:literal {
            $($(#[$doc:meta])+ [$env:literal, $value:literal $(, $key:ident = $more:expr)*] $name:ident: $type:ty;)+
        })+
    ) => {
        $(#[$of_struct])*
        pub struct RunArgs {
            $($plain)*
            $($(
                $(#[$doc])+
                #[arg(long, env = $env, value_name = $value, help_heading = $heading $(, $key = $more)*)]
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $name: Option<$type>,
            )+)+
        }
    };
}

run_args! {
    /// Settings as typed. Defaults are in [`crate::config::Config`]; the help texts name them.
    #[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields)]
    #[command(
        after_help = "Each setting may also be given as an environment variable or as a key of the \
                      settings file, the flag's name without the dashes in front. A flag wins over the \
                      environment, the environment over the file. `--help` lists the limits.",
        after_long_help = crate::config::limits_help()
    )]
    {
        /// Settings file in YAML; its keys are the names of these flags
        #[arg(
            long,
            env = "SLUICE_CONFIG",
            value_name = "FILE",
            help_heading = "Configuration"
        )]
        #[serde(skip)]
        pub config: Option<PathBuf>,

        /// Limits by name, as in head.lines=100,time.head=10s; `sluice run --help` lists them
        #[arg(long, env = "SLUICE_LIMITS", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = limit, help_heading = "Proxy")]
        #[serde(skip)]
        pub limits: Option<Vec<(String, String)>>,

        /// Limits as a map, which is how the settings file writes them.
        #[arg(skip)]
        #[serde(rename = "limits", skip_serializing_if = "Option::is_none")]
        pub limit_map: Option<BTreeMap<String, serde_json::Value>>,
    }
    in "Configuration" {
        /// Directory of manifests (*.yaml, *.yml, *.json, also in its directories), followed while running
        /// [default: none; a cluster is followed]
        ["SLUICE_MANIFESTS", "DIR"] manifests: PathBuf;

        /// Kubeconfig of the cluster to follow, if there are no manifests
        /// [default: the Pod's own service account, else $KUBECONFIG]
        ["SLUICE_KUBECONFIG", "FILE"] kubeconfig: PathBuf;

        /// How long an API server may take to list everything at the start before the last good
        /// configuration is served
        /// [default: 2s]
        ["SLUICE_LAST_GOOD_AFTER", "DURATION"] last_good_after: Span;

        /// GatewayClasses to stand in for, whatever controller their objects name, and without an object
        /// [default: sluice]
        ["SLUICE_CLASS_NAMES", "NAME", value_delimiter = ','] class_names: Vec<String>;

        /// `spec.controllerName` of the GatewayClasses that are ours
        /// [default: sluice.dev/gateway-controller]
        ["SLUICE_CONTROLLER_NAME", "NAME"] controller_name: String;

        /// Addresses of the nodes, to report for Gateways that ask for none
        /// [default: those of the Node objects; with --manifests the sources of the default routes]
        ["SLUICE_NODE_ADDRESSES", "IP", value_delimiter = ','] node_addresses: Vec<IpAddr>;

        /// Networks to give Gateways addresses of their own from that ask for none, one of each IP
        /// version [default: none]
        ["SLUICE_ADDRESS_POOL", "CIDR", value_delimiter = ','] address_pool: Vec<Network>;

        /// Whose addresses Gateways show that have none of their own: those of the nodes, or those
        /// that a Service of type LoadBalancer is given, which Sluice then keeps for each [default: nodes]
        ["SLUICE_PUBLISH_ADDRESSES", "WHOSE"] publish_addresses: PublishAddresses;
    }
    in "Cluster" {
        /// This Pod's name, which its Leases bear
        /// [default: the host's name]
        ["POD_NAME", "NAME"] pod_name: String;

        /// This Pod's namespace, where the Leases are
        /// [default: the account's own]
        ["POD_NAMESPACE", "NAME"] pod_namespace: String;

        /// This Pod's uid; its Leases go when it goes
        /// [default: none]
        ["POD_UID", "UID"] pod_uid: String;

        /// This node's name, as statuses name it
        /// [default: the host's name]
        ["NODE_NAME", "NAME"] node_name: String;

        /// Lease that makes one Sluice the writer of statuses
        /// [default: sluice-status-writer]
        ["SLUICE_STATUS_LEASE", "NAME"] status_lease: String;

        /// How long that Lease outlives its holder
        /// [default: 15s]
        ["SLUICE_LEASE_DURATION", "DURATION"] lease_duration: Span;
    }
    in "State and administration" {
        /// Directory for the admin socket, the last good configuration and the hand-over to a successor
        /// [default: /run/sluice as root, else $XDG_RUNTIME_DIR/sluice]
        ["SLUICE_STATE_DIR", "DIR"] state_dir: PathBuf;

        /// Loopback address and port for the admin server, besides STATE/admin.sock
        /// [default: none]
        ["SLUICE_ADMIN_ADDRESS", "IP:PORT"] admin_address: SocketAddr;
    }
    in "Packet path" {
        /// How connections reach the workers: bpf (XDP and sk_lookup), sockets (bind the ports), or
        /// auto (bpf where it can be had) [default: auto]
        ["SLUICE_L4", "MODE"] l4: L4Mode;

        /// Interfaces to attach to
        /// [default: all that are up at the start, lo aside]
        ["SLUICE_INTERFACES", "NAME", value_delimiter = ','] interfaces: Vec<String>;

        /// Where on an interface: native XDP, generic XDP, tc, or auto (the first that works)
        /// [default: auto]
        ["SLUICE_ATTACH", "HOOK"] attach: Attach;

        /// Directory in a BPF file system where maps and links are pinned
        /// [default: /sys/fs/bpf/sluice]
        ["SLUICE_PIN_DIR", "DIR"] pin_dir: PathBuf;
    }
    in "Proxy" {
        /// Worker threads, 1 to 256
        /// [default: one per CPU this process may use]
        ["SLUICE_WORKERS", "N"] workers: std::num::NonZeroUsize;

        /// Pin each worker to one CPU
        /// [default: false]
        ["SLUICE_PIN_WORKERS", "BOOL", num_args = 0..=1, default_missing_value = "true"] pin_workers: bool;

        /// How many proxies in front are trusted to have written X-Forwarded-For
        /// [default: 0]
        ["SLUICE_TRUSTED_HOPS", "N"] trusted_hops: u8;

        /// How long open connections may live on after a stop or a hand-over
        /// [default: 300s]
        ["SLUICE_DRAIN_TIMEOUT", "DURATION"] drain_timeout: Span;
    }
    in "Logs" {
        /// One line per request: off, text or json
        /// [default: off]
        ["SLUICE_ACCESS_LOG", "FORMAT"] access_log: AccessLog;

        /// File for the access log; when it is moved away, or removed, it is made anew
        /// [default: standard output]
        ["SLUICE_ACCESS_LOG_PATH", "FILE"] access_log_path: PathBuf;

        /// Format of the process's own log, on standard error: text or json
        /// [default: text]
        ["SLUICE_LOG_FORMAT", "FORMAT"] log_format: LogFormat;

        /// error, warn, info or debug, also by module, as in info,gateway_proxy=debug
        /// [default: info]
        ["SLUICE_LOG_LEVEL", "LEVEL"] log_level: LogFilter;
    }
}

/// Whose addresses Gateways show that have none of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PublishAddresses {
    /// Those of the nodes.
    #[default]
    Nodes,
    /// Those of a Service of type LoadBalancer.
    Service,
}

/// How connections reach the workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum L4Mode {
    /// BPF where it can be had, else sockets.
    #[default]
    Auto,
    /// BPF or failure.
    Bpf,
    /// Ordinary sockets.
    Sockets,
}

/// Where the packet path attaches to an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attach {
    /// The first that works.
    #[default]
    Auto,
    /// XDP in the driver.
    Native,
    /// XDP in the kernel's generic path.
    Generic,
    /// TC ingress.
    Tc,
}

/// The access log's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccessLog {
    /// None.
    #[default]
    Off,
    /// Columns for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The process log's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

fn limit(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .ok_or_else(|| "write NAME=VALUE, as in head.lines=100".to_owned())
}
