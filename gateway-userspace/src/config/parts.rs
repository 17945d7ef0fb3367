//! What each part of a process is told.

use std::net::IpAddr;
use std::str::FromStr;

use clap::ValueEnum as _;
use gateway_translate::{Publish, SourceKind};

use super::{Config, Network};
use crate::args::{AccessLog, Attach, L4Mode, PublishAddresses};

impl Config {
    /// What the packet path is told, by a process of this lineage.
    pub fn l4_settings(&self, lineage: u64) -> gateway_l4::Settings {
        gateway_l4::Settings {
            mode: match self.l4 {
                L4Mode::Auto => gateway_l4::Mode::Auto,
                L4Mode::Bpf => gateway_l4::Mode::Bpf,
                L4Mode::Sockets => gateway_l4::Mode::Sockets,
            },
            interfaces: self.interfaces.clone(),
            attach: match self.attach {
                Attach::Auto => gateway_l4::Attach::Auto,
                Attach::Native => gateway_l4::Attach::Native,
                Attach::Generic => gateway_l4::Attach::Generic,
                Attach::Tc => gateway_l4::Attach::Tc,
            },
            pin_dir: self.pin_dir.clone(),
            lineage,
        }
    }

    /// What the proxy is told.
    pub fn proxy_settings(&self) -> gateway_proxy::Settings {
        gateway_proxy::Settings {
            workers: self.workers,
            pin_workers: self.pin_workers,
            limits: self.limits.clone(),
            access_log: match self.access_log {
                AccessLog::Off => gateway_proxy::AccessLogFormat::Off,
                AccessLog::Text => gateway_proxy::AccessLogFormat::Text,
                AccessLog::Json => gateway_proxy::AccessLogFormat::Json,
            },
            access_log_output: match &self.access_log_path {
                None => gateway_proxy::AccessLogOutput::Stdout,
                Some(path) => gateway_proxy::AccessLogOutput::File(path.clone()),
            },
            trusted_hops: self.trusted_hops,
        }
    }

    /// What the translator is told.
    pub fn translate_settings(&self) -> gateway_translate::Settings {
        let source = match self.manifests {
            Some(_) => SourceKind::Files,
            None => SourceKind::Cluster,
        };
        // In a cluster the Node objects name the nodes, the same for every node.
        let own = if self.node_addresses.is_empty() && source == SourceKind::Files {
            own_addresses()
        } else {
            self.node_addresses.clone()
        };
        gateway_translate::Settings {
            source,
            node_addresses: own,
            address_pool: self.cluster.address_pool.iter().map(|net| net.0).collect(),
            publish: publish(self.cluster.publish_addresses),
            ..of_classes(&self.controller_name, &self.class_names)
        }
    }
}

fn publish(whose: PublishAddresses) -> Publish {
    match whose {
        PublishAddresses::Nodes => Publish::Nodes,
        PublishAddresses::Service => Publish::Service,
    }
}

/// The part of a translator's settings that says which Gateways are ours.
fn of_classes(controller_name: &str, class_names: &[String]) -> gateway_translate::Settings {
    let default = gateway_translate::Settings::default();
    let others = class_names
        .iter()
        .filter(|name| ***name != *default.class_name);
    gateway_translate::Settings {
        controller_name: controller_name.into(),
        stand_in_classes: others.map(|name| name.as_str().into()).collect(),
        ..default
    }
}

/// What the translator is told by commands that ask a directory: the settings that matter there,
/// from the environment, as for `sluice run`.
///
/// # Errors
/// A variable that cannot be read.
pub fn offline_settings() -> anyhow::Result<gateway_translate::Settings> {
    let default = gateway_translate::Settings::default();
    let controller = variable("SLUICE_CONTROLLER_NAME");
    let controller = controller.as_deref().unwrap_or(&default.controller_name);
    let whose = variable("SLUICE_PUBLISH_ADDRESSES").map(|text| {
        PublishAddresses::from_str(&text, false)
            .map_err(|_| anyhow::anyhow!("SLUICE_PUBLISH_ADDRESSES: write nodes or service"))
    });
    let pool: Vec<Network> = listed("SLUICE_ADDRESS_POOL")?;
    Ok(gateway_translate::Settings {
        node_addresses: listed("SLUICE_NODE_ADDRESSES")?,
        address_pool: pool.into_iter().map(|net| net.0).collect(),
        publish: publish(whose.transpose()?.unwrap_or_default()),
        ..of_classes(controller, &listed::<String>("SLUICE_CLASS_NAMES")?)
    })
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

/// The parts of a variable between commas.
fn listed<T: FromStr>(name: &str) -> anyhow::Result<Vec<T>>
where
    T::Err: std::fmt::Display,
{
    let text = variable(name).unwrap_or_default();
    let parts = text.split(',').filter(|part| !part.is_empty());
    let read = |part: &str| part.parse().map_err(|e| anyhow::anyhow!("{name}: {e}"));
    parts.map(read).collect()
}

/// The addresses that this node uses towards the world: the sources of its default routes. Asks the
/// routing table by connecting a datagram socket, which sends nothing (RFC 5737, RFC 3849 addresses).
fn own_addresses() -> Vec<IpAddr> {
    let source = |from: &str, to: &str| {
        let socket = std::net::UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let v4 = source("0.0.0.0:0", "192.0.2.1:9");
    let v6 = source("[::]:0", "[2001:db8::1]:9");
    v4.into_iter()
        .chain(v6)
        .filter(|address| !address.is_loopback())
        .collect()
}
