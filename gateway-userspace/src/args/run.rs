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

/// Settings as typed. Defaults are in [`crate::config::Config`]; the help texts name them.
#[derive(Clone, Debug, Default, clap::Args, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[command(
    after_help = "Each setting may also be given as an environment variable or as a key of the \
                  settings file, the flag's name without the dashes in front. A flag wins over the \
                  environment, the environment over the file. `--help` lists the limits.",
    after_long_help = crate::config::limits_help()
)]
pub struct RunArgs {
    /// Settings file in YAML; its keys are the names of these flags
    #[arg(
        long,
        env = "SLUICE_CONFIG",
        value_name = "FILE",
        help_heading = "Configuration"
    )]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Directory of manifests (*.yaml, *.yml, *.json, also in its directories), followed while running
    /// [default: none; a cluster is followed]
    #[arg(
        long,
        env = "SLUICE_MANIFESTS",
        value_name = "DIR",
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifests: Option<PathBuf>,

    /// Kubeconfig of the cluster to follow, if there are no manifests
    /// [default: the Pod's own service account, else $KUBECONFIG]
    #[arg(
        long,
        env = "SLUICE_KUBECONFIG",
        value_name = "FILE",
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,

    /// How long an API server may take to list everything at the start before the last good
    /// configuration is served
    /// [default: 2s]
    #[arg(
        long,
        env = "SLUICE_LAST_GOOD_AFTER",
        value_name = "DURATION",
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_good_after: Option<Span>,

    /// GatewayClasses to stand in for, whatever controller their objects name, and without an object
    /// [default: sluice]
    #[arg(
        long,
        env = "SLUICE_CLASS_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_names: Option<Vec<String>>,

    /// `spec.controllerName` of the GatewayClasses that are ours
    /// [default: sluice.dev/gateway-controller]
    #[arg(
        long,
        env = "SLUICE_CONTROLLER_NAME",
        value_name = "NAME",
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_name: Option<String>,

    /// Addresses of the nodes, to report for Gateways that ask for none
    /// [default: those of the Node objects; with --manifests the sources of the default routes]
    #[arg(
        long,
        env = "SLUICE_NODE_ADDRESSES",
        value_name = "IP",
        value_delimiter = ',',
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_addresses: Option<Vec<IpAddr>>,

    /// Networks to give Gateways addresses of their own from that ask for none, one of each IP
    /// version [default: none]
    #[arg(
        long,
        env = "SLUICE_ADDRESS_POOL",
        value_name = "CIDR",
        value_delimiter = ',',
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address_pool: Option<Vec<Network>>,

    /// Whose addresses Gateways show that have none of their own: those of the nodes, or those
    /// that a Service of type LoadBalancer is given, which Sluice then keeps for each [default: nodes]
    #[arg(
        long,
        env = "SLUICE_PUBLISH_ADDRESSES",
        value_name = "WHOSE",
        help_heading = "Configuration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_addresses: Option<PublishAddresses>,

    /// This Pod's name, which its Leases bear
    /// [default: the host's name]
    #[arg(long, env = "POD_NAME", value_name = "NAME", help_heading = "Cluster")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// This Pod's namespace, where the Leases are
    /// [default: the account's own]
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAME",
        help_heading = "Cluster"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_namespace: Option<String>,

    /// This Pod's uid; its Leases go when it goes
    /// [default: none]
    #[arg(long, env = "POD_UID", value_name = "UID", help_heading = "Cluster")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,

    /// This node's name, as statuses name it
    /// [default: the host's name]
    #[arg(long, env = "NODE_NAME", value_name = "NAME", help_heading = "Cluster")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// Lease that makes one Sluice the writer of statuses
    /// [default: sluice-status-writer]
    #[arg(
        long,
        env = "SLUICE_STATUS_LEASE",
        value_name = "NAME",
        help_heading = "Cluster"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_lease: Option<String>,

    /// How long that Lease outlives its holder
    /// [default: 15s]
    #[arg(
        long,
        env = "SLUICE_LEASE_DURATION",
        value_name = "DURATION",
        help_heading = "Cluster"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_duration: Option<Span>,

    /// Directory for the admin socket, the last good configuration and the hand-over to a successor
    /// [default: /run/sluice as root, else $XDG_RUNTIME_DIR/sluice]
    #[arg(
        long,
        env = "SLUICE_STATE_DIR",
        value_name = "DIR",
        help_heading = "State and administration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<PathBuf>,

    /// Loopback address and port for the admin server, besides STATE/admin.sock
    /// [default: none]
    #[arg(
        long,
        env = "SLUICE_ADMIN_ADDRESS",
        value_name = "IP:PORT",
        help_heading = "State and administration"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_address: Option<SocketAddr>,

    /// How connections reach the workers: bpf (XDP and sk_lookup), sockets (bind the ports), or
    /// auto (bpf where it can be had) [default: auto]
    #[arg(
        long,
        env = "SLUICE_L4",
        value_name = "MODE",
        help_heading = "Packet path"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub l4: Option<L4Mode>,

    /// Interfaces to attach to
    /// [default: all that are up at the start, lo aside]
    #[arg(
        long,
        env = "SLUICE_INTERFACES",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Packet path"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interfaces: Option<Vec<String>>,

    /// Where on an interface: native XDP, generic XDP, tc, or auto (the first that works)
    /// [default: auto]
    #[arg(
        long,
        env = "SLUICE_ATTACH",
        value_name = "HOOK",
        help_heading = "Packet path"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach: Option<Attach>,

    /// Directory in a BPF file system where maps and links are pinned
    /// [default: /sys/fs/bpf/sluice]
    #[arg(
        long,
        env = "SLUICE_PIN_DIR",
        value_name = "DIR",
        help_heading = "Packet path"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_dir: Option<PathBuf>,

    /// Worker threads
    /// [default: one per CPU this process may use]
    #[arg(long, env = "SLUICE_WORKERS", value_name = "N", help_heading = "Proxy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<std::num::NonZeroUsize>,

    /// Pin each worker to one CPU
    /// [default: false]
    #[arg(long, env = "SLUICE_PIN_WORKERS", value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = "Proxy")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pin_workers: Option<bool>,

    /// How many proxies in front are trusted to have written X-Forwarded-For
    /// [default: 0]
    #[arg(
        long,
        env = "SLUICE_TRUSTED_HOPS",
        value_name = "N",
        help_heading = "Proxy"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted_hops: Option<u8>,

    /// Limits by name, as in head.lines=100,time.head=10s; `sluice run --help` lists them
    #[arg(long, env = "SLUICE_LIMITS", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = limit, help_heading = "Proxy")]
    #[serde(skip)]
    pub limits: Option<Vec<(String, String)>>,

    /// Limits as a map, which is how the settings file writes them.
    #[arg(skip)]
    #[serde(rename = "limits", skip_serializing_if = "Option::is_none")]
    pub limit_map: Option<BTreeMap<String, serde_json::Value>>,

    /// How long open connections may live on after a stop or a hand-over
    /// [default: 300s]
    #[arg(
        long,
        env = "SLUICE_DRAIN_TIMEOUT",
        value_name = "DURATION",
        help_heading = "Proxy"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drain_timeout: Option<Span>,

    /// One line per request: off, text or json
    /// [default: off]
    #[arg(
        long,
        env = "SLUICE_ACCESS_LOG",
        value_name = "FORMAT",
        help_heading = "Logs"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,

    /// File for the access log
    /// [default: standard output]
    #[arg(
        long,
        env = "SLUICE_ACCESS_LOG_PATH",
        value_name = "FILE",
        help_heading = "Logs"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_log_path: Option<PathBuf>,

    /// Format of the process's own log, on standard error: text or json
    /// [default: text]
    #[arg(
        long,
        env = "SLUICE_LOG_FORMAT",
        value_name = "FORMAT",
        help_heading = "Logs"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_format: Option<LogFormat>,

    /// error, warn, info or debug, also by module, as in info,gateway_proxy=debug
    /// [default: info]
    #[arg(
        long,
        env = "SLUICE_LOG_LEVEL",
        value_name = "LEVEL",
        help_heading = "Logs"
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_level: Option<LogFilter>,
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
