//! What `sluice run` was told, resolved: built once from [`RunArgs`] and the settings file, and
//! what everything else uses. Precedence: flag, environment, file, default.

mod cluster;
mod file;
mod limits;
mod parts;
mod units;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::{AccessLog, Attach, L4Mode, LogFormat, RunArgs};

pub use cluster::ClusterConfig;
pub use limits::help as limits_help;
pub use parts::offline_settings;
pub use units::{LogFilter, Network, Span};

/// Every setting of a process.
#[derive(Clone, Debug)]
pub struct Config {
    /// The directory of manifests; none means that a cluster is followed.
    pub manifests: Option<PathBuf>,
    /// The kubeconfig of that cluster; none means the Pod's own account, else `$KUBECONFIG`.
    pub kubeconfig: Option<PathBuf>,
    /// How long the first lists of a cluster may take.
    pub last_good_after: Duration,
    /// Classes that are served without an object of their own.
    pub class_names: Vec<String>,
    /// `GatewayClass.spec.controllerName` that is ours.
    pub controller_name: String,
    /// Addresses for Gateways that ask for none; empty means the node's own.
    pub node_addresses: Vec<IpAddr>,
    /// Who this is in a cluster, and where addresses come from.
    pub cluster: ClusterConfig,
    /// Where sockets and the last good configuration live.
    pub state_dir: PathBuf,
    /// The admin server's TCP address, always loopback.
    pub admin_address: Option<SocketAddr>,
    /// How connections reach the workers.
    pub l4: L4Mode,
    /// Interfaces to attach to; empty means that the packet path chooses.
    pub interfaces: Vec<String>,
    /// Where to attach.
    pub attach: Attach,
    /// Where maps and links are pinned.
    pub pin_dir: PathBuf,
    /// Worker threads.
    pub workers: NonZeroUsize,
    /// Whether each worker is pinned to a CPU.
    pub pin_workers: bool,
    /// Trusted proxies in front.
    pub trusted_hops: u8,
    /// The proxy's limits.
    pub limits: gateway_proxy::Limits,
    /// How long old connections live.
    pub drain_timeout: Duration,
    /// The access log's format.
    pub access_log: AccessLog,
    /// The access log's file; none means standard output.
    pub access_log_path: Option<PathBuf>,
    /// The process log's format.
    pub log_format: LogFormat,
    /// The process log's filter.
    pub log_level: LogFilter,
    /// Each setting as text and where it came from, for `/config`.
    pub origins: Vec<Setting>,
}

/// One setting as it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The flag's name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Who said so.
    pub origin: Origin,
}

/// Who said what a setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The command line.
    Flag,
    /// A `SLUICE_` variable.
    Environment,
    /// The settings file.
    File,
    /// Nobody.
    Default,
}

impl Config {
    /// Joins flags and environment with the settings file and fills in the defaults.
    ///
    /// # Errors
    /// A file that cannot be read or has an unknown key, or a value that makes no sense.
    pub fn load(args: &RunArgs, matches: &ArgMatches) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => file::read(path)?,
            None => Map::new(),
        };
        let (merged, origins) = merge(args, matches, file)?;
        let args: RunArgs = serde_json::from_value(Value::Object(merged))?;
        Self::resolve(args, &origins)
    }

    fn resolve(args: RunArgs, origins: &BTreeMap<String, Origin>) -> anyhow::Result<Self> {
        let config = Self {
            cluster: ClusterConfig::resolve(&args)?,
            manifests: args.manifests,
            kubeconfig: args.kubeconfig,
            last_good_after: args.last_good_after.map_or(Duration::from_secs(2), |s| s.0),
            class_names: args
                .class_names
                .unwrap_or_else(|| vec!["sluice".to_owned()]),
            controller_name: args
                .controller_name
                .unwrap_or_else(|| "sluice.dev/gateway-controller".to_owned()),
            node_addresses: args.node_addresses.unwrap_or_default(),
            state_dir: args.state_dir.unwrap_or_else(default_state_dir),
            admin_address: args.admin_address.map(loopback).transpose()?,
            l4: args.l4.unwrap_or_default(),
            interfaces: args.interfaces.unwrap_or_default(),
            attach: args.attach.unwrap_or_default(),
            pin_dir: args
                .pin_dir
                .unwrap_or_else(|| PathBuf::from("/sys/fs/bpf/sluice")),
            workers: workers(args.workers)?,
            pin_workers: args.pin_workers.unwrap_or(false),
            trusted_hops: args.trusted_hops.unwrap_or(0),
            limits: limits::resolve(&args.limit_map.unwrap_or_default())?,
            drain_timeout: args.drain_timeout.map_or(Duration::from_secs(300), |s| s.0),
            access_log: args.access_log.unwrap_or_default(),
            access_log_path: args.access_log_path,
            log_format: args.log_format.unwrap_or_default(),
            log_level: args.log_level.unwrap_or_default(),
            origins: Vec::new(),
        };
        Ok(Self {
            origins: config.settings(origins),
            ..config
        })
    }

    fn settings(&self, origins: &BTreeMap<String, Origin>) -> Vec<Setting> {
        let value = |v: &dyn ErasedValue| v.value();
        let mut rows = vec![
            ("manifests", value(&self.manifests)),
            ("kubeconfig", value(&self.kubeconfig)),
            ("last-good-after", value(&Span(self.last_good_after))),
            ("class-names", value(&self.class_names)),
            ("controller-name", value(&self.controller_name)),
            ("node-addresses", value(&self.node_addresses)),
            ("state-dir", value(&self.state_dir)),
            ("admin-address", value(&self.admin_address)),
            ("l4", value(&self.l4)),
            ("interfaces", value(&self.interfaces)),
            ("attach", value(&self.attach)),
            ("pin-dir", value(&self.pin_dir)),
            ("workers", value(&self.workers)),
            ("pin-workers", value(&self.pin_workers)),
            ("trusted-hops", value(&self.trusted_hops)),
            ("drain-timeout", value(&Span(self.drain_timeout))),
            ("access-log", value(&self.access_log)),
            ("access-log-path", value(&self.access_log_path)),
            ("log-format", value(&self.log_format)),
            ("log-level", value(&self.log_level)),
        ];
        rows.extend(self.cluster.rows());
        rows.push(("limits", Value::Object(limits::values(&self.limits))));
        rows.into_iter()
            .map(|(name, value)| Setting {
                name: name.to_owned(),
                value,
                origin: origins.get(name).copied().unwrap_or(Origin::Default),
            })
            .collect()
    }
}

/// `/run/sluice` for root, else `$XDG_RUNTIME_DIR/sluice`, else a directory in `/tmp` that bears the user's id.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    let user = rustix::process::geteuid();
    if user.is_root() {
        return PathBuf::from("/run/sluice");
    }
    match std::env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_absolute() => PathBuf::from(dir).join("sluice"),
        _ => std::env::temp_dir().join(format!("sluice-{}", user.as_raw())),
    }
}

trait ErasedValue {
    fn value(&self) -> Value;
}

impl<T: Serialize> ErasedValue for T {
    fn value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
}

type Layers = (Map<String, Value>, BTreeMap<String, Origin>);

fn merge(args: &RunArgs, matches: &ArgMatches, file: Map<String, Value>) -> anyhow::Result<Layers> {
    let mut origins: BTreeMap<_, _> = file.keys().map(|key| (key.clone(), Origin::File)).collect();
    let mut merged = file;
    let Value::Object(typed) = serde_json::to_value(args)? else {
        anyhow::bail!("settings are no map");
    };
    for (key, value) in typed {
        origins.insert(key.clone(), origin(matches, &key.replace('-', "_")));
        merged.insert(key, value);
    }
    if let Some(pairs) = &args.limits {
        origins.insert("limits".to_owned(), origin(matches, "limits"));
        let limits = merged
            .entry("limits")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(limits) = limits {
            limits.extend(
                pairs
                    .iter()
                    .map(|(k, v)| (k.clone(), Value::String(v.clone()))),
            );
        }
    }
    Ok((merged, origins))
}

fn origin(matches: &ArgMatches, id: &str) -> Origin {
    match matches.value_source(id) {
        Some(ValueSource::EnvVariable) => Origin::Environment,
        _ => Origin::Flag,
    }
}

fn loopback(address: SocketAddr) -> anyhow::Result<SocketAddr> {
    anyhow::ensure!(
        address.ip().is_loopback(),
        "--admin-address {address} is not a loopback address: the admin server has no \
         authentication; use 127.0.0.1:{0} or [::1]:{0}",
        address.port()
    );
    Ok(address)
}

/// What was asked for, else one for each CPU; the packet path has room for so many, and threads cost memory.
fn workers(asked: Option<NonZeroUsize>) -> anyhow::Result<NonZeroUsize> {
    let limit = NonZeroUsize::try_from(gateway_l4::WORKERS_MAX as usize)?;
    let Some(workers) = asked else {
        let available = std::thread::available_parallelism();
        return Ok(available.unwrap_or(NonZeroUsize::MIN).min(limit));
    };
    anyhow::ensure!(
        workers <= limit,
        "workers is {workers}, but must be from 1 to {limit}"
    );
    Ok(workers)
}

#[cfg(test)]
mod tests;
